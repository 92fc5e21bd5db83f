"""The runs of chapter 2 by method, and how each looks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pandas as pd

from widemin.papers.claims import final
from widemin.papers.figures import COLOURS, ORANGE, ball_name


def strength_of(row: pd.Series[Any]) -> str:
    """Return a run's method and how strongly it is applied, e.g. "SAM 0.2"."""
    if row["method"] == "sam":
        return f"SAM {row['rho']:g}"
    if row["method"] == "standard":
        return "standard"
    return f"AT {ball_name(row['attack'])}"


_LINES = ("-", "--", ":", "-.")


def with_names(table: pd.DataFrame, measured: str = "final") -> pd.DataFrame:
    """Return rows with the name of their method, in the order of its strength."""
    rows = final(table) if measured == "final" else table
    rows = rows[rows["measured"] == measured]
    if rows.empty:
        return rows.assign(name="")
    order = rows.apply(_place, axis=1).sort_values(kind="stable").index
    return rows.assign(name=rows.apply(strength_of, axis=1)).loc[order]


def _place(row: pd.Series[Any]) -> tuple[int, float, bool, Fraction]:
    """Return where a run stands: plain, SAM by its radius, attacked by norm, radius."""
    norm, _, radius = row["attack"].partition(" ")
    kinds = ["standard", "sam", "adversarial"]
    kind = kinds.index(row["method"]) if row["method"] in kinds else len(kinds)
    return kind, row["rho"], norm == "l2", Fraction(radius or 0)


def colour_of(row: pd.Series[Any]) -> str:
    """Return the colour of a run's method; training in L2 balls has its own."""
    return ORANGE if row["attack"].startswith("l2") else COLOURS[row["method"]]


def line_looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return each name's colour, by method, and line, by strength within it."""
    looks: dict[str, dict[str, Any]] = {}
    lines: dict[str, Iterator[str]] = {}
    for name, part in rows.groupby("name", sort=False):
        colour = colour_of(part.iloc[0])
        line = next(lines.setdefault(colour, itertools.cycle(_LINES)))
        looks[str(name)] = {"color": colour, "linestyle": line}
    return looks
