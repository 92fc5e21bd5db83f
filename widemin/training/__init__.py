"""Training as one step with arguments: what perturbs the images, how far weights climb.

Standard, adversarial, SAM and dynamic training differ in two arguments of
`train_step`, `perturb` and `rho`; `fit` repeats the step over epochs.
"""

from widemin.training.fit import Position, fit, takes_one
from widemin.training.gradients import backward, weight_gradient
from widemin.training.sam import climbed, frozen_statistics
from widemin.training.sgd import SCHEDULES, SGD, Optimizer
from widemin.training.step import Leak, Perturb, Step, algorithm_1, train_step

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
    "climbed",
    "fit",
    "frozen_statistics",
    "takes_one",
    "train_step",
    "weight_gradient",
]
