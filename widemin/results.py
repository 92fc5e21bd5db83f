"""Finished rows kept, only the missing ones computed.

A finished run is one JSON file, written atomically and named after its recipe's key;
a table is what the files say. The tables in book/results, committed to git, are one
more source. Nothing is ever computed twice: the same call again only reads.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from functools import cache, partial
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import click
import pandas as pd

from widemin import paths
from widemin.provenance import PROVENANCE, provenance
from widemin.workers import Busy, Failure, local, on_cluster

Rows = list[dict[str, Any]]


class Keyed(Protocol):
    """A recipe, as far as this module needs to know it: a dataclass with a key."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str:
        """What its rows are found by."""

    @property
    def work(self) -> float:
        """What its time is about proportional to."""


K = TypeVar("K", bound=Keyed)


class Incomplete(RuntimeError):
    """Some runs failed; the message names each with its error."""


def published() -> dict[str, Rows]:
    """Return the rows of the committed tables, by key."""
    found: dict[str, Rows] = {}
    for path in sorted(paths.PUBLISHED.glob("*/*.csv")):
        if path.parent.name != "papers":  # the papers' own tables
            found |= _by_key(path)
    return found


def finished(folder: Path, keys: Iterable[str]) -> dict[str, Rows]:
    """Return the rows of the finished runs among keys; set broken files aside."""
    found = {}
    for key in keys:
        path = folder / "runs" / f"{key}.json"
        try:
            kept = json.loads(path.read_bytes())
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


def computed(recipes: Iterable[K], folder: Path) -> dict[str, Rows]:
    """Return the rows a results folder has for recipes, by key.

    Beside the runs finished here, any CSV of rows copied into the folder counts, as
    `to_csv` writes it.

    Raises:
        ValueError: Rows computed elsewhere say another recipe than their key does,
            lack their provenance, or disagree with other rows of the same run.
    """
    wanted = {recipe.key: recipe for recipe in recipes}
    found = finished(folder, wanted)
    origin = dict.fromkeys(found, "runs")
    for path in sorted(folder.glob("*.csv")):
        for key, rows in _by_key(path).items():
            if key not in wanted:
                continue
            _check_rows(rows, wanted[key], path)
            if key not in found:
                found[key], origin[key] = rows, path.name
            elif column := _disagreement(found[key], rows):
                raise ValueError(
                    f"{origin[key]} and {path.name} in {folder} must agree on run "
                    f"{key}; got different {column}: keep one of them"
                )
    return found


def _by_key(path: Path) -> dict[str, Rows]:
    """Return the rows of a CSV by key; none if it is not a table of runs."""
    about = path.stat()
    return _read(path, about.st_mtime_ns, about.st_size)


@cache
def _read(path: Path, changed: int, size: int) -> dict[str, Rows]:
    """Read a CSV once, as long as it is the same file."""
    table = pd.read_csv(path, dtype={"key": str}, low_memory=False)
    if "key" not in table:
        return {}
    rows: dict[str, Rows] = {}
    there = table.notna().to_numpy()
    for row, given in zip(table.to_dict("records"), there, strict=True):
        kept = {str(name): row[name] for name in compress(row, given)}
        rows.setdefault(kept.pop("key", ""), []).append(kept)
    return rows


