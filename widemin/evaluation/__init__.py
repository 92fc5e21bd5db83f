"""Accuracy under attacks, counted by predicting the attacked images again."""

from widemin.evaluation.accuracy import MASKED_MARGIN, correct, margins, share
from widemin.evaluation.autoattack import autoattack, minimal_distance, transfer
from widemin.evaluation.gradient_masking import (
    Sign,
    checklist,
    fgsm_float64,
    in_float64,
    random_signs,
    signs,
)
from widemin.evaluation.report import Report, report
from widemin.evaluation.worst_case import (
    Attack,
    Robustness,
    survivors,
    sweep,
    within,
    worst_case,
)

__all__ = [
    "MASKED_MARGIN",
    "Attack",
    "Report",
    "Robustness",
    "Sign",
    "autoattack",
    "checklist",
    "correct",
    "fgsm_float64",
    "in_float64",
    "margins",
    "minimal_distance",
    "random_signs",
    "report",
    "share",
    "signs",
    "survivors",
    "sweep",
    "transfer",
    "within",
    "worst_case",
]
