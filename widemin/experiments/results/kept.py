"""Finished runs on disk: one JSON file a run, and CSVs of rows copied in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pandas as pd

from widemin import paths
from widemin.experiments.columns import as_column, as_row
from widemin.experiments.provenance import EARLIER, PROVENANCE

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


def published() -> dict[str, Rows]:
    """Return the rows of the committed tables, by key."""
    found: dict[str, Rows] = {}
    for path in sorted(paths.PUBLISHED.glob("*/*.csv")):
        if path.parent.name != "papers":  # the papers' own tables
            found |= by_key(path)
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
            found[key] = [dict(row) for row in kept["rows"]]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, IsADirectoryError) as error:
            paths.set_aside(path, "a finished run", error)
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
        for key, rows in by_key(path).items():
            if key not in wanted:
                continue
            _check_rows(rows, wanted[key], path)
            if key not in found:
                found[key], origin[key] = rows, path.name
            elif (mine := _revised(found[key])) != (other := _revised(rows)):
                if other > mine:  # its instruments are the newer ones
                    found[key], origin[key] = rows, path.name
            elif column := _disagreement(found[key], rows):
                raise ValueError(
                    f"{origin[key]} and {path.name} in {folder} must agree on run "
                    f"{key}; got different {column}: keep one of them"
                )
    return found


def by_key(path: Path) -> dict[str, Rows]:
    """Return the rows of a CSV by key; none if it is not a table of runs.

    Raises:
        ValueError: It begins as a table of runs does, and does not go on as one.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:  # the whole may be large, or no text at all
        names = file.readline(100_000).split(b",")
    if b"key" not in [name.strip(b'\xef\xbb\xbf"\r\n ') for name in names]:
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
    if "key" not in table:
        return {}
    rows: dict[str, Rows] = {}
    names = [str(name) for name in table]
    # What `publish` writes in the first row of a run alone.
    own = names[: names.index("measured")] if "measured" in names else []
    shared = {*own, *PROVENANCE}
    said: dict[str, dict[str, Any]] = {}
    there = table.notna().to_numpy()
    for row, given in zip(table.to_dict("records"), there, strict=True):
        kept = {str(name): row[name] for name in compress(row, given)}
        key = kept.pop("key", "")
        if key not in said:
            said[key] = {name: kept[name] for name in kept if name in shared}
        rows.setdefault(key, []).append(said[key] | kept)
    return rows


def _check_rows(rows: Rows, recipe: Keyed, path: Path) -> None:
    """Raise ValueError unless rows computed elsewhere are of the recipe."""
    defaults = {field.name: as_column(field.default) for field in fields(recipe)}
    for name, value in as_row(recipe).items():
        for row in rows:
            # CSV leaves an empty text out, older tables have not the newest columns.
            given = row.get(name, defaults[name])
            if _text(given) != _text(value):
                raise ValueError(
                    f"{path.name} must hold {name}={value!r} for run "
                    f"{recipe.key}; got {given!r}"
                )
    for name in EARLIER:
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


def _revised(rows: Rows) -> int:
    """Return the sum of the revisions that rows say of their instruments."""
    said = {str(row["revisions"]) for row in rows if row.get("revisions")}
    return sum(
        int(each.rsplit(" ", 1)[1]) for text in said for each in text.split("; ")
    )


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


def failed(folder: Path) -> dict[str, str]:
    """Return the messages of the runs that failed and have not been mended, by key."""
    found = {}
    for path in sorted((folder / "failed").glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
            found[path.stem] = str(json.loads(path.read_bytes())["error"])
    return found


def write_failure(folder: Path, key: str, error: str) -> None:
    """Write what a run raised, for `failed`."""
    with paths.atomic(folder / "failed" / f"{key}.json") as part:
        part.write_text(json.dumps({"key": key, "error": error}))
