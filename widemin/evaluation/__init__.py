"""Accuracy under attacks, counted by predicting the attacked images again."""

from widemin.evaluation.answers import MASKED_MARGIN, correct, margins, share
from widemin.evaluation.stronger import autoattack, minimal_distance, transfer
from widemin.evaluation.worst import Attack, Robustness, survivors, sweep, worst_case

__all__ = [
    "MASKED_MARGIN",
    "Attack",
    "Robustness",
    "autoattack",
    "correct",
    "margins",
    "minimal_distance",
    "share",
    "survivors",
    "sweep",
    "transfer",
    "worst_case",
]
