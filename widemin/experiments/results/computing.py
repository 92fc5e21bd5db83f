"""Only what is missing is computed, and each run kept at once."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click
import pandas as pd

from widemin.experiments import disk
from widemin.experiments.cluster import on_cluster
from widemin.experiments.pool import Busy, Failure, local
from widemin.experiments.provenance import provenance
from widemin.experiments.results.kept import (
    Keyed,
    Rows,
    finished,
    missing,
    write,
    write_failure,
)
from widemin.experiments.results.tables import table_of


class Incomplete(RuntimeError):
    """Some runs failed; the message names each with its error."""


def progress_bar(length: int, label: str) -> Any:
    """Return a progress bar with the time left; without a terminal it is silent."""
    return click.progressbar(
        length=length,
        label=label,
        file=sys.stderr,
        show_eta=True,
        show_pos=True,
        hidden=not (length and sys.stderr.isatty()),
    )


def compute_once(
    recipe: Keyed,
    *,
    run: Callable[[Any], Rows],
    folder: Path,
    device: str,
    again: bool = False,
) -> Rows:
    """Return a run's rows with their provenance, kept; a worker's part of `collect`.

    Raises:
        Busy: Another process computes it now.
    """
    from filelock import Timeout

    try:
        with disk.lock(folder / "locks" / f"{recipe.key}.lock", timeout=0):
            kept = {} if again else finished(folder, [recipe.key])
            if kept:  # by another process, meanwhile
                return kept[recipe.key]
            # A run measured again in part keeps where the rest was computed.
            rows = [row | provenance(device) | row for row in run(recipe)]
            # Before the lock is free, or another process might compute them again.
            with contextlib.suppress(OSError):  # `collect` tries again, and says why
                write(folder, recipe.key, rows)
            return rows
    except Timeout:
        raise Busy from None


def collect(
    recipes: Sequence[Keyed],
    run: Callable[[Any], Rows],
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    cluster: str = "",
    until: float | None = None,
    label: str = "",
    again: bool = False,
) -> pd.DataFrame:
    """Return the recipes' rows; compute those that are missing, each saved at once.

    Args:
        recipes: What the table is made of, in the order to compute it.
        run: Recipe to rows; a module-level function or a partial of one.
        folder: Where finished runs are kept.
        device: cpu or cuda; "none" computes nothing and only reads.
        workers: Processes; 0 is one per core, or one per GPU.
        cluster: Address of a Dask scheduler whose workers compute instead.
        until: When to stop, as of time.time(): what is unfinished then is kept as far
            as it is, and the table has what there is.
        label: Of the progress bar, which shows on a terminal alone.
        again: Runs that have rows are computed again; theirs are replaced.

    Raises:
        Incomplete: A run raised; the others are finished and kept.
    """
    todo = list(recipes) if again else missing(recipes, folder)
    todo = [] if device == "none" else todo
    work = partial(compute_once, run=run, folder=folder, device=device, again=again)
    if cluster:
        outcomes = on_cluster(cluster, todo, work, until=until)
    else:
        outcomes = local(todo, work, device=device, workers=workers, until=until)
    errors = []
    with closing(outcomes), progress_bar(len(todo), label) as bar:
        for recipe, outcome in outcomes:
            if isinstance(outcome, Failure):
                write_failure(folder, recipe.key, outcome.error)
                errors.append(f"{recipe}: {outcome.error}")
            else:
                # A worker on another disk, or on a full one, has not kept them here.
                if again or not (folder / "runs" / f"{recipe.key}.json").exists():
                    write(folder, recipe.key, outcome)
                (folder / "failed" / f"{recipe.key}.json").unlink(missing_ok=True)
            bar.update(1)
    if errors:
        raise Incomplete(
            f"{len(errors)} of {len(todo)} runs failed:\n" + "\n".join(errors)
        )
    return table_of(recipes, folder)
