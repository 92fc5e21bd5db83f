"""Rows as tables: of recipes, of some of them, as CSV, in a line of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pandas as pd

from widemin import paths
from widemin.experiments.columns import as_column, as_row
from widemin.experiments.provenance import source
from widemin.experiments.results.kept import Keyed, computed, failed, published


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
        own = {"key": key} | as_row(recipe)
        rows += [
            own | row | own for row in found.get(key, lost if key in failures else [])
        ]
    table = pd.DataFrame(rows)
    if table.empty:
        names = [field.name for field in fields(recipes[0])] if recipes else []
        table = pd.DataFrame(columns=["key", *names, "method", "measured"])
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


def without_defaults(table: pd.DataFrame, recipes: Sequence[Keyed]) -> pd.DataFrame:
    """Return a table without the columns in which no recipe departs from its default.

    A reader fills them in again: a file has room for numbers instead.
    """
    idle = [
        field.name
        for field in (fields(recipes[0]) if recipes else ())
        if all(
            as_column(getattr(recipe, field.name)) == as_column(field.default)
            for recipe in recipes
        )
    ]
    return table.drop(columns=idle, errors="ignore")


def written(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its lists as text."""
    for name in ("tests", "strong_attacks"):
        if name in table:
            joined = [" ; ".join(each) for each in table[name]]
            table = table.assign(**{name: joined})
    return table


def as_csv(table: pd.DataFrame) -> str:
    """Return a table without lists as CSV, floats to 6 digits."""
    text: str = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text


def to_csv(table: pd.DataFrame, path: Path) -> None:
    """Write rows as CSV; an old table is replaced whole."""
    with paths.atomic(path) as part:
        part.write_text(as_csv(written(table)), encoding="utf-8")


def stamp(table: pd.DataFrame, preset: str) -> str:
    """Return the line under a chapter's title: preset, runs, hardware, source, date.

    Rows of other sources than the page's own are marked stale: they are still what
    the recipes say (else their keys would differ), but nobody has run them since.
    """
    planned, done = table.attrs["planned"], table.attrs["done"]
    name, comma, given = preset.partition(", ")  # "smoke, but epochs = 3"
    named = f"**{name}**{comma}{given}"
    seeds = table["seed"].nunique() if done else 0

    def of(column: str) -> str:
        found = sorted({str(value) for value in table[column].dropna()})
        if len(found) > 3:
            return f"{found[0]} to {found[-1]}" if column == "date" else "several"
        return ", ".join(found)

    if not done:
        return f"Preset {named}: 0 of {planned} planned runs are there."
    final = table[table["measured"] == "final"].drop_duplicates("key")
    hours = (final["train_seconds"] + final["measure_seconds"]).sum() / 3600
    spent = (
        f"{hours:.1f} core hours" if hours >= 1 else f"{60 * hours:.1f} core minutes"
    )
    several = "1 seed" if seeds == 1 else f"up to {seeds} seeds"
    text = (
        f"Preset {named}: {done} of {planned} planned runs, {several}, "
        f"{spent} on {of('hardware')} ({of('device')}, {of('precision')}), "
        f"torch {of('torch')}, source {of('source')}, {of('date')}."
    )
    if set(table["source"].dropna()) != {source()}:
        text += (
            f" {{bdg-warning}}`stale` The source of this page, {source()}, is newer "
            "than its rows; recipes and instruments have not been revised since."
        )
    return text
