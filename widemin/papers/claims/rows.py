"""The rows that a part judges, and what they lack to decide it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims.draws import Array, Cells
from widemin.papers.claims.parts import SIMULATED, Part

# Parts that tell a network of two lists apart, or read each of its test sets.
_BY_LIST = ("H9", "H10", "H11", "H13", "H14", "H15")
_EVERY_TEST = ("S4", "S10")
_LIMIT = re.compile(r"(natural|training|PGD-20) accuracy below ([\d.]+)")
_LIMITED = {"natural": "natural_accuracy", "training": "train_accuracy"}
_LIMITED |= {"PGD-20": "pgd_accuracy"}
# All of whose seeds count, or none.
CELL = ["list", "batch_size", "learning_rate", "momentum", "rho", "attack"]
# Rows that agree in these differ in their seed alone.
_ALIKE = ["dataset", "model", "batch_size", "learning_rate", "momentum", "schedule"]
_ALIKE += ["augment", "epochs", "method", "rho", "attack", "attack_steps"]
_ALIKE += ["attack_step", "step_schedule"]
# What `needs` may hold beside numbers: values that a run must have.
_EQUAL = ("dataset", "model", "augment", "ramp", "fosc_bins")
_SIZES = ("train_size", "epochs", "images", "strong_size", "autoattack_size")
_PLURAL = {
    "seed": "seeds",
    "batch_size": "batch sizes",
    "learning_rate": "learning rates",
    "attack": "training sets of perturbations",
    "train_size": "training images",
}


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of networks that did not diverge."""
    if table.empty:
        return table
    rows = table[table["measured"] == "final"]
    return rows[~rows["diverged"].astype(bool)]


@dataclass(frozen=True)
class Runs:
    """Rows of one preset, and which of its recipes they belong to.

    Attributes:
        preset: Its name.
        lists: The chapter's lists of recipes: name to list, or to a mapping of lists.
        table: Rows, with the key and the fields of their recipe.
        chosen: What was chosen of them before: parts share rows.
    """

    preset: str
    lists: Mapping[str, Any]
    table: pd.DataFrame
    chosen: dict[Any, Any] = field(default_factory=dict)

    def once(self, about: Any, make: Callable[[], Any]) -> Any:
        """Return what was made for a key before, else make it."""
        if about not in self.chosen:
            self.chosen[about] = make()
        return self.chosen[about]

    def of(self, measured: str) -> pd.DataFrame:
        """Return the rows of one kind, e.g. "final"."""
        if self.table.empty:
            return self.table
        rows = self.table
        return self.once(measured, lambda: rows[rows["measured"].eq(measured)])

    def text(self, column: str) -> Array:
        """Return a column of the final rows as text."""
        rows = self.of("final")
        make = lambda: rows[column].map(str).to_numpy(object)  # noqa: E731
        return self.once(("text", column), make)

    def places(self, name: str) -> Array:
        """Return where in the final rows a list's networks stand.

        An entry of a mapping stands in brackets: "settings[LR]".
        """
        of, _, entry = name.rstrip("]").partition("[")
        listed = self.lists.get(of, ())
        keys = {r.key for r in (listed.get(entry, ()) if entry else listed)}
        return np.flatnonzero([key in keys for key in self.text("key")])


@dataclass(frozen=True)
class Rows:
    """The rows that a part judges.

    Attributes:
        final: A row a network and list; networks that the part leaves out are gone.
        runs: Where they are from.
        used: Keys of the networks that a statistic averaged.
    """

    final: pd.DataFrame
    runs: Runs
    used: set[str] = field(default_factory=set)

    def of(self, measured: str) -> pd.DataFrame:
        """Return the rows of one kind, e.g. "epoch", of the networks that count."""
        rows = self.runs.of(measured)
        return rows[rows["key"].isin(self.final["key"])]

    def joined(self, values: pd.Series[Any]) -> pd.DataFrame:
        """Return the final rows with a number of each network, by key, as `value`."""
        return self.final.assign(value=self.final["key"].map(values))

    def cells(
        self, by: Sequence[str], *columns: str, of: Any = None, networks: bool = False
    ) -> Cells:
        """Return means of columns over the seeds of each cell, of all rows or some."""
        cells = Cells(self.final if of is None else of, by, columns, networks)
        self.used.update(cells.keys)
        return cells


def rows_of(part: Part, runs: Runs) -> tuple[Rows, str]:
    """Return the rows that a part judges, and what they lack to decide it, or ""."""
    about = (part.claim, part.runs, str(part.needs), part.untrained, str(part.given))
    rows, lacks = runs.once(about, lambda: _rows_of(part, runs))
    return Rows(rows, runs), lacks


