"""Closed forms and exact solutions of the papers' toy models; numpy and scipy only."""

from widemin.theory.khritankov import (
    SIGNIFICANDS,
    bent_ramp,
    logistic_loss,
    logistic_widths,
    masked_margin,
    quadratic_width,
    two_sigmoids,
)
from widemin.theory.wang import first_order_gap, rate_bound, rate_on_toy
from widemin.theory.wei import (
    accuracy,
    adversarial_optimum,
    equivalent_adversarial_epsilon,
    optimum,
    printed_sam_shift,
    sam_on_samples,
    sam_optimum,
    sam_shift,
    sam_shift_all,
)

__all__ = [
    "SIGNIFICANDS",
    "accuracy",
    "adversarial_optimum",
    "bent_ramp",
    "equivalent_adversarial_epsilon",
    "first_order_gap",
    "logistic_loss",
    "logistic_widths",
    "masked_margin",
    "optimum",
    "printed_sam_shift",
    "quadratic_width",
    "rate_bound",
    "rate_on_toy",
    "sam_on_samples",
    "sam_optimum",
    "sam_shift",
    "sam_shift_all",
    "two_sigmoids",
]
