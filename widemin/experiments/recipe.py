"""What is trained, within which radii, how it is measured: what a recipe may say."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from widemin import data, models, training
from widemin.attacks import L2, TRAINED, Ball, Linf, Loss, parse_ball
from widemin.experiments import own
from widemin.experiments.columns import as_column, as_row
from widemin.names import check, check_choice

# Part of every key. Raise the first when training can give other weights by more than
# the rounding in which machines differ anyway, the second when all that is measured of
# a network changes: older rows are then computed again. One instrument has a revision
# of its own, in measure/parts.py.
TRAINING_REVISION = 1
MEASURING_REVISION = 1

OPTIMIZERS = ("sgd", "adam", "algorithm1")  # the last as Kamath et al. print it
# All steps always; 1, 2, ... of them, each for as long; a step of the whole radius in
# the first or in the last third of training; for each image a number of its own.
STEP_SCHEDULES = ("", "rising", "weak-first", "weak-last", "random")
# The last turns by up to 10 degrees and shifts by up to a fifth, too.
AUGMENTATIONS = ("", "flip", "crop+flip", "turn+shift+flip")
OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}  # whose statistics
STRONG_ATTACKS = ("restarts", "float64", "distance", "autoattack")


def _field(default: Any, *bounds: float | str, **about: Any) -> Any:
    """Return a field with its bounds, from and perhaps to, and the names it may have.

    A bound may be a part of the data set: the number of its images.
    """
    return dataclasses.field(default=default, metadata={"bounds": bounds} | about)


_how = partial(_field, measures=True)  # it is measured: weights do not depend on it


@dataclass(frozen=True)
class Recipe:
    """One experiment, flat, since its fields become the columns of the tables.

    A field at its default is not part of the key: a new field with a default that
    changes nothing leaves finished rows valid. A default is never changed without
    raising a revision.

    Perturbation sets may be texts, "linf 8/255" or "l2 0.5", and are written as given.
    A model, a data set and an attack of your own are functions, "module:function", as
    `own` says. Their files are part of the key: once changed, they are run again.

    Raises:
        ValueError: An unknown name, a value out of range or of another kind than the
            default, when constructed.
    """

    dataset: str = _field("digits", known=data.DATASETS)  # or "mine.sets:load"
    train_size: int = _field(1_000, 1, "train")  # the first; beyond the train part: all
    augment: str = _field("", known=AUGMENTATIONS)
    model: str = _field("mlp", known=models.BUILDERS)  # or "mine.nets:build"
    width: int = _field(0, 0)  # 0 is the paper's
    optimizer: str = _field("sgd", known=OPTIMIZERS)
    learning_rate: float = 0.1
    momentum: float = _field(0.0, 0, 0.999)
    weight_decay: float = _field(0.0, 0)
    schedule: str = _field("constant", known=training.SCHEDULES)
    batch_size: int = _field(64, 1)
    epochs: int = _field(1, 1)
    attack: Ball | None = None  # trained on PGD in this set; None on clean images
    attack_steps: int = _field(10, 1)  # of `attack_step` radii
    ramp: float = _field(0.0, 0, 1)  # share of training in which the radius grows
    fosc_max: float = _field(0.0, 0)  # first threshold of FOSC; 0 is no control
    fosc_from_start: bool = False  # FOSC from the random start, not from the image
    attack_step: float = _field(0.25, 1e-3, 2)  # a step's size, in radii
    step_schedule: str = _field("", known=STEP_SCHEDULES)  # of the attack's strength
    loss_weighted: bool = False  # each image's loss counts as often as it is large
    rate_decay: float = _field(0.0, 0)  # of the learning rate, as Keras has it
    rho: float = _field(0.0, 0)  # SAM's radius, L2 over all weights
    second_pass_statistics: bool = False  # SAM's second pass moves batch norm's
    gradient_leak: bool = False  # the attack's weight gradients tilt SAM's ascent
    label_smoothing: float = _field(0.0, 0, 1)  # share spread over all classes
    cross_entropy: str = _field("logits", known=TRAINED)  # how it is computed
    sam_from: float = _field(0.0, 0, 1)  # share of training before SAM begins
    stop_loss: float = _field(0.0, 0)  # training ends once its loss is as low; 0: never
    nudge: int = _field(0, 0)  # which draw of 1e-7 of each weight; 0 is none
    seed: int = _field(0, 0)
    watch: Ball | None = None  # FGSM in this set after each epoch
    watch_fosc: bool = False  # FOSC after each epoch, where its attack stops
    validation_size: int = _field(0, 0, "held_out")  # held-out images under the watch
    # How it is measured, once trained
    tests: tuple[Ball, ...] = _how((Linf(0.1),))
    test_size: int = _how(300, 1, "test")
    pgd_steps: int = _how(10, 1)  # of 2.5 radii over the number of steps
    hessian_size: int = _how(300, 1)  # training images under the eigenvalue
    spectrum_size: int = _how(0, 0, "train")  # under the top eigenvalue, once more
    strong_size: int = _how(0, 0)  # test images under the strong attacks
    strong_steps: int = _how(0, 0)  # of PGD with restarts; 0 is pgd_steps
    strong_attacks: tuple[str, ...] = _how(STRONG_ATTACKS, known=STRONG_ATTACKS)
    autoattack_size: int = _how(0, 0)  # of the strong ones, under AutoAttack; 0 is all
    width_size: int = _how(0, 0, "train")  # training images under the widths
    line_size: int = _how(0, 0, "train")  # training images under the loss along lines
    # Training images under flatness, logits divided by their median margin
    scale_free_size: int = _how(0, 0, "train")
    other_statistics: bool = _how(False)  # classified as the other CIFAR's
    brief_epochs: int = _how(0, 0)  # of one scaled in its logits, which attacks
    fosc_bins: int = _how(0, 0)  # of images by FOSC; and the attack's strength swept
    white_box: bool = _how(False)  # Wang et al.'s attacks, of a quarter radius
    surrogate_epochs: int = _how(0, 0)  # of two networks that attack
    pictures: int = _how(0, 0, "test")  # test images kept, attacked in every way
    binarized: int = _how(0, 0)  # test images under the binarization test
    certificate: bool = _how(False)  # FOSC after PGD-10 against a stronger attack
    own_attack: str = _how("")  # your own, beside PGD: "mine.attacks:run"

    def __post_init__(self) -> None:
        """Make values plain, check names and ranges: once, where a recipe is made."""
        for field in _FIELDS:
            value = _declared(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)
        # Not a field: part of the key, and sent along to workers.
        object.__setattr__(self, "sources", own.sources(self))
        _check(self)

    def __str__(self) -> str:
        """Return the fields that are not at their defaults."""
        changes = (f"{name}={value!r}" for name, value in self._departures.items())
        return f"Recipe({', '.join(changes)})"

    sources: ClassVar[dict[str, str]] = {}

    @property
    def method(self) -> str:
        """The training method, as tables and figures name it."""
        if self.attack:
            kind = "dynamic" if self.fosc_max else "adversarial"
            return f"{kind}+sam" if self.rho else kind
        return "sam" if self.rho else "standard"

    @property
    def own_loss(self) -> Loss | None:
        """The loss of each image in training; None is the plain cross-entropy."""
        if self.label_smoothing:
            how = dict[str, Any](reduction="none", label_smoothing=self.label_smoothing)
            return partial(F.cross_entropy, **how)
        of = self.cross_entropy
        return None if of == "logits" else TRAINED[of]

    @property
    def transfer_source(self) -> Recipe:
        """The briefly trained network beside: another seed's, a few epochs long."""
        brief = dict[str, Any](seed=self.seed + 1_000, epochs=self.brief_epochs)
        return replace(self, **brief, watch=None, validation_size=0)

    def without(self, *names: str) -> Recipe:
        """Return it with some fields at their defaults."""
        plain: dict[str, Any] = {f.name: f.default for f in _FIELDS if f.name in names}
        return replace(self, **plain)

    @property
    def surrogates(self) -> dict[str, Recipe]:
        """The networks of another seed whose adversarial images are tried, by kind.

        The same for every defence: trained naturally, and on all steps of the attack.
        """
        seed = 1_000 if self.seed != 1_000 else 2_000
        plain = self.without(*_OF_A_DEFENCE)
        robust = replace(plain, seed=seed, epochs=self.surrogate_epochs)
        natural = replace(robust, attack=None, ramp=0.0)
        return {"natural": natural, "robust": robust}

    @property
    def work(self) -> float:
        """Gradients of images in training: what its time is about proportional to."""
        passes = 1 + (self.attack_steps if self.attack else 0)
        again = 1 - self.sam_from if self.rho else 0
        return float(self.train_size * self.epochs * (passes + again))

    @cached_property
    def _departures(self) -> dict[str, Any]:
        row = as_row(self)
        return {name: row[name] for name in row if row[name] != _DEFAULTS[name]}

    @property
    def key(self) -> str:
        """What a row is found by: all departures from the defaults, both revisions."""
        fields = self._departures | self.sources
        return _digest(fields, training=TRAINING_REVISION, measuring=MEASURING_REVISION)

    @property
    def training_key(self) -> str:
        """What weights are found by: as `key`, without how they are measured."""
        fields = self._departures | self.sources
        for name in MEASURED_BY:
            fields.pop(name, None)
            fields.pop(f"{name} source", None)
        return _digest(fields, training=TRAINING_REVISION)


