"""Chapter 1: Khritankov et al., adversarial robustness through wide local minima."""

from widemin.papers.khritankov.claims.grid import TRAINED, W1, W3, W5
from widemin.papers.khritankov.claims.long_runs import W2, W4, W9, W10, best_epochs
from widemin.papers.khritankov.claims.masked import W7, W8, W13
from widemin.papers.khritankov.claims.widths import W6, W11, W12, measured_widths

__all__ = [
    "TRAINED",
    "W1",
    "W2",
    "W3",
    "W4",
    "W5",
    "W6",
    "W7",
    "W8",
    "W9",
    "W10",
    "W11",
    "W12",
    "W13",
    "best_epochs",
    "measured_widths",
]
