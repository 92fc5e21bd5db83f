"""How far a set of runs is: done, running, failed, stale, and the time that is left."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widemin.experiments import cost, disk
from widemin.experiments.columns import as_row
from widemin.experiments.results import computed, failed, published

if TYPE_CHECKING:
    from widemin.experiments.recipe import Recipe


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
    left: float | None  # an estimate, as `cost.seconds` makes it
    missing: tuple[Recipe, ...] = ()  # have no rows


def _parted(
    recipes: Sequence[Recipe], folder: Path
) -> tuple[list[dict[str, Any]], dict[str, Recipe], float | None]:
    """Return a row of each run that has some, the other recipes, and their seconds."""
    unique = {recipe.key: recipe for recipe in recipes}
    found = published() | computed(recipes, folder)
    known = {key: rows[-1] for key, rows in found.items() if rows}
    runs = [known[key] for key in unique if key in known]
    left = {key: recipe for key, recipe in unique.items() if key not in known}
    return runs, left, cost.seconds(list(left.values()), list(known.values()))


def state(recipes: Sequence[Recipe], folder: Path) -> State:
    """Return the state of the recipes' runs."""
    runs, left, seconds = _parted(recipes, folder)
    lost = [row for row in runs if True in (row.get("diverged"), row.get("constant"))]
    return State(
        planned=len(runs) + len(left),
        done=len(runs),
        running=sum(_is_running(folder, key) for key in left),
        failed=len(failed(folder).keys() & left.keys()),
        diverged=len(lost),
        stale=_stale(left.values(), folder),
        spent=sum(map(cost.spent, runs)),
        left=seconds,
        missing=tuple(left.values()),
    )


def core_hours(recipes: Sequence[Recipe], folder: Path) -> float:
    """Return the hours of one core that runs take, those done and those to come.

    By what they took, or else as `State.left` estimates; NaN where nothing is known.
    """
    runs, _, left = _parted(recipes, folder)
    return math.nan if left is None else (sum(map(cost.spent, runs)) + left) / 3600


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
