"""The rows that a part judges, and what they lack to decide it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims.draws import Array, of_one_revision
from widemin.papers.claims.parts import EQUAL, Part, shortfall

# Parts that tell a network of two lists apart, or read each of its test sets.
_BY_LIST = ("H9", "H10", "H11", "H13", "H14", "H15")
_EVERY_TEST = ("S4", "S10")
_LIMIT = re.compile(r"(natural|training|PGD-20) accuracy below ([\d.]+)")
_LIMITED = {"natural": "natural_accuracy", "training": "train_accuracy"}
_LIMITED |= {"PGD-20": "pgd_accuracy"}
# All of whose seeds count, or none.
CELL = ["list", "batch_size", "learning_rate", "momentum", "rho", "attack"]


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of networks that did not diverge, as comparable."""
    if table.empty:
        return table
    rows = table[table["measured"] == "final"]
    return of_one_revision(rows[~rows["diverged"].astype(bool)])


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

        def make() -> pd.DataFrame:
            if self.table.empty:
                return self.table
            return self.table[self.table["measured"].eq(measured)]

        found: pd.DataFrame = self.once(measured, make)
        return found

    def text(self, column: str) -> Array:
        """Return a column of the final rows as text."""
        rows = self.of("final")
        found: Array = self.once(
            ("text", column), lambda: rows[column].map(str).to_numpy(object)
        )
        return found

    def places(self, name: str) -> Array:
        """Return where in the final rows a list's networks stand.

        An entry of a mapping stands in brackets: "settings[LR]".
        """

        def make() -> Array:
            of, _, entry = name.rstrip("]").partition("[")
            listed = self.lists.get(of, ())
            keys = {r.key for r in (listed.get(entry, ()) if entry else listed)}
            return np.flatnonzero([key in keys for key in self.text("key")])

        found: Array = self.once(("at", name), make)
        return found


@dataclass(frozen=True)
class Rows:
    """The rows that a part judges.

    Attributes:
        final: A row a network and list; networks that the part leaves out are gone.
        runs: Where they are from.
    """

    final: pd.DataFrame
    runs: Runs

    def of(self, measured: str) -> pd.DataFrame:
        """Return the rows of one kind, e.g. "epoch", of the networks that count."""
        rows = self.runs.of(measured)
        return rows[rows["key"].isin(self.final["key"])]

    def joined(self, values: pd.Series[Any]) -> pd.DataFrame:
        """Return the final rows with a number of each network, by key, as `value`."""
        return self.final.assign(value=self.final["key"].map(values))


def rows_of(part: Part, runs: Runs) -> tuple[Rows, str]:
    """Return the rows that a part judges, and what they lack to decide it, or ""."""
    given = tuple(part.given.get(name) for name in ("test", "rho", "attack"))
    kind = (part.claim in _BY_LIST, part.claim in _EVERY_TEST, part.claim == "W5")
    about = (part.runs, tuple(part.needs.items()), part.untrained, given, kind)
    found: tuple[Rows, str] = runs.once(about, lambda: _rows_of(part, runs))
    return found


def _rows_of(part: Part, runs: Runs) -> tuple[Rows, str]:
    none = Rows(runs.of("final").iloc[:0], runs)
    if runs.table.empty:
        return none, "no rows"
    names = [name.strip() for name in part.runs.split(" + ")]
    each = [runs.places(name) for name in names]
    chosen = np.zeros(len(runs.text("key")), bool)
    chosen[np.concatenate(each)] = True
    lacks = ""
    for name in (n for n in EQUAL if n in part.needs and chosen.any()):
        wanted = part.needs[name]
        same = np.isin(runs.text(name), [wanted, f"{wanted}.0"])
        if name in ("ramp", "fosc_bins"):  # of networks trained adversarially
            plain = runs.text("attack") == ""
            same = (same | plain) & bool((chosen & same & ~plain).any())
        if (chosen & same).any() or name in ("dataset", "model"):
            chosen &= same
        else:
            lacks = f"it takes {name.replace('_', ' ')} {wanted}"
    for name, none_of in (("rho", "0.0"), ("attack", "")):
        value = part.given.get(name)
        if value is not None and "," not in value:
            value = str(float(value)) if name == "rho" else value
            chosen &= np.isin(runs.text(name), [none_of, value, none_of[:1]])
    if "test" in part.given:
        chosen &= runs.text("test") == part.given["test"]
    if not chosen.any():
        return none, "no rows"
    if part.claim not in _EVERY_TEST:
        first = np.zeros(len(chosen), bool)
        at = np.flatnonzero(chosen)
        first[at[np.unique(runs.text("key")[at], return_index=True)[1]]] = True
        chosen = first
    labels = [name.partition("[")[2].rstrip("]") or name for name in names]
    if part.claim not in _BY_LIST:
        labels, each = [""], [np.flatnonzero(chosen)]
    each = [at[chosen[at]] for at in each]
    rows = runs.of("final").take(np.concatenate(each))
    rows = rows.assign(list=np.repeat(labels, [len(at) for at in each]))
    rows, short = left_out(part, rows)
    return Rows(rows, runs), short if rows.empty else lacks or short


def left_out(part: Part, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows without networks that did not train, and what they lack."""
    lost = rows["diverged"].eq(True).to_numpy()
    counted = part.claim == "W5"
    needs = {k: v for k, v in part.needs.items() if k not in EQUAL}
    lacks, every = _gaps(rows, needs), rows
    if excluded := part.untrained.startswith("excluded"):
        lost = lost | rows["constant"].eq(True).to_numpy()
        if limit := _LIMIT.search(part.untrained):
            lost = lost | ~(rows[_LIMITED[limit[1]]] >= float(limit[2])).to_numpy()
        if "seed" in part.needs:  # means of a cell are of all its seeds, or of none
            cells = list(zip(*(rows[name] for name in CELL), strict=True))
            poor = {cell for cell, gone in zip(cells, lost, strict=True) if gone}
            lost = np.array([cell in poor for cell in cells])
    if lost.any() and not counted:
        rows = rows[~lost]
    if rows.empty:
        return rows, "no network is trained" if excluded else "no rows"
    short = shortfall(rows, needs) if needs else ""
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
