"""Recipes in, tidy rows out: one experiment is trained, then measured.

A recipe is frozen, flat and made of numbers and names, since its fields become the
columns of the tables. Only this module knows of recipes; everything below takes the
two or three numbers it needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin import (
    attacks,
    data,
    ensemble,
    evaluation,
    hessian,
    masking,
    models,
    training,
)
from widemin.attacks import Ball, NonFiniteError, parse_ball
from widemin.data import check_choice

# Part of every key. Raise the first when training can give other weights, the second
# when an instrument can give another number: older rows are then computed again.
TRAINING_REVISION = 1
MEASURING_REVISION = 1

OPTIMIZERS = ("sgd", "adam")
AUGMENTATIONS = {"": None, "flip": 0, "crop+flip": 4}  # largest shift, in pixels
# Fields that say how a network is measured; the rest decide its weights.
MEASURED_BY = ("tests", "test_size", "pgd_steps", "hessian_size")


@dataclass(frozen=True)
class Recipe:
    """One experiment: what is trained, within which radii, how it is measured.

    A field at its default is not part of the key: a new field with a default that
    changes nothing leaves finished rows valid. A default is never changed without
    raising a revision.

    Raises:
        ValueError: An unknown name or a value out of range, when constructed.
    """

    dataset: str = "digits"
    train_size: int = 1_000  # the first images; beyond the train part: all
    augment: str = ""  # "flip", "crop+flip" (4 pixels) or nothing
    model: str = "mlp"
    width: int = 0  # 0 is the paper's
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    batch_size: int = 64
    epochs: int = 1
    attack: str = (
        ""  # trained on PGD in this set, e.g. "linf 8/255"; "" on clean images
    )
    attack_steps: int = 10  # of a quarter of the radius
    ramp: float = 0.0  # fraction of training during which the radius grows
    fosc_max: float = 0.0  # where the FOSC threshold starts; 0 is no control
    rho: float = 0.0  # SAM's radius, L2 over all weights
    second_pass_statistics: bool = False  # SAM's second pass moves batch norm's
    seed: int = 0
    watch: str = ""  # FGSM in this set after each epoch
    # How it is measured, once trained
    tests: tuple[str, ...] = ("linf 0.1",)
    test_size: int = 300
    pgd_steps: int = 10  # of 2.5 radii over the number of steps
    hessian_size: int = 300  # training images under the eigenvalue

    def __post_init__(self) -> None:
        """Check names and ranges once, where a recipe is made."""
        check_choice("dataset", self.dataset, data.LOADERS)
        check_choice("model", self.model, models.BUILDERS)
        check_choice("augment", self.augment, AUGMENTATIONS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, training.SCHEDULES)
        for name in ("train_size", "batch_size", "epochs", "attack_steps", "test_size"):
            _check(name, getattr(self, name), 1)
        for name in ("pgd_steps", "hessian_size"):
            _check(name, getattr(self, name), 1)
        for name in ("width", "weight_decay", "fosc_max", "rho", "seed"):
            _check(name, getattr(self, name), 0)
        _check("momentum", self.momentum, 0, 0.999)
        _check("ramp", self.ramp, 0, 1)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate must be above 0 and finite; got {self.learning_rate}"
            )
        if self.batch_size > self.train_size:
            raise ValueError(
                "batch_size must be at most the number of training images, "
                f"{self.train_size}; got {self.batch_size}"
            )
        official, test = data.SIZES[self.dataset]
        _check("train_size", self.train_size, 1, official)
        _check("test_size", self.test_size, 1, test)
        for ball in (self.attack, self.watch, *self.tests):
            if ball:
                parse_ball(ball)

    @property
    def method(self) -> str:
        """The training method, as tables and figures name it."""
        if self.attack:
            kind = "dynamic" if self.fosc_max else "adversarial"
            return f"{kind}+sam" if self.rho else kind
        return "sam" if self.rho else "standard"

    @property
    def key(self) -> str:
        """What a row is found by: all departures from the defaults, both revisions."""
        return _digest(
            _departures(self), training=TRAINING_REVISION, measuring=MEASURING_REVISION
        )

    @property
    def training_key(self) -> str:
        """What weights are found by: as `key`, without how they are measured."""
        fields = _departures(self)
        fields = {k: v for k, v in fields.items() if k not in MEASURED_BY}
        return _digest(fields, training=TRAINING_REVISION)


def _check(name: str, value: float, least: float, most: float = math.inf) -> None:
    if not least <= value <= most or value == math.inf:  # NaN fails too
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} must be at least {least:g}{upper}; got {value}")


def _departures(recipe: Recipe) -> dict[str, Any]:
    return {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if getattr(recipe, field.name) != field.default
    }


def _digest(fields: dict[str, Any], **revisions: int) -> str:
    text = json.dumps([fields, revisions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """Return base with every combination of the axes' values; the first is slowest.

    >>> recipes = grid(Recipe(), seed=range(2), rho=[0.0, 0.1])
    >>> [(recipe.seed, recipe.rho) for recipe in recipes]
    [(0, 0.0), (0, 0.1), (1, 0.0), (1, 0.1)]
    """
    return [
        dataclasses.replace(base, **dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return the generator for one purpose: weights, batches, attack or probes.

    Drawn on the CPU, so that CPU and CUDA see the same draws; two methods with one
    seed share weights and batch order, so that their difference is paired.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{purpose}".encode()))


def pick_device(name: str) -> str:
    """Return cpu or cuda for auto, cpu or cuda.

    Raises:
        ValueError: Another name, or cuda where there is no GPU.
    """
    check_choice("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be one that is there; got 'cuda' without a GPU")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def spent_seconds(device: str) -> float:
    """Return a clock of work: on a CPU core seconds, whatever else the machine does."""
    return time.perf_counter() if device == "cuda" else time.process_time()


def runner(device: str, folder: Path) -> Callable[[Recipe], list[dict[str, Any]]]:
    """Return `run` on a device, its networks kept in a results folder."""
    return partial(run, device=device, weights=folder / "weights")


def run(recipe: Recipe, *, device: str, weights: Path) -> list[dict[str, Any]]:
    """Train (or load) one network and measure it; return its rows.

    Args:
        recipe: What to do.
        device: cpu or cuda.
        weights: Folder of trained networks; a network found there is not trained
            again.

    Returns:
        A row per epoch (`measured` is "epoch") with train_loss and, where `watch` is
        set, natural_accuracy and fgsm_accuracy; for adversarial training a row per
        step of its attack on test images ("step"); then a row per test set ("final")
        with every instrument. Accuracies are fractions of `images`.
    """
    model, curve, facts = trained(recipe, device, weights)
    rows = [{"measured": "epoch", **row} for row in curve]
    started = spent_seconds(device)
    if facts["diverged"]:
        final: list[dict[str, Any]] = [{"test": test} for test in recipe.tests]
    else:
        final = measure(model, recipe, device)
        if recipe.attack:
            ascent = climb(model, recipe, device)
            rows += [{"measured": "step", **row} for row in ascent]
    facts["measure_seconds"] = spent_seconds(device) - started
    rows += [
        {"measured": "final", "epoch": recipe.epochs, **facts, **row} for row in final
    ]
    return [{**dataclasses.asdict(recipe), "method": recipe.method} | r for r in rows]


def trained(
    recipe: Recipe, device: str, weights: Path
) -> tuple[nn.Module, list[dict[str, Any]], dict[str, Any]]:
    """Return a recipe's network, its learning curve and what training took."""
    from safetensors.torch import load_file, safe_open, save_file  # type: ignore

    path = weights / f"{recipe.training_key}.safetensors"
    model = _build(recipe).to(torch.device(device))
    model = model.to(memory_format=torch.channels_last)
    if path.exists():
        model.load_state_dict(load_file(path, device=device))
        with safe_open(path, "pt") as file:
            kept = json.loads(file.metadata()["training"])
        return model, kept["curve"], kept["facts"]
    curve, facts = train(model, recipe, device)
    state = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
    note = {"training": json.dumps({"curve": curve, "facts": facts})}
    weights.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(f".{os.getpid()}.part")
    save_file(state, partial_path, metadata=note)
    partial_path.replace(path)  # atomic: a network is there whole or not at all
    return model, curve, facts


