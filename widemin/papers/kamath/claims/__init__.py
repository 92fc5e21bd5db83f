"""Chapter 4: Kamath et al., SGD hyper-parameters and robustness."""

from widemin.papers.kamath.claims.controls import H15, H16
from widemin.papers.kamath.claims.momentum import CHANGED, H9, H10, H11, H14
from widemin.papers.kamath.claims.rate import H4, H5, H6, H7, H8, H12
from widemin.papers.kamath.claims.ratio import H1, H2, H3, H13
from widemin.papers.kamath.claims.runs import by_batch, undertrained, well_trained

__all__ = [
    "CHANGED",
    "H1",
    "H2",
    "H3",
    "H4",
    "H5",
    "H6",
    "H7",
    "H8",
    "H9",
    "H10",
    "H11",
    "H12",
    "H13",
    "H14",
    "H15",
    "H16",
    "by_batch",
    "undertrained",
    "well_trained",
]
