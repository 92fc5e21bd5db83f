"""Claims and their parts: both revisions of book/claims.csv."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from widemin import paths

KINDS = ("printed", "argued", "ours", "control")
SIMULATED = ("", "linear models")  # runs that are no recipes
SEEDS = 3  # fewer decide nothing
FGSM = "fgsm_accuracy"

# What a part may measure: its range, its unit, whether it is exact or ranks networks.
STATISTICS = pd.read_csv(
    Path(__file__).with_name("statistics.csv"), keep_default_na=False, index_col=0
).to_dict("index")

# What sentences on claims say, and what criteria call things.
SAID: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yml").read_text())


@dataclass(frozen=True)
class Claim:
    """A claim in words, with its criterion by revision 1."""

    id: str
    paper: str
    statement: str
    revised: str  # what revision 2 changed
    expected: str  # of our own claims, and why
    criterion: str
    decidable_from: str


@dataclass(frozen=True)
class Part:
    """One printed column, curve or statement of a claim: book/criteria.md says more."""

    claim: str
    part: str
    kind: str
    statement: str
    criterion: str
    statistic: str
    compare: str
    threshold: float
    given: Mapping[str, str]
    runs: str
    needs: Mapping[str, str]
    untrained: str
    fixed: str
    rows_known: bool
    line: int  # of claims.csv

    @property
    def name(self) -> str:
        """The part as messages name it, e.g. "W1a"."""
        return f"{self.claim}{self.part}"

    @property
    def column(self) -> str:
        """The column that its criterion speaks of; accuracy under FGSM if of none."""
        columns = SAID["columns"].items()
        return next((c for said, c in columns if said in self.criterion), FGSM)


def _revision(number: str, path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["line"] = table.index + 2
    return table[table["revision"] == number]


@cache
def criteria() -> dict[str, Claim]:
    """Return every claim by its id."""
    said = pd.read_csv(
        paths.BOOK / "statements.csv", index_col="id", keep_default_na=False
    )
    table = _revision("1", paths.BOOK / "claims.csv").drop(columns="statement")
    table = table.join(said, on="id")[[field.name for field in fields(Claim)]]
    return {row["id"]: Claim(**row) for row in table.to_dict("records")}


@cache
def parts(path: Path = paths.BOOK / "claims.csv") -> dict[str, tuple[Part, ...]]:
    """Return the parts of every claim by its id, as tests/test_criteria.py checks."""
    rows = _revision("2", path).to_dict("records")
    return {
        name: tuple(_part(row) for row in rows if row["id"] == name)
        for name in _revision("1", path)["id"]
    }


def _part(row: dict[str, Any]) -> Part:
    made = row | {"claim": row["id"], "threshold": float(row["threshold"])}
    made |= {"given": _pairs(row["given"]), "needs": _pairs(row["needs"])}
    made["rows_known"] = row["rows_known"] == "yes"
    return Part(**{field.name: made[field.name] for field in fields(Part)})


def _pairs(text: str) -> dict[str, str]:
    """Return "a=1; b=2" as a dictionary."""
    return dict(each.strip().split("=", 1) for each in text.split(";") if each.strip())


@cache
def paper_table(name: str) -> pd.DataFrame:
    """Return one of the papers' own tables, as printed, in percent."""
    return pd.read_csv(paths.PUBLISHED / "papers" / f"{name}.csv")
