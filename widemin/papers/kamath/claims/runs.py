"""The runs of chapter 4 by batch size, and trends without undertrained ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import final
from widemin.statistics import spearman


def by_batch(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return the means of a final column by batch size, in ascending order."""
    return final(table).groupby("batch_size")[column].mean().sort_index()


# Below this training accuracy (0.95 elsewhere) a network is undertrained: a trend
# across such cells says nothing about the minimum reached.
UNDERTRAINED = {"fashion-mnist": 0.85, "cifar10": 0.70}


def undertrained(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return which rows' networks have not learnt enough of what they saw."""
    limit = rows["dataset"].map(UNDERTRAINED).fillna(0.95)
    return rows["train_accuracy"] < limit


def well_trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of batch sizes whose networks all learnt what they saw."""
    poor = rows.loc[undertrained(rows), "batch_size"].unique()
    return rows[~rows["batch_size"].isin(poor)]


def trained_again(
    rows: pd.DataFrame, column: str, measure: Callable[[pd.Series[Any]], float]
) -> str:
    """Return a sentence with a measure without undertrained batch sizes, or "".

    Args:
        rows: The rows of a claim.
        column: What is measured.
        measure: Means by batch size to a number.
    """
    good = well_trained(rows)
    poor = sorted(set(rows["batch_size"]) - set(good["batch_size"]))
    if not poor:
        return ""
    listed = ", ".join(map(str, poor))
    means = good.groupby("batch_size")[column].mean().sort_index()
    value = measure(means) if len(means) > 1 else float("nan")
    if np.isnan(value):
        return f" Undertrained: {listed}; without them too few batch sizes are left."
    return f" Undertrained: {listed}; without them it is {value:.2f}."


def range_of(column: str) -> Callable[[pd.DataFrame], float]:
    """Return what gives the range of a column's means over the batch sizes."""
    return lambda rows: float(np.ptp(by_batch(rows, column)))


def slope_interval(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Return the 95 % interval of the slope over log2 of the batch size."""
    from scipy import stats

    fit = stats.linregress(np.log2(rows["batch_size"]), rows[column])
    half = stats.t.ppf(0.975, max(1, len(rows) - 2)) * fit.stderr
    return float(fit.slope - half), float(fit.slope + half)


def rank_by_batch(table: pd.DataFrame, column: str) -> float:
    """Return how a column's means rank with the batch size."""
    return ranked_by_size(by_batch(table, column))


def ranked_by_size(means: pd.Series[Any]) -> float:
    """Return how means by batch size rank with the batch size."""
    return spearman(means.index.to_numpy(), means.to_numpy())


def points_apart(means: pd.Series[Any]) -> float:
    """Return how far apart the largest and the smallest mean are, in points."""
    return 100 * float(np.ptp(means))
