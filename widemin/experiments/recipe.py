"""What is trained, within which radii, and how it is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from widemin.attacks import Ball, Linf
from widemin.experiments import own
from widemin.experiments.columns import as_column, as_row
from widemin.experiments.recipe_checks import STRONG_ATTACKS, check_recipe, declared

# Part of every key. Raise the first when training can give other weights by more than
# the rounding in which machines differ anyway, the second when all that is measured of
# a network changes: older rows are then computed again. One instrument has a revision
# of its own, in measure/parts.py.
TRAINING_REVISION = 1
MEASURING_REVISION = 1


def _field(default: Any, *bounds: float | str, measures: bool = False) -> Any:
    """Return a field and its bounds: from and, where it ends, to what.

    The number of images of a part of the data set, by the part's name.
    """
    about = {"bounds": bounds, "measures": measures}
    return dataclasses.field(default=default, metadata=about)


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

    dataset: str = "digits"  # one of data.DATASETS, or your own: "mine.sets:load"
    train_size: int = _field(1_000, 1, "train")  # the first; beyond the train part: all
    augment: str = ""  # one of AUGMENTATIONS
    model: str = "mlp"  # one of models.BUILDERS, or your own: "mine.nets:build"
    width: int = _field(0, 0)  # 0 is the paper's
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = _field(0.0, 0, 0.999)
    weight_decay: float = _field(0.0, 0)
    schedule: str = "constant"
    batch_size: int = _field(64, 1)
    epochs: int = _field(1, 1)
    attack: Ball | None = None  # trained on PGD in this set; None on clean images
    attack_steps: int = _field(10, 1)  # of `attack_step` radii
    ramp: float = _field(0.0, 0, 1)  # share of training in which the radius grows
    fosc_max: float = _field(0.0, 0)  # first threshold of FOSC; 0 is no control
    fosc_from_start: bool = False  # FOSC from the random start, not from the image
    attack_step: float = _field(0.25, 1e-3, 2)  # a step's size, in radii
    step_schedule: str = ""  # how the attack's strength changes: one of STEP_SCHEDULES
    loss_weighted: bool = False  # each image's loss counts as often as it is large
    rate_decay: float = _field(0.0, 0)  # of the learning rate, as Keras has it
    rho: float = _field(0.0, 0)  # SAM's radius, L2 over all weights
    second_pass_statistics: bool = False  # SAM's second pass moves batch norm's
    gradient_leak: bool = False  # the attack's weight gradients tilt SAM's ascent
    label_smoothing: float = _field(0.0, 0, 1)  # share spread over all classes
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
    strong_attacks: tuple[str, ...] = _how(STRONG_ATTACKS)
    autoattack_size: int = _how(0, 0)  # of the strong ones, under AutoAttack; 0 is all
    width_size: int = _how(0, 0, "train")  # training images under the widths
    line_size: int = _how(0, 0, "train")  # training images under the loss along lines
    other_statistics: bool = _how(False)  # classified as the other CIFAR's
    brief_epochs: int = _how(0, 0)  # of one scaled in its logits, which attacks
    fosc_bins: int = _how(0, 0)  # of images by FOSC; and the attack's strength swept
    white_box: bool = _how(False)  # Wang et al.'s attacks, of a quarter radius
    surrogate_epochs: int = _how(0, 0)  # of two networks that attack
    pictures: int = _how(0, 0, "test")  # test images kept, attacked in every way
    own_attack: str = _how("")  # your own, beside PGD: "mine.attacks:run"

    def __post_init__(self) -> None:
        """Make values plain, check names and ranges: once, where a recipe is made."""
        for field in _FIELDS:
            value = declared(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)
        # Not a field: part of the key, and sent along to workers.
        object.__setattr__(self, "sources", own.sources(self))
        check_recipe(self)

    def __str__(self) -> str:
        """Return the fields that are not at their defaults."""
        changes = (f"{name}={value!r}" for name, value in _departures(self).items())
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
        passes = (1 + self.attack_steps if self.attack else 1) * (2 if self.rho else 1)
        return float(self.train_size * self.epochs * passes)

    @property
    def key(self) -> str:
        """What a row is found by: all departures from the defaults, both revisions."""
        fields = _departures(self) | self.sources
        return _digest(fields, training=TRAINING_REVISION, measuring=MEASURING_REVISION)

    @property
    def training_key(self) -> str:
        """What weights are found by: as `key`, without how they are measured."""
        fields = _departures(self) | self.sources
        for name in MEASURED_BY:
            fields.pop(name, None)
            fields.pop(f"{name} source", None)
        return _digest(fields, training=TRAINING_REVISION)


_FIELDS = dataclasses.fields(Recipe)
# Fields that say how a network is measured; the rest decide its weights.
MEASURED_BY = tuple(f.name for f in _FIELDS if f.metadata.get("measures"))
_OF_A_DEFENCE = ["fosc_max", "fosc_from_start", "attack_step", "step_schedule"]
_OF_A_DEFENCE += ["loss_weighted", "rate_decay", "watch", "watch_fosc"]
_OF_A_DEFENCE += ["validation_size"]


def _departures(recipe: Recipe) -> dict[str, Any]:
    row, default = as_row(recipe), {f.name: as_column(f.default) for f in _FIELDS}
    return {name: row[name] for name in row if row[name] != default[name]}


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
