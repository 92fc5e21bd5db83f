"""A model of one's own: a function in a module that workers can import, too."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widemin import models


@cache
def imported(argument: str, name: str) -> tuple[Callable[..., Any], str]:
    """Return a function that a user wrote, and the SHA-256 sum of its module's file.

    Read once a process: restart it after a change of the file.

    Args:
        argument: What the name stands for, to be named in an error.
        name: A module that Python can import, and a function: "mine.nets:build".

    Raises:
        ValueError: It cannot be imported, has no source, or cannot be called.

    >>> imported("model", "colorsys:rgb_to_hsv")[0](1, 0, 0)
    (0.0, 1.0, 1)
    """
    module, _, name_there = name.partition(":")
    try:
        spec = find_spec(module)
        source = Path(str(spec and spec.origin)).read_bytes()
        function = getattr(importlib.import_module(module), name_there)
        if not callable(function):
            raise TypeError(f"{name_there} cannot be called")
    except Exception as error:  # a module may raise anything
        raise ValueError(
            f"{argument} must be a function to import, like 'mine.nets:build'; "
            f"got {name!r} ({_in_a_line(error)})"
        ) from error
    return function, hashlib.sha256(source).hexdigest()


def registered(**named: str) -> dict[str, str]:
    """Return the sums of the files behind names of a user's own, known from now on.

    >>> registered(model="mlp")
    {}
    """
    sums = {}
    for argument, name in named.items():
        if ":" in name:
            function, sums[f"{argument} source"] = imported(argument, name)
            models.BUILDERS.setdefault(name, partial(_network, name, function))
            models.WIDTHS.add(name)
    return sums


def _network(
    name: str,
    function: Callable[..., nn.Module],
    shape: tuple[int, int, int],
    classes: int,
    **width: int,
) -> nn.Sequential:
    """Return the network that a user's function builds, tried on two images."""
    try:
        network = function(shape, classes, **width)
        with torch.no_grad():
            logits = tuple(network.eval()(torch.zeros(2, *shape)).shape)
        if logits != (2, classes):
            raise TypeError(f"logits of shape {logits}")
    except Exception as error:
        raise ValueError(
            f"model {name!r} must return a module that gives two images of shape "
            f"{shape} logits of shape {(2, classes)}; got {_in_a_line(error)}"
        ) from error
    return network if isinstance(network, nn.Sequential) else nn.Sequential(network)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