def _rows_of(part: Part, runs: Runs) -> tuple[pd.DataFrame, str]:
    none = runs.of("final").iloc[:0]
    if runs.table.empty:
        return none, "no rows"
    names = [name.strip() for name in part.runs.split(" + ")]
    each = [runs.once(("at", name), partial(runs.places, name)) for name in names]
    listed = np.zeros(len(runs.text("key")), bool)
    listed[np.concatenate(each)] = True
    chosen, lacks = _asked_for(part, runs, listed)
    if "test" in part.given:
        chosen &= runs.text("test") == part.given["test"]
    if not chosen.any():
        return none, "no rows"
    if part.claim not in _EVERY_TEST:
        at = np.flatnonzero(chosen)
        first = at[np.unique(runs.text("key")[at], return_index=True)[1]]
        chosen = np.isin(np.arange(len(chosen)), first)
    labels = [name.partition("[")[2].rstrip("]") or name for name in names]
    if part.claim not in _BY_LIST:
        labels, each = [""], [np.flatnonzero(chosen)]
    each = [at[chosen[at]] for at in each]
    rows = runs.of("final").take(np.concatenate(each))
    rows = rows.assign(list=np.repeat(labels, [len(at) for at in each]))
    rows, short = left_out(part, rows)
    return rows, short if rows.empty else lacks or short


def _asked_for(part: Part, runs: Runs, chosen: Array) -> tuple[Array, str]:
    """Return which of chosen rows have a part's values, and one that none has."""
    lacks = ""
    for name in (n for n in _EQUAL if n in part.needs and chosen.any()):
        wanted = part.needs[name]
        same = np.isin(runs.text(name), [wanted, f"{wanted}.0"])
        if name in ("ramp", "fosc_bins"):  # of networks trained adversarially
            plain = runs.text("attack") == ""
            same = (same | plain) & bool((chosen & same & ~plain).any())
        if (chosen & same).any() or name in ("dataset", "model"):
            chosen = chosen & same
        else:
            lacks = f"it takes {name.replace('_', ' ')} {wanted}"
    for name, none_of in (("rho", "0.0"), ("attack", "")):
        value = part.given.get(name, ",")
        if "," not in value:
            equal = [none_of, none_of[:1], value, f"{value}.0"]
            chosen = chosen & np.isin(runs.text(name), equal)
    return chosen, lacks


def left_out(part: Part, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows without networks that did not train, and what they lack."""
    lost = rows["diverged"].eq(True).to_numpy()
    needs = _numbers(part)
    lacks, every = _gaps(rows, needs), rows
    if excluded := part.untrained.startswith("excluded"):
        lost = lost | rows["constant"].eq(True).to_numpy()
        if limit := _LIMIT.search(part.untrained):
            lost = lost | ~(rows[_LIMITED[limit[1]]] >= float(limit[2])).to_numpy()
        if "seed" in part.needs:  # means of a cell are of all its seeds, or of none
            cells = list(zip(*(rows[name] for name in CELL), strict=True))
            poor = {cell for cell, gone in zip(cells, lost, strict=True) if gone}
            lost = np.array([cell in poor for cell in cells])
    if part.claim != "W5":  # which counts them
        rows = rows[~lost]
    if rows.empty:
        return rows, "no network is trained" if excluded else "no rows"
    short = shortfall(rows, needs)
    if short and excluded and lost.any() and not shortfall(every, needs):
        short += " whose networks are trained"
    return rows, lacks or short


def _gaps(rows: pd.DataFrame, needs: Mapping[str, str]) -> str:
    """Return what a grid of batch sizes and rates lacks to be crossed, or ""."""
    if not {"batch_size", "learning_rate"} <= set(needs):
        return ""
    sizes, rates = int(needs["batch_size"]), int(needs["learning_rate"])
    there = rows.groupby("batch_size")["learning_rate"].agg(frozenset)
    some = itertools.combinations(there, sizes)
    if any(len(frozenset.intersection(*each)) >= rates for each in some):
        return ""
    return f"it takes a full grid of {sizes} batch sizes by {rates} rates"


def _numbers(part: Part) -> dict[str, str]:
    return {k: v for k, v in part.needs.items() if k not in _EQUAL}


def shortfall(table: pd.DataFrame, needs: Mapping[str, str]) -> str:
    """Return what rows lack to decide a part, or "".

    Sizes must be reached by every row, `samples` is the product of images and epochs;
    of seeds, cells and sets there must be as many different ones.
    """
    if needs and set(table["dataset"]) == {"digits"}:
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
            columns = [table[name] for name in [*_ALIKE, "seed"] if name in table]
            cells = Counter(row[:-1] for row in set(zip(*columns, strict=True)))
            there = min(cells.values())
        else:
            there = len(set(table[name]) - {""})
        if there < int(wanted):
            plural = _PLURAL.get(name, name.replace("_", " "))
            return f"it takes {int(wanted):,} {plural}; there are {there:,}"
    return ""


@lru_cache(64)
def _planned(recipes: tuple[Any, ...]) -> Runs:
    """Return recipes as if their rows were there."""
    about = [vars(r) | {"key": r.key, "method": r.method} for r in recipes]
    table = pd.DataFrame(about).assign(measured="final")
    return Runs("", {}, table.assign(images=table["test_size"]))  # as rows call it


def lacking(part: Part, recipes: Sequence[Any]) -> str:
    """Return in words why planned runs cannot decide a part; "" where they can.

    Args:
        part: Which.
        recipes: The runs of its `runs` at a preset.
    """
    if part.runs in SIMULATED:
        return ""
    if not recipes:
        return "no run is planned"
    runs = _planned(tuple(recipes))
    chosen, lacks = _asked_for(part, runs, np.ones(len(recipes), bool))
    if not chosen.any():
        return "no run is planned"
    return lacks or shortfall(runs.table[chosen], _numbers(part))
