"""Finished rows kept, only the missing ones computed.

A finished run is one JSON file, written atomically and named after its recipe's key;
a table is what the files say. The tables in book/results, committed to git, are one
more source. Nothing is ever computed twice: the same call again only reads.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import click
import pandas as pd

import widemin
from widemin import paths

Rows = list[dict[str, Any]]


class Keyed(Protocol):
    """A recipe, as far as this module needs to know it: a dataclass with a key."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str:
        """What its rows are found by."""


K = TypeVar("K", bound=Keyed)


class Incomplete(RuntimeError):
    """Some runs failed; the message names each with its error."""


@cache
def source() -> str:
    """Return the version of the source: package version and, in a checkout, commit."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return widemin.__version__
    return f"{widemin.__version__}+{commit}"


@cache
def provenance(device: str) -> dict[str, Any]:
    """Return what every row says of where it was computed."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": device,
        "hardware": name,
        "precision": "float32",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "source": source(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def published() -> dict[str, Rows]:
    """Return the rows of the committed tables, by key."""
    found: dict[str, Rows] = {}
    for path in sorted(paths.PUBLISHED.glob("*/*.csv")):
        if path.parent.name == "papers":  # the papers' own tables
            continue
        table = pd.read_csv(path, dtype={"key": str}, keep_default_na=True)
        for key, rows in table.groupby("key", sort=False):
            found[str(key)] = [
                {str(name): value for name, value in row.items() if pd.notna(value)}
                for row in rows.to_dict("records")
            ]
    return found


def finished(folder: Path, keys: Iterable[str]) -> dict[str, Rows]:
    """Return the rows of the finished runs among keys; set broken files aside."""
    found = {}
    for key in keys:
        path = folder / "runs" / f"{key}.json"
        try:
            kept = json.loads(path.read_text())
            if kept["key"] != key:
                raise ValueError("its key is not its name")
            found[key] = kept["rows"]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            aside = path.with_suffix(".broken")
            path.replace(aside)
            warnings.warn(
                f"{path.name} is not a finished run ({error}); set aside as {aside}, "
                "its run is computed again",
                stacklevel=2,
            )
    return found


def write(folder: Path, key: str, rows: Rows) -> None:
    """Write a finished run as one file, whole or not at all."""
    path = folder / "runs" / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"key": key, "rows": rows}))
    part.replace(path)


def missing(recipes: Sequence[K], folder: Path) -> list[K]:
    """Return the recipes, each once, that neither folder nor published tables have."""
    unique = {recipe.key: recipe for recipe in recipes}
    known = finished(folder, unique).keys() | published().keys()
    return [recipe for key, recipe in unique.items() if key not in known]


def table_of(recipes: Sequence[Keyed], folder: Path) -> pd.DataFrame:
    """Return the rows there are for the recipes, in their order.

    The column `planned` of the table's attrs counts the recipes, `done` those that
    have rows. Rows computed here go before published ones.
    """
    unique = {recipe.key: recipe for recipe in recipes}
    found = published() | finished(folder, unique)
    # The recipe's own fields first: CSV cannot tell an empty text from nothing.
    rows = [
        {"key": key} | asdict(recipe) | row
        for key, recipe in unique.items()
        for row in found.get(key, [])
    ]
    table = pd.DataFrame(rows)
    done = sum(key in found for key in unique)
    table.attrs = {"planned": len(unique), "done": done}
    return table


def progress(length: int, label: str) -> Any:
    """Return a progress bar with the time left; without a terminal it is silent."""
    return click.progressbar(
        length=length,
        label=label,
        file=sys.stderr,
        show_eta=True,
        show_pos=True,
        hidden=not (length and sys.stderr.isatty()),
    )


def to_csv(table: pd.DataFrame, path: Path) -> None:
    """Write rows as CSV, floats to 6 digits; an old table is replaced whole."""
    table = table.assign(tests=[" ; ".join(tests) for tests in table["tests"]])
    part = path.with_suffix(".part")
    table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    part.replace(path)


def collect(
    recipes: Sequence[Keyed],
    run: Callable[[Any], Rows],
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    compute: bool = True,
    label: str = "",
) -> pd.DataFrame:
    """Return the recipes' rows; compute those that are missing, each saved at once.

    Args:
        recipes: What the table is made of, in the order to compute it.
        run: Recipe to rows; a module-level function or a partial of one.
        folder: Where finished runs are kept.
        device: cpu or cuda, for the rows' provenance. On CUDA one process works.
        workers: Processes; 0 is one per core.
        compute: False only reads.
        label: Of the progress bar, which shows on a terminal alone.

    Raises:
        Incomplete: A run raised; the others are finished and kept.
    """
    todo = missing(recipes, folder) if compute else []
    errors = []
    with progress(len(todo), label) as bar:
        for recipe, outcome in _outcomes(todo, run, device, workers):
            if isinstance(outcome, Exception):
                errors.append(f"{recipe}: {type(outcome).__name__}: {outcome}")
            else:
                facts = provenance(device)
                write(folder, recipe.key, [row | facts for row in outcome])
            bar.update(1)
    if errors:
        raise Incomplete(
            f"{len(errors)} of {len(todo)} runs failed:\n" + "\n".join(errors)
        )
    return table_of(recipes, folder)


def _outcomes(
    todo: Sequence[Keyed], run: Callable[[Any], Rows], device: str, workers: int
) -> Iterable[tuple[Keyed, Rows | Exception]]:
    """Yield each recipe with its rows, or with what it raised, as they finish."""
    workers = min(workers or cores(), len(todo))
    if device == "cuda" or workers <= 1:
        for recipe in todo:
            try:
                yield recipe, run(recipe)
            except Exception as error:
                yield recipe, error
        return
    # glibc: keep freed blocks, since every step asks for the same ones again.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        waiting: dict[Future[Rows], Keyed] = {
            pool.submit(run, recipe): recipe for recipe in todo
        }
        for future in as_completed(waiting):
            try:
                yield waiting[future], future.result()
            except Exception as raised:
                yield waiting[future], raised
    except BaseException:  # Ctrl-C: what is finished is on disk, the rest is dropped
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Return the number of cores this process may use."""
    return (
        len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    )


def _start_worker() -> None:
    """Set up a worker: one thread, deaf to Ctrl-C, and gone when its parent is."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends us
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    # Else a worker whose parent was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def stamp(table: pd.DataFrame, preset: str, started: float | None = None) -> str:
    """Return the line under a chapter's title: preset, runs, hardware, source, date."""
    planned, done = table.attrs["planned"], table.attrs["done"]
    seeds = table["seed"].nunique() if done else 0

    def of(column: str) -> str:
        return ", ".join(sorted({str(v) for v in table[column].dropna()}))

    if not done:
        return f"Preset **{preset}**: 0 of {planned} planned runs are there."
    final = table[table["measured"] == "final"].drop_duplicates("key")
    hours = (final["train_seconds"] + final["measure_seconds"]).sum() / 3600
    spent = (
        f"{hours:.1f} core hours" if hours >= 1 else f"{60 * hours:.1f} core minutes"
    )
    several = "1 seed" if seeds == 1 else f"up to {seeds} seeds"
    text = (
        f"Preset **{preset}**: {done} of {planned} planned runs, {several}, "
        f"{spent} on {of('hardware')} ({of('device')}, {of('precision')}), "
        f"torch {of('torch')}, source {of('source')}, {of('date')}."
    )
    if started is not None:
        text += f" Read and drawn in {time.time() - started:.0f} s."
    return text
