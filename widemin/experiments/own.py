"""A model, a data set or an attack of one's own: `module:function` in a recipe.

Workers must be able to import the module, too: on PYTHONPATH, or installed where
Dask's workers are. Its file is part of the key; what it imports or reads is not.

- A model is built by `function(shape, classes)`, and `width`, where one is given: a
  module from images to logits.
- A data set is loaded by `function("train")` and `function("test")`: images, in [0, 1]
  or bytes, shape (images, channels, height, width), and labels 0, 1, ...; of its train
  images the last tenth is the validation part.
- An attack is `function(model, x, y, ball, generator=...)`: images in the set.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widemin import data, models
from widemin.attacks import Ball
from widemin.evaluation import Attack, within


@contextmanager
def _wanted(expected: str) -> Iterator[None]:
    """Turn whatever a user's code raises into a ValueError of one line."""
    try:
        yield
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        got = f"{type(error).__name__}: {said}"
        raise ValueError(f"{expected}; got {got}") from error


@cache
def imported(argument: str, name: str) -> tuple[Callable[..., Any], str]:
    """Return a function that a user wrote, and the SHA-256 sum of its module's file.

    Read once a process: restart it after a change of the file. An error names the
    argument.

    Raises:
        ValueError: It cannot be imported, has no source, or cannot be called.

    >>> imported("model", "colorsys:rgb_to_hsv")[0](1, 0, 0)
    (0.0, 1.0, 1)
    """
    module, _, name_there = name.partition(":")
    wanted = "must be a function to import, like 'mine.nets:build'"
    with _wanted(f"{argument} {name!r} {wanted}"):
        spec = find_spec(module)
        source = Path(str(spec and spec.origin)).read_bytes()
        function = getattr(importlib.import_module(module), name_there)
        if not callable(function):
            raise TypeError(f"{name_there} cannot be called")
    return function, hashlib.sha256(source).hexdigest()


NAMES = ("dataset", "model", "own_attack")  # fields of a recipe


def sources(recipe: Any) -> dict[str, str]:
    """Return the sums of the files behind a recipe's own names, known from now on."""
    sums = {}
    for argument in NAMES:
        if ":" in (name := getattr(recipe, argument)):
            function, sums[f"{argument} source"] = imported(argument, name)
            if argument == "model":
                models.BUILDERS.setdefault(name, partial(_network, name, function))
                models.WIDTHS.add(name)
            if argument == "dataset" and name not in data.DATASETS:
                data.DATASETS[name] = _dataset(name, function)
    return sums


def check(recipe: Any) -> None:
    """Make a recipe's own names known in a worker; raise ValueError for changed files.

    Its key is that of the files as they were when it was made.
    """
    if sources(recipe) != recipe.sources:
        named = [getattr(recipe, name) for name in NAMES]
        raise ValueError(
            f"the file of {', '.join(name for name in named if ':' in name)} must stay "
            "as it was when the recipe was made; got a changed one: begin again"
        )


def network(
    dataset: str, model: str, width: int, generator: torch.Generator
) -> nn.Sequential:
    """Return a freshly initialised network for a data set's images."""
    record = data.DATASETS[dataset]
    return models.build(
        model,
        generator,
        shape=record.shape,
        classes=record.classes,
        width=width or None,
        statistics=record.statistics,
    )


def attack(name: str, ball: Ball, generator: torch.Generator) -> Attack:
    """Return a user's attack in a set; it raises ValueError where it leaves it."""
    function, _ = imported("own_attack", name)
    return within(partial(function, ball=ball, generator=generator), ball, name)


def _dataset(name: str, function: Callable[[str], Any]) -> data.DataSet:
    """Return the record of a user's data set, its function called for each part."""
    with _wanted(
        f"dataset {name!r} must return images in [0, 1] or bytes, shape (images, "
        "channels, height, width), and their labels 0, 1, ..., for 'train' and 'test'"
    ):
        x, y = _images(*function("train"))
        test, labels = _images(*function("test"))
        if test.shape[1:] != x.shape[1:]:
            raise ValueError(f"test images of shape {tuple(test.shape[1:])}")
    channels, height, width = x.shape[1:]
    classes = tuple(map(str, range(1 + max(int(y.max()), int(labels.max())))))
    return data.DataSet(
        name,
        train=len(x),
        held_out=len(x) // 10,
        test=len(test),
        shape=(channels, height, width),
        classes=len(classes),
        read=lambda _, train, __: (*((x, y) if train else (test, labels)), classes),
    )


def _images(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(np.asarray(images)), torch.as_tensor(np.asarray(labels))
    if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(f"shapes {tuple(x.shape)} and {tuple(y.shape)}")
    pixels = x.is_floating_point() and bool(((x >= 0) & (x <= 1)).all())
    if x.dtype != torch.uint8 and not pixels:
        raise ValueError(f"{x.dtype} from {x.min()} to {x.max()}")
    if y.is_floating_point() or y.min() < 0:
        raise ValueError(f"labels {y.dtype} from {y.min()}")
    return x, y


def _network(
    name: str,
    function: Callable[..., nn.Module],
    shape: tuple[int, int, int],
    classes: int,
    **width: int,
) -> nn.Sequential:
    """Return the network that a user's function builds, tried on two images."""
    with _wanted(
        f"model {name!r} must return a module that gives two images of shape {shape} "
        f"logits of shape {(2, classes)}"
    ):
        network = function(shape, classes, **width)
        with torch.no_grad():
            logits = tuple(network.eval()(torch.zeros(2, *shape)).shape)
        if logits != (2, classes):
            raise TypeError(f"logits of shape {logits}")
    return network if isinstance(network, nn.Sequential) else nn.Sequential(network)
