"""Claims and their parts: both revisions of book/claims.csv, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pandas as pd
import yaml

from widemin import paths
from widemin.names import check, check_choice

KINDS = ("printed", "argued", "control")
SIMULATED = ("", "linear models")  # runs that are no recipes
SEEDS, NETWORKS = 3, 12  # fewer decide nothing
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
    said = pd.read_csv(paths.BOOK / "statements.csv", index_col="id")
    table = _revision("1", paths.BOOK / "claims.csv").drop(columns="statement")
    table = table.join(said, on="id")[[field.name for field in fields(Claim)]]
    return {row["id"]: Claim(**row) for row in table.to_dict("records")}


@cache
def parts(path: Path = paths.BOOK / "claims.csv") -> dict[str, tuple[Part, ...]]:
    """Return the parts of every claim, by its id.

    Raises:
        ValueError: A claim without parts, or a part that cannot be judged as it
            stands; the message names it.
    """
    each: dict[str, list[Part]] = {name: [] for name in _revision("1", path)["id"]}
    for row in _revision("2", path).to_dict("records"):
        check_choice("claim", row["id"], each)
        each[row["id"]].append(_part(row))
    for name, listed in each.items():
        check(listed, f"claim {name} must have parts", f"none in {path.name}")
        letters = [part.part for part in listed]
        ordered = letters == list(ascii_lowercase[: len(letters)])
        check(ordered, f"parts of {name} must be a, b, ...", letters)
    return {name: tuple(listed) for name, listed in each.items()}


def _part(row: dict[str, Any]) -> Part:
    """Return the part in a row of claims.csv, checked."""
    name, statistic = f"{row['id']}{row['part']}", row["statistic"]
    for column in ("statement", "criterion", "fixed", "statistic"):
        check(row[column], f"{name} must have a {column}", "none")
    check_choice(f"kind of {name}", row["kind"], KINDS)
    check_choice(f"statistic of {name}", statistic, STATISTICS)
    check_choice(f"compare of {name}", row["compare"], (">=", "<=", ">", "<"))
    low, high, kind = (STATISTICS[statistic][k] for k in ("low", "high", "kind"))
    threshold = _number(f"threshold of {name}", row["threshold"])
    ends = f"the range of {statistic}, {low:g} to {high:g}"
    inside = low <= threshold <= high
    check(inside, f"threshold of {name} must lie in {ends}", f"{threshold:g}")
    told = kind != "ranked" or row["untrained"].split(":")[0] in ("excluded", "counted")
    wanted = f"untrained of {name} must be 'excluded: ...' or 'counted'"
    check(told, wanted, repr(row["untrained"]))
    needs = _pairs(f"needs of {name}", row["needs"])
    least = {"seed": SEEDS} | ({"networks": NETWORKS} if kind == "ranked" else {})
    enough = kind == "exact" or row["runs"] in SIMULATED
    for key, count in least.items():
        enough |= _number(f"needs of {name}, {key}", needs.get(key, "0")) >= count
    wanted = f"{SEEDS} seeds, or for {NETWORKS} networks of a correlation"
    check(enough, f"needs of {name} must ask for {wanted}", repr(row["needs"]))
    made = row | {"claim": row["id"], "threshold": threshold, "needs": needs}
    made["given"] = _pairs(f"given of {name}", row["given"])
    made["rows_known"] = row["rows_known"] == "yes"
    return Part(**{field.name: made[field.name] for field in fields(Part)})


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number; got {text!r}") from None


def _pairs(name: str, text: str) -> dict[str, str]:
    """Return "a=1; b=2" as a dictionary."""
    pairs = {}
    for each in filter(str.strip, text.split(";")):
        key, sign, value = each.strip().partition("=")
        check(sign, f"{name} must be written 'a=1; b=2'", repr(text))
        pairs[key] = value
    return pairs


@cache
def paper_table(name: str) -> pd.DataFrame:
    """Return one of the papers' own tables, as printed, in percent."""
    return pd.read_csv(paths.PUBLISHED / "papers" / f"{name}.csv")
