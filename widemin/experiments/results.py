"""Finished rows kept, only the missing ones computed.

A finished run is one JSON file, named after its recipe's key; a table is what the files
say. The tables in book/results, committed to git, are one more source.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pandas as pd

from widemin import paths
from widemin.experiments import disk
from widemin.experiments.columns import as_column, as_row
from widemin.experiments.pool import Rows, Run, Stopped, outcomes
from widemin.experiments.provenance import EARLIER, PROVENANCE, provenance
from widemin.names import check, written

if TYPE_CHECKING:
    from widemin.experiments.recipe import Recipe


class Incomplete(RuntimeError):
    """Some runs failed; the message names each with its error."""


def published() -> dict[str, Rows]:
    """Return the rows of the committed tables, by key."""
    files = sorted(paths.PUBLISHED.glob("*/*.csv"))
    tables = [by_key(path) for path in files if path.parent.name != "papers"]
    return {key: rows for table in tables for key, rows in table.items()}


def finished(folder: Path, keys: Iterable[str]) -> dict[str, Rows]:
    """Return the rows of the finished runs among keys; set broken files aside."""
    runs = {}
    for key in keys:
        path = folder / "runs" / f"{key}.json"
        try:
            kept = json.loads(path.read_bytes())
            if kept["key"] != key:
                raise ValueError("its key is not its name")
            runs[key] = [dict(row) for row in kept["rows"]]
        except (ValueError, KeyError, TypeError, IsADirectoryError) as error:
            disk.set_aside(path, "a finished run", error)
        except FileNotFoundError:
            pass
    return runs


def computed(recipes: Iterable[Recipe], folder: Path) -> dict[str, Rows]:
    """Return the rows of runs finished here and of CSVs copied in, the newer, by key.

    Raises:
        ValueError: Rows computed elsewhere say another recipe than their key does,
            lack their provenance, or disagree with other rows of the same run.
    """
    wanted = {recipe.key: recipe for recipe in recipes}
    runs = finished(folder, wanted)
    origin = dict.fromkeys(runs, "runs")
    for path in sorted(folder.glob("*.csv")):
        for key, rows in by_key(path).items():
            if key not in wanted:
                continue
            _check(rows, wanted[key], path.name)
            newer = _revised(rows) - _revised(runs.get(key, []))
            if key not in runs or newer > 0:
                runs[key], origin[key] = rows, path.name
            elif newer == 0 and (column := _disagreement(runs[key], rows)):
                raise ValueError(
                    f"{origin[key]} and {path.name} in {folder} must agree on run "
                    f"{key}; got different {column}: keep one of them"
                )
    return runs


def by_key(path: Path) -> dict[str, Rows]:
    """Return the rows of a CSV by key; none if it is not a table of runs.

    Raises:
        ValueError: It begins as a table of runs does, and does not go on as one.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:  # the whole may be large, or no text at all
        if b"key" not in re.split(rb"[^\w ]+", file.readline(100_000)):
            return {}
    about = path.stat()
    try:
        return _read(path, about.st_mtime_ns, about.st_size)
    except ValueError as error:
        said = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} must be a table of runs; got {said}") from error


@cache
def _read(path: Path, changed: int, size: int) -> dict[str, Rows]:
    """Read a CSV once, as long as it is the same file."""
    table = pd.read_csv(path, dtype={"key": str, "threads": str}, low_memory=False)
    shared = _shared(table)
    rows: dict[str, Rows] = {}
    for record in table.to_dict("records"):
        row = {str(name): value for name, value in record.items() if value == value}
        own = rows.setdefault(row.pop("key", ""), [])
        first = own[0] if own else row
        own.append({name: first[name] for name in shared if name in first} | row)
    return rows


def _shared(table: pd.DataFrame) -> list[str]:
    """Return the columns that `publish` writes in the first row of a run alone."""
    names = list(table)
    recipe = names[1 : names.index("measured")] if "measured" in names else []
    return [name for name in names if name in {*recipe, *PROVENANCE}]


def _check(rows: Rows, recipe: Recipe, file: str) -> None:
    """Raise ValueError unless rows computed elsewhere say their recipe and origin."""
    # CSV leaves an empty text out, older tables have not the newest columns.
    default = {field.name: as_column(field.default) for field in fields(recipe)}
    own = as_row(recipe).items()
    for row in rows:
        for name, value in own:
            given = row.get(name, default[name])
            if _text(given) != _text(value):
                wanted = f"hold {name}={value!r} for run {recipe.key}"
                raise ValueError(f"{file} must {wanted}; got {given!r}")
        for name in EARLIER:
            wanted = f"{file} must say the {name} of run {recipe.key}"
            check(row.get(name), wanted, "nothing")


def _text(value: Any) -> str:
    """Return a value as `to_csv` would write it."""
    if isinstance(value, list | tuple):
        return " ; ".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.6g}"
    return str(value)


def _revised(rows: Rows) -> int:
    """Return the sum of the revisions that rows say of their instruments."""
    said = {str(row.get("revisions", "")) for row in rows}
    return sum(int(number) for text in said for number in re.findall(r"\d+", text))


