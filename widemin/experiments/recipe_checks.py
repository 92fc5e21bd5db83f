"""What a recipe may say."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from widemin import data, models, training
from widemin.attacks import L2, Linf, parse_ball
from widemin.experiments import own
from widemin.experiments.columns import as_column
from widemin.names import check_choice

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
_KINDS[str] = "a text"
_BALL = "a perturbation set like Linf(0.1) or 'linf 8/255'"


def declared(name: str, value: Any, default: Any) -> Any:
    """Return a field's value as the type of its default, or raise ValueError.

    A whole number in a field of fractions stays as it is: it is part of the key.

    >>> declared("epochs", np.int64(3), 1), declared("watch", "linf 0.1", None)
    (3, Linf(epsilon=0.1))
    """
    plain, kind = _plain(value), type(default)
    if kind is tuple:
        if not isinstance(plain, tuple):
            raise ValueError(f"{name} must be a list; got {value!r}")
        return tuple(declared(name, part, default[0]) for part in plain)
    if default is None or isinstance(default, Linf):
        if plain in (None, "") and default is None:
            return None
        if isinstance(plain, str):
            return parse_ball(plain)
        if not isinstance(plain, Linf | L2):
            raise ValueError(f"{name} must be {_BALL}; got {value!r}")
        return plain
    if kind is int and isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    fits = isinstance(plain, (int, float) if kind is float else kind)
    if not fits or (isinstance(plain, bool) and kind is not bool):
        raise ValueError(f"{name} must be {_KINDS[kind]}; got {value!r}")
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


def check(recipe: Recipe) -> None:
    """Raise ValueError for an unknown name or a value out of range."""
    for name, known in _CHOICES.items():
        check_choice(name, getattr(recipe, name), known)
    if recipe.own_attack and ":" not in recipe.own_attack:
        raise ValueError(
            "own_attack must be a function to import, like 'mine.attacks:run'; "
            f"got {recipe.own_attack!r}"
        )
    for attack in recipe.strong_attacks:
        check_choice("strong_attacks", attack, STRONG_ATTACKS)
    for field in fields(recipe):
        if bounds := field.metadata.get("bounds"):
            _check(field.name, getattr(recipe, field.name), *bounds)
    if not 0 < recipe.learning_rate < math.inf:
        raise ValueError(
            f"learning_rate must be above 0 and finite; got {recipe.learning_rate}"
        )
    _check_sizes(recipe)
    _check_together(recipe)


def _check_sizes(recipe: Recipe) -> None:
    """Raise ValueError for more images than there are."""
    found = data.DATASETS[recipe.dataset]
    _check("train_size", recipe.train_size, 1, found.train)
    _check("test_size", recipe.test_size, 1, found.test)
    _check("pictures", recipe.pictures, 0, found.test)
    for name in ("width_size", "line_size", "spectrum_size"):
        _check(name, getattr(recipe, name), 0, found.train)
    _check("validation_size", recipe.validation_size, 0, found.held_out)
    if recipe.batch_size > recipe.train_size:
        raise ValueError(
            "batch_size must be at most the number of training images, "
            f"{recipe.train_size}; got {recipe.batch_size}"
        )
    size = 1 if recipe.optimizer == "algorithm1" else recipe.batch_size
    alone = 1 in (size, recipe.train_size % size)
    if (alone or ":" in recipe.model) and (
        not _takes_one(recipe.dataset, recipe.model, recipe.width) and alone
    ):
        raise ValueError(
            f"batch_size must leave no batch of one image, which batch norm of "
            f"{recipe.model!r} cannot train on; got {recipe.train_size} images in "
            f"batches of {size}"
        )


@cache
def _takes_one(dataset: str, model: str, width: int) -> bool:
    """Return True if a network can be trained on one image of a data set."""
    network = own.network(dataset, model, width, torch.Generator())
    return training.takes_one(network, torch.zeros(1, *data.DATASETS[dataset].shape))


def _check_together(recipe: Recipe) -> None:
    """Raise ValueError for what makes no sense without, or with, another field."""
    if recipe.optimizer == "algorithm1" and (recipe.attack or recipe.rho):
        raise ValueError(
            "optimizer 'algorithm1' must come without attack and rho; got "
            f"attack {as_column(recipe.attack)!r} and rho {recipe.rho}"
        )
    if recipe.watch_fosc and not recipe.attack:
        raise ValueError("watch_fosc must come with an attack; got none")
    if recipe.other_statistics and recipe.dataset not in OTHER:
        raise ValueError(
            f"other_statistics must come with one of {', '.join(OTHER)}; got "
            f"dataset {recipe.dataset!r}"
        )
    if recipe.gradient_leak and recipe.step_schedule == "random":
        raise ValueError(
            "gradient_leak must come with as many steps for every image; got "
            "step_schedule 'random'"
        )
    if recipe.gradient_leak and not (recipe.attack and recipe.rho):
        raise ValueError(
            "gradient_leak must come with an attack and a rho above 0; got "
            f"attack {as_column(recipe.attack)!r} and rho {recipe.rho}"
        )


def _check(name: str, value: float, least: float, most: float = math.inf) -> None:
    if not least <= value <= most or value == math.inf:  # NaN fails too
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} must be at least {least:g}{upper}; got {value}")
