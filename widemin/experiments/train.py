"""Networks of recipes trained: one alone, or those that can side by side.

A training under way is kept every minute, and at once when it is asked to stop; it
goes on bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin import attacks, data, training
from widemin.attacks import NonFiniteError
from widemin.data import images
from widemin.experiments import disk, own, pool, side_by_side
from widemin.experiments.attack_schedule import step_at
from widemin.experiments.epoch_metrics import watcher, watcher_together
from widemin.experiments.recipe import MEASURED_BY, Recipe, stream
from widemin.seeding import seeded

Curve = list[dict[str, Any]]  # a row per epoch
Facts = dict[str, Any]  # diverged, train_seconds, gradients per image
Trained = tuple[nn.Module, Curve, Facts]

CHECKPOINT_SECONDS = 60
NUDGE = 1e-7  # of each weight, about float32's own rounding
LOOKS, LOOKED_AT = 10, 1_000  # at the loss in an epoch; the first images, at most


class _LowEnough(Exception):
    """The training loss is as low as the recipe asks."""


def spent_seconds(device: str) -> float:
    """Return a clock of work: on a CPU core seconds, whatever else the machine does."""
    return time.perf_counter() if device == "cuda" else time.process_time()


def build(recipe: Recipe) -> nn.Module:
    """Return a recipe's network before training; from here on float32 is no TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    weights = stream(recipe.seed, "weights")
    network = own.network(recipe.dataset, recipe.model, recipe.width, weights)
    if recipe.nudge:
        draws = stream(recipe.seed, f"nudge {recipe.nudge}")
        with torch.no_grad():
            for p in network.parameters():
                p.add_(NUDGE * p.abs() * torch.randn(p.shape, generator=draws))
    return network


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write what is under way, in training or measuring, whole or not at all."""
    with disk.atomic(path) as part:
        torch.save(state, part)


def read_checkpoint(path: Path, device: str) -> dict[str, Any] | None:
    """Return the content of a checkpoint, if it is there; set a broken one aside."""
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except FileNotFoundError:
        return None
    except (PermissionError, MemoryError, torch.OutOfMemoryError):  # it may be whole
        raise
    except Exception as error:  # torch raises many kinds
        disk.set_aside(path, "a checkpoint", error)
        return None


@dataclass
class _Progress:
    """A training under way: everything a bit-exact resume needs."""

    model: nn.Module
    optimizer: training.Optimizer
    generators: dict[str, torch.Generator]
    position: training.Position
    curve: Curve
    gradients: int  # taken so far, of images: input and weight gradients alike
    seconds: float
    key: str  # of the training

    def save(self, path: Path) -> None:
        """Write everything to one file."""
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
            "key": self.key,
        }
        write_checkpoint(path, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `save` wrote."""
        if state.get("key", self.key) != self.key:
            raise ValueError("it is of another training")
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


Training = TypeVar("Training", _Progress, "_Together")


def _resumed(begin: Callable[[], Training], path: Path | None, device: str) -> Training:
    """Return a training as its checkpoint left it, or else as it begins.

    A checkpoint that does not fit, of another version or network, is set aside; what
    it has restored in part begins afresh.
    """
    state, now = read_checkpoint(path, device) if path else None, begin()
    try:
        if state is not None:
            now.restore(state)
        return now
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        assert path is not None
        disk.set_aside(path, "a checkpoint of this network", error)
        return begin()


