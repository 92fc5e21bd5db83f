"""Chapter 3: Wang et al., convergence and robustness of adversarial training."""

from widemin.papers.wang.claims.condition import D1, D2, D3, D11, D12, separation
from widemin.papers.wang.claims.defences import D7, D8, D9, D10, D13, D14
from widemin.papers.wang.claims.runs import ATTACKS, OURS, costs, named
from widemin.papers.wang.claims.schedules import D4, D5, D6

__all__ = [
    "ATTACKS",
    "D1",
    "D2",
    "D3",
    "D4",
    "D5",
    "D6",
    "D7",
    "D8",
    "D9",
    "D10",
    "D11",
    "D12",
    "D13",
    "D14",
    "OURS",
    "costs",
    "named",
    "separation",
]
