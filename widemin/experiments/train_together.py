"""Networks that differ in rates and seeds alone, trained side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widemin import training
from widemin.data import images
from widemin.experiments import pool, side_by_side
from widemin.experiments.epoch_metrics import watcher_together
from widemin.experiments.recipe import MEASURED_BY, Recipe, stream
from widemin.experiments.train import (
    CHECKPOINT_SECONDS,
    Curve,
    Trained,
    build,
    resumed,
    spent_seconds,
    write_checkpoint,
)

# Fields in which networks trained side by side may differ.
VARIED = ("learning_rate", "momentum", "weight_decay", "seed")


def family(recipe: Recipe) -> Recipe | None:
    """Return the recipe that those trained side by side have in common, or None."""
    plain = recipe.method == "standard" and recipe.optimizer == "sgd"
    plain = plain and not (recipe.augment or recipe.label_smoothing)
    if not plain or recipe.model != "m1":
        return None
    return recipe.without(*VARIED, *MEASURED_BY)


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
    x, y = images(first.dataset, "train", first.train_size, device)
    watched = watcher_together(first, device)
    networks, now = _side_by_side(recipes, device)
    if not resumed(checkpoint, device, now.restore):
        networks, now = _side_by_side(recipes, device)
    steps, last = -(-len(x) // first.batch_size), time.monotonic()
    for epoch in range(now.done + 1, first.epochs + 1):
        started = spent_seconds(device)
        orders = [torch.randperm(len(x), generator=g) for g in now.generators]
        at = [((epoch - 1) * steps + i) / (first.epochs * steps) for i in range(steps)]
        factors = torch.tensor([training.SCHEDULES[first.schedule](t) for t in at])
        losses = now.group.epoch(
            x, y, torch.stack(orders).to(x.device), first.batch_size, factors.to(x)
        )
        found = losses.tolist()
        now.seconds += spent_seconds(device) - started
        for curve, loss, row in zip(now.curves, found, watched(now.group), strict=True):
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
    for network, curve in zip(networks, now.curves, strict=True):
        facts = {"diverged": len(curve) < first.epochs, "gradients": float(len(curve))}
        facts["train_seconds"] = now.seconds / len(recipes)
        trained.append((network, curve, facts))
    return trained


@dataclass
class _Together:
    """Networks trained side by side: everything a bit-exact resume needs."""

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


def _side_by_side(
    recipes: Sequence[Recipe], device: str
) -> tuple[list[nn.Module], _Together]:
    """Return networks before training, and their training not begun."""
    networks = [build(recipe).to(torch.device(device)) for recipe in recipes]
    rates = [[getattr(recipe, name) for recipe in recipes] for name in VARIED[:3]]
    group = side_by_side.Together(networks, *rates)
    generators = [stream(recipe.seed, "batches") for recipe in recipes]
    return networks, _Together(group, generators, [[] for _ in recipes])
