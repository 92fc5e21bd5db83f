"""How far a set of runs is: done, running, failed, stale, and the time that is left."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from widemin import paths
from widemin.experiments import cost
from widemin.experiments.columns import as_row
from widemin.experiments.results import Keyed, computed, failed, published

K = TypeVar("K", bound=Keyed)


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


def known(recipes: Sequence[Keyed], folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last row of all published runs and of the recipes' own, by key."""
    found = published() | computed(recipes, folder)
    return {key: rows[-1] for key, rows in found.items() if rows}


def _parted(
    recipes: Sequence[K], folder: Path
) -> tuple[list[dict[str, Any]], list[K], float | None]:
    """Return a row of each run that has some, the other recipes, and their seconds."""
    unique = {recipe.key: recipe for recipe in recipes}
    found = known(recipes, folder)
    runs = [found[key] for key in unique if key in found]
    left = [recipe for key, recipe in unique.items() if key not in found]
    return runs, left, cost.seconds(left, list(found.values()))


def state(recipes: Sequence[Keyed], folder: Path) -> State:
    """Return how far the recipes' runs are."""
    runs, left, seconds = _parted(recipes, folder)
    lost = [row for row in runs if True in (row.get("diverged"), row.get("constant"))]
    return State(
        planned=len(runs) + len(left),
        done=len(runs),
        running=sum(_is_running(folder, recipe.key) for recipe in left),
        failed=len(failed(folder).keys() & {recipe.key for recipe in left}),
        diverged=len(lost),
        stale=_stale(left, folder),
        spent=sum(map(cost.spent, runs)),
        missing=tuple(left),
        left=seconds,
    )


def core_hours(recipes: Sequence[Keyed], folder: Path) -> float:
    """Return the hours of one core that runs take, those done and those to come.

    By what they took, or else as `State.left` estimates; NaN where nothing is known.
    """
    runs, _, seconds = _parted(recipes, folder)
    spent = sum(map(cost.spent, runs))
    return math.nan if seconds is None else (spent + seconds) / 3600


def _is_running(folder: Path, key: str) -> bool:
    from filelock import Timeout

    path = folder / "locks" / f"{key}.lock"
    if path.is_file():
        try:
            with paths.lock(path, timeout=0):
                pass
        except Timeout:
            return True
        except OSError:  # another user's folder, which can only be read
            pass
    return False


def _stale(recipes: Sequence[Keyed], folder: Path) -> int:
    """Return how many of the recipes have rows under another key."""
    wanted = [json.loads(json.dumps(as_row(recipe))) for recipe in recipes]
    stale = 0
    for path in (folder / "runs").glob("*.json") if wanted else ():
        # Other people's JSON, folders and what goes meanwhile are no rows.
        with contextlib.suppress(ValueError, LookupError, TypeError, OSError):
            row = dict(json.loads(path.read_bytes())["rows"][0])
            stale += any(recipe.items() <= row.items() for recipe in wanted)
    return stale
