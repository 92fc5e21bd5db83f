"""The runs of chapter 5: six lists, one a claim, in the order of computing them."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from widemin.attacks import TRAINED, Linf, parse_ball
from widemin.experiments.recipe import Recipe, cells, grid
from widemin.papers.base import base_recipe

DECAYS = (0.0, 5e-4)  # of the weights, off and on
SAM_BALLS = tuple(map(parse_ball, ("linf 1/255", "linf 2/255")))
LATE = (0.5, 0.7, 0.9)  # shares of training from which on SAM is used
STOPS = (0.5, 0.2, 0.05)  # training losses at which plain SGD ends


def plan(**values: Any) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them. A list, or a dictionary of lists, is one claim's: `losses`
    N1's, `flat` N2's, `ratios` N3's, `noise` N4's, `certified` N5's, `sam` N6's.
    """
    p = SimpleNamespace(**values)
    ball = Linf(p.epsilon)
    base = base_recipe(values, batch_size=1, train_size=p.flat_size, tests=(ball,))
    losses, noise = _losses(p, base), _noise(p, base)
    far = dict[str, Any](strong_attacks=("distance",), strong_size=p.test_size)
    brief = replace(base, **far)
    flat = grid(
        replace(
            brief,
            epochs=p.flat_epochs,
            stop_loss=p.flat_loss,
            scale_free_size=p.hessian_size // 2,
        ),
        seed=range(p.seeds),
        batch_size=p.flat_batches,
        learning_rate=p.flat_rates,
        weight_decay=DECAYS,
    )
    plain = replace(base, model="cnn4", batch_size=128, learning_rate=0.05)
    plain = replace(plain, train_size=p.noise_size, epochs=p.noise_epochs)
    lists = dict(losses=losses, flat=flat, noise=noise, ratios=_ratios(p, brief))
    lists["certified"] = {
        "natural": [
            replace(run, tests=(Linf(p.epsilon / 3),), certificate=True)
            for run in grid(plain, seed=range(p.seeds))
        ],
        **{
            name: [replace(r, certificate=True) for r in noise[name][: p.seeds]]
            for name in ("standard", "dynamic")
        },
    }
    lists["sam"] = _sam(p, values)
    every = [
        run
        for listed in lists.values()
        for runs in (listed.values() if isinstance(listed, dict) else [listed])
        for run in runs
    ]
    return lists | dict(recipes=every, first=[], printed=[])


def _losses(p: Any, base: Recipe) -> dict[str, list[Recipe]]:
    """Return a list a way of computing the loss; from logits, it is chapter 1's."""
    ball, held_out = Linf(p.epsilon), min(p.test_size, 1_000)
    watched = replace(base, watch=ball, validation_size=held_out)
    long = cells(watched, p.loss_cells, p.seeds)
    # Chapter 1 looks closer at these, so that its rows serve here.
    closer = [
        replace(
            run, brief_epochs=2, strong_size=p.strong_size, pictures=6 * (not run.seed)
        )
        for run in long
    ]
    losses = {"logits": closer}
    for name in TRAINED:
        if name != "logits":
            losses[name] = [replace(run, cross_entropy=name) for run in long]
    losses["smoothed"] = [replace(run, label_smoothing=0.1) for run in long]
    return losses


def _noise(p: Any, base: Recipe) -> dict[str, list[Recipe]]:
    """Return a list a method: seeds, then one seed again and again under rounding."""
    ball, sizes = Linf(p.epsilon), dict(train_size=p.noise_size, epochs=p.noise_epochs)
    how = dict[str, Any](momentum=0.9, weight_decay=1e-4, schedule="trapezoid")
    how |= dict(model="cnn4", batch_size=128, learning_rate=0.05, pgd_steps=20)
    standard = replace(base, attack=ball, **sizes, **how)
    methods = {
        "standard": standard,
        "dynamic": replace(standard, fosc_max=0.5),
        "rising": replace(standard, step_schedule="rising"),
    }
    return {
        name: grid(run, seed=range(p.noise_seeds))
        + grid(run, nudge=range(1, p.noise_seeds))
        for name, run in methods.items()
    }


def _ratios(p: Any, base: Recipe) -> dict[str, list[Recipe]]:
    """Return a list a rule by which training ends: images, updates or loss."""
    size, lists = p.ratio_size, dict[str, list[Recipe]]()
    for seed in range(p.ratio_seeds):
        for batch in p.ratio_batches:
            for ratio in p.ratios:
                run = replace(
                    base,
                    seed=seed,
                    train_size=size,
                    batch_size=batch,
                    learning_rate=round(ratio * batch, 6),
                )
                steps = -(-size // batch)
                updates = max(1, round(p.ratio_updates / steps))
                for name, changes in {
                    "images": dict(epochs=p.ratio_epochs),
                    "updates": dict(epochs=updates),
                    "loss": dict(epochs=8 * p.ratio_epochs, stop_loss=p.ratio_loss),
                }.items():
                    lists.setdefault(name, []).append(replace(run, **changes))
    tested = [
        replace(run, seed=seed, binarized=min(100, p.test_size))
        for run in lists["images"][len(p.ratios) - 1 :: len(p.ratios)]
        for seed in range(p.seeds)
        if run.seed == 0
    ]
    return lists | {"binarized": tested}


def _sam(p: Any, values: dict[str, Any]) -> dict[str, list[Recipe]]:
    """Return a list an arm: SGD, SAM, SAM late, and what might replace it."""
    plain = Recipe(
        dataset=p.sam_dataset,
        model=p.sam_model,
        width=p.sam_width,
        train_size=p.sam_size,
        epochs=p.sam_epochs,
        batch_size=64,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="drop-75-90",
        tests=SAM_BALLS,
        test_size=p.test_size,
        hessian_size=p.hessian_size // 2,
    )
    rho = p.sam_rhos[len(p.sam_rhos) // 2]
    arms = {"SGD": plain}
    arms |= {f"SAM {rho:g}": replace(plain, rho=rho) for rho in p.sam_rhos}
    arms |= {
        f"SAM {rho:g} from {share:g}": replace(plain, rho=rho, sam_from=share)
        for share in LATE
    }
    arms |= {f"SGD to {loss:g}": replace(plain, stop_loss=loss) for loss in STOPS}
    arms |= {
        "weight decay 2e-3": replace(plain, weight_decay=2e-3),
        "weight decay 5e-3": replace(plain, weight_decay=5e-3),
        "label smoothing 0.1": replace(plain, label_smoothing=0.1),
        "label smoothing 0.3": replace(plain, label_smoothing=0.3),
        "logit normalisation": replace(plain, cross_entropy="normalised"),
    }
    axes = dict[str, Any](augment=p.sam_augments, seed=range(p.seeds))
    return {name: grid(run, **axes) for name, run in arms.items()}
