"""What is measured of a trained network: accuracies, curvature, widths, lines."""

from widemin.instruments.curvature import (
    ADAPTIVE_RADIUS,
    GAPS,
    IMAGE_LINE,
    IMPLICIT_RHO,
    POINTS,
    WEIGHT_LINE,
    lines,
    spectrum,
)
from widemin.instruments.final import measure
from widemin.instruments.parts import Parts
from widemin.instruments.revisions import REVISIONS, outdated, state, stated
from widemin.instruments.shown import FACTORS, pictures, scaled

__all__ = [
    "ADAPTIVE_RADIUS",
    "FACTORS",
    "GAPS",
    "IMAGE_LINE",
    "IMPLICIT_RHO",
    "POINTS",
    "REVISIONS",
    "WEIGHT_LINE",
    "Parts",
    "lines",
    "measure",
    "outdated",
    "pictures",
    "scaled",
    "spectrum",
    "state",
    "stated",
]
