"""Chapter 2: robustness by training method."""

from widemin.papers.wei.figures.accuracies import (
    beside_the_paper,
    best_and_last,
    by_epoch,
    robust_by_cost,
    robust_by_method,
    trade_off,
)
from widemin.papers.wei.figures.flatness import (
    along_lines,
    by_flatness,
    eigenvalue_by_method,
    in_pixels,
)
from widemin.papers.wei.figures.stronger import by_control, drops, sweep_by_method

__all__ = [
    "along_lines",
    "beside_the_paper",
    "best_and_last",
    "by_control",
    "by_epoch",
    "by_flatness",
    "drops",
    "eigenvalue_by_method",
    "in_pixels",
    "robust_by_cost",
    "robust_by_method",
    "sweep_by_method",
    "trade_off",
]
