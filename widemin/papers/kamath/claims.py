"""Chapter 4: Kamath et al., SGD hyper-parameters and robustness."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import NONE, Array, Part, Rows, claim

# Below this training accuracy (0.95 elsewhere) a network is undertrained: a trend
# across such cells says nothing about the minimum reached.
UNDERTRAINED = {"fashion-mnist": 0.85, "cifar10": 0.70}


def undertrained(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return True for networks that have not learnt enough of what they saw."""
    limit = rows["dataset"].map(UNDERTRAINED).fillna(0.95)
    return rows["train_accuracy"] < limit


def well_trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of batch sizes whose networks all learnt what they saw."""
    poor = rows.loc[undertrained(rows), "batch_size"].unique()
    return rows[~rows["batch_size"].isin(poor)]


@claim("H1 H2 H3 H4 H5 H6 H7 H8 H12 H16")
def over_batches(rows: Rows, part: Part) -> Array:
    """A range, a ratio or a rank correlation of means over batch sizes."""
    other = ["fgsm_accuracy"] if part.claim == "H12" else []
    cells = rows.cells(["batch_size"], part.column, *other)
    means = cells[part.column]
    if len(cells.labels) < 2:
        return NONE
    if part.statistic == "range":
        return np.ptp(means, axis=1)
    if part.statistic == "ratio":
        return means.max(1) / means.min(1)
    return cells.rank(other[0] if other else "batch_size", part.column)


def _pairs(rows: Rows, column: str, by: str, first: Any, then: Any) -> Array:
    """Return a column's means in two settings, shape (draws, shared sizes, 2)."""
    final = rows.final[rows.final[column].notna()]
    arms = [final[final[by] == value] for value in (first, then)]
    shared = set(arms[0]["batch_size"]) & set(arms[1]["batch_size"])
    both = pd.concat([arm[arm["batch_size"].isin(shared)] for arm in arms])
    cells = rows.cells([by, "batch_size"], column, of=both)
    places = [cells.where(**{by: value}) for value in (first, then)]
    return np.stack([cells[column][:, place] for place in places], -1)


@claim("H9 H10")
def rises(rows: Rows, part: Part) -> Array:
    """The share of batch sizes at which momentum raises (or lowers) a mean."""
    then = float(part.given["momentum"])
    change = np.diff(_pairs(rows, part.column, "momentum", 0.0, then))[..., 0]
    sign = -1 if "is lower" in part.criterion else 1
    return np.where(np.isnan(change[:, 0]), np.nan, (sign * change > 0).mean(1))


@claim("H11")
def less_change(rows: Rows, part: Part) -> Array:
    """Momentum's change of FGSM accuracy at constant LR/BS over that at LR."""
    lists = [(name, f"{name}, m={part.given['momentum']}") for name in ("LR/BS", "LR")]
    pairs = (_pairs(rows, part.column, "list", *names) for names in lists)
    little, much = (abs(np.diff(pair)).mean(1) for pair in pairs)
    return (little / much)[:, 0]


@claim("H13")
def identity(rows: Rows, part: Part) -> Array:
    """The largest difference of any number between two lists of one recipe."""
    final = rows.final[rows.final["batch_size"] == int(part.given["batch_size"])]
    numbers = ["natural_accuracy", "fgsm_accuracy", "pgd_accuracy"]
    numbers += ["top_eigenvalue", "final_train_loss"]
    one, other = (
        final[final["list"] == name].set_index("seed")[numbers].sort_index()
        for name in ("LR", "LR/BS")
    )
    rows.used.update(final["key"])
    if one.empty or not one.index.equals(other.index):
        return NONE
    return np.array([np.nanmax(abs((one - other).to_numpy(float)))])


@claim("H14")
def by_rate(rows: Rows, part: Part) -> Array:
    """How far momentum is from the rate divided by 1 - m, over batch sizes."""
    m = part.given["momentum"]
    pairs = _pairs(rows, part.column, "list", f"LR, m={m}", f"LR/(1-m), m={m}")
    if part.statistic == "distance":
        return abs(np.diff(pairs)).mean(1)[:, 0]
    return (pairs.max(2) / pairs.min(2)).max(1)


@claim("H15")
def left_of_trend(rows: Rows, part: Part) -> Array:
    """The range over batch sizes under an equal sum of rates over that of LR."""
    column, final = part.column, rows.final
    if column == "top_eigenvalue":
        final = final.assign(top_eigenvalue=np.log(final[column]))
    pairs = _pairs(replace(rows, final=final), column, "list", "LR", "LR, equal sum")
    steady, equal = np.moveaxis(np.ptp(pairs, axis=1), -1, 0)
    return equal / steady
