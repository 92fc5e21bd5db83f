"""Claims and their criteria, as book/claims.csv has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import pandas as pd

from widemin import paths
from widemin.names import norm_and_radius

BALLS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True)
class Claim:
    """A claim in words, with its criterion by revision 1 (book/claims.csv)."""

    id: str
    paper: str
    statement: str
    revised: str  # what revision 2 changed
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
    said = pd.read_csv(paths.BOOK / "statements.csv", index_col="id")
    if "revision" in table:
        table = table[table["revision"] == "1"]
    table = table[table["revision"] == "1"]  # its lines come first
    return {
        row["id"]: Claim(
            id=row["id"],
            paper=row["paper"],
            statement=str(said.loc[row["id"], "statement"]),
            revised=str(said.loc[row["id"], "revised"]),
            criterion=row["criterion"],
            thresholds={k: float(v) for k, v in pairs(row["thresholds"]).items()},
            needs=pairs(row["needs"]),
            decidable_from=row["decidable_from"],
            stronger_test=row["stronger_test"],
            line=line,
        )
        for line, row in enumerate(table.to_dict("records"), start=2)
    }


@cache
def paper_table(name: str) -> pd.DataFrame:
    """Return one of the papers' own tables, as printed, in percent."""
    return pd.read_csv(paths.PUBLISHED / "papers" / f"{name}.csv")


def ball_name(test: str) -> str:
    """Return a set as axes and sentences name it, e.g. "L∞ 8/255"."""
    norm, _ = norm_and_radius(test)
    return test.replace(norm, BALLS[norm])


# What is typed for want of a key, and what is meant.
_WORDS = {
    r"\beps\b": "ε",
    r"\beta\b": "η",
    r"\brho\b": "ρ",
    r"\bdelta\b": "δ",
    r"/ mu\b": "/ μ",
    r"\blambda_1\b": "λ₁",
    r"\b(L_inf|linf)\b": "L∞",
    r"\bl2\b": "L2",
    r"\bL_thx\^2": "L_θx²",
    r"\bT\^-1/2": "1/√T",
    r"\bw\*\^2": "w*²",
    r"\bnorm1\(g\)": "‖g‖₁",
    r"\bw_theta\b": "width in weights",
    r"\badv_acc\b": "adversarial accuracy",
    r"\bclean\b": "natural",
    r"\bST\b": "standard",
    r"\bTHEORY\b": "theory",
    r"\+-": "±",
    r"(?<![\d.])\.(?=\d)": "0.",
    r"(?<=\d)-(?=\d)": "–",
}


def _worded(text: str) -> str:
    """Return a text of claims.csv with its symbols as the book writes them.

    >>> _worded("Pass for rho = .4, natural below ST by 1-2 points")
    'Pass for ρ = 0.4, natural below standard by 1–2 points'
    """
    for typed, meant in _WORDS.items():
        text = re.sub(typed, meant, text)
    return text


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
    text = _worded(text)
    for mark, shown in _MARKS.items():
        text = text.replace(mark, shown)
    return text.rstrip(".")
