"""The runs of chapter 1: a grid, cells trained long, Adam."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from widemin.attacks import Linf
from widemin.experiments.recipe import cells, grid
from widemin.papers.base import base_recipe


def plan(**values: Any) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `first` is computed first, `printed` stands in the paper's
    table; `squares` is the grid.
    """
    p = SimpleNamespace(**values)
    ball, held_out = Linf(p.epsilon), min(p.test_size, 1000)
    watched = dict[str, Any](watch=ball, tests=(ball,), validation_size=held_out)
    base = base_recipe(values, batch_size=p.batch_sizes[0], **watched)
    attacked = replace(base, strong_size=p.strong_size)
    decisive = cells(replace(attacked, brief_epochs=2), p.decisive_cells, p.long_seeds)
    decisive = [replace(run, pictures=0 if run.seed else 6) for run in decisive]
    # As briefly as other figures of the paper.
    brief = dict[str, Any](epochs=5, brief_epochs=0, strong_attacks=("distance",))
    short = [replace(run, **brief) for run in decisive]
    if p.dataset == "digits":  # AutoAttack takes longer than all else: once is enough
        few = ("restarts", "float64", "distance")
        decisive[1:] = [replace(run, strong_attacks=few) for run in decisive[1:]]
        attacked = replace(attacked, strong_attacks=few)
    wide = replace(attacked, width_size=min(p.hessian_size, 500))
    axes = dict(batch_size=p.batch_sizes, learning_rate=p.learning_rates)
    squares = grid(wide, seed=range(min(p.seeds, 1)), **axes)
    squares += grid(base, seed=range(1, p.seeds), **axes)
    corner = cells(base, p.corner_cells, p.long_seeds)
    adam = cells(replace(attacked, optimizer="adam"), p.adam_cells, p.seeds)
    lists = dict(decisive=decisive, squares=squares, corner=corner, adam=adam)
    return lists | {
        "recipes": decisive + squares + corner + adam + short,
        "first": short + decisive,
        "printed": decisive + squares,
        "short": short,
    }
