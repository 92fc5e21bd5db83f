"""From rows to a verdict: whether they suffice to decide, and what they are."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from widemin.experiments.provenance import EARLIER
from widemin.names import written
from widemin.papers.claims.criterion import criteria
from widemin.papers.claims.numbers import Spread
from widemin.papers.claims.verdict import Verdict

# Rows that agree in these differ in their seed alone.
_CELL = ["dataset", "model", "batch_size", "learning_rate", "momentum", "schedule"]
_CELL += ["augment", "epochs", "method", "rho", "attack", "attack_steps"]
_CELL += ["attack_step", "step_schedule"]
SIZES = ("train_size", "epochs", "images", "strong_size", "autoattack_size")
_PLURAL = {
    "seed": "seeds",
    "batch_size": "batch sizes",
    "learning_rate": "learning rates",
    "attack": "training sets of perturbations",
    "train_size": "training images",
}


def shortfall(table: pd.DataFrame, needs: dict[str, str]) -> str:
    """Return what the rows lack to decide a claim, or "".

    Sizes (SIZES) must be reached by every row, `samples` is the product of images and
    epochs; of seeds, cells and sets there must be as many different ones.
    """
    if set(table["dataset"]) == {"digits"}:
        return "it takes larger images than digits"
    for name, wanted in needs.items():
        if name == "dataset":
            if set(table["dataset"]) != {wanted}:
                return f"it takes {written(wanted)}"
            continue
        if name == "samples":
            found = int((table["train_size"] * table["epochs"]).min())
        elif name in SIZES:
            found = int(table[name].min())
        elif name == "cells":
            found = table.groupby(["batch_size", "learning_rate"]).ngroups
        elif name == "networks":
            found = table["key"].nunique()
        elif name == "seed":  # of the cell that has the fewest
            cell = [name for name in _CELL if name in table]
            found = int(table.groupby(cell)["seed"].nunique().min())
        else:
            found = table.loc[table[name].astype(str) != "", name].nunique()
        if found < int(wanted):
            plural = _PLURAL.get(name, name.replace("_", " "))
            return f"it takes {int(wanted):,} {plural}; there are {found:,}"
    return ""


def judge(
    name: str,
    table: pd.DataFrame,
    passed: bool | str,
    *,
    seeds: str | Spread = "",
    **texts: str,
) -> Verdict:
    """Return the verdict; too small a table decides nothing, whatever it shows.

    Args:
        name: The claim's id.
        table: The rows judged.
        passed: Whether the criterion is met, or "partly".
        seeds: What would decide it, in words or by the spread over seeds.
        texts: paper, ours, evidence and, where there is one, holds_up of the Verdict.
    """
    done, planned = (table.attrs.get(key, 0) for key in ("done", "planned"))
    if done < planned:
        texts["evidence"] += f" Rests on {done} of {planned} planned runs."
    lacking = shortfall(table, criteria()[name].needs)
    outcome = passed if isinstance(passed, str) else "reproduced"
    outcome = outcome if passed else "not reproduced"
    if lacking:
        outcome = "not decidable at this scale"
        shown = "would pass" if passed is True else "would not pass"
        texts["evidence"] += f" At this scale it {shown}; to decide, {lacking}."
        texts["holds_up"] = "not tested"
    facts: dict[str, Any] = {**texts, "basis": basis(table), "seeds": seeds}
    if isinstance(seeds, Spread):
        facts["seeds"] = seeds.words
        if math.isfinite(seeds.mean):
            facts["value"] = seeds.mean
        if math.isfinite(seeds.half):
            facts["interval"] = (seeds.mean - seeds.half, seeds.mean + seeds.half)
    return Verdict(name, outcome, **facts)


def basis(table: pd.DataFrame) -> dict[str, Any]:
    """Return how many runs and seeds rows hold, and where they come from."""
    found: dict[str, Any] = {
        name: int(table[column].nunique())
        for name, column in (("runs", "key"), ("seeds", "seed"))
        if column in table
    }
    for name in ("train_size", "epochs"):
        if name in table:
            found[name] = sorted({int(value) for value in table[name]})
    for name in ("dataset", *EARLIER):
        if name in table:
            found[name] = sorted({str(v) for v in table[name].dropna()})
    return found


def absent(name: str) -> Verdict:
    """Return the verdict of a claim for which there are no rows."""
    return Verdict(name, "not yet run", "see the chapter", "none", "No rows yet.")
