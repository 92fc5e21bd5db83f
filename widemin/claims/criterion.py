"""Claims and their criteria, as book/claims.csv has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pandas as pd

from widemin import paths


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in book/claims.csv, with its criterion."""

    id: str
    paper: str
    statement: str
    criterion: str
    thresholds: dict[str, float]
    needs: dict[str, str]
    decidable_from: str
    stronger_test: str
    line: int  # of claims.csv


@cache
def criteria() -> dict[str, Claim]:
    """Return every claim by its id."""

    def pairs(text: str) -> dict[str, str]:
        parts = (part.split("=") for part in text.split(";") if part.strip())
        return {name.strip(): value.strip() for name, value in parts}

    table = pd.read_csv(paths.BOOK / "claims.csv", dtype=str, keep_default_na=False)
    return {
        row["id"]: Claim(
            id=row["id"],
            paper=row["paper"],
            statement=row["statement"],
            criterion=row["criterion"],
            thresholds={k: float(v) for k, v in pairs(row["thresholds"]).items()},
            needs=pairs(row["needs"]),
            decidable_from=row["decidable_from"],
            stronger_test=row["stronger_test"],
            line=line,
        )
        for line, row in enumerate(table.to_dict("records"), start=2)
    }


def paper_table(name: str) -> pd.DataFrame:
    """Return one of the papers' own tables, as printed, in percent."""
    return pd.read_csv(paths.PUBLISHED / "papers" / f"{name}.csv")


# What is typed, or what markdown would read as a mark, and how it is shown instead.
_MARKS = {
    "<=": "≤",
    ">=": "≥",
    "<": "&lt;",
    ">": "&gt;",
    "**": "",
    "*": "\\*",
    "$": "\\$",
}


def plain(text: str) -> str:
    """Return a text of claims.csv so that markdown shows it as it stands."""
    for mark, shown in _MARKS.items():
        text = text.replace(mark, shown)
    return text.rstrip(".")
