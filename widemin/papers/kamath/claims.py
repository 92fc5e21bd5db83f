"""Chapter 4: Kamath et al., SGD hyper-parameters and robustness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import Array, Cells, Part, Rows, claim, final

CHANGED = ("natural_accuracy", "fgsm_accuracy", "pgd_accuracy")

# Below this training accuracy (0.95 elsewhere) a network is undertrained: a trend
# across such cells says nothing about the minimum reached.
UNDERTRAINED = {"fashion-mnist": 0.85, "cifar10": 0.70}


def by_batch(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return the means of a final column by batch size, in ascending order."""
    return final(table).groupby("batch_size")[column].mean().sort_index()


def undertrained(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return True for networks that have not learnt enough of what they saw."""
    limit = rows["dataset"].map(UNDERTRAINED).fillna(0.95)
    return rows["train_accuracy"] < limit


def well_trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of batch sizes whose networks all learnt what they saw."""
    poor = rows.loc[undertrained(rows), "batch_size"].unique()
    return rows[~rows["batch_size"].isin(poor)]


# What a criterion calls a column; of several the first that it names.
_CALLED = {
    "margin-loss PGD accuracy": "pgd_margin_accuracy",
    "margin-loss FGSM accuracy": "fgsm_margin_accuracy",
    "PGD accuracy": "pgd_accuracy",
    "FGSM accuracy": "fgsm_accuracy",
    "top eigenvalue": "top_eigenvalue",
    "natural accuracy": "natural_accuracy",
}


def _column(part: Part) -> str:
    """Return the column that a part's criterion speaks of."""
    return next(c for said, c in _CALLED.items() if said in part.criterion)


@claim("H1", "H2", "H3", "H4", "H5", "H6", "H7", "H8", "H12", "H16")
def over_batches(rows: Rows, part: Part) -> Array:
    """A range, a ratio or a rank correlation of means over batch sizes."""
    columns = list(dict.fromkeys([_column(part), "fgsm_accuracy"]))
    columns = columns if part.claim == "H12" else columns[:1]
    cells = Cells(rows.final, ["batch_size"], columns)
    means = cells[columns[0]]
    if len(cells.labels) < 2:
        return np.array([np.nan])
    if part.statistic == "range":
        return np.ptp(means, axis=1)
    if part.statistic == "ratio":
        return means.max(1) / means.min(1)
    other = cells.labels["batch_size"].to_numpy(float)
    return cells.rank(cells[columns[-1]] if part.claim == "H12" else other, means)


def _changes(
    cells: Cells, column: str, first: dict[str, Any], then: dict[str, Any]
) -> Array:
    """Return a column's means in two settings, shape (draws, shared sizes, 2)."""
    one, two = cells.where(**first), cells.where(**then)
    sizes = cells.labels["batch_size"]
    shared = sorted(set(sizes[one]) & set(sizes[two]))
    pairs = [
        [cells[column][:, arm & (sizes == size).to_numpy()][:, 0] for arm in (one, two)]
        for size in shared
    ]
    if not pairs:
        return np.full((cells.shape[0], 1, 2), np.nan)
    return np.stack([np.stack(pair, 1) for pair in pairs], 1)


@claim("H9", "H10")
def rises(rows: Rows, part: Part) -> Array:
    """The share of batch sizes at which momentum raises (or lowers) a mean."""
    column, momentum = _column(part), float(part.given["momentum"])
    cells = Cells(rows.final, ["momentum", "batch_size"], [column])
    pairs = _changes(cells, column, {"momentum": 0.0}, {"momentum": momentum})
    change = pairs[..., 1] - pairs[..., 0]
    sign = -1 if "is lower" in part.criterion else 1
    return np.where(np.isnan(change[:, 0]), np.nan, (sign * change > 0).mean(1))


@claim("H11")
def less_change(rows: Rows, part: Part) -> Array:
    """Momentum's change of FGSM accuracy at constant LR/BS over that at LR."""
    column, m = _column(part), part.given["momentum"]
    cells = Cells(rows.final, ["list", "batch_size"], [column])
    each = [
        _changes(cells, column, {"list": name}, {"list": f"{name}, m={m}"})
        for name in ("LR/BS", "LR")
    ]
    little, much = (abs(pair[..., 1] - pair[..., 0]).mean(1) for pair in each)
    return little / much


@claim("H13")
def identity(rows: Rows, part: Part) -> Array:
    """The largest difference of any number between two lists of one recipe."""
    final = rows.final[rows.final["batch_size"] == int(part.given["batch_size"])]
    numbers = [*CHANGED, "top_eigenvalue", "final_train_loss"]
    arms = [
        final[final["list"] == name].set_index("seed")[numbers].sort_index()
        for name in ("LR", "LR/BS")
    ]
    if any(arm.empty for arm in arms) or not arms[0].index.equals(arms[1].index):
        return np.array([np.nan])
    return np.array([np.nanmax(abs((arms[0] - arms[1]).to_numpy(float)))])


@claim("H14")
def by_rate(rows: Rows, part: Part) -> Array:
    """How far momentum is from the rate divided by 1 - m, over batch sizes."""
    column, m = _column(part), part.given["momentum"]
    cells = Cells(rows.final, ["list", "batch_size"], [column])
    arms = {"list": f"LR, m={m}"}, {"list": f"LR/(1-m), m={m}"}
    pairs = _changes(cells, column, *arms)
    if part.statistic == "distance":
        return abs(pairs[..., 1] - pairs[..., 0]).mean(1)
    return (pairs.max(2) / pairs.min(2)).max(1)


@claim("H15")
def left_of_trend(rows: Rows, part: Part) -> Array:
    """The range over batch sizes under an equal sum of rates over that of LR."""
    column = _column(part)
    final = rows.final.assign(log=np.log(rows.final["top_eigenvalue"]))
    column = "log" if column == "top_eigenvalue" else column
    cells = Cells(final, ["list", "batch_size"], [column])
    first, then = {"list": "LR"}, {"list": "LR, equal sum"}
    pairs = _changes(cells, column, first, then)
    steady, equal = np.moveaxis(np.ptp(pairs, axis=1), -1, 0)
    return equal / steady
