"""Recipes: what is trained, within which radii, how it is measured.

A recipe is frozen, flat and made of numbers and names, since its fields become the
columns of the tables.
"""

from widemin.recipes.checks import OTHER
from widemin.recipes.lists import cells, grid
from widemin.recipes.recipe import MEASURED_BY, Recipe, stream

__all__ = ["MEASURED_BY", "OTHER", "Recipe", "cells", "grid", "stream"]
