"""What the first cells of the labs import: a check of the setup, a trained network."""

from __future__ import annotations

from typing import Any

import torch
from packaging.version import Version
from torch import nn

import widemin
from widemin import data
from widemin.experiments import train
from widemin.experiments.recipe import Recipe


def check(version: str, dataset: str = "digits") -> str:
    """Return a line saying that a lab, written for a version, can begin.

    Raises:
        RuntimeError: An older package, or data that cannot be had; the message says
            what to do.

    >>> check("0.1.0")
    'Ready: widemin 0.1.0, digits.'
    """
    here = widemin.__version__
    if Version(here) < Version(version):
        raise RuntimeError(
            f"this lab needs widemin {version} or later and found {here}: "
            "update your checkout (git pull; make labs)"
        )
    try:
        data.load(dataset, "train", size=1)
    except data.DataError as error:
        raise RuntimeError(
            f"the data set {dataset} is not there ({error}): run "
            f"`widemin data {dataset}` once, with a network"
        ) from error
    torch.set_num_threads(1)  # networks this small lose time to a second one
    return f"Ready: widemin {here}, {dataset}."


def network(**choices: Any) -> nn.Module:
    """Return a network trained as a `Recipe` of these choices says, for inference.

    >>> tiny = network(model="linear", epochs=1, train_size=100)
    >>> tiny.training
    False
    """
    recipe = Recipe(**choices)
    model = train.build(recipe)
    train.train(model, recipe, "cpu")
    return model.eval()
