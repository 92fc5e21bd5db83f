"""The runs of chapter 1: a grid, cells trained long, Adam."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from widemin.attacks import Linf
from widemin.experiments.recipe import Recipe, cells, grid


def plan(
    *,
    dataset: str,
    model: str,
    attack: str,
    train_size: int,
    epochs: int,
    batch_sizes: list[int],
    learning_rates: list[float],
    seeds: int,
    epsilon: float,
    corner_cells: list[Any],
    decisive_cells: list[Any],
    adam_cells: list[Any],
    long_seeds: int,
    test_size: int,
    pgd_steps: int,
    hessian_size: int,
    strong_size: int,
    **_: object,
) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `first` is computed first, `printed` stands in the paper's
    table; `squares` is the grid.
    """
    ball = Linf(epsilon)
    base = Recipe(
        dataset=dataset,
        model=model,
        own_attack=attack,
        epochs=epochs,
        train_size=train_size,
        batch_size=batch_sizes[0],
        test_size=test_size,
        validation_size=min(test_size, 1000),
        hessian_size=hessian_size,
        watch=ball,
        tests=(ball,),
        pgd_steps=pgd_steps,
    )
    attacked = replace(base, strong_size=strong_size)
    decisive = cells(replace(attacked, brief_epochs=2), decisive_cells, long_seeds)
    decisive = [replace(run, pictures=0 if run.seed else 6) for run in decisive]
    # As briefly as other figures of the paper.
    brief = dict[str, Any](epochs=5, brief_epochs=0, strong_attacks=("distance",))
    short = [replace(run, **brief) for run in decisive]
    if dataset == "digits":  # AutoAttack takes longer than all else: once is enough
        few = ("restarts", "float64", "distance")
        decisive[1:] = [replace(run, strong_attacks=few) for run in decisive[1:]]
        attacked = replace(attacked, strong_attacks=few)
    wide = replace(attacked, width_size=min(hessian_size, 500))
    axes: dict[str, Any] = dict(batch_size=batch_sizes, learning_rate=learning_rates)
    squares = grid(wide, seed=range(min(seeds, 1)), **axes)
    squares += grid(base, seed=range(1, seeds), **axes)
    corner = cells(base, corner_cells, long_seeds)
    adam = cells(replace(attacked, optimizer="adam"), adam_cells, seeds)
    return {
        "recipes": decisive + squares + corner + adam + short,
        "first": short + decisive,
        "printed": decisive + squares,
        "decisive": decisive,
        "squares": squares,
        "corner": corner,
        "adam": adam,
        "short": short,
    }
