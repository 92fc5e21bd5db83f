"""The images of a recipe: trained on, attacked, held out."""

from __future__ import annotations

import torch
from torch import Tensor

from widemin import data
from widemin.experiments.recipe import Recipe


def images(recipe: Recipe, part: str, size: int, device: str) -> tuple[Tensor, Tensor]:
    """Return the first images of a part and their labels, on a device."""
    images = data.load(recipe.dataset, part, size=size, device=device)
    return images.x.contiguous(memory_format=torch.channels_last), images.y


def held_out(recipe: Recipe, device: str) -> tuple[Tensor, Tensor]:
    """Return images to choose an epoch on: training never sees them.

    They are the validation part, or the last test images where training takes that
    part as well.
    """
    official, size = data.SIZES[recipe.dataset][0], recipe.validation_size
    if recipe.train_size <= official - data.HELD_OUT[recipe.dataset]:
        return images(recipe, "validation", size, device)
    x, y = images(recipe, "test", data.SIZES[recipe.dataset][1], device)
    return x[-size:], y[-size:]