def share_done(checkpoint: Path, recipe: Recipe) -> float:
    """Return the share of a recipe's training in a checkpoint of `train`, in [0, 1)."""
    state = read_checkpoint(checkpoint, "cpu") or {}
    try:
        now = training.Position(**state["position"])
    except (LookupError, TypeError):  # none, or of another version
        return 0.0
    steps = now.order is not None and -(-len(now.order) // recipe.batch_size)
    return (now.epoch + (now.batch / steps if steps else 0.0)) / recipe.epochs


def train(
    model: nn.Module, recipe: Recipe, device: str, checkpoint: Path | None = None
) -> tuple[Curve, Facts]:
    """Train a freshly built network in place; return its learning curve and its cost.

    The checkpoint is the file from which to go on, if it is there, and in which to keep
    how far training is: every minute, and when asked to stop.

    Raises:
        Stopped: Training was asked to stop; the checkpoint has all of it.
    """
    x, y = images(recipe.dataset, "train", recipe.train_size, device)
    watched, few = watcher(recipe, device), slice(LOOKED_AT)
    every = max(1, len(x) // recipe.batch_size // LOOKS)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    diverged, stopped = False, 0.0
    with seeded(stream(recipe.seed, "dropout").initial_seed()):
        now = _resumed(partial(_beginning, model, fresh, recipe), checkpoint, device)
        optimizer, streams = now.optimizer, now.generators
        started, kept = spent_seconds(device), time.monotonic()

        def count(gradients: int) -> None:
            now.gradients += gradients

        def pause() -> None:
            nonlocal started, kept
            if recipe.stop_loss and now.position.batch % every == 0:
                if _loss(model, x[few], y[few]) <= recipe.stop_loss:
                    raise _LowEnough
            asked = pool.stopping.is_set()
            if checkpoint and (asked or time.monotonic() - kept > CHECKPOINT_SECONDS):
                now.seconds += spent_seconds(device) - started
                now.save(checkpoint)
                started, kept = spent_seconds(device), time.monotonic()
            if asked:
                raise pool.Stopped

        def after_epoch(epoch: int, loss: float) -> None:
            nonlocal started
            now.seconds += spent_seconds(device) - started
            now.gradients += len(x)
            if math.isfinite(loss):
                row = {"epoch": epoch, "train_loss": loss}
                now.curve.append(row | watched(model, epoch))
            started = spent_seconds(device)

        try:
            training.fit(
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
                after_epoch=after_epoch,
            )
        except NonFiniteError:
            diverged = True
        except _LowEnough:
            now.seconds += spent_seconds(device) - started
            seen = min(now.position.batch * recipe.batch_size, len(x))
            now.gradients += seen
            stopped = now.position.epoch + seen / len(x)
    facts = {
        "diverged": diverged,
        "train_seconds": now.seconds,
        "gradients": now.gradients / len(x),
    }
    return now.curve, facts | ({"stopped_epoch": stopped} if stopped else {})


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the mean cross-entropy of images in inference mode."""
    with attacks.inference(model), torch.no_grad():
        return float(F.cross_entropy(model(x), y))


def _beginning(model: nn.Module, fresh: dict[str, Any], recipe: Recipe) -> _Progress:
    """Return a training not begun, its weights and the global generator as then."""
    model.load_state_dict(fresh)
    torch.manual_seed(stream(recipe.seed, "dropout").initial_seed())
    drawn = ("batches", "augment", "attack")
    streams = {name: stream(recipe.seed, name) for name in drawn}
    start, key = training.Position(), recipe.training_key
    return _Progress(model, _optimizer(model, recipe), streams, start, [], 0, 0.0, key)


def _augment(recipe: Recipe, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    if not recipe.augment:
        return lambda x: x
    if recipe.augment == "turn+shift+flip":
        return partial(data.turn, generator=generator)
    padding = 4 if recipe.augment == "crop+flip" else 0
    return partial(data.augment, generator=generator, padding=padding)


def _optimizer(model: nn.Module, recipe: Recipe) -> training.Optimizer:
    weights, rate, decay = model.parameters(), recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(weights, rate, weight_decay=decay)
    return training.SGD(weights, rate, recipe.momentum, decay)


# Fields in which networks trained side by side may differ.
VARIED = ("learning_rate", "momentum", "weight_decay", "seed")


def family(recipe: Recipe) -> Recipe | None:
    """Return the recipe that those trained side by side have in common, or None."""
    kind = recipe.model, recipe.method, recipe.optimizer
    other = recipe.own_loss or recipe.stop_loss or recipe.nudge
    if kind != ("m1", "standard", "sgd") or recipe.augment or other:
        return None
    return recipe.without(*VARIED, *MEASURED_BY)


def train_together(
    recipes: Sequence[Recipe], device: str, checkpoint: Path
) -> list[Trained]:
    """Train networks of one `family` side by side; return each with curve and cost.

    The checkpoint is as of `train`, kept after an epoch.
    """
    first = recipes[0]
    x, y = images(first.dataset, "train", first.train_size, device)
    watched = watcher_together(first, device)
    now = _resumed(partial(_side_by_side, recipes, device), checkpoint, device)
    steps, last = -(-len(x) // first.batch_size), time.monotonic()
    for epoch in range(now.done + 1, first.epochs + 1):
        started = spent_seconds(device)
        orders = [torch.randperm(len(x), generator=g) for g in now.generators]
        at = [((epoch - 1) * steps + i) / (first.epochs * steps) for i in range(steps)]
        factors = torch.tensor([training.SCHEDULES[first.schedule](t) for t in at])
        losses = now.group.epoch(
            x, y, torch.stack(orders).to(x.device), first.batch_size, factors.to(x)
        )
        mean = losses.tolist()
        now.seconds += spent_seconds(device) - started
        for curve, loss, row in zip(now.curves, mean, watched(now.group), strict=True):
            # Else diverged, now or before: the others go on.
            if len(curve) == epoch - 1 and math.isfinite(loss) and row is not None:
                curve.append({"epoch": epoch, "train_loss": loss} | row)
        now.done = epoch
        asked = pool.stopping.is_set()
        if asked or time.monotonic() - last > CHECKPOINT_SECONDS:
            now.save(checkpoint)
            last = time.monotonic()
        if asked:
            raise pool.Stopped
    trained = []
    for network, curve in zip(now.networks, now.curves, strict=True):
        facts = {"diverged": len(curve) < first.epochs, "gradients": float(len(curve))}
        facts["train_seconds"] = now.seconds / len(recipes)
        trained.append((network, curve, facts))
    return trained


@dataclass
class _Together:
    """Networks trained side by side: everything a bit-exact resume needs."""

    networks: list[nn.Module]
    group: side_by_side.Together
    generators: list[torch.Generator]
    curves: list[Curve]
    done: int = 0  # epochs
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write everything to one file."""
        state = {
            "matrices": self.group.weights,  # each with its bias as a column
            "velocity": self.group.velocity,
            "generators": [generator.get_state() for generator in self.generators],
            "curves": self.curves,
            "done": self.done,
            "seconds": self.seconds,
        }
        write_checkpoint(path, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `save` wrote."""
        self.group.weights.copy_(state["matrices"])
        self.group.velocity.copy_(state["velocity"])
        for generator, kept in zip(self.generators, state["generators"], strict=True):
            generator.set_state(kept.cpu())
        self.curves, self.done = state["curves"], state["done"]
        self.seconds = state["seconds"]


def _side_by_side(recipes: Sequence[Recipe], device: str) -> _Together:
    """Return a training not begun."""
    networks = [build(recipe).to(torch.device(device)) for recipe in recipes]
    rates = [[getattr(recipe, name) for recipe in recipes] for name in VARIED[:3]]
    group = side_by_side.Together(networks, *rates)
    generators = [stream(recipe.seed, "batches") for recipe in recipes]
    return _Together(networks, group, generators, [[] for _ in recipes])
