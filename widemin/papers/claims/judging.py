"""Whether rows suffice to decide, and what they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

from widemin.experiments.provenance import EARLIER
from widemin.names import written

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