def _disagreement(one: Rows, two: Rows) -> str:
    """Return the first measured column in which two results of a run differ, or ""."""
    if len(one) != len(two):
        return "numbers of rows"
    for first, second in zip(one, two, strict=True):
        for name in sorted(first.keys() & second.keys() - set(PROVENANCE)):
            differ = _text(first[name]) != _text(second[name])
            if differ and not name.endswith("seconds"):
                return name
    return ""


def write(folder: Path, key: str, rows: Rows) -> None:
    """Write a finished run as one file, whole or not at all."""
    with disk.atomic(folder / "runs" / f"{key}.json") as part:
        part.write_text(json.dumps({"key": key, "rows": rows}))


def failed(folder: Path) -> dict[str, str]:
    """Return the messages of the runs that failed and have not been mended, by key."""
    errors = {}
    for path in sorted((folder / "failed").glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
            errors[path.stem] = str(json.loads(path.read_bytes())["error"])
    return errors


def missing(recipes: Sequence[Recipe], folder: Path) -> list[Recipe]:
    """Return the recipes, each once, that neither folder nor published tables have."""
    unique = {recipe.key: recipe for recipe in recipes}
    known = computed(unique.values(), folder).keys() | published().keys()
    return [recipe for key, recipe in unique.items() if key not in known]


def progress_bar(length: int, label: str) -> Any:
    """Return a progress bar with the time left; without a terminal it is silent."""
    hidden = not (length and sys.stderr.isatty())
    how: dict[str, Any] = {"file": sys.stderr, "show_pos": True, "hidden": hidden}
    return click.progressbar(length=length, label=label, show_eta=True, **how)


def compute_once(
    recipe: Recipe, run: Run, folder: Path, device: str, again: bool = False
) -> Rows:
    """Return a run's rows with their provenance, kept; a worker's part of `collect`.

    It raises Stopped where another process computes them now.
    """
    from filelock import Timeout

    try:
        with disk.lock(folder / "locks" / f"{recipe.key}.lock", timeout=0):
            kept = {} if again else finished(folder, [recipe.key])
            if kept:  # by another process, meanwhile
                return kept[recipe.key]
            # A run measured again in part keeps where the rest was computed: all of it,
            # or a row that does not say its block would be given this machine's.
            rows = [r if "source" in r else r | provenance(device) for r in run(recipe)]
            # Before the lock is free, or another process might compute them again.
            with contextlib.suppress(OSError):  # `collect` tries again, and says why
                write(folder, recipe.key, rows)
            return rows
    except Timeout:
        raise Stopped from None


def collect(
    recipes: Sequence[Recipe],
    run: Run,
    folder: Path,
    *,
    device: str = "cpu",
    label: str = "",
    again: bool = False,
    **how: Any,
) -> pd.DataFrame:
    """Return the recipes' rows; compute those that are missing, each saved at once.

    Args:
        recipes: What the table is made of, in the order to compute it.
        run: Recipe to rows; a module-level function or a partial of one.
        folder: Where finished runs are kept.
        device: cpu or cuda; "none" computes nothing and only reads.
        label: Of the progress bar, which shows on a terminal alone.
        again: Runs that have rows are computed again; theirs are replaced.
        how: `workers`, `cluster` and `until` of `pool.outcomes`. What is unfinished at
            a deadline is kept as far as it is, and the table has what there is.

    Raises:
        Incomplete: A run raised; the others are finished and kept.
    """
    todo = list(recipes) if again else missing(recipes, folder)
    todo = todo if device != "none" else []
    work = partial(compute_once, run=run, folder=folder, device=device, again=again)
    errors = []
    with (
        contextlib.closing(outcomes(todo, work, device=device, **how)) as came,
        progress_bar(len(todo), label) as bar,
    ):
        for recipe, outcome in came:
            failure = folder / "failed" / f"{recipe.key}.json"
            if isinstance(outcome, str):
                with disk.atomic(failure) as part:
                    part.write_text(json.dumps({"key": recipe.key, "error": outcome}))
                errors.append(f"{recipe}: {outcome}")
            else:  # a worker on another disk, or on a full one, has not kept them here
                if again or not (folder / "runs" / f"{recipe.key}.json").exists():
                    write(folder, recipe.key, outcome)
                failure.unlink(missing_ok=True)
            bar.update(1)
    if errors:
        said = [f"{len(errors)} of {len(todo)} runs failed:", *errors]
        raise Incomplete("\n".join(said))
    return table_of(recipes, folder)


def table_of(recipes: Sequence[Recipe], folder: Path) -> pd.DataFrame:
    """Return the rows there are for the recipes, in their order; ours before published.

    In its attrs, `planned` counts the recipes and `done` those that have rows. A run
    that failed is a row too, with its message as `error`.
    """
    unique = {recipe.key: recipe for recipe in recipes}
    done = published() | computed(unique.values(), folder)
    lost = failed(folder).items()
    rows_of = {key: [{"measured": "failed", "error": error}] for key, error in lost}
    rows_of |= done
    rows: Rows = []
    for key, recipe in unique.items():
        # The recipe's own fields: CSV cannot tell an empty text from nothing.
        own = {"key": key} | as_row(recipe)
        rows += [own | row | own for row in rows_of.get(key, [])]
    names = as_row(recipes[0]) if recipes else ()
    empty = ["key", *names, "method", "measured"]
    table = pd.DataFrame(rows, columns=None if rows else empty)
    table.attrs = {"planned": len(unique), "done": len(unique.keys() & done.keys())}
    return table


def part(table: pd.DataFrame, recipes: Sequence[Recipe]) -> pd.DataFrame:
    """Return the rows of some of a table's recipes, with their own counts in attrs."""
    keys = {recipe.key for recipe in recipes}
    rows = table[table["key"].isin(keys)]
    done = rows.loc[rows["measured"] != "failed", "key"].nunique()
    rows.attrs = {"planned": len(keys), "done": done}
    return rows


def without_defaults(table: pd.DataFrame, recipes: Sequence[Recipe]) -> pd.DataFrame:
    """Return a table without columns that are at their defaults: readers add them."""
    known = fields(recipes[0]) if recipes else ()
    idle = [
        f.name for f in known if all(getattr(r, f.name) == f.default for r in recipes)
    ]
    return table.drop(columns=idle, errors="ignore")


def _as_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV: floats to 6 digits, lists as text."""
    lists = [name for name in ("tests", "strong_attacks") if name in table]
    words = {name: table[name].map(_text, na_action="ignore") for name in lists}
    table = table.assign(**words)
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def to_csv(table: pd.DataFrame, path: Path) -> None:
    """Write rows as CSV; an old table is replaced whole."""
    with disk.atomic(path) as part:
        part.write_text(_as_csv(table), encoding="utf-8")


def publish(table: pd.DataFrame, folder: Path, name: str, most: int = 900_000) -> None:
    """Write rows to NAME.csv and, where it would grow too large, NAME-2.csv, and so on.

    What all rows of a run share, its recipe (the columns left of `measured`) and its
    provenance, stands in the first of them alone. Older files of the name go.

    Rows of a run come one after the other. A file has `most` bytes; a run that has more
    of its own gets one to itself.
    """
    first, shared = ~table.duplicated("key"), _shared(table)
    whole = [name for name in shared if table[name].dtype.kind != "f"]
    table = table.astype(dict.fromkeys(whole, object))  # whole numbers stay whole
    table = table.assign(**{name: table[name].where(first) for name in shared})
    files: dict[str, Path] = {}
    number = left = 0
    for key, rows in table.groupby("key", sort=False):
        size = len(_as_csv(rows))
        if size > left:
            number, left = number + 1, most
        files[key] = folder / (f"{name}-{number}.csv" if number > 1 else f"{name}.csv")
        left -= size
    for path, rows in table.groupby(table["key"].map(files)):
        to_csv(rows, path)
    for path in set(folder.glob(f"{name}-*.csv")) - set(files.values()):
        end = path.stem.removeprefix(f"{name}-")
        if end.isdecimal() and by_key(path):  # one of ours, not somebody's notes
            path.unlink()


def stamp(table: pd.DataFrame, preset: str) -> str:
    """Return the line under a chapter's title: preset, runs, hours, days, machines.

    A badge marks rows that an instrument measured before it was revised.
    """
    from widemin.experiments.measure.parts import outdated  # and torch

    name, comma, given = preset.partition(", ")  # "smoke, but epochs = 3"
    runs = f"{table.attrs['done']} of {table.attrs['planned']} planned runs"
    text = f"Preset **{name}**{comma}{given}: {runs}"
    if not table.attrs["done"]:
        return f'<small class="stamp">{text} are there.</small>'

    def of(column: str) -> str:
        return " and ".join(sorted(map(written, table[column].dropna().unique())))

    final = table[table["measured"] == "final"].drop_duplicates("key")
    hours = (final["train_seconds"] + final["measure_seconds"]).sum() / 3600
    spent = (
        f"{hours:.1f} core hours" if hours >= 1 else f"{60 * hours:.1f} core minutes"
    )
    count = table["seed"].nunique()
    seeds = "1 seed" if count == 1 else f"up to {count} seeds"
    first, last = pd.to_datetime(table["date"].dropna()).agg(["min", "max"])
    days = f"{last.day} {last:%B %Y}"
    if first < last:
        month = f" {first:%B %Y}" if f"{first:%Y%m}" < f"{last:%Y%m}" else ""
        days = f"{first.day}{month} to {days}"
    text += f", {seeds}, {spent}, computed {days} on {of('hardware')} ({of('device')})"
    old = outdated(final.astype(object).where(final.notna(), None).to_dict("records"))
    badge = " {bdg-warning}`older instrument` An older version measured some rows of:"
    later = f"{badge} {', '.join(sorted(old))}." if old else ""
    return f'<small class="stamp">{text} with torch {of("torch")}.</small>{later}'