def _build(recipe: Recipe) -> nn.Module:
    shape, classes = data.SHAPES[recipe.dataset]
    return models.build(
        recipe.model,
        stream(recipe.seed, "weights"),
        shape=shape,
        classes=classes,
        width=recipe.width or None,
        statistics=data.STATISTICS.get(recipe.dataset),
    )


def train(
    model: nn.Module, recipe: Recipe, device: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train a network in place; return its learning curve and what it took."""
    x, y = _images(recipe, "train", recipe.train_size, device)
    x_test, y_test = _images(recipe, "test", min(1_000, recipe.test_size), device)
    spent = {"gradients": 0}  # per image, input and weight gradients alike
    curve: list[dict[str, Any]] = []
    diverged, seconds = False, 0.0
    started = spent_seconds(device)
    optimizer = _optimizer(model, recipe)
    epochs = training.fit(
        model,
        optimizer,
        x,
        y,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        generator=stream(recipe.seed, "batches"),
        step_at=_step_at(recipe, model, optimizer, spent),
        schedule=recipe.schedule,
        augment=_augment(recipe),
    )
    try:
        for epoch, loss in epochs:
            seconds += spent_seconds(device) - started
            spent["gradients"] += len(x) * (2 if recipe.rho else 1)
            row = {"epoch": epoch, "train_loss": loss}
            if not math.isfinite(loss):
                raise NonFiniteError("training loss is not finite")
            if recipe.watch:
                row |= _watched(model, x_test, y_test, parse_ball(recipe.watch))
            curve.append(row)
            started = spent_seconds(device)
    except NonFiniteError:
        diverged = True
    facts = {
        "diverged": diverged,
        "train_seconds": seconds,
        "gradients": spent["gradients"] / len(x),
    }
    return curve, facts


def _images(recipe: Recipe, part: str, size: int, device: str) -> tuple[Tensor, Tensor]:
    images = data.load(recipe.dataset, part, size=size, device=device)
    return images.x.contiguous(memory_format=torch.channels_last), images.y


def _augment(recipe: Recipe) -> Callable[[Tensor], Tensor]:
    padding, generator = AUGMENTATIONS[recipe.augment], stream(recipe.seed, "augment")
    if padding is None:
        return lambda x: x
    return partial(data.augment, generator=generator, padding=padding)


def _optimizer(model: nn.Module, recipe: Recipe) -> training.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    return training.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay
    )


def _step_at(
    recipe: Recipe,
    model: nn.Module,
    optimizer: training.Optimizer,
    spent: dict[str, int],
) -> Callable[[float], training.Step]:
    """Return the step to take after a fraction t of training; count attacks' work.

    Dynamic training stops an image once its FOSC is at most c_t, which falls linearly
    from fosc_max to 0 at 5/6 of training (Wang et al. 2019, section 4: 100 of 120
    epochs).
    """
    if recipe.method == "standard" and ensemble.covers(model, optimizer):
        return lambda t: ensemble.step
    step = partial(
        training.train_step,
        rho=recipe.rho,
        second_pass_statistics=recipe.second_pass_statistics,
    )
    if not recipe.attack:
        return lambda t: step
    ball, generator = parse_ball(recipe.attack), stream(recipe.seed, "attack")

    def perturb(t: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        now = ball.scaled(min(1.0, t / recipe.ramp)) if recipe.ramp else ball
        if now.epsilon == 0:
            return x
        work: list[dict[str, Tensor]] = []
        threshold = recipe.fosc_max * max(0.0, 1 - t * 6 / 5)
        moved = attacks.pgd(
            model,
            x,
            y,
            now,
            steps=recipe.attack_steps,
            step_size=now.epsilon / 4,
            generator=generator,
            fosc_below=threshold if recipe.fosc_max else None,
            record=work,
        )
        spent["gradients"] += sum(len(step["images"]) for step in work)
        return moved

    return lambda t: partial(step, perturb=partial(perturb, t))


def _watched(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball
) -> dict[str, float | int]:
    attack = partial(attacks.fgsm, ball=ball)
    right = evaluation.survivors(model, x, y, {"": attacks.clean, "fgsm": attack})
    margin = evaluation.margins(model, x, y)
    return {
        "natural_accuracy": _mean(right[""]),
        "fgsm_accuracy": _mean(right["fgsm"]),
        "masked_share": _mean(margin > evaluation.MASKED_MARGIN),
        "images": len(x),
    }


def _mean(mask: Tensor) -> float:
    return float(mask.double().mean())


def measure(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return a row per test set, with every instrument's number."""
    x, y = _images(recipe, "test", recipe.test_size, device)
    common = _logits(model, x, y) | _curvature(model, recipe, device)
    return [
        {"test": test, "images": len(x)}
        | common
        | _robustness(model, x, y, parse_ball(test), recipe)
        for test in recipe.tests
    ]


def climb(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return quartiles of loss and FOSC along the training attack, on test images."""
    x, y = _images(recipe, "test", recipe.test_size, device)
    ball = parse_ball(recipe.attack)
    rows: list[dict[str, Any]] = []
    work: list[dict[str, Tensor]] = []
    attacks.pgd(
        model,
        x,
        y,
        ball,
        steps=recipe.attack_steps + 1,  # the last gradient is taken after the last step
        step_size=ball.epsilon / 4,
        generator=stream(recipe.seed, "ascent"),
        record=work,
    )
    quarters = torch.tensor([0.25, 0.5, 0.75], device=x.device)
    for step, found in enumerate(work):
        row: dict[str, Any] = {"step": step, "images": len(x)}
        names = ["loss", "fosc", "normalised_fosc"]
        found["normalised_fosc"] = _share(found["fosc"], found["reach"])
        if "fosc_box" in found:
            names.append("normalised_fosc_box")
            found["normalised_fosc_box"] = _share(found["fosc_box"], found["reach_box"])
        for name in names:
            for q, value in zip(
                (25, 50, 75), found[name].quantile(quarters), strict=True
            ):
                row[f"{name}_q{q}"] = float(value)
        rows.append(row)
    return rows


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where the whole is 0."""
    return part / whole.where(whole > 0, torch.ones_like(whole))


def _logits(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return natural accuracy and the signs that its gradients are masked."""
    margin = evaluation.margins(model, x, y)
    with torch.no_grad(), attacks.inference(model):
        answers = torch.cat([model(part).argmax(1) for part in x.split(500)])
    with attacks.inference(model):
        flat = torch.cat(
            [
                (attacks.input_gradient(model, a, b)[0] == 0).flatten(1).all(1)
                for a, b in zip(x.split(500), y.split(500), strict=True)
            ]
        )
    return {
        "natural_accuracy": _mean(margin > 0),
        "median_margin": float(margin.median()),
        "masked_share": _mean(margin > evaluation.MASKED_MARGIN),
        "zero_gradient_share": _mean(flat),
        "constant": bool((answers == answers[0]).all()),  # one answer to everything
    }


def _curvature(model: nn.Module, recipe: Recipe, device: str) -> dict[str, Any]:
    """Return training loss and accuracy, and the top Hessian eigenvalue."""
    size = min(recipe.hessian_size, recipe.train_size)
    x, y = _images(recipe, "train", size, device)
    found = hessian.top_eigenvalues(
        model, x, y, generator=stream(recipe.seed, "probes")
    )
    with torch.no_grad(), attacks.inference(model):
        logits = torch.cat([model(part) for part in x.split(500)])
    return {
        "final_train_loss": float(F.cross_entropy(logits.double(), y)),
        "train_accuracy": _mean(logits.argmax(1) == y),
        "top_eigenvalue": float(found.values[0]),
        "eigenvalue_residual": float(found.residuals[0]),
        "hessian_products": found.products,
        "eigenvalue_converged": found.converged,
        "hessian_images": size,
    }


def _robustness(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe
) -> dict[str, float]:
    """Return the accuracy under each attack in one set, and under all together."""
    fgsm = partial(attacks.fgsm, ball=ball)
    pgd = partial(
        attacks.pgd,
        ball=ball,
        steps=recipe.pgd_steps,
        step_size=2.5 * ball.epsilon / recipe.pgd_steps,  # Madry et al. 2018
        until_fooled=True,
    )
    ways: dict[str, evaluation.Attack] = {
        "fgsm": fgsm,
        "fgsm_clipped": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "fgsm_float64": partial(masking.fgsm_float64, ball=ball),
        "fgsm_margin": partial(fgsm, loss=attacks.margin),
        "fgsm_rescaled": partial(fgsm, loss=attacks.rescaled_cross_entropy),
        "pgd": partial(pgd, generator=stream(recipe.seed, "test")),
        "pgd_margin": partial(
            pgd, generator=stream(recipe.seed, "test"), loss=attacks.margin
        ),
    }
    right = evaluation.survivors(model, x, y, ways)
    worst = torch.stack(list(right.values())).all(0)
    columns = {f"{name}_accuracy": _mean(mask) for name, mask in right.items()}
    return columns | {"worst_accuracy": _mean(worst)}
