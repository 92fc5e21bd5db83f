"""Chapter 2: Wei et al., sharpness-aware minimisation and robustness."""

from widemin.papers.wei.claims.epochs import RULES, chosen_epochs, gains_by_rule
from widemin.papers.wei.claims.gains import PAPER_SETS, S1, S2, S3, S4, S10
from widemin.papers.wei.claims.prices import S5, S6, S7, bargain
from widemin.papers.wei.claims.stronger import S9, S12
from widemin.papers.wei.claims.theorems import S8, S11

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
