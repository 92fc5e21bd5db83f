"""Small convolutional networks trained fast: one leanly, many as one computation.

One family is covered, M1 of Kamath et al. with its pools: convolution, pool, ReLU,
convolution, pool, ReLU, two fully connected layers. Its gradient is written down by
hand, so that nothing is recorded; what is computed is what autograd computes, up to
rounding. Other networks take the ordinary loop of `training`.
"""

from widemin.experiments.side_by_side.one import covers, step
from widemin.experiments.side_by_side.together import Together

__all__ = ["Together", "covers", "step"]
