"""The papers' networks, by name; each maps pixels in [0, 1] to logits.

Normalisation is the first layer where the paper normalises, so that an attack's
epsilon is always in pixels. Sizes are those of the papers unless a width is given.
"""

from widemin.models.building import BUILDERS, WIDTHS, build
from widemin.models.fuse import fuse, is_plain
from widemin.models.wrappers import InBfloat16, Normalise, Statistics
