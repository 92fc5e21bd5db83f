"""The parts of claims: revision 2 of book/claims.csv, read and checked."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from widemin import paths
from widemin.experiments.columns import as_column, as_row
from widemin.names import check_choice
from widemin.papers.claims.judging import shortfall

KINDS = ("printed", "argued", "control")
COMPARISONS = (">=", "<=", ">", "<")

# What a part may measure, and the range of it.
STATISTICS: dict[str, tuple[float, float]] = {
    "accuracy": (0, 1),
    "count": (0, math.inf),
    "deviation": (0, 1),
    "difference": (-1, 1),
    "distance": (0, 1),
    "epoch_lead": (-1, 1),  # of the best epoch, as a share of training
    "epoch_share": (0, 1),
    "epochs": (0, math.inf),
    "error": (0, math.inf),
    "log_ratio": (-math.inf, math.inf),
    "normalised": (0, 1),  # FOSC over its largest first-order value
    "range": (0, 1),
    "rank_lead": (-2, 2),  # one rank correlation less another's size
    "ratio": (0, math.inf),
    "share": (0, 1),
    "spearman": (-1, 1),
    "theorem": (0, 1),
}
EXACT = ("count", "error", "theorem")  # the same for every seed
RANKED = ("spearman", "rank_lead", "range")
SIMULATED = ("", "linear models")  # runs that are no recipes

SEEDS, NETWORKS = 3, 12  # fewer decide nothing


@dataclass(frozen=True)
class Part:
    """One printed column, curve or statement of a claim, with its criterion.

    Attributes:
        claim: Its claim's id.
        part: Its letter.
        kind: One of KINDS.
        statement: What the paper prints or says.
        criterion: What it must show to pass, in words.
        statistic: One of STATISTICS, compared by `compare` with `threshold`.
        given: What chooses the rows, e.g. test "linf 0.3".
        runs: The chapter's lists of runs that are judged.
        needs: The least that can decide it, as `judging.shortfall` reads it.
        untrained: What is done with networks that did not train.
        fixed: The day on which the part took its form.
        rows_known: Whether rows that it judges were known then.
        line: Of claims.csv.
    """

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
    line: int

    @property
    def name(self) -> str:
        """The part as messages name it, e.g. "W1a"."""
        return f"{self.claim}{self.part}"


@cache
def parts(path: Path = paths.BOOK / "claims.csv") -> dict[str, tuple[Part, ...]]:
    """Return the parts of every claim, by its id.

    Raises:
        ValueError: A claim without parts, or a part that cannot be judged as it
            stands; the message names it.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    claims = table.loc[table["revision"] == "1", "id"]
    found: dict[str, list[Part]] = {name: [] for name in claims}
    for line, row in enumerate(table.to_dict("records"), start=2):
        if row["revision"] == "2":
            check_choice("claim", row["id"], found)
            found[row["id"]].append(_part(row, line))
    for name, listed in found.items():
        if not listed:
            raise ValueError(f"claim {name} must have parts; got none in {path.name}")
        letters = [part.part for part in listed]
        if letters != list(string.ascii_lowercase[: len(letters)]):
            raise ValueError(f"parts of {name} must be a, b, ...; got {letters}")
    return {name: tuple(listed) for name, listed in found.items()}


def _part(row: dict[str, str], line: int) -> Part:
    """Return the part in a row of claims.csv, checked."""
    name = f"{row['id']}{row['part']}"
    check_choice(f"kind of {name}", row["kind"], KINDS)
    if not row["statistic"]:
        raise ValueError(f"{name} must have a statistic; got none")
    check_choice(f"statistic of {name}", row["statistic"], STATISTICS)
    check_choice(f"compare of {name}", row["compare"], COMPARISONS)
    low, high = STATISTICS[row["statistic"]]
    threshold = _number(f"threshold of {name}", row["threshold"])
    if not low <= threshold <= high:
        raise ValueError(
            f"threshold of {name} must lie in the range of {row['statistic']}, "
            f"{low:g} to {high:g}; got {threshold:g}"
        )
    for column in ("statement", "criterion", "fixed"):
        if not row[column]:
            raise ValueError(f"{name} must have a {column}; got none")
    if row["statistic"] in RANKED and row["untrained"].split(":")[0] not in (
        "excluded",
        "counted",
    ):
        raise ValueError(
            f"untrained of {name} must be 'excluded: ...' or 'counted'; got "
            f"{row['untrained']!r}"
        )
    needs = _pairs(f"needs of {name}", row["needs"])
    seeds, networks = (
        _number(f"needs of {name}, {key}", needs.get(key, "0"))
        for key in ("seed", "networks")
    )
    enough = seeds >= SEEDS or (row["statistic"] in RANKED and networks >= NETWORKS)
    if row["statistic"] not in EXACT and row["runs"] not in SIMULATED and not enough:
        raise ValueError(
            f"needs of {name} must ask for {SEEDS} seeds, or for {NETWORKS} networks "
            f"of a correlation; got {row['needs']!r}"
        )
    return Part(
        claim=row["id"],
        part=row["part"],
        kind=row["kind"],
        statement=row["statement"],
        criterion=row["criterion"],
        statistic=row["statistic"],
        compare=row["compare"],
        threshold=threshold,
        given=_pairs(f"given of {name}", row["given"]),
        runs=row["runs"],
        needs=needs,
        untrained=row["untrained"],
        fixed=row["fixed"],
        rows_known=row["rows_known"] == "yes",
        line=line,
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number; got {text!r}") from None


def _pairs(name: str, text: str) -> dict[str, str]:
    """Return "a=1; b=2" as a dictionary."""
    found = {}
    for each in filter(str.strip, text.split(";")):
        key, sign, value = each.strip().partition("=")
        if not sign:
            raise ValueError(f"{name} must be written 'a=1; b=2'; got {text!r}")
        found[key] = value
    return found


# What `needs` may hold beside numbers: values that a run must have.
EQUAL = ("dataset", "model", "augment", "ramp", "fosc_bins")
# Sizes that recipes call by another name than rows do.
_SIZES = {"images": "test_size"}


def lacking(part: Part, recipes: Sequence[Any]) -> str:
    """Return in words why planned runs cannot decide a part; "" where they can.

    Args:
        part: Which.
        recipes: The runs of its `runs` at a preset.
    """
    if part.runs in SIMULATED:
        return ""
    chosen = [recipe for recipe in recipes if _chosen(part, recipe)]
    if not chosen:
        return "no run is planned"
    table = pd.DataFrame(
        [as_row(r) | {"key": r.key, "method": r.method} for r in chosen]
    )
    for column, name in _SIZES.items():
        table[column] = table[name]
    needs = {k: v for k, v in part.needs.items() if k not in EQUAL}
    return shortfall(table, needs)


def _chosen(part: Part, recipe: Any) -> bool:
    """Return True if a recipe has the values that a part asks for."""

    def same(name: str, value: str) -> bool:
        return str(as_column(getattr(recipe, name))) in (value, f"{value}.0")

    if not all(same(k, v) for k, v in part.needs.items() if k in EQUAL):
        return False
    for name in ("rho", "attack"):
        value = part.given.get(name)
        plain = getattr(recipe, name) in (0, None)
        if value is not None and "," not in value and not (plain or same(name, value)):
            return False
    return True
