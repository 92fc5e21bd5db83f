"""The runs of chapter 3: defences, switches of the dynamic one, sizes of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from widemin.attacks import Linf
from widemin.experiments.recipe import Recipe, grid


def plan(
    *,
    dataset: str,
    model: str,
    attack: str,
    train_size: int,
    augment: str,
    epsilon: float,
    epochs: int,
    longer_epochs: tuple[int, int],
    fosc_max: float,
    learning_rate: float,
    schedule: str,
    batch_size: int,
    seeds: int,
    other_seeds: tuple[int, int, int],
    test_size: int,
    strong_size: int,
    hessian_size: int,
    **_: object,
) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `in_depth` is computed first and stands in the paper's
    tables; `turned` holds a list a switch.
    """
    ball = Linf(epsilon)
    base = Recipe(
        dataset=dataset,
        model=model,
        own_attack=attack,
        epochs=epochs,
        train_size=train_size,
        batch_size=batch_size,
        test_size=test_size,
        learning_rate=learning_rate,
        schedule=schedule,
        momentum=0.9,
        weight_decay=1e-4,
        augment=augment,
        tests=(ball,),
        pgd_steps=20,
        hessian_size=hessian_size,
    )
    # Under the trapezoid epsilon grows to its value over a quarter of training.
    ramp = 0.25 if schedule == "trapezoid" else 0.0
    attacked = replace(base, attack=ball, ramp=ramp)
    dynamic = replace(attacked, fosc_max=fosc_max)
    curriculum = replace(attacked, step_schedule="rising")
    longer, longest = (sorted({epochs, more}) for more in longer_epochs)
    defences = grid(attacked, seed=range(seeds))
    defences += grid(dynamic, seed=range(seeds), epochs=longer)
    defences += grid(base, seed=range(seeds))  # the paper's "unsecured"
    defences += grid(curriculum, seed=range(seeds), epochs=longest)

    deep_seeds, switch_seeds, sweep_seeds = map(range, other_seeds)
    deep = dict[str, Any](
        white_box=True,
        strong_size=strong_size,
        strong_steps=50,
        strong_attacks=("restarts", "autoattack"),
        autoattack_size=max(1, strong_size // 4),
    )
    watched = dict[str, Any](
        watch_fosc=True,
        validation_size=min(500, test_size),
        fosc_bins=10,
        surrogate_epochs=epochs,
    )
    in_depth = [
        replace(run, **deep, **(watched if run.attack else {}))
        for trained in (attacked, dynamic, curriculum, base)
        for run in grid(trained, seed=deep_seeds)
    ]
    weighted = replace(dynamic, loss_weighted=True)
    switches = {
        "FOSC from the random start": replace(dynamic, fosc_from_start=True),
        "loss weighted by itself": weighted,
        "both, as the released code": replace(weighted, fosc_from_start=True),
        "decay of the learning rate": replace(
            dynamic, weight_decay=0.0, rate_decay=1e-4
        ),
        "random number of steps": replace(attacked, step_schedule="random"),
        "one big step, then PGD": replace(attacked, step_schedule="weak-first"),
        "PGD, then one big step": replace(attacked, step_schedule="weak-last"),
    }
    turned = {name: grid(run, seed=switch_seeds) for name, run in switches.items()}
    sizes = [1.0, 1 / 2, 1 / 4, 1 / 6, 1 / 8]
    by_size = grid(attacked, seed=sweep_seeds, attack_step=sizes)
    by_number = grid(attacked, seed=sweep_seeds, attack_steps=[10, 20, 30, 40])
    recipes = defences[: (2 + len(longer)) * seeds] + in_depth + defences
    recipes += [run for runs in turned.values() for run in runs]
    return {
        "recipes": recipes + by_size + by_number,
        "first": in_depth,
        "printed": in_depth,
        "in_depth": in_depth,
        "defences": defences,
        "turned": turned,
        "by_size": by_size,
        "by_number": by_number,
    }
