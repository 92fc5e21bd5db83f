"""The width of a minimum, in weights and in inputs, and other looks at the landscape.

Khritankov et al. define the width of a minimum x* at a level c as
w = d(c) / (c - phi(x*)), where d(c) is the distance to the nearest point of the level
set. Widths of two networks compare only at equal c - phi(x*); the level here is
therefore given as a gap.
"""

from widemin.landscape.loss_surface import (
    Landscape,
    adaptive_sharpness,
    along,
    input_landscape,
    logistic,
    logit_scale,
    node_norms,
    quadratic,
    weight_landscape,
)
from widemin.landscape.relative_flatness import relative_flatness
from widemin.landscape.width import Width, nearest_level, width
