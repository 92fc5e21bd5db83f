"""Chapter 1: widths, the grid, ways of computing one attack."""

from widemin.papers.khritankov.figures.attacked import (
    attacked_pictures,
    moved,
    scaled_logits,
    table_by_scale,
    table_of_ways,
    ways_of_attack,
)
from widemin.papers.khritankov.figures.grid import (
    accuracy_by_ratio,
    as_printed,
    at_updates,
    cell_means,
    chosen_epochs,
    heat_map,
    learning_curves,
)
from widemin.papers.khritankov.figures.widths import (
    ROBUSTNESS,
    against_bound,
    by_flatness,
    flatness,
    level_set,
    logistic_scale,
    width_by_gap,
)

__all__ = [
    "ROBUSTNESS",
    "accuracy_by_ratio",
    "against_bound",
    "as_printed",
    "at_updates",
    "attacked_pictures",
    "by_flatness",
    "cell_means",
    "chosen_epochs",
    "flatness",
    "heat_map",
    "learning_curves",
    "level_set",
    "logistic_scale",
    "moved",
    "scaled_logits",
    "table_by_scale",
    "table_of_ways",
    "ways_of_attack",
    "width_by_gap",
]
