"""What the labs import: a check of the setup, a trained network, whose work it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
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
    ours, needed = (list(map(int, text.split(".")[:3])) for text in (here, version))
    if ours < needed:
        raise RuntimeError(
            f"this lab needs widemin {version} or later and found {here}: "
            "install the wheel that came with the lab"
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


@contextmanager
def own(task: str) -> Iterator[None]:
    """Refuse the package's functions to what is called inside: an AssertionError."""
    called: list[str] = []
    before, package = sys.getprofile(), widemin.__path__[0]

    def watch(frame: Any, *_: Any) -> None:
        if frame.f_code.co_filename.startswith(package):
            called.append(frame.f_code.co_qualname)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
    for name in called:
        assert name == "own", f"{task} must be your own work: it calls widemin's {name}"


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
