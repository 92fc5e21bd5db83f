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


def spent(row: Row) -> float:
    """Return the seconds of work behind a row: training and measuring."""
    return float(row.get("train_seconds", 0) + row.get("measure_seconds", 0))


def seconds(recipes: Sequence[Any], known: Sequence[Row]) -> float | None:
    """Return an estimate of the seconds that runs take on one core, or None.

    By what known runs of the same network took, per gradient of an image; a network
    that nobody has run is taken to compute as fast as the known ones do, and for a
    second at least. None where no known run tells.

    Args:
        recipes: Of the runs to come.
        known: A row of each run that took place.
    """
    # What a GPU took says nothing of a core; where there is nothing else, it must do.
    known = [row for row in known if row.get("device") != "cuda"] or known
    each = _seconds_per_gradient(known)
    alike = [recipe for recipe in recipes if _model(recipe) in each]
    others = [recipe for recipe in recipes if _model(recipe) not in each]
    total = sum(recipe.work * each[_model(recipe)] for recipe in alike)
    if not others:
        return total
    rate = _operations_per_second(known)
    if not rate or not all(hasattr(recipe, "dataset") for recipe in others):
        return None
    return total + sum(max(1.0, r.work * _operations_of(r) / rate) for r in others)


def _model(recipe: Any) -> str:
    return str(getattr(recipe, "model", None))


def _gradients(row: Row) -> float:
    """Return the gradients of single images that a run's training took."""
    return float(row.get("gradients", 0) * row.get("train_size", 0))


def _seconds_per_gradient(known: Sequence[Row]) -> dict[str, float]:
    """Return the seconds of a gradient of an image, by the name of the network."""
    took: dict[str, float] = defaultdict(float)
    gradients: dict[str, float] = defaultdict(float)
    for row in known:
        took[str(row.get("model"))] += spent(row)
        gradients[str(row.get("model"))] += _gradients(row)
    return {model: took[model] / count for model, count in gradients.items() if count}


def _operations_per_second(known: Sequence[Row]) -> float:
    """Return the rate at which known runs of networks computed; 0 without any."""
    runs = [row for row in known if "dataset" in row and _gradients(row)]
    # A network of somebody's own may have gone since.
    runs = [row for row in runs if ":" not in row["model"]]
    done = sum(
        _gradients(row)
        * operations(row["dataset"], row["model"], int(row.get("width", 0)))
        for row in runs
    )
    return done / sum(map(spent, runs)) if done else 0.0


# What a GPU is taken to do until one has been measured: an H200 at a twentieth of its
# 495 TFLOP/s in TF32; no pass through a network in less than half a millisecond, but
# one of up to 45 small networks side by side, in a CUDA graph, in a fifth of that.
GPU_RATE, GPU_PASS = 0.05 * 495e12, 0.5e-3
GPU_TOGETHER, GPU_PASS_TOGETHER = 45, 0.1e-3


def gpu_hours(recipes: Sequence[Recipe]) -> float:
    """Return a guess of the hours of one GPU that training takes, before any has run.

    By the operations of a gradient and the rates assumed above.

    >>> from widemin.experiments.recipe import Recipe
    >>> small = Recipe(model="mlp", train_size=1_000, epochs=36, batch_size=50)
    >>> round(3600 * gpu_hours([small]), 2)  # 720 passes of half a millisecond
    0.36
    """
    from widemin.experiments.train_together import family

    once = {recipe.training_key: recipe for recipe in recipes}
    families: dict[Any, list[Recipe]] = {}
    for key, recipe in once.items():
        families.setdefault(family(recipe) or key, []).append(recipe)
    return sum(map(_gpu_seconds, families.values())) / 3600


def _gpu_seconds(together: list[Recipe]) -> float:
    """Return a guess of the seconds that training networks of one family takes."""
    calls = together[0].work / together[0].batch_size
    if len(together) > 1:
        rounds = -(-len(together) // GPU_TOGETHER)
        passes = calls * GPU_PASS_TOGETHER * rounds
    else:
        passes = calls * GPU_PASS
    work = sum(recipe.work for recipe in together)
    return max(work * _operations_of(together[0]) / GPU_RATE, passes)


def magnitude(recipe: Recipe) -> int:
    """Return the decade of the floating-point operations that training takes.

    >>> from widemin.experiments.recipe import Recipe
    >>> magnitude(Recipe(dataset="mnist", model="m1", train_size=60_000, epochs=120))
    13
    """
    return int(math.log10(recipe.work * _operations_of(recipe)))


def _operations_of(recipe: Recipe) -> float:
    return operations(recipe.dataset, recipe.model, recipe.width)


@cache
def operations(dataset: str, model: str, width: int = 0) -> float:
    """Return the floating-point operations of one image's gradient.

    Of convolutions and matrix products, one forwards and two backwards; torch's own
    counter gives the same, but takes seconds to import. The first layer's gradient by
    the image, which training does not need, is counted as well.

    >>> operations("mnist", "m1") / 6  # 288,000 + 640,000 + 160,000 + 5,000 products
    1093000.0
    """
    # Imported here: torch takes longer to import than a state takes to read.
    import torch

    from widemin import data
    from widemin.experiments import own

    network = own.network(dataset, model, width, torch.Generator()).eval()
    multiplied = 0

    def count(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal multiplied
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        multiplied += out.numel() * weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *data.DATASETS[dataset].shape))
    return 6.0 * multiplied
