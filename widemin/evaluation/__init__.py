"""Accuracy under attacks, counted by predicting the attacked images again."""

from widemin.evaluation.accuracy import (
    Attack,
    autoattack,
    correct,
    margins,
    robust_mask,
    share,
    transfer,
    within,
)
from widemin.evaluation.binarization import Binarized, binarization
from widemin.evaluation.distance import minimal_distance
from widemin.evaluation.gradient_masking import (
    MASKED_MARGIN,
    Sign,
    fgsm_float64,
    in_float64,
    random_signs,
    signs,
)
from widemin.evaluation.report import Report, report
