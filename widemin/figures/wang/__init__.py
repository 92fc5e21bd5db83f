"""Chapter 3: attacks climbing, and what training against them buys."""

from widemin.figures.wang.condition import (
    ascent,
    by_bin,
    by_strength,
    fosc_by_epoch,
    fosc_by_stage,
    strengths,
)
from widemin.figures.wang.defences import (
    DEFENCES,
    WHITE_BOX,
    best_and_last,
    black_box,
    robust_by_cost,
    switched,
    table_of_defences,
    white_box,
)
from widemin.figures.wang.theory import gap_in_ball, rates

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
