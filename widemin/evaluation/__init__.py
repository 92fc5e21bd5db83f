"""Accuracy under attacks, counted by predicting the attacked images again."""

from widemin.evaluation.accuracy import MASKED_MARGIN, correct, margins, share
from widemin.evaluation.autoattack import autoattack
from widemin.evaluation.distance import minimal_distance
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
    robust_mask,
    sweep,
    transfer,
    within,
    worst_case,
)
