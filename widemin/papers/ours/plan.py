"""The runs of chapter 5: six lists, one a claim, in the order of computing them."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from widemin.attacks import TRAINED, Linf, parse_ball
from widemin.experiments.recipe import Recipe, cells, grid
from widemin.papers.base import base_recipe

DECAYS = (0.0, 5e-4)  # of the weights, off and on
SAM_BALLS = tuple(map(parse_ball, ("linf 1/255", "linf 2/255")))
RHOS = (0.1, 0.2, 0.4)  # radii of SAM; late SAM takes the middle one
LATE = (0.5, 0.7, 0.9)  # shares of training from which on SAM is used
STOPS = (0.5, 0.2, 0.05)  # training losses at which plain SGD ends


def plan(**values: Any) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them. A list, or a dictionary of lists, is one claim's: `losses`
    N1's, `flat` N2's, `noise` N4's, `ratios` N3's, `certified` N5's, `sam` N6's.
    """
    p = SimpleNamespace(**values)
    base = base_recipe(values, batch_size=1, tests=(Linf(p.epsilon),))
    far = dict[str, Any](strong_attacks=("distance",), strong_size=p.test_size)
    distant, noise = replace(base, **far), _noise(p, base)
    lists = dict(losses=_losses(p, base), flat=_flat(p, distant), noise=noise)
    lists |= dict(ratios=_ratios(p, distant), certified=_certified(p, base, noise))
    lists |= dict(sam=_sam(p))
    recipes = [run for listed in lists.values() for run in _runs(listed)]
    return lists | dict(recipes=recipes, first=[], printed=[])


def _runs(listed: Any) -> Iterator[Recipe]:
    for each in listed.values() if isinstance(listed, dict) else [listed]:
        yield from each


def _losses(p: Any, base: Recipe) -> dict[str, list[Recipe]]:
    """Return a list a way of computing the loss; from logits, it is chapter 1's."""
    ball, held_out = Linf(p.epsilon), min(p.test_size, 1_000)
    watched = replace(base, watch=ball, validation_size=held_out)
    long = cells(watched, p.loss_cells, p.seeds)
    # Chapter 1 looks closer at these, so that its rows serve here.
    strong = dict[str, Any](brief_epochs=2, strong_size=min(1_000, p.test_size // 5))
    closer = [replace(run, pictures=0 if run.seed else 6, **strong) for run in long]
    losses = {
        name: [replace(run, cross_entropy=name) for run in long] for name in TRAINED
    }
    smoothed = [replace(run, label_smoothing=0.1) for run in long]
    return losses | dict(logits=closer, smoothed=smoothed)


def _flat(p: Any, base: Recipe) -> list[Recipe]:
    """Return networks that end at one training loss, seed by seed."""
    size, epochs, loss = p.flat_training
    ended = replace(base, train_size=size, epochs=epochs, stop_loss=loss)
    ended = replace(ended, scale_free_size=p.hessian_size // 2)
    axes = dict(batch_size=p.flat_batches, learning_rate=p.flat_rates)
    return grid(ended, seed=range(p.seeds), **axes, weight_decay=DECAYS)


def _noise(p: Any, base: Recipe) -> dict[str, list[Recipe]]:
    """Return a list a method: seeds, then one seed again and again under rounding."""
    size, epochs, seeds = p.noise_training
    how = dict[str, Any](momentum=0.9, weight_decay=1e-4, schedule="trapezoid")
    how |= dict(model="cnn4", batch_size=128, learning_rate=0.05, pgd_steps=20)
    sized = replace(base, train_size=size, epochs=epochs, **how)
    standard = replace(sized, attack=Linf(p.epsilon))
    methods = {
        "standard": standard,
        "dynamic": replace(standard, fosc_max=0.5),
        "rising": replace(standard, step_schedule="rising"),
    }
    return {
        name: grid(run, seed=range(seeds)) + grid(run, nudge=range(1, seeds))
        for name, run in methods.items()
    }


def _certified(
    p: Any, base: Recipe, noise: dict[str, list[Recipe]]
) -> dict[str, list[Recipe]]:
    """Return the networks whose images FOSC is to certify, natural ones at epsilon / 3.

    Of the adversarially trained ones N4 has the weights.
    """
    first = {name: noise[name][: p.seeds] for name in ("standard", "dynamic")}
    tests = (Linf(round(p.epsilon / 3, 6)),)
    natural = [replace(run, attack=None, tests=tests) for run in first["standard"]]
    return {
        name: [replace(run, certificate=True) for run in runs]
        for name, runs in ({"natural": natural} | first).items()
    }


def _ratios(p: Any, base: Recipe) -> dict[str, list[Recipe]]:
    """Return a list a rule by which training ends: images, updates or loss.

    And `binarized`, seeds of the largest ratio at equal images.
    """
    smallest, sizes, least, many = p.ratio_grid
    images, epochs, updates, loss, seeds = p.ratio_training
    lists = dict[str, list[Recipe]](images=[], updates=[], loss=[], binarized=[])
    for size in (smallest * 2**i for i in range(sizes)):
        again = max(1, round(updates * size / images))
        ends: dict[str, dict[str, Any]] = dict(images=dict(epochs=epochs))
        ends |= dict(updates=dict(epochs=again))
        ends |= dict(loss=dict(epochs=8 * epochs, stop_loss=loss))
        run = replace(base, train_size=images, batch_size=size)
        for rate in (round(least * 2**i * size, 6) for i in range(many)):
            run = replace(run, learning_rate=rate)
            for name, end in ends.items():
                lists[name] += grid(replace(run, **end), seed=range(seeds))
        asked = replace(run, epochs=epochs, binarized=min(100, p.test_size))
        lists["binarized"] += grid(asked, seed=range(p.seeds))
    return lists


def _sam(p: Any) -> dict[str, list[Recipe]]:
    """Return a list an arm: SGD, SAM, SAM late, and what might replace it."""
    dataset, model, width, size, epochs = p.sam_network
    plain = Recipe(
        dataset=dataset,
        model=model,
        width=width,
        train_size=size,
        epochs=epochs,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="drop-75-90",
        tests=SAM_BALLS,
        test_size=p.test_size,
        hessian_size=p.hessian_size // 2,
    )
    arms, middle = {"SGD": plain}, replace(plain, rho=RHOS[1])
    arms |= {f"SAM {rho:g}": replace(plain, rho=rho) for rho in RHOS}
    late = {share: replace(middle, sam_from=share) for share in LATE}
    arms |= {f"SAM {RHOS[1]:g} from {share:g}": run for share, run in late.items()}
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
