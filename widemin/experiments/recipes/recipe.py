"""A recipe, and what it is found by."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from widemin.attacks import Ball, Linf
from widemin.experiments.recipes.checks import STRONG_ATTACKS, check, declared
from widemin.names import as_column, imported

# Part of every key. Raise the first when training can give other weights by more than
# the rounding in which machines differ anyway, the second when all that is measured of
# a network changes: older rows are then computed again. One instrument has a revision
# of its own, in instruments/revisions.py.
TRAINING_REVISION = 1
MEASURING_REVISION = 1

# Fields that say how a network is measured; the rest decide its weights.
MEASURED_BY = (
    "tests",
    "test_size",
    "pgd_steps",
    "hessian_size",
    "spectrum_size",
    "strong_size",
    "strong_steps",
    "strong_attacks",
    "autoattack_size",
    "width_size",
    "line_size",
    "other_statistics",
    "brief_epochs",
    "fosc_bins",
    "white_box",
    "surrogate_epochs",
    "pictures",
)


@dataclass(frozen=True)
class Recipe:
    """One experiment: what is trained, within which radii, how it is measured.

    A field at its default is not part of the key: a new field with a default that
    changes nothing leaves finished rows valid. A default is never changed without
    raising a revision.

    Numbers of NumPy and torch become Python's, lists and arrays tuples; perturbation
    sets may be given as texts, "linf 8/255" or "l2 0.5", and are written as given.

    A network of your own is a function in a module that workers can import, too (on
    PYTHONPATH, or installed where Dask's workers are); `models.build` says what it
    takes. The module's file is part of the key: changed, it is run again. Modules that
    it imports are not.

    Raises:
        ValueError: An unknown name, a value out of range or of another kind than the
            default, when constructed.
    """

    dataset: str = "digits"
    train_size: int = 1_000  # the first images; beyond the train part: all
    augment: str = ""  # one of AUGMENTATIONS
    model: str = "mlp"  # one of models.BUILDERS, or your own: "mine.nets:build"
    width: int = 0  # 0 is the paper's
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    batch_size: int = 64
    epochs: int = 1
    attack: Ball | None = None  # trained on PGD in this set; None on clean images
    attack_steps: int = 10  # of `attack_step` radii
    ramp: float = 0.0  # fraction of training during which the radius grows
    fosc_max: float = 0.0  # where the FOSC threshold starts; 0 is no control
    fosc_from_start: bool = False  # FOSC from the random start, not from the image
    attack_step: float = 0.25  # size of a step of the attack, in radii
    step_schedule: str = ""  # how the attack's strength changes: one of STEP_SCHEDULES
    loss_weighted: bool = False  # each image's loss counts as often as it is large
    rate_decay: float = 0.0  # of the learning rate with every step, as Keras has it
    rho: float = 0.0  # SAM's radius, L2 over all weights
    second_pass_statistics: bool = False  # SAM's second pass moves batch norm's
    gradient_leak: bool = False  # the attack's weight gradients tilt SAM's ascent
    label_smoothing: float = 0.0  # share of the label spread over all classes
    seed: int = 0
    watch: Ball | None = None  # FGSM in this set after each epoch
    watch_fosc: bool = False  # FOSC after each epoch, where its attack stops
    validation_size: int = 0  # held-out images under the watch, besides test images
    # How it is measured, once trained
    tests: tuple[Ball, ...] = (Linf(0.1),)
    test_size: int = 300
    pgd_steps: int = 10  # of 2.5 radii over the number of steps
    hessian_size: int = 300  # training images under the eigenvalue
    spectrum_size: int = 0  # training images under the top eigenvalue, once more
    strong_size: int = 0  # test images under restarts, AutoAttack, minimal distance
    strong_steps: int = 0  # of PGD with restarts; 0 is pgd_steps
    strong_attacks: tuple[str, ...] = STRONG_ATTACKS
    autoattack_size: int = 0  # of the strong ones, under AutoAttack; 0 is all
    width_size: int = 0  # training images under widths and adaptive sharpness
    line_size: int = 0  # training images under the loss along lines
    other_statistics: bool = False  # attacked images classified as the other CIFAR's
    brief_epochs: int = 0  # of a network whose logits are scaled, and which attacks
    fosc_bins: int = 0  # of images by FOSC; with them, a sweep of the attack's strength
    white_box: bool = False  # Wang et al.'s own attacks, of a quarter of the radius
    surrogate_epochs: int = 0  # of two networks whose adversarial images are tried
    pictures: int = 0  # test images kept as pictures, attacked in every way

    def __post_init__(self) -> None:
        """Make values plain, check names and ranges: once, where a recipe is made."""
        for field in dataclasses.fields(self):
            value = declared(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)
        check(self)
        # Not a field: part of the key, and sent along to workers.
        object.__setattr__(self, "sources", sources(self))

    def __str__(self) -> str:
        """Return what it departs from the defaults in."""
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
        return dataclasses.replace(
            self,
            seed=self.seed + 1_000,
            epochs=self.brief_epochs,
            watch=None,
            validation_size=0,
        )

    @property
    def surrogates(self) -> dict[str, Recipe]:
        """The networks of another seed whose adversarial images are tried, by kind.

        The same for every defence: trained naturally, and on all steps of the attack.
        """
        robust = dataclasses.replace(
            self,
            seed=1_000 if self.seed != 1_000 else 2_000,
            epochs=self.surrogate_epochs,
            fosc_max=0.0,
            fosc_from_start=False,
            attack_step=0.25,
            step_schedule="",
            loss_weighted=False,
            rate_decay=0.0,
            watch=None,
            watch_fosc=False,
            validation_size=0,
        )
        natural = dataclasses.replace(robust, attack=None, ramp=0.0)
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
        fields = _departures(self)
        fields = {k: v for k, v in fields.items() if k not in MEASURED_BY}
        return _digest(fields | self.sources, training=TRAINING_REVISION)


def sources(recipe: Recipe) -> dict[str, str]:
    """Return the sums of the files behind names of a user's own, as imported here."""
    named = {"model": recipe.model}
    return {
        f"{field} source": imported(field, name)[1]
        for field, name in named.items()
        if ":" in name
    }


def _departures(recipe: Recipe) -> dict[str, Any]:
    return {
        field.name: value
        for field in dataclasses.fields(recipe)
        if (value := as_column(getattr(recipe, field.name))) != as_column(field.default)
    }


def _digest(fields: dict[str, Any], **revisions: int) -> str:
    text = json.dumps([fields, revisions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return the generator for one purpose: weights, batches, attack or probes.

    Drawn on the CPU, so that CPU and CUDA see the same draws; two methods with one
    seed share weights and batch order, so that their difference is paired.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{purpose}".encode()))
