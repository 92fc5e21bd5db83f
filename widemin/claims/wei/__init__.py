"""Chapter 2: Wei et al., sharpness-aware minimisation and robustness."""

from widemin.claims.wei.epochs import RULES, chosen_epochs, gains_by_rule
from widemin.claims.wei.gains import PAPER_SETS, S1, S2, S3, S4, S10
from widemin.claims.wei.prices import S5, S6, S7, bargain
from widemin.claims.wei.stronger import S9, S12
from widemin.claims.wei.theorems import S8, S11

__all__ = [
    "PAPER_SETS",
    "RULES",
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "S6",
    "S7",
    "S8",
    "S9",
    "S10",
    "S11",
    "S12",
    "bargain",
    "chosen_epochs",
    "gains_by_rule",
]
