"""What is measured of a trained network: accuracies, curvature, widths, lines."""

from widemin.experiments.measure.attacked import FACTORS, pictures, scaled
from widemin.experiments.measure.curvature import POINTS, lines, spectrum
from widemin.experiments.measure.final import measure
from widemin.experiments.measure.fosc import by_fosc, by_strength, climb
from widemin.experiments.measure.parts import REVISIONS, Parts, outdated, state, stated
