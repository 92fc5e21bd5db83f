"""What is measured of a trained network: accuracies, curvature, widths, lines."""

from widemin.experiments.measure.curvature import (
    ADAPTIVE_RADIUS,
    GAPS,
    IMAGE_LINE,
    IMPLICIT_RHO,
    POINTS,
    WEIGHT_LINE,
    lines,
    spectrum,
)
from widemin.experiments.measure.final import measure
from widemin.experiments.measure.parts import Parts
from widemin.experiments.measure.revisions import REVISIONS, outdated, state, stated
from widemin.experiments.measure.shown import FACTORS, pictures, scaled

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
