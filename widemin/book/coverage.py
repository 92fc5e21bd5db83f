"""What of the papers stands in the book: their tables, and where text and code differ.

A cell is a network that a paper trains and prints numbers of: a square of a grid, a
row of a table, a point of a curve. It stands here once a run of it at the preset
`paper` has every column that the paper prints; how many seeds a paper has is another
question. A network that collapsed has nothing more to measure: its cell stands.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from widemin import paths
from widemin.book import SAID, notebooks
from widemin.experiments import progress, results
from widemin.experiments.columns import as_column
from widemin.experiments.recipe import Recipe
from widemin.experiments.results import Rows
from widemin.papers.claims import ball_name, final, mean_in_words, paper_table


def _listed(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load((paths.PUBLISHED / "papers" / name).read_text()))


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
        own = {name: as_column(getattr(recipe, name)) for name in self.runs}
        wanted = self.runs.items()
        return all(own[k] if of == "any" else own[k] in of for k, of in wanted)


def tables() -> list[Table]:
    """Return the tables that book/results/papers/tables.yml lists."""
    return [Table(**each) for each in _listed("tables.yml")]


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
    core_hours: float  # an estimate of the rest, on cores of what is there, or NaN
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
    """Return a table's cover by rows by key, of the runs in its paper's tables."""
    cell = attrgetter(*table.by)
    runs = {recipe.key: recipe for recipe in printed if table.kept(recipe)}
    done = {k for k in runs if k in known and _complete(known[k], table.columns)}
    left = [recipe for key, recipe in runs.items() if key not in done]
    seconds = progress.seconds(left, [rows[-1] for rows in known.values()])
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
        core_hours=math.nan if seconds is None else seconds / 3600,
        gpu_hours=progress.gpu_hours(left),
    )


def of_all(folder: Path) -> dict[str, Cover]:
    """Return the cover of each table, by name, by published rows and a folder's."""
    names = notebooks.chapters()
    printed = {name[:2]: notebooks.printed(name, "paper") for name in names}
    every = [run for runs in printed.values() for run in runs]
    known = results.published() | results.computed(every, folder)
    return {table.name: of(table, printed[table.chapter], known) for table in tables()}


def rows(covers: dict[str, Cover]) -> list[dict[str, str]]:
    """Return covers as rows of texts by heading."""
    shown = SAID["cover"].items()
    return [
        {"table": name} | {k: v.format(c).replace("nan", "?") for k, v in shown}
        for name, c in covers.items()
    ]


def share(covers: dict[str, Cover]) -> str:
    """Return the number and the share of the cells that stand here, in words.

    >>> share({"a": Cover(8, 2, 0, 6, 0, 3, 24, 9.5, 1.5)})
    "2 of 8 cells of the papers' tables (25.0 %) were run at the papers' own settings"
    """
    names = ("cells", "there", "collapsed")
    cells, there, lost = (sum(getattr(c, n) for c in covers.values()) for n in names)
    ran = f"({100 * there / cells:.1f} %) were run at the papers' own settings"
    text = f"{there} of {cells} cells of the papers' tables {ran}"
    return f"{text}, {lost} of them collapsed" if lost else text


@dataclass(frozen=True)
class Difference:
    """A difference between a paper's text and its released code."""

    chapter: str
    section: str  # the label of the section that measures it
    text: str
    code: str  # what the released code does, or another reading of the text
    here: str
    switch: dict[str, Any]  # fields of a recipe that take the other side
    usual: dict[str, Any] = field(default_factory=dict)  # where they are no defaults


def differences() -> list[Difference]:
    """Return the differences that book/results/papers/differences.yml lists."""
    return [Difference(**each) for each in _listed("differences.yml")]


def pairs(
    difference: Difference, recipes: Iterable[Recipe]
) -> list[tuple[list[Recipe], list[Recipe]]]:
    """Return the runs with a switch turned, each with those that differ in it alone."""
    switch, default = difference.switch, Recipe()
    back = {name: getattr(default, name) for name in switch} | difference.usual
    by_training: dict[str, list[Recipe]] = defaultdict(list)
    for recipe in recipes:
        by_training[_training(recipe)].append(recipe)
    return [
        (turned, by_training[other])
        for turned in by_training.values()
        if all(getattr(turned[0], name) == v for name, v in switch.items())
        and (other := _training(replace(turned[0], **back))) in by_training
    ]


def _training(recipe: Recipe) -> str:
    """Return the key of a network's training, without what is watched of it."""
    unseen = replace(recipe, watch=None, watch_fosc=False, validation_size=0)
    return unseen.training_key


def effect(difference: Difference, recipes: list[Recipe], folder: Path) -> str:
    """Return a switch's gain of accuracies, in points, paired by seed, in words."""
    table = final(results.table_of(recipes, folder))
    gains: dict[str, list[float]] = defaultdict(list)
    for pair in pairs(difference, recipes) if len(table) else ():
        turned, usual = (
            table[table["key"].isin([recipe.key for recipe in runs])]
            .groupby("test")[["natural_accuracy", "worst_accuracy"]]
            .mean()
            for runs in pair
        )
        gain = (turned - usual).dropna().mul(100)
        # The natural one is the same in every set.
        gains["natural"] += list(gain["natural_accuracy"].head(1))
        for test, worst in gain["worst_accuracy"].items():
            gains[f"worst case, {ball_name(str(test))}"].append(worst)
    if not gains["natural"]:
        return "not measured yet"
    seeds = len(gains["natural"])
    words = [f"{name} {mean_in_words(g, '+.1f')}" for name, g in gains.items()]
    return f"{'; '.join(words)} ({seeds} seed{'s' * (seeds > 1)})"
