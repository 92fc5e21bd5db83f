"""A recipe's network trained, alone or beside others.

A training under way is kept every minute, and at once when it is asked to stop; it
goes on bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widemin import data, ensemble, models, paths, training, workers
from widemin.attacks import NonFiniteError
from widemin.inner import step_at
from widemin.recipes import MEASURED_BY, Recipe, stream
from widemin.samples import images
from widemin.watching import watcher

Curve = list[dict[str, Any]]  # a row per epoch
Facts = dict[str, Any]  # diverged, train_seconds, gradients per image
Trained = tuple[nn.Module, Curve, Facts]

CHECKPOINT_SECONDS = 60
# Fields in which networks trained side by side may differ.
VARIED = ("learning_rate", "momentum", "weight_decay", "seed")
_DRAWN_IN_TRAINING = ("batches", "augment", "attack")


def spent_seconds(device: str) -> float:
    """Return a clock of work: on a CPU core seconds, whatever else the machine does."""
    return time.perf_counter() if device == "cuda" else time.process_time()


def build(recipe: Recipe) -> nn.Module:
    """Return a recipe's network before training."""
    shape, classes = data.SHAPES[recipe.dataset]
    return models.build(
        recipe.model,
        stream(recipe.seed, "weights"),
        shape=shape,
        classes=classes,
        width=recipe.width or None,
        statistics=data.STATISTICS.get(recipe.dataset),
    )


@dataclass
class _Progress:
    """A training under way: everything that, kept, lets it go on bit for bit."""

    model: nn.Module
    optimizer: training.Optimizer
    generators: dict[str, torch.Generator]
    position: training.Position
    curve: Curve
    gradients: int  # taken so far, of images: input and weight gradients alike
    seconds: float

    def save(self, path: Path) -> None:
        """Write everything to one file, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {k: g.get_state() for k, g in self.generators.items()},
            "global": torch.get_rng_state(),  # dropout draws from it, or
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
            "position": vars(self.position),
            "curve": self.curve,
            "gradients": self.gradients,
            "seconds": self.seconds,
        }
        with paths.atomic(path) as part:
            torch.save(state, part)

    def load(self, path: Path, device: str) -> None:
        """Go on from a file of `save`, if it is there."""
        state = _read_checkpoint(path, device)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the schedule multiplies the first one
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())
        torch.set_rng_state(state["global"].cpu())
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu())
        self.position = training.Position(**state["position"])
        self.curve, self.gradients = state["curve"], state["gradients"]
        self.seconds = state["seconds"]


def _read_checkpoint(path: Path, device: str) -> dict[str, Any] | None:
    """Return what a checkpoint holds, if it is there; set a broken one aside."""
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except FileNotFoundError:
        return None
    except Exception as error:  # torch raises many kinds
        path.replace(path.with_suffix(".broken"))
        warnings.warn(
            f"{path.name} is not a checkpoint ({error}); set aside, its training "
            "starts again",
            stacklevel=3,
        )
        return None


def share_done(checkpoint: Path, recipe: Recipe) -> float:
    """Return how much of a recipe's training a checkpoint of `train` has, in [0, 1)."""
    state = _read_checkpoint(checkpoint, "cpu")
    if state is None:
        return 0.0
    now = training.Position(**state["position"])
    steps = now.order is not None and -(-len(now.order) // recipe.batch_size)
    return (now.epoch + (now.batch / steps if steps else 0.0)) / recipe.epochs


def train(
    model: nn.Module, recipe: Recipe, device: str, checkpoint: Path | None = None
) -> tuple[Curve, Facts]:
    """Train a network in place; return its learning curve and what it took.

    Args:
        model: Freshly built.
        recipe: What to do.
        device: cpu or cuda.
        checkpoint: File from which to go on, if it is there, and in which to keep how
            far training is: every minute, and when asked to stop.

    Raises:
        Stopped: Training was asked to stop; the checkpoint has all of it.
    """
    x, y = images(recipe, "train", recipe.train_size, device)
    watched = watcher(recipe, device)
    optimizer = _optimizer(model, recipe)
    streams = {name: stream(recipe.seed, name) for name in _DRAWN_IN_TRAINING}
    now = _Progress(model, optimizer, streams, training.Position(), [], 0, 0.0)
    diverged = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(recipe.seed, "dropout").initial_seed())
        if checkpoint:
            now.load(checkpoint, device)
        started, kept = spent_seconds(device), time.monotonic()

        def count(gradients: int) -> None:
            now.gradients += gradients

        def pause() -> None:
            nonlocal started, kept
            asked = workers.stopping.is_set()
            if checkpoint and (asked or time.monotonic() - kept > CHECKPOINT_SECONDS):
                now.seconds += spent_seconds(device) - started
                now.save(checkpoint)
                started, kept = spent_seconds(device), time.monotonic()
            if asked:
                raise workers.Stopped

        epochs = training.fit(
            model,
            optimizer,
            x,
            y,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            generator=streams["batches"],
            step_at=step_at(recipe, model, optimizer, streams["attack"], count),
            schedule=recipe.schedule,
            rate_decay=recipe.rate_decay,
            augment=_augment(recipe, streams["augment"]),
            position=now.position,
            pause=pause,
        )
        try:
            for epoch, loss in epochs:
                now.seconds += spent_seconds(device) - started
                now.gradients += len(x) * (2 if recipe.rho else 1)
                if not math.isfinite(loss):
                    raise NonFiniteError("training loss is not finite")
                row = {"epoch": epoch, "train_loss": loss}
                now.curve.append(row | watched(model, epoch))
                started = spent_seconds(device)
        except NonFiniteError:
            diverged = True
    facts = {
        "diverged": diverged,
        "train_seconds": now.seconds,
        "gradients": now.gradients / len(x),
    }
    return now.curve, facts


