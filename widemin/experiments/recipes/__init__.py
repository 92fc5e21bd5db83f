"""Recipes: what is trained, within which radii, how it is measured.

A recipe is frozen, flat and made of numbers and names, since its fields become the
columns of the tables.
"""

from widemin.experiments.recipes.checks import OTHER
from widemin.experiments.recipes.grids import cells, grid
from widemin.experiments.recipes.recipe import MEASURED_BY, Recipe, sources, stream

__all__ = ["MEASURED_BY", "OTHER", "Recipe", "cells", "grid", "sources", "stream"]
