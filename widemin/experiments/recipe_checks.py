"""What a recipe may say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from widemin import data, models, training
from widemin.attacks import L2, Linf, parse_ball
from widemin.experiments import own
from widemin.experiments.columns import as_row
from widemin.names import check, check_choice

if TYPE_CHECKING:
    from widemin.experiments.recipe import Recipe

OPTIMIZERS = ("sgd", "adam", "algorithm1")  # the last as Kamath et al. print it
# All steps always; 1, 2, ... of them, each for as long; a step of the whole radius in
# the first or in the last third of training; for each image a number of its own.
STEP_SCHEDULES = ("", "rising", "weak-first", "weak-last", "random")
# The last turns by up to 10 degrees and shifts by up to a fifth, too.
AUGMENTATIONS = ("", "flip", "crop+flip", "turn+shift+flip")
OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}  # whose statistics
STRONG_ATTACKS = ("restarts", "float64", "distance", "autoattack")

_CHOICES = {
    "dataset": data.DATASETS,
    "model": models.BUILDERS,
    "augment": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": training.SCHEDULES,
    "step_schedule": STEP_SCHEDULES,
}
_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}
_BALL = "a perturbation set like Linf(0.1) or 'linf 8/255'"


def declared(name: str, value: Any, default: Any) -> Any:
    """Return a field's value as the type of its default, or raise ValueError.

    A whole number in a field of fractions stays as it is: it is part of the key.

    >>> declared("epochs", np.int64(3), 1), declared("watch", "linf 0.1", None)
    (3, Linf(epsilon=0.1))
    """
    plain, kind = _plain(value), type(default)
    if kind is tuple:
        check(isinstance(plain, tuple), f"{name} must be a list", repr(value))
        return tuple(declared(name, part, default[0]) for part in plain)
    if default is None and plain in (None, ""):
        return None
    if default is None or isinstance(default, Linf):
        plain = parse_ball(plain) if isinstance(plain, str) else plain
        check(isinstance(plain, Linf | L2), f"{name} must be {_BALL}", repr(value))
        return plain
    if kind is int and isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    fits = isinstance(plain, (int, float) if kind is float else kind)
    fits = fits and (kind is bool or not isinstance(plain, bool))
    check(fits, f"{name} must be {_KINDS.get(kind, 'a text')}", repr(value))
    return plain


def _plain(value: Any) -> Any:
    """Return a value of NumPy or torch as Python's own, a list or array as a tuple."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if not hasattr(value, "__array__"):
        return value
    array = np.asarray(value)
    if array.ndim:
        return tuple(map(_plain, array))
    # By its shortest decimal: float32's 0.1 is 0.1.
    return float(str(array[()])) if array.dtype.kind == "f" else array.item()


# What holds of every recipe; an error says what the fields named here are.
_RULES: dict[str, Callable[[Recipe], object]] = {
    "own_attack must be a function to import, like 'mine.attacks:run'": (
        lambda r: ":" in r.own_attack or not r.own_attack
    ),
    "learning_rate must be above 0 and finite": (
        lambda r: 0 < r.learning_rate < math.inf
    ),
    "batch_size must be at most the number of training images, train_size": (
        lambda r: r.batch_size <= r.train_size
    ),
    "optimizer 'algorithm1' must come without attack and rho": (
        lambda r: r.optimizer != "algorithm1" or not (r.attack or r.rho)
    ),
    "watch_fosc must come with an attack": lambda r: r.attack or not r.watch_fosc,
    f"other_statistics must come with one of {', '.join(OTHER)} as dataset": (
        lambda r: r.dataset in OTHER or not r.other_statistics
    ),
    "gradient_leak must come with as many steps for every image, no step_schedule": (
        lambda r: not (r.gradient_leak and r.step_schedule == "random")
    ),
    "gradient_leak must come with an attack and a rho above 0": (
        lambda r: not r.gradient_leak or (r.attack and r.rho)
    ),
}


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError for an unknown name or a value out of range."""
    for name, known in _CHOICES.items():
        check_choice(name, getattr(recipe, name), known)
    for attack in recipe.strong_attacks:
        check_choice("strong_attacks", attack, STRONG_ATTACKS)
    row, record = as_row(recipe), data.DATASETS[recipe.dataset]
    for field in fields(recipe):
        if bounds := field.metadata.get("bounds"):
            ends = [getattr(record, str(end), end) for end in (*bounds, math.inf)]
            _check_range(field.name, row[field.name], *ends[:2])
    for rule, holds in _RULES.items():
        if not holds(recipe):
            named = [name for name in row if name in re.findall(r"\w+", rule)]
            got = ", ".join(f"{name} {row[name]!r}" for name in named)
            raise ValueError(f"{rule}; got {got}")
    _check_batches(recipe)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    upper = "" if most == math.inf else f" and at most {most:g}"
    fits = least <= value <= most and value != math.inf  # NaN fails too
    check(fits, f"{name} must be at least {least:g}{upper}", value)


def _check_batches(recipe: Recipe) -> None:
    """Raise ValueError for a batch of one image that batch norm cannot train on."""
    size = 1 if recipe.optimizer == "algorithm1" else recipe.batch_size
    alone = 1 in (size, recipe.train_size % size)
    if alone or ":" in recipe.model:  # a network of one's own is tried anyway
        takes_one = _takes_one(recipe.dataset, recipe.model, recipe.width)
        check(
            takes_one or not alone,
            "batch_size must leave no batch of one image, which batch norm of "
            f"{recipe.model!r} cannot train on",
            f"{recipe.train_size} images in batches of {size}",
        )


@cache
def _takes_one(dataset: str, model: str, width: int) -> bool:
    network = own.network(dataset, model, width, torch.Generator())
    return training.takes_one(network, torch.zeros(1, *data.DATASETS[dataset].shape))