_FIELDS = dataclasses.fields(Recipe)
_DEFAULTS = {f.name: as_column(f.default) for f in _FIELDS}
# Fields that say how a network is measured; the rest decide its weights.
MEASURED_BY = tuple(f.name for f in _FIELDS if f.metadata.get("measures"))
_OF_A_DEFENCE = ["fosc_max", "fosc_from_start", "attack_step", "step_schedule"]
_OF_A_DEFENCE += ["loss_weighted", "rate_decay", "watch", "watch_fosc"]
_OF_A_DEFENCE += ["validation_size"]


def _digest(fields: dict[str, Any], **revisions: int) -> str:
    text = json.dumps([fields, revisions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return the generator for one purpose: weights, batches, attack or probes.

    Drawn on the CPU, so that CPU and CUDA see the same draws; two methods with one
    seed share weights and batch order, so that their difference is paired.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{purpose}".encode()))


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """Return base with every combination of the axes' values; the first is slowest.

    >>> recipes = grid(Recipe(), seed=range(2), rho=[0.0, 0.1])
    >>> [(recipe.seed, recipe.rho) for recipe in recipes]
    [(0, 0.0), (0, 0.1), (1, 0.0), (1, 0.1)]
    """
    every = itertools.product(*axes.values())
    return [replace(base, **dict(zip(axes, values, strict=True))) for values in every]


def cells(
    base: Recipe, listed: Iterable[tuple[int, float, int, int]], seeds: int
) -> list[Recipe]:
    """Return base in cells of their own lengths, every cell once before the next seed.

    A cell is its batch size, learning rate, training images and epochs.
    """
    lengths: list[dict[str, Any]] = [
        {"batch_size": b, "learning_rate": rate, "train_size": size, "epochs": epochs}
        for b, rate, size, epochs in listed
    ]
    return [replace(base, seed=s, **cell) for s in range(seeds) for cell in lengths]


_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}
_BALL = "a perturbation set like Linf(0.1) or 'linf 8/255'"


def _declared(name: str, value: Any, default: Any) -> Any:
    """Return a field's value as the type of its default, or raise ValueError.

    A whole number in a field of fractions stays as it is: it is part of the key.

    >>> _declared("epochs", np.int64(3), 1), _declared("watch", "linf 0.1", None)
    (3, Linf(epsilon=0.1))
    """
    plain, kind = _plain(value), type(default)
    if kind is tuple:
        check(isinstance(plain, tuple), f"{name} must be a list", repr(value))
        return tuple(_declared(name, part, default[0]) for part in plain)
    if default is None and plain in (None, ""):
        return None
    if default is None or isinstance(default, Linf):
        plain = parse_ball(plain) if isinstance(plain, str) else plain
        check(isinstance(plain, Linf | L2), f"{name} must be {_BALL}", repr(value))
        return plain
    if kind is int and isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    fits = isinstance(plain, (int, float) if kind is float else kind)
    if not fits or (isinstance(plain, bool) and kind is not bool):
        raise ValueError(f"{name} must be {_KINDS.get(kind, 'a text')}; got {value!r}")
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
    "cross_entropy must be 'logits' beside an attack or label_smoothing": (
        lambda r: r.cross_entropy == "logits" or not (r.attack or r.label_smoothing)
    ),
    "optimizer 'algorithm1' must come with cross_entropy 'logits', label_smoothing 0": (
        lambda r: r.optimizer != "algorithm1" or r.own_loss is None
    ),
    "sam_from must come with a rho above 0": lambda r: r.rho or not r.sam_from,
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


def _check(recipe: Recipe) -> None:
    """Raise ValueError for an unknown name or a value out of range."""
    for field in _FIELDS:
        value = getattr(recipe, field.name)
        if known := field.metadata.get("known"):
            for name in value if isinstance(value, tuple) else [value]:
                check_choice(field.name, name, known)
        if bounds := field.metadata.get("bounds"):
            least, most = (*bounds, math.inf)[:2]
            if isinstance(most, str):
                most = getattr(data.DATASETS[recipe.dataset], most)
            _check_range(field.name, value, least, most)
    for rule, holds in _RULES.items():
        if not holds(recipe):
            row, words = as_row(recipe), re.findall(r"\w+", rule)
            got = [f"{name} {row[name]!r}" for name in row if name in words]
            raise ValueError(f"{rule}; got {', '.join(got)}")
    _check_batches(recipe)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most or value == math.inf:  # NaN fails too
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} must be at least {least:g}{upper}; got {value}")


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