def family(recipe: Recipe) -> Recipe | None:
    """Return what recipes share whose networks can be trained side by side, or None."""
    plain = recipe.method == "standard" and recipe.optimizer == "sgd"
    plain = plain and not (recipe.augment or recipe.label_smoothing)
    if not plain or recipe.model != "m1":
        return None
    own: dict[str, Any] = {
        field.name: field.default
        for field in dataclasses.fields(Recipe)
        if field.name in VARIED + MEASURED_BY
    }
    return dataclasses.replace(recipe, **own)


def train_together(
    recipes: Sequence[Recipe], device: str, checkpoint: Path
) -> list[Trained]:
    """Train networks side by side; return each with its curve and what it took.

    Args:
        recipes: Of one `family`: they differ in rates and seeds alone.
        device: cpu or cuda.
        checkpoint: As of `train`, kept after an epoch.

    Raises:
        Stopped: Training was asked to stop; a checkpoint has all of it.
    """
    first = recipes[0]
    x, y = images(first, "train", first.train_size, device)
    watched = watcher(first, device)
    networks = [build(recipe).to(torch.device(device)) for recipe in recipes]
    group = ensemble.Together(
        networks,
        [recipe.learning_rate for recipe in recipes],
        [recipe.momentum for recipe in recipes],
        [recipe.weight_decay for recipe in recipes],
    )
    streams = [stream(recipe.seed, "batches") for recipe in recipes]
    curves: list[Curve] = [[] for _ in recipes]
    steps, done, seconds = -(-len(x) // first.batch_size), 0, 0.0
    if state := _read_checkpoint(checkpoint, device):
        group.weights.copy_(state["weights"])
        group.velocity.copy_(state["velocity"])
        for generator, kept in zip(streams, state["generators"], strict=True):
            generator.set_state(kept.cpu())
        curves, done, seconds = state["curves"], state["done"], state["seconds"]
    last = time.monotonic()
    for epoch in range(done + 1, first.epochs + 1):
        started = spent_seconds(device)
        orders = torch.stack([torch.randperm(len(x), generator=g) for g in streams])
        at = [((epoch - 1) * steps + i) / (first.epochs * steps) for i in range(steps)]
        factors = torch.tensor([training.SCHEDULES[first.schedule](t) for t in at])
        losses = group.epoch(x, y, orders.to(x.device), first.batch_size, factors.to(x))
        found = losses.tolist()
        seconds += spent_seconds(device) - started
        for network, curve, loss in zip(networks, curves, found, strict=True):
            if len(curve) < epoch - 1 or not math.isfinite(loss):
                continue  # diverged, now or before
            row = {"epoch": epoch, "train_loss": loss}
            curve.append(row | watched(network, epoch))
        asked = workers.stopping.is_set()
        if asked or time.monotonic() - last > CHECKPOINT_SECONDS:
            state = {
                "weights": group.weights,
                "velocity": group.velocity,
                "generators": [generator.get_state() for generator in streams],
                "curves": curves,
                "done": epoch,
                "seconds": seconds,
            }
            with paths.atomic(checkpoint) as part:
                torch.save(state, part)
            last = time.monotonic()
        if asked:
            raise workers.Stopped
    return [
        (
            network,
            curve,
            {
                "diverged": len(curve) < first.epochs,
                "train_seconds": seconds / len(recipes),
                "gradients": float(len(curve)),
            },
        )
        for network, curve in zip(networks, curves, strict=True)
    ]


def _augment(recipe: Recipe, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    if recipe.augment == "turn+shift+flip":
        return partial(data.turn, generator=generator)
    if recipe.augment:
        padding = 4 if recipe.augment == "crop+flip" else 0
        return partial(data.augment, generator=generator, padding=padding)
    return lambda x: x


def _optimizer(model: nn.Module, recipe: Recipe) -> training.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    return training.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay
    )
