"""How far a set of runs is: done, running, failed, stale, and the time that is left."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widemin.results import Keyed, Rows, computed, failed, published

if TYPE_CHECKING:
    from widemin.recipes import Recipe


@dataclass(frozen=True)
class State:
    """How far a set of runs is.

    Attributes:
        planned: Runs in all.
        done: Runs that have rows, here or in the published tables.
        running: Runs under way now, in any process on this machine.
        failed: Runs that raised when last tried.
        diverged: Done runs that diverged or give one answer to everything.
        stale: Runs computed under an older revision, to be computed again.
        spent: Seconds of work in what is done.
        left: Seconds of work left, by what runs of the same networks took, or else by
            their operations and those of any known run; None where none is known.
        missing: The recipes that have no rows.
    """

    planned: int
    done: int
    running: int
    failed: int
    diverged: int
    stale: int
    spent: float
    left: float | None
    missing: tuple[Any, ...] = ()


def state(recipes: Sequence[Keyed], folder: Path) -> State:
    """Return how far the recipes' runs are."""
    unique = {recipe.key: recipe for recipe in recipes}
    everything = published()
    found = everything | computed(unique.values(), folder)
    left = [unique[key] for key in unique if key not in found]
    runs = [found[key][-1] for key in unique if key in found]
    lost = [row for row in runs if True in (row.get("diverged"), row.get("constant"))]
    return State(
        planned=len(unique),
        done=len(runs),
        running=sum(_is_running(folder, recipe.key) for recipe in left),
        failed=len(failed(folder).keys() & {recipe.key for recipe in left}),
        diverged=len(lost),
        stale=_stale(left, folder),
        spent=sum(_seconds(row) for row in runs),
        missing=tuple(left),
        left=_seconds_of(left, [rows[-1] for rows in (everything | found).values()]),
    )


def core_hours(recipes: Sequence[Keyed], folder: Path) -> float:
    """Return the hours of one core that runs take, those done and those to come.

    By what they took, or else as `State.left` estimates; NaN where nothing is known.
    """
    found = state(recipes, folder)
    return math.nan if found.left is None else (found.spent + found.left) / 3600


# What a GPU is taken to do until one has been measured: an H200 at a twentieth of its
# 495 TFLOP/s in TF32; no pass through a network in less than half a millisecond, but
# one of up to 45 small networks side by side, in a CUDA graph, in a fifth of that.
GPU_RATE, GPU_PASS = 0.05 * 495e12, 0.5e-3
GPU_TOGETHER, GPU_PASS_TOGETHER = 45, 0.1e-3


def gpu_hours(recipes: Sequence[Recipe]) -> float:
    """Return a guess of the hours of one GPU that training takes, before any has run.

    By the operations of a gradient and the rates assumed above.

    >>> from widemin.recipes import Recipe
    >>> small = Recipe(model="mlp", train_size=1_000, epochs=36, batch_size=50)
    >>> round(3600 * gpu_hours([small]), 2)  # 720 passes of half a millisecond
    0.36
    """
    from widemin.fitting import family

    once = {recipe.training_key: recipe for recipe in recipes}
    families: dict[Any, list[Recipe]] = {}
    for key, recipe in once.items():
        families.setdefault(family(recipe) or key, []).append(recipe)
    seconds = 0.0
    for together in families.values():
        first, several = together[0], len(together) > 1
        work = sum(recipe.work for recipe in together)
        calls = first.work / first.batch_size
        passes = calls * GPU_PASS * len(together)
        if several:
            passes = calls * GPU_PASS_TOGETHER * -(-len(together) // GPU_TOGETHER)
        one = _operations(first.dataset, first.model, first.width)
        seconds += max(work * one / GPU_RATE, passes)
    return seconds / 3600


@cache
def _operations(dataset: str, model: str, width: int) -> float:
    """Return the floating-point operations of one image's gradient.

    Of convolutions and matrix products, one forwards and two backwards; torch's own
    counter gives the same, but takes seconds to import. The first layer's gradient by
    the image, which training does not need, is counted as well.
    """
    # Imported here: torch takes longer to import than a state takes to read.
    import torch

    from widemin import data
    from widemin.fitting import build
    from widemin.recipes import Recipe

    network = build(Recipe(dataset=dataset, model=model, width=width)).eval()
    multiplied = 0

    def count(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal multiplied
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        multiplied += out.numel() * weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    shape, _ = data.SHAPES[dataset]
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    return 6.0 * multiplied


def _seconds(row: dict[str, Any]) -> float:
    return float(row.get("train_seconds", 0) + row.get("measure_seconds", 0))


def _seconds_of(recipes: Sequence[Any], known: Rows) -> float | None:
    """Estimate what runs take from known ones of the same network, per gradient.

    A network that nobody has run is taken to compute as fast as the known ones do, and
    for a second at least.
    """
    took: dict[str, tuple[float, float]] = {}  # network: gradients of images, seconds
    for row in known:
        model = str(row.get("model"))
        gradients, seconds = took.get(model, (0.0, 0.0))
        more = row.get("gradients", 0) * row.get("train_size", 0)
        took[model] = gradients + more, seconds + _seconds(row)
    took = {model: found for model, found in took.items() if found[0]}
    total, unknown = 0.0, []
    for recipe in recipes:
        model = str(getattr(recipe, "model", None))
        gradients, seconds = took.get(model, (0.0, 0.0))
        if gradients:
            total += recipe.work * seconds / gradients
        else:
            unknown.append(recipe)
    if not unknown:
        return total
    if not all(hasattr(recipe, "dataset") for recipe in unknown):
        return None
    done = 0.0
    networks = {str(row.get("model")): row for row in known if "dataset" in row}
    for model in took.keys() & networks.keys():
        row = networks[model]
        one = _operations(row["dataset"], model, int(row.get("width", 0)))
        done += took[model][0] * one
    if not done:
        return None
    rate = done / sum(took[model][1] for model in took.keys() & networks.keys())
    return total + sum(
        max(1.0, r.work * _operations(r.dataset, r.model, r.width) / rate)
        for r in unknown
    )


def _is_running(folder: Path, key: str) -> bool:
    from filelock import FileLock, Timeout

    path = folder / "locks" / f"{key}.lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _stale(recipes: Sequence[Keyed], folder: Path) -> int:
    """Return how many of the recipes have rows under another key."""
    wanted = [json.loads(json.dumps(asdict(recipe))) for recipe in recipes]
    stale = 0
    for path in (folder / "runs").glob("*.json") if wanted else ():
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            row = json.loads(path.read_bytes())["rows"][0]
            stale += any(recipe.items() <= row.items() for recipe in wanted)
    return stale
