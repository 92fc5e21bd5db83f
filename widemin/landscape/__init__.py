"""The width of a minimum, in weights and in inputs, and other looks at the landscape.

Khritankov et al. define the width of a minimum x* at a level c as
w = d(c) / (c - phi(x*)), where d(c) is the distance to the nearest point of the level
set. Widths of two networks compare only at equal c - phi(x*); the level here is
therefore given as a gap.
"""

from widemin.landscape.logit_scale import logit_scale
from widemin.landscape.loss_surface import (
    Landscape,
    along,
    input_landscape,
    logistic,
    node_norms,
    quadratic,
    weight_landscape,
)
from widemin.landscape.sharpness import adaptive_sharpness
from widemin.landscape.width import PATIENCE, Width, nearest_level, width

__all__ = [
    "PATIENCE",
    "Landscape",
    "Width",
    "adaptive_sharpness",
    "along",
    "input_landscape",
    "logistic",
    "logit_scale",
    "nearest_level",
    "node_norms",
    "quadratic",
    "weight_landscape",
    "width",
]
