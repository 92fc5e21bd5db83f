"""Recipes in, tidy rows out: train, measure, keep, publish."""

from widemin.experiments.frames import frame

__all__ = ["frame"]
