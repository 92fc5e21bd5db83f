"""The columns of rows and tables: what each one says, and what computes it."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

KINDS = {
    "recipe": "In every row: the run's recipe",
    "provenance": "In every row: where and when it was computed",
    "final": "`final`: a trained network in one test set",
    "epoch": "`epoch`: the network after an epoch of training",
    "scale": "`scale`: the network with its logits multiplied",
    "step": "`step`: test images after a step of the training attack",
    "line": "`line`: a point of a line through weights or images",
    "bin": "`bin`: test images of like FOSC",
    "strength": "`strength`: test images after an attack of another strength",
    "picture": "`picture`: a test image and what an attack made of it",
    "spectrum": "`spectrum`: an eigenvalue, or a point of the Hessian's density",
    "failed": "`failed`: a run that raised",
}


@dataclass(frozen=True)
class Column:
    """What a column says."""

    name: str
    kinds: tuple[str, ...]  # of rows that have it, in the order of KINDS
    function: str  # dotted name of what computes it, in rows of its first kind
    unit: str  # empty for names, numbers without a unit, and True or False
    sentence: str


with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as lines:
    COLUMNS = {
        row["name"]: Column(**row | {"kinds": tuple(row["kinds"].split())})
        for row in csv.DictReader(lines)
    }


def page() -> str:
    """Return the columns as tables in markdown, one for each kind of row.

    >>> COLUMNS["top_eigenvalue"].unit, COLUMNS["top_eigenvalue"].kinds
    ('nat / squared weight', ('final',))
    >>> "| `top_eigenvalue` | nat / squared weight |" in page()
    True
    """
    parts = []
    for kind, title in KINDS.items():
        parts += [f"## {title}\n\n:::{{div}} wide"]
        parts += ["| column | unit | what it is | computed by |"]
        parts += ["| --- | --- | --- | --- |"]
        for column in COLUMNS.values():
            if kind in column.kinds:
                cells = [f"`{column.name}`", column.unit, column.sentence]
                cells = [cell.replace("|", "\\|") for cell in cells]
                module, _, name = column.function.partition(".")[2].rpartition(".")
                cells.append(f"`{name}` in `{module}`")
                parts.append(f"| {' | '.join(cells)} |")
        parts += [":::", ""]
    return "\n".join(parts)


def as_row(recipe: Any) -> dict[str, Any]:
    """Return a recipe's fields as rows, files and keys have them.

    Numbers and texts stay, nothing is an empty text, another object is its str().

    >>> from widemin.attacks import Linf
    >>> from widemin.experiments.recipe import Recipe
    >>> as_row(Recipe(tests=(Linf(0.1), "linf 8/255")))["tests"]
    ('linf 0.1', 'linf 8/255')
    """
    return {f.name: as_column(getattr(recipe, f.name)) for f in fields(recipe)}


def as_column(value: Any) -> Any:
    """Return one value as `as_row` does."""
    if isinstance(value, tuple):
        return tuple(map(as_column, value))
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) else str(value)
