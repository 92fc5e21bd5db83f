"""Chapter 3: attacks climbing, and what training against them buys."""

from widemin.papers.wang.figures.condition import (
    ascent,
    by_bin,
    by_strength,
    fosc_by_epoch,
    fosc_by_stage,
    strengths,
)
from widemin.papers.wang.figures.defences import (
    DEFENCES,
    WHITE_BOX,
    best_and_last,
    black_box,
    robust_by_cost,
    switched,
    table_of_defences,
    white_box,
)
from widemin.papers.wang.figures.theory import gap_in_ball, rates

__all__ = [
    "DEFENCES",
    "WHITE_BOX",
    "ascent",
    "best_and_last",
    "black_box",
    "by_bin",
    "by_strength",
    "fosc_by_epoch",
    "fosc_by_stage",
    "gap_in_ball",
    "rates",
    "robust_by_cost",
    "strengths",
    "switched",
    "table_of_defences",
    "white_box",
]
