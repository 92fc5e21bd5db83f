"""What runs that nobody has made yet will take, by what others took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widemin.experiments.recipe import Recipe

Row = dict[str, Any]
# What a GPU is taken to do until one has been measured: an H200 at a twentieth of its
# 495 TFLOP/s in TF32; no pass through a network in less than half a millisecond, but
# one of up to 45 small networks side by side, in a CUDA graph, in a fifth of that.
GPU_RATE, GPU_PASS = 0.05 * 495e12, 0.5e-3
GPU_TOGETHER, GPU_PASS_TOGETHER = 45, 0.1e-3


def spent(row: Row) -> float:
    """Return the seconds of work behind a row: training and measuring."""
    return float(row.get("train_seconds", 0) + row.get("measure_seconds", 0))


def seconds(recipes: Sequence[Recipe], known: Sequence[Row]) -> float | None:
    """Return an estimate of the seconds that runs take on one core, or None.

    By what known runs (a row of each) of the same network took, per gradient of an
    image; a network that nobody has run is taken to compute as fast as the known ones
    do, and for a second at least. None where no known run tells.
    """
    took: defaultdict[Any, float] = defaultdict(float)  # by network
    gradients: defaultdict[Any, float] = defaultdict(float)  # of single images
    busy, done = 0.0, 0.0  # seconds and operations of all networks
    # What a GPU took says nothing of a core; where there is nothing else, it must do.
    for row in [row for row in known if row.get("device") != "cuda"] or known:
        model = str(row.get("model"))
        count = row.get("gradients", 0) * row.get("train_size", 0)
        took[model] += spent(row)
        gradients[model] += count
        # A network of somebody's own may have gone since.
        if count and "dataset" in row and ":" not in model:
            busy += spent(row)
            done += count * operations(row["dataset"], model, int(row.get("width", 0)))
    total = 0.0
    for recipe in recipes:
        model = str(getattr(recipe, "model", None))
        if gradients[model]:
            total += recipe.work * took[model] / gradients[model]
        elif done and hasattr(recipe, "dataset"):
            total += max(1.0, _operations(recipe) * busy / done)
        else:
            return None
    return total


def gpu_hours(recipes: Sequence[Recipe]) -> float:
    """Return a guess of the hours of one GPU that training takes, before any has run.

    By the operations of a gradient and the rates assumed above.

    >>> from widemin.experiments.recipe import Recipe
    >>> small = Recipe(model="mlp", train_size=1_000, epochs=36, batch_size=50)
    >>> round(3600 * gpu_hours([small]), 2)  # 720 passes of half a millisecond
    0.36
    """
    from widemin.experiments.train_together import family

    families: defaultdict[Any, list[Recipe]] = defaultdict(list)
    for key, recipe in {recipe.training_key: recipe for recipe in recipes}.items():
        families[family(recipe) or key].append(recipe)
    total = 0.0
    for together in families.values():
        rounds = math.ceil(len(together) / GPU_TOGETHER)
        each = GPU_PASS if len(together) == 1 else GPU_PASS_TOGETHER * rounds
        passes = each * together[0].work / together[0].batch_size
        total += max(sum(map(_operations, together)) / GPU_RATE, passes)
    return total / 3600


def magnitude(recipe: Recipe) -> int:
    """Return the decade of the floating-point operations that training takes.

    >>> from widemin.experiments.recipe import Recipe
    >>> magnitude(Recipe(dataset="mnist", model="m1", train_size=60_000, epochs=120))
    13
    """
    return int(math.log10(_operations(recipe)))


def _operations(recipe: Recipe) -> float:
    return recipe.work * operations(recipe.dataset, recipe.model, recipe.width)


@cache
def operations(dataset: str, model: str, width: int = 0) -> float:
    """Return the floating-point operations of one image's gradient.

    Of convolutions and matrix products, one forwards and two backwards. The first
    layer's gradient by the image, which training does not need, is counted as well.

    >>> operations("mnist", "m1") / 6  # 288,000 + 640,000 + 160,000 + 5,000 products
    1093000.0
    """
    # Imported here: torch takes longer to import than a state takes to read.
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from widemin import data
    from widemin.experiments import own

    network = own.network(dataset, model, width, torch.Generator()).eval()
    image = torch.zeros(1, *data.DATASETS[dataset].shape, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        network(image).sum().backward()
    return float(counter.get_total_flops())
