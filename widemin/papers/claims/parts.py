"""The parts of claims: revision 2 of book/claims.csv, read and checked."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from widemin import paths
from widemin.experiments.columns import as_column, as_row
from widemin.names import check_choice

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
        needs: The least that can decide it, as `shortfall` reads it.
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
    name, statistic = f"{row['id']}{row['part']}", row["statistic"]
    for column in ("statement", "criterion", "fixed", "statistic"):
        if not row[column]:
            raise ValueError(f"{name} must have a {column}; got none")
    check_choice(f"kind of {name}", row["kind"], KINDS)
    check_choice(f"statistic of {name}", statistic, STATISTICS)
    check_choice(f"compare of {name}", row["compare"], COMPARISONS)
    low, high = STATISTICS[statistic]
    threshold = _number(f"threshold of {name}", row["threshold"])
    if not low <= threshold <= high:
        raise ValueError(
            f"threshold of {name} must lie in the range of {statistic}, "
            f"{low:g} to {high:g}; got {threshold:g}"
        )
    untrained = row["untrained"].split(":")[0]
    if statistic in RANKED and untrained not in ("excluded", "counted"):
        raise ValueError(
            f"untrained of {name} must be 'excluded: ...' or 'counted'; got "
            f"{row['untrained']!r}"
        )
    needs = _pairs(f"needs of {name}", row["needs"])
    seeds, networks = (
        _number(f"needs of {name}, {key}", needs.get(key, "0"))
        for key in ("seed", "networks")
    )
    enough = seeds >= SEEDS or (statistic in RANKED and networks >= NETWORKS)
    if statistic not in EXACT and row["runs"] not in SIMULATED and not enough:
        raise ValueError(
            f"needs of {name} must ask for {SEEDS} seeds, or for {NETWORKS} networks "
            f"of a correlation; got {row['needs']!r}"
        )
    same = ("part", "kind", "statement", "criterion", "statistic", "compare")
    return Part(
        claim=row["id"],
        **{key: row[key] for key in (*same, "runs", "untrained", "fixed")},
        threshold=threshold,
        given=_pairs(f"given of {name}", row["given"]),
        needs=needs,
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
# Rows that agree in these differ in their seed alone.
_CELL = ["dataset", "model", "batch_size", "learning_rate", "momentum", "schedule"]
_CELL += ["augment", "epochs", "method", "rho", "attack", "attack_steps"]
_CELL += ["attack_step", "step_schedule"]
_SIZES = ("train_size", "epochs", "images", "strong_size", "autoattack_size")
_PLURAL = {
    "seed": "seeds",
    "batch_size": "batch sizes",
    "learning_rate": "learning rates",
    "attack": "training sets of perturbations",
    "train_size": "training images",
}


def shortfall(table: pd.DataFrame, needs: Mapping[str, str]) -> str:
    """Return what rows lack to decide a part, or "".

    Sizes must be reached by every row, `samples` is the product of images and epochs;
    of seeds, cells and sets there must be as many different ones.
    """
    if set(table["dataset"]) == {"digits"}:
        return "it takes larger images than digits"
    for name, wanted in needs.items():
        if name == "samples":
            there = int((table["train_size"] * table["epochs"]).min())
        elif name in _SIZES:
            there = int(table[name].min())
        elif name == "cells":
            there = table.groupby(["batch_size", "learning_rate"]).ngroups
        elif name == "networks":
            there = table["key"].nunique()
        elif name == "seed":  # of the cell that has the fewest
            columns = [table[name] for name in [*_CELL, "seed"] if name in table]
            cells = Counter(row[:-1] for row in set(zip(*columns, strict=True)))
            there = min(cells.values())
        else:
            there = len(set(table[name]) - {""})
        if there < int(wanted):
            plural = _PLURAL.get(name, name.replace("_", " "))
            return f"it takes {int(wanted):,} {plural}; there are {there:,}"
    return ""


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
    table["images"] = table["test_size"]  # as rows call it
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
