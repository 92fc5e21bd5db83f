"""Chapter 3: Wang et al., convergence and robustness of adversarial training."""

from widemin.claims.wang.condition import D1, D2, D3, D11, D12, separation
from widemin.claims.wang.defences import D7, D8, D9, D10, D13, D14
from widemin.claims.wang.runs import ATTACKS, OURS, costs, named
from widemin.claims.wang.schedules import D4, D5, D6

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
