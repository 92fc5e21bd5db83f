"""A network before training, a clock, and what a run left off leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widemin import data, models, paths
from widemin.experiments.recipes import Recipe, sources, stream

Curve = list[dict[str, Any]]  # a row per epoch
Facts = dict[str, Any]  # diverged, train_seconds, gradients per image
Trained = tuple[nn.Module, Curve, Facts]

CHECKPOINT_SECONDS = 60


def spent_seconds(device: str) -> float:
    """Return a clock of work: on a CPU core seconds, whatever else the machine does."""
    return time.perf_counter() if device == "cuda" else time.process_time()


def build(recipe: Recipe) -> nn.Module:
    """Return a recipe's network before training; from here on float32 is no TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if sources(recipe) != recipe.sources:
        raise ValueError(
            f"the file of model {recipe.model!r} must stay as it was when the recipe "
            "was made; got a changed one: begin again"
        )
    shape, classes = data.SHAPES[recipe.dataset]
    return models.build(
        recipe.model,
        stream(recipe.seed, "weights"),
        shape=shape,
        classes=classes,
        width=recipe.width or None,
        statistics=data.STATISTICS.get(recipe.dataset),
    )


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write what is under way, in training or measuring, whole or not at all."""
    with paths.atomic(path) as part:
        torch.save(state, part)


def read_checkpoint(path: Path, device: str) -> dict[str, Any] | None:
    """Return what a checkpoint holds, if it is there; set a broken one aside."""
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except FileNotFoundError:
        return None
    except (PermissionError, MemoryError, torch.OutOfMemoryError):  # it may be whole
        raise
    except Exception as error:  # torch raises many kinds
        paths.set_aside(path, "a checkpoint", error)
        return None


def resumed(path: Path, device: str, restore: Callable[[dict[str, Any]], None]) -> bool:
    """Restore what a checkpoint holds, if it is there.

    Args:
        path: Of the checkpoint.
        device: cpu or cuda.
        restore: Puts what it holds where it belongs.

    Returns:
        False where it does not fit, of another version or another network, and is set
        aside: what is restored in part must then begin afresh.
    """
    state = read_checkpoint(path, device)
    try:
        if state is not None:
            restore(state)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        paths.set_aside(path, "a checkpoint of this network", error)
        return False
    return True
