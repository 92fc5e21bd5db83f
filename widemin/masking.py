"""Signs of masked gradients, which are part of `widemin.evaluation`."""

from widemin.evaluation.gradient_masking import (
    Sign,
    checklist,
    fgsm_float64,
    in_float64,
    random_signs,
    signs,
)

__all__ = [
    "Sign",
    "checklist",
    "fgsm_float64",
    "in_float64",
    "random_signs",
    "signs",
]
