"""How much of the papers' tables stands in the book at the papers' own settings.

A cell is a network that a paper trains and prints numbers of: a square of a grid, a
row of a table, a point of a curve. It stands here once a run of it at the preset
`paper` has every column that the paper prints; how many seeds a paper has is another
question. A network that collapsed has nothing more to measure: its cell stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from widemin import paths
from widemin.book import notebooks
from widemin.experiments import cost, results
from widemin.experiments.columns import as_column
from widemin.experiments.recipe import Recipe
from widemin.experiments.results import Rows
from widemin.papers.claims import paper_table


@dataclass(frozen=True)
class Table:
    """A table of a paper, or all curves of one network, as tables.yml describes it."""

    chapter: str
    name: str
    printed: str
    by: list[str]
    columns: list[str]
    runs: dict[str, Any]

    def kept(self, recipe: Recipe) -> bool:
        """Return True if a run stands for numbers of this table."""
        values = {name: as_column(getattr(recipe, name)) for name in self.runs}
        return all(
            values[name] if wanted == "any" else values[name] in wanted
            for name, wanted in self.runs.items()
        )


def tables() -> list[Table]:
    """Return the tables that book/results/papers/tables.yml lists."""
    listed = yaml.safe_load((paths.PUBLISHED / "papers" / "tables.yml").read_text())
    return [Table(**each) for each in listed]


@dataclass(frozen=True)
class Cover:
    """How much of a table stands here: its cells, and the runs of all seeds."""

    cells: int  # of the paper's table
    there: int  # of which a run at the paper's settings has all printed columns
    collapsed: int  # of these, every such run diverged or answers one class
    planned: int  # listed by the preset, and run by nobody
    missing: int  # no run is planned for
    runs: int  # that have rows
    runs_planned: int  # that the preset lists
    core_hours: float | None  # an estimate of the rest, on cores of what is there
    gpu_hours: float  # a guess of the rest's training, on one GPU


def collapsed(rows: Rows) -> bool:
    """Return True for a run whose network diverged or gives one answer to all."""
    return any(True in (row.get("diverged"), row.get("constant")) for row in rows)


def _complete(rows: Rows, columns: Sequence[str]) -> bool:
    """Return True if every final row of a run has all columns, or it collapsed."""
    final = [row for row in rows if row["measured"] == "final"]
    whole = all(pd.notna(row.get(name)) for row in final for name in columns)
    return bool(final) and (whole or collapsed(final))


def of(table: Table, printed: Sequence[Recipe], known: dict[str, Rows]) -> Cover:
    """Return how much of a table stands here.

    Of the runs that stand for numbers in its paper's tables, `printed`, by the rows of
    those that took place, `known` by key.
    """
    cell = attrgetter(*table.by)
    runs = {recipe.key: recipe for recipe in printed if table.kept(recipe)}
    done = {k for k in runs if k in known and _complete(known[k], table.columns)}
    left = [recipe for key, recipe in runs.items() if key not in done]
    seconds = cost.seconds(left, [rows[-1] for rows in known.values()])
    listed = {cell(recipe) for recipe in runs.values()}
    there = {cell(runs[key]) for key in done}
    learnt = {cell(runs[key]) for key in done if not collapsed(known[key])}
    number = len(paper_table(table.printed)) if table.printed else len(listed)
    return Cover(
        cells=number,
        there=len(there),
        collapsed=len(there - learnt),
        planned=len(listed - there),
        missing=number - len(listed),
        runs=len(done),
        runs_planned=len(runs),
        core_hours=None if seconds is None else seconds / 3600,
        gpu_hours=cost.gpu_hours(left),
    )


def of_all(folder: Path) -> dict[str, Cover]:
    """Return how much of each table stands, by name: in a folder or published."""
    names = notebooks.chapters()
    printed = {name[:2]: notebooks.printed(name, "paper") for name in names}
    every = [run for runs in printed.values() for run in runs]
    known = results.published() | results.computed(every, folder)
    return {table.name: of(table, printed[table.chapter], known) for table in tables()}


def rows(covers: dict[str, Cover]) -> list[dict[str, str]]:
    """Return what is said of each table, by heading."""
    return [
        {
            "table": name,
            "cells": str(c.cells),
            "at paper scale": str(c.there),
            "collapsed": str(c.collapsed),
            "planned": str(c.planned),
            "not planned": str(c.missing),
            "runs": f"{c.runs} of {c.runs_planned}",
            "core hours left": "?" if c.core_hours is None else f"{c.core_hours:,.0f}",
            "GPU hours left": f"{c.gpu_hours:.1f}",
        }
        for name, c in covers.items()
    ]


def share(covers: dict[str, Cover]) -> str:
    """Return how many of all cells stand here, in words.

    >>> share({"a": Cover(8, 2, 0, 6, 0, 3, 24, 9.5, 1.5)})
    '2 of 8 cells (25.0 %) at the settings of the papers'
    >>> share({"a": Cover(8, 2, 1, 6, 0, 3, 24, 9.5, 1.5)})
    '2 of 8 cells (25.0 %) at the settings of the papers, 1 of them collapsed'
    """
    counts = [(c.cells, c.there, c.collapsed) for c in covers.values()]
    cells, there, lost = map(sum, zip(*counts, strict=True))
    percent = 100 * there / cells
    text = f"{there} of {cells} cells ({percent:.1f} %) at the settings of the papers"
    return f"{text}, {lost} of them collapsed" if lost else text
