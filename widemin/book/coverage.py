"""How much of the papers' tables stands in the book at the papers' own settings.

A cell is a network that a paper trains and prints numbers of: a square of a grid, a
row of a table, a point of a curve. It stands here once a run of it at the preset
`paper` has every column that the paper prints; how many seeds a paper has is another
question. A network that collapsed has nothing more to measure: its cell stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from widemin.book import notebooks
from widemin.experiments import cost, results
from widemin.experiments.recipes import Recipe
from widemin.experiments.results import Rows
from widemin.papers.claims import paper_table

PRESET = "paper"
_DEFENCE = ("dataset", "attack", "fosc_max", "step_schedule")
_POINT = ("batch_size", "learning_rate", "momentum", "schedule")


@dataclass(frozen=True)
class Table:
    """A table of a paper, or all curves of one network.

    Attributes:
        chapter: Number of the chapter that reruns it.
        name: What it is called.
        by: Fields of a recipe that tell its cells apart.
        columns: What the paper prints of a cell, as columns of final rows.
        kept: Whether a run stands for numbers of this table.
        printed: Its copy in book/results/papers; "" where the paper's numbers are
            lost, and its cells are the ones planned.
    """

    chapter: str
    name: str
    by: tuple[str, ...]
    columns: tuple[str, ...]
    kept: Callable[[Recipe], bool] = lambda recipe: True
    printed: str = ""


def _under(kind: str, *ways: str) -> tuple[str, ...]:
    return tuple(f"{kind}_{way}_accuracy" for way in ways)


def _curves(dataset: str, model: str, called: str) -> Table:
    def kept(recipe: Recipe) -> bool:
        return (recipe.dataset, recipe.model) == (dataset, model)

    columns = ("natural_accuracy", "top_eigenvalue", "fgsm_accuracy", "pgd_accuracy")
    return Table("04", f"Kamath et al., {called}", _POINT, columns, kept)


TABLES = (
    Table(
        "01",
        "Khritankov et al., table 2",
        ("batch_size", "learning_rate"),
        ("natural_accuracy", "fgsm_accuracy"),
        printed="wide_minima_table2",
    ),
    Table(
        "02",
        "Wei et al., table 1, CIFAR-100",
        ("attack", "rho"),
        ("natural_accuracy", "pgd_accuracy"),
        lambda recipe: recipe.dataset == "cifar100",
        "sam_table1_cifar100",
    ),
    Table(
        "02",
        "Wei et al., table 2, CIFAR-10",
        ("attack", "rho"),
        ("natural_accuracy", "pgd_accuracy"),
        lambda recipe: recipe.dataset == "cifar10",
        "sam_table2_cifar10",
    ),
    Table(
        "03",
        "Wang et al., table 1, white box",
        _DEFENCE,
        ("natural_accuracy", *_under("wang", "fgsm", "pgd10", "pgd20", "cw")),
        lambda recipe: recipe.model != "wideresnet",
        "dynamic_table1",
    ),
    Table(
        "03",
        "Wang et al., table 2, black box",
        _DEFENCE,
        _under("natural", "fgsm", "pgd10", "pgd20", "cw"),
        lambda recipe: recipe.model != "wideresnet" and recipe.attack != "",
        "dynamic_table2",
    ),
    Table(
        "03",
        "Wang et al., table 3, wide ResNet",
        _DEFENCE,
        ("natural_accuracy", *_under("wang", "fgsm", "pgd20", "cw")),
        lambda recipe: recipe.model == "wideresnet" and recipe.attack != "",
        "dynamic_table3",
    ),
    _curves("mnist", "m1", "M1 on MNIST"),
    _curves("mnist", "stdcnn", "StdCNN on MNIST"),
    _curves("fashion-mnist", "m1", "M1 on Fashion-MNIST"),
    _curves("fashion-mnist", "stdcnn", "StdCNN on Fashion-MNIST"),
    _curves("cifar10", "c1", "C1 on CIFAR-10"),
    _curves("cifar10", "resnet18", "ResNet-18 on CIFAR-10"),
)


@dataclass(frozen=True)
class Cover:
    """How much of a table stands here.

    Attributes:
        cells: Of the paper's table.
        there: Cells of which a run at the paper's settings has all printed columns.
        collapsed: Those of them whose every such run diverged or answers one class.
        planned: Cells that the preset lists and nobody has run.
        missing: Cells that no run is planned for.
        runs: Runs that have rows, all seeds.
        runs_planned: Runs that the preset lists.
        core_hours: An estimate of what the rest takes on a core like those that ran
            what is there; None where nothing is.
        gpu_hours: A guess of what training the rest takes, on one GPU.
    """

    cells: int
    there: int
    collapsed: int
    planned: int
    missing: int
    runs: int
    runs_planned: int
    core_hours: float | None
    gpu_hours: float


def collapsed(rows: Rows) -> bool:
    """Return True for a run whose network diverged or gives one answer to all."""
    return any(True in (row.get("diverged"), row.get("constant")) for row in rows)


def _complete(rows: Rows, columns: Sequence[str]) -> bool:
    """Return True if every final row of a run has all columns, or it collapsed."""
    final = [row for row in rows if row["measured"] == "final"]
    return bool(final) and (
        collapsed(final)
        or all(pd.notna(row.get(name)) for row in final for name in columns)
    )


def of(table: Table, printed: Sequence[Recipe], known: dict[str, Rows]) -> Cover:
    """Return how much of a table stands here.

    Args:
        table: Which.
        printed: The runs of its chapter that stand for numbers in its paper's tables.
        known: The rows of each run that took place, by key.
    """
    runs = {recipe.key: recipe for recipe in printed if table.kept(recipe)}
    done = {
        key: recipe
        for key, recipe in runs.items()
        if key in known and _complete(known[key], table.columns)
    }
    left = [recipe for key, recipe in runs.items() if key not in done]
    seconds = cost.seconds(left, [rows[-1] for rows in known.values()])

    def cells(recipes: Iterable[Recipe]) -> set[tuple[object, ...]]:
        return {tuple(getattr(r, name) for name in table.by) for r in recipes}

    listed, there = cells(runs.values()), cells(done.values())
    learnt = cells(recipe for key, recipe in done.items() if not collapsed(known[key]))
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
    """Return how much of each table stands here, by its name.

    Args:
        folder: Of results; the published ones count, too.
    """
    printed = {
        chapter[:2]: notebooks.printed(chapter, PRESET)
        for chapter in notebooks.chapters()
    }
    every = [run for runs in printed.values() for run in runs]
    known = results.published() | results.computed(every, folder)
    return {table.name: of(table, printed[table.chapter], known) for table in TABLES}


def share(covers: dict[str, Cover]) -> str:
    """Return how many of all cells stand here, in words.

    >>> share({"a": Cover(8, 2, 0, 6, 0, 3, 24, 9.5, 1.5)})
    '2 of 8 cells (25.0 %) at the settings of the papers'
    >>> share({"a": Cover(8, 2, 1, 6, 0, 3, 24, 9.5, 1.5)})
    '2 of 8 cells (25.0 %) at the settings of the papers, 1 of them collapsed'
    """
    there = sum(cover.there for cover in covers.values())
    cells = sum(cover.cells for cover in covers.values())
    percent = 100 * there / cells
    text = f"{there} of {cells} cells ({percent:.1f} %) at the settings of the papers"
    lost = sum(cover.collapsed for cover in covers.values())
    return f"{text}, {lost} of them collapsed" if lost else text
