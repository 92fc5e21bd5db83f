"""The runs of chapter 2 by method, and how each looks."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from widemin.claims import final
from widemin.figures import COLOURS, ball_name


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
    return rows.assign(name=rows.apply(strength_of, axis=1) if len(rows) else "")


def line_looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return each name's colour, by method, and line, by strength within it."""
    looks: dict[str, dict[str, Any]] = {}
    for method, part in rows.groupby("method", sort=False):
        for name, line in zip(part["name"].unique(), itertools.cycle(_LINES)):
            looks[name] = {"color": COLOURS[str(method)], "linestyle": line}
    return looks
