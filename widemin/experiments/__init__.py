"""Recipes in, tidy rows out: train, measure, keep, publish."""

from widemin.experiments.frame import frame

__all__ = ["frame"]