def _check_rows(rows: Rows, recipe: Keyed, path: Path) -> None:
    """Raise ValueError unless rows computed elsewhere are of the recipe."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        for row in rows:
            # CSV leaves an empty text out, older tables have not the newest columns.
            given = row.get(field.name, field.default)
            if _text(given) != _text(value):
                raise ValueError(
                    f"{path.name} must hold {field.name}={value!r} for run "
                    f"{recipe.key}; got {given!r}"
                )
    for name in PROVENANCE:
        if not all(row.get(name) for row in rows):
            raise ValueError(
                f"{path.name} must say the {name} of run {recipe.key}; got nothing"
            )


def _text(value: Any) -> str:
    """Return a value as `to_csv` would write it."""
    if isinstance(value, list | tuple):
        return " ; ".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.6g}"
    return str(value)


def _disagreement(one: Rows, two: Rows) -> str:
    """Return the first measured column in which two results of a run differ, or ""."""
    if len(one) != len(two):
        return "numbers of rows"
    for first, second in zip(one, two, strict=True):
        for name in sorted(first.keys() & second.keys()):
            own = name in PROVENANCE or name.endswith("seconds")
            if not own and _text(first[name]) != _text(second[name]):
                return name
    return ""


def write(folder: Path, key: str, rows: Rows) -> None:
    """Write a finished run as one file, whole or not at all."""
    with paths.atomic(folder / "runs" / f"{key}.json") as part:
        part.write_text(json.dumps({"key": key, "rows": rows}))


def missing(recipes: Sequence[K], folder: Path) -> list[K]:
    """Return the recipes, each once, that neither folder nor published tables have."""
    unique = {recipe.key: recipe for recipe in recipes}
    known = computed(unique.values(), folder).keys() | published().keys()
    return [recipe for key, recipe in unique.items() if key not in known]


def table_of(recipes: Sequence[Keyed], folder: Path) -> pd.DataFrame:
    """Return the rows there are for the recipes, in their order.

    The column `planned` of the table's attrs counts the recipes, `done` those that
    have rows. Rows computed here go before published ones. A run that failed is a row
    too: `measured` is "failed", `error` its message.
    """
    unique = {recipe.key: recipe for recipe in recipes}
    found = published() | computed(unique.values(), folder)
    failures = failed(folder)
    rows = []
    for key, recipe in unique.items():
        lost = [{"measured": "failed", "error": failures.get(key)}]
        # The recipe's own fields first: CSV cannot tell an empty text from nothing.
        own = {"key": key} | asdict(recipe)
        rows += [
            own | row | own for row in found.get(key, lost if key in failures else [])
        ]
    table = pd.DataFrame(rows)
    if table.empty:
        names = [field.name for field in fields(recipes[0])] if recipes else []
        table = pd.DataFrame(columns=["key", *names, "measured"])
    done = sum(key in found for key in unique)
    table.attrs = {"planned": len(unique), "done": done}
    return table


def part(table: pd.DataFrame, recipes: Sequence[Keyed]) -> pd.DataFrame:
    """Return the rows of some of a table's recipes, with their own counts in attrs."""
    keys = {recipe.key for recipe in recipes}
    rows = table[table["key"].isin(keys)]
    there = set(rows.loc[rows["measured"] != "failed", "key"])
    rows.attrs = {"planned": len(keys), "done": len(there)}
    return rows


def failed(folder: Path) -> dict[str, str]:
    """Return the messages of the runs that failed and have not been mended, by key."""
    found = {}
    for path in sorted((folder / "failed").glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, OSError):
            found[path.stem] = json.loads(path.read_bytes())["error"]
    return found


def _write_failure(folder: Path, key: str, error: str) -> None:
    with paths.atomic(folder / "failed" / f"{key}.json") as part:
        part.write_text(json.dumps({"key": key, "error": error}))


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


def without_defaults(table: pd.DataFrame, recipes: Sequence[Keyed]) -> pd.DataFrame:
    """Return a table without the columns in which no recipe departs from its default.

    A reader fills them in again: a file has room for numbers instead.
    """
    idle = [
        field.name
        for field in (fields(recipes[0]) if recipes else ())
        if all(getattr(recipe, field.name) == field.default for recipe in recipes)
    ]
    return table.drop(columns=idle, errors="ignore")


def to_csv(table: pd.DataFrame, path: Path) -> None:
    """Write rows as CSV, floats to 6 digits; an old table is replaced whole."""
    for name in ("tests", "strong_attacks"):
        if name in table:
            table = table.assign(**{name: [" ; ".join(each) for each in table[name]]})
    with paths.atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")


def compute_once(
    recipe: Keyed,
    *,
    run: Callable[[Any], Rows],
    folder: Path,
    device: str,
    keep: bool,
) -> Rows:
    """Return a run's rows with their provenance; a worker's part of `collect`.

    Raises:
        Busy: Another process computes it now.
    """
    from filelock import FileLock, Timeout

    path = folder / "locks" / f"{recipe.key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            kept = finished(folder, [recipe.key])
            if kept:  # by another process, meanwhile
                return kept[recipe.key]
            rows = [row | provenance(device) for row in run(recipe)]
            if keep:  # before the lock is free, or another process might compute them
                with contextlib.suppress(OSError):  # `collect` says what is wrong
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

    Raises:
        Incomplete: A run raised; the others are finished and kept.
    """
    todo = [] if device == "none" else missing(recipes, folder)
    # A cluster's rows are written by the one process that asked.
    work = partial(
        compute_once, run=run, folder=folder, device=device, keep=not cluster
    )
    if cluster:
        outcomes = on_cluster(cluster, todo, work, until=until)
    else:
        outcomes = local(todo, work, device=device, workers=workers, until=until)
    errors = []
    with closing(outcomes), progress_bar(len(todo), label) as bar:
        for recipe, outcome in outcomes:
            if isinstance(outcome, Failure):
                _write_failure(folder, recipe.key, outcome.error)
                errors.append(f"{recipe}: {outcome.error}")
            else:
                if not (folder / "runs" / f"{recipe.key}.json").exists():
                    write(
                        folder, recipe.key, outcome
                    )  # a cluster's disk, or a full one
                (folder / "failed" / f"{recipe.key}.json").unlink(missing_ok=True)
            bar.update(1)
    if errors:
        raise Incomplete(
            f"{len(errors)} of {len(todo)} runs failed:\n" + "\n".join(errors)
        )
    return table_of(recipes, folder)


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
