"""Training as one step with arguments: what perturbs the images, how far weights climb.

Standard, adversarial, SAM and dynamic training differ in two arguments of
`train_step`, `perturb` and `rho`; `fit` repeats the step over epochs.
"""

from widemin.training.fit import Position, fit, takes_one
from widemin.training.sam import perturbed_weights
from widemin.training.schedules import SCHEDULES
from widemin.training.sgd import SGD, Optimizer
from widemin.training.step import (
    Leak,
    Perturb,
    Step,
    algorithm_1,
    backward,
    train_step,
    weight_gradient,
)

__all__ = [
    "SCHEDULES",
    "SGD",
    "Leak",
    "Optimizer",
    "Perturb",
    "Position",
    "Step",
    "algorithm_1",
    "backward",
    "fit",
    "perturbed_weights",
    "takes_one",
    "train_step",
    "weight_gradient",
]
