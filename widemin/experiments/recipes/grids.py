"""Many recipes from one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

from widemin.experiments.recipes.recipe import Recipe


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """Return base with every combination of the axes' values; the first is slowest.

    >>> recipes = grid(Recipe(), seed=range(2), rho=[0.0, 0.1])
    >>> [(recipe.seed, recipe.rho) for recipe in recipes]
    [(0, 0.0), (0, 0.1), (1, 0.0), (1, 0.1)]
    """
    return [
        dataclasses.replace(base, **dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def cells(
    base: Recipe, listed: Iterable[tuple[int, float, int, int]], seeds: int
) -> list[Recipe]:
    """Return base in cells of their own lengths, every cell once before the next seed.

    Args:
        base: What the cells share.
        listed: For each its batch size, learning rate, training images and epochs.
        seeds: Runs of every cell.

    >>> [recipe] = cells(Recipe(), [(16, 0.1, 500, 20)], seeds=1)
    >>> recipe.batch_size, recipe.learning_rate, recipe.train_size, recipe.epochs
    (16, 0.1, 500, 20)
    """
    return [
        dataclasses.replace(
            base,
            seed=seed,
            batch_size=size,
            learning_rate=rate,
            train_size=images,
            epochs=epochs,
        )
        for seed in range(seeds)
        for size, rate, images, epochs in listed
    ]
