"""Recipes in, tidy rows out: train, measure, keep, publish."""

from widemin.experiments.columns import frame

__all__ = ["frame"]
