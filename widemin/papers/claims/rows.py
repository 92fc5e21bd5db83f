"""The rows that a part judges, and what they lack to decide it."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims.draws import Array, Cells, Missing, of_one_revision
from widemin.papers.claims.parts import SAID, Part

# Parts that tell a network of two lists apart, or read each of its test sets.
_BY_LIST = ("H9", "H10", "H11", "H13", "H14", "H15", "N1", "N3", "N4", "N5", "N6")
_EVERY_TEST = ("S4", "S10")
_LIMIT = re.compile(r"([\w-]+ accuracy) below ([\d.]+)")
# All of whose seeds count, or none.
CELL = ["list", "batch_size", "learning_rate", "momentum", "rho", "attack"]
# Rows that agree in these differ in their seed alone.
_ALIKE = ["dataset", "model", "batch_size", "learning_rate", "momentum", "schedule"]
_ALIKE += ["augment", "epochs", "method", "rho", "attack", "attack_steps"]
_ALIKE += ["attack_step", "step_schedule", "cross_entropy"]
_ALIKE += ["weight_decay", "label_smoothing", "sam_from", "stop_loss"]
# What `needs` may hold beside numbers: values that a run must have.
_EQUAL = ("dataset", "model", "augment", "ramp", "fosc_bins")
_SIZES = ("train_size", "epochs", "images", "strong_size", "autoattack_size")


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of networks that did not diverge, as comparable."""
    if table.empty:
        return table
    rows = table[table["measured"] == "final"]
    return of_one_revision(rows[~rows["diverged"].astype(bool)])


def with_columns(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return rows that have these columns, empty where nothing was measured."""
    return rows.reindex(columns=rows.columns.union(list(columns)))


@dataclass(frozen=True)
class Runs:
    """Rows of one preset, and which of its recipes they belong to."""

    preset: str
    lists: Mapping[str, Any]  # the chapter's: name to recipes, or to a mapping of them
    table: pd.DataFrame  # with the key and the fields of their recipe

    @cached_property
    def _kinds(self) -> dict[str, pd.DataFrame]:
        return dict(iter(self.table.groupby("measured"))) if len(self.table) else {}

    def of(self, measured: str) -> pd.DataFrame:
        """Return the rows of one kind, e.g. "final"."""
        return self._kinds.get(measured, self.table.iloc[:0])

    @cached_property
    def _keys(self) -> dict[str, set[str]]:
        return {}

    def listed(self, names: str) -> list[Any]:
        """Return the recipes of lists of runs, "settings[LR] + first" say."""
        found = []
        for name in names.split(" + "):
            of, _, entry = name.strip().rstrip("]").partition("[")
            listed = self.lists.get(of, ())
            found += listed.get(entry, ()) if entry else listed
        return found

    def places(self, name: str) -> Array:
        """Return the places in the final rows of a list of runs."""
        if name not in self._keys:
            self._keys[name] = {recipe.key for recipe in self.listed(name)}
        return np.flatnonzero(self.of("final")["key"].isin(self._keys[name]))


@dataclass(frozen=True)
class Rows:
    """The rows that a part judges, and where they are from."""

    final: pd.DataFrame  # a row a network and list, of networks that count
    runs: Runs
    used: set[str] = field(default_factory=set)  # keys of what a statistic averaged

    def of(self, measured: str) -> pd.DataFrame:
        """Return the rows of one kind, e.g. "epoch", of the networks that count."""
        rows = self.runs.of(measured)
        rows = rows[rows["key"].isin(self.final["key"])]
        if rows.empty:
            raise Missing(f"no {measured} rows")
        return rows

    def joined(self, values: "pd.Series[Any]") -> pd.DataFrame:
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
    final = runs.of("final")
    none = Rows(final.iloc[:0], runs), "no rows"
    if final.empty:
        return none
    names = [name.strip() for name in part.runs.split(" + ")]
    each = [runs.places(name) for name in names]
    chosen, lacks = _asked_for(part, final, np.isin(range(len(final)), np.hstack(each)))
    if part.claim not in _EVERY_TEST:
        at = np.flatnonzero(chosen)
        at = at[~final["key"].iloc[at].duplicated()]
        chosen = np.isin(range(len(final)), at)
    if not chosen.any():
        return none
    labels = [name.partition("[")[2].rstrip("]") or name for name in names]
    if part.claim not in _BY_LIST:
        labels, each = [""], [np.flatnonzero(chosen)]
    each = [at[chosen[at]] for at in each]
    rows = final.take(np.hstack(each))
    rows = rows.assign(list=np.repeat(labels, [len(at) for at in each]))
    rows, short = left_out(part, rows)
    return Rows(rows, runs), short if rows.empty else lacks or short


def _asked_for(part: Part, rows: pd.DataFrame, chosen: Array) -> tuple[Array, str]:
    """Return a mask of the rows with a part's values, and a value that none has."""

    def among(name: str, *values: str) -> Array:
        return rows[name].map(str).isin([*values, f"{values[-1]}.0"]).to_numpy()

    lacks = ""
    for name in (n for n in _EQUAL if n in part.needs and chosen.any()):
        same = among(name, part.needs[name])
        if name in ("ramp", "fosc_bins"):  # of networks trained adversarially
            plain = (rows["attack"] == "").to_numpy()
            same = (same | plain) & bool((chosen & same & ~plain).any())
        if (chosen & same).any() or name in ("dataset", "model"):
            chosen = chosen & same
        else:
            lacks = f"it takes {name.replace('_', ' ')} {part.needs[name]}"
    given = {name: part.given.get(name, ",") for name in ("rho", "attack", "test")}
    for name, value in given.items():
        if "," not in value:
            none = {"rho": ("0", "0.0"), "attack": ("",)}.get(name, ())
            chosen = chosen & among(name, *none, value)
    return chosen, lacks


def left_out(part: Part, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows without networks that did not train, and what they lack."""
    lost = rows["diverged"].eq(True).to_numpy()
    needs = {k: v for k, v in part.needs.items() if k not in _EQUAL}
    lacks, every = _gaps(rows, needs), rows
    if excluded := part.untrained.startswith("excluded"):
        lost = lost | rows["constant"].eq(True).to_numpy()
        if limit := _LIMIT.search(part.untrained):
            learnt = rows[SAID["columns"][limit[1]]] >= float(limit[2])
            lost = lost | ~learnt.to_numpy()
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
    """Return the lack of a grid of batch sizes and rates to be crossed, or ""."""
    if not {"batch_size", "learning_rate"} <= set(needs):
        return ""
    sizes, rates = int(needs["batch_size"]), int(needs["learning_rate"])
    there = rows.groupby("batch_size")["learning_rate"].agg(frozenset)
    some = itertools.combinations(there, sizes)
    if any(len(frozenset.intersection(*each)) >= rates for each in some):
        return ""
    return f"it takes a full grid of {sizes} batch sizes by {rates} rates"


def shortfall(table: pd.DataFrame, needs: Mapping[str, str]) -> str:
    """Return the first need of a part that rows do not meet, or "".

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
            plural = SAID["plural"].get(name, name.replace("_", " "))
            return f"it takes {int(wanted):,} {plural}; there are {there:,}"
    return ""
