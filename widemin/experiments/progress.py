"""How far a set of runs is, and what those that nobody has made yet will take."""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widemin.experiments import disk
from widemin.experiments.columns import as_row
from widemin.experiments.results import computed, failed, published

if TYPE_CHECKING:
    from widemin.experiments.recipe import Recipe

Row = dict[str, Any]
# What a GPU is taken to do until one has been measured: an H200 at a twentieth of its
# 495 TFLOP/s in TF32, and no pass through a network in less than half a millisecond.
GPU_RATE, GPU_PASS = 0.05 * 495e12, 0.5e-3
# Measured on an H100 (book/results/benchmarks.csv): a step of networks side by side,
# and what it takes longer by each image of each network.
GPU_TOGETHER, GPU_STEP, GPU_IMAGE = 45, 120e-6, 1.45e-6


@dataclass(frozen=True)
class State:
    """How far a set of runs is; times are seconds of work."""

    planned: int
    done: int  # have rows, here or in the published tables
    running: int  # under way now, in any process on this machine
    failed: int  # raised when last tried
    diverged: int  # are done, and diverged or give one answer to everything
    stale: int  # were computed under an older revision, to be computed again
    spent: float
    left: float | None  # an estimate, as `seconds` makes it
    missing: tuple[Recipe, ...] = ()  # have no rows


def _parted(
    recipes: Sequence[Recipe], folder: Path
) -> tuple[list[Row], dict[str, Recipe], float | None]:
    """Return a row of each run that has some, the other recipes, and their seconds."""
    unique = {recipe.key: recipe for recipe in recipes}
    rows_by_key = published() | computed(recipes, folder)
    known = {key: rows[-1] for key, rows in rows_by_key.items() if rows}
    runs = [known[key] for key in unique if key in known]
    left = {key: recipe for key, recipe in unique.items() if key not in known}
    return runs, left, seconds(list(left.values()), list(known.values()))


def state(recipes: Sequence[Recipe], folder: Path) -> State:
    """Return the state of the recipes' runs."""
    runs, missing, left = _parted(recipes, folder)
    lost = [row for row in runs if True in (row.get("diverged"), row.get("constant"))]
    return State(
        planned=len(runs) + len(missing),
        done=len(runs),
        running=sum(_is_running(folder, key) for key in missing),
        failed=len(failed(folder).keys() & missing.keys()),
        diverged=len(lost),
        stale=_stale(missing.values(), folder),
        spent=sum(map(_spent, runs)),
        left=left,
        missing=tuple(missing.values()),
    )


def core_hours(recipes: Sequence[Recipe], folder: Path) -> float:
    """Return the hours of one core that runs take, those done and those to come.

    By what they took, or else as `State.left` estimates; NaN where nothing is known.
    """
    runs, _, left = _parted(recipes, folder)
    return math.nan if left is None else (sum(map(_spent, runs)) + left) / 3600


def _is_running(folder: Path, key: str) -> bool:
    path = folder / "locks" / f"{key}.lock"
    if not path.is_file():
        return False
    try:
        with disk.lock(path, timeout=0):
            return False
    except OSError as error:  # or another user's folder, which can only be read
        return isinstance(error, TimeoutError)


def _stale(recipes: Iterable[Recipe], folder: Path) -> int:
    """Return the number of recipes that have rows under another key."""
    wanted = [json.loads(json.dumps(as_row(recipe))) for recipe in recipes]
    stale = 0
    for path in (folder / "runs").glob("*.json") if wanted else ():
        # Other people's JSON, folders and what goes meanwhile are no rows.
        with contextlib.suppress(ValueError, LookupError, TypeError, OSError):
            row = dict(json.loads(path.read_bytes())["rows"][0])
            stale += any(recipe.items() <= row.items() for recipe in wanted)
    return stale


def _spent(row: Row) -> float:
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
        took[model] += _spent(row)
        gradients[model] += count
        # A network of somebody's own may have gone since.
        if count and "dataset" in row and ":" not in model:
            busy += _spent(row)
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
    """Return an estimate of the hours of one GPU that training takes.

    Of networks trained side by side by measured steps; of others, before any has run,
    by the operations of a gradient and the rates assumed above.

    >>> from widemin.experiments.recipe import Recipe
    >>> small = Recipe(model="mlp", train_size=1_000, epochs=36, batch_size=50)
    >>> round(3600 * gpu_hours([small]), 2)  # 720 passes of half a millisecond
    0.36
    """
    from widemin.experiments.train import family

    families: defaultdict[Any, list[Recipe]] = defaultdict(list)
    for key, recipe in {recipe.training_key: recipe for recipe in recipes}.items():
        families[family(recipe) or key].append(recipe)
    total = 0.0
    for together in families.values():
        first, size = together[0], len(together)
        steps = first.work / first.batch_size
        if size > 1:
            groups = math.ceil(size / GPU_TOGETHER)
            images = size * first.batch_size
            total += steps * (groups * GPU_STEP + images * GPU_IMAGE)
        else:
            total += max(_operations(first) / GPU_RATE, steps * GPU_PASS)
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
