"""Numbers a claim is judged by: over seeds, in percent, in words."""

from __future__ import annotations

import math

import pandas as pd

from widemin.experiments.provenance import block

BALLS = {"linf": "L∞", "l2": "L2"}


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of networks that did not diverge."""
    if table.empty:
        return table
    rows = table[table["measured"] == "final"]
    return rows[~rows["diverged"].astype(bool)]


def ball_name(test: str) -> str:
    """Return a set as axes and sentences name it, e.g. "L∞ 8/255"."""
    norm, _, radius = test.partition(" ")
    return f"{BALLS[norm]} {radius}"


def percent(value: float) -> str:
    """Return a fraction as percent, one decimal."""
    return f"{100 * value:.1f} %"


def difference(
    one: pd.DataFrame, other: pd.DataFrame, column: str
) -> tuple[float, float, bool]:
    """Return the mean of a column in one arm less that in another.

    Seeds are paired only where the arms share two or more and one block computed both
    networks of each; where rows do not say their block, the arms are compared unpaired.

    Args:
        one: Rows of the first arm, one or several a seed, which are averaged.
        other: Rows of the second arm.
        column: What is compared.

    Returns:
        The difference, its standard error (NaN for one seed) and whether it is paired.

    >>> rows = pd.DataFrame({"seed": [0, 1], "a": [0.5, 0.7]})
    >>> mean, error, paired = difference(rows, rows.assign(a=[0.4, 0.6]), "a")
    >>> round(mean, 3), round(error, 3), paired
    (0.1, 0.141, False)
    """
    arms = [arm[arm[column].notna()] for arm in (one, other)]
    first, second = (arm.groupby("seed")[column].mean() for arm in arms)
    shared = first.index.intersection(second.index)
    blocks = {
        seed: {
            block(row)
            for arm in arms
            for row in arm[arm["seed"] == seed].to_dict("records")
        }
        for seed in shared
    }
    if len(blocks) > 1 and all(len(b) == 1 and None not in b for b in blocks.values()):
        gaps = first[shared] - second[shared]
        return float(gaps.mean()), float(gaps.std(ddof=1)) / len(gaps) ** 0.5, True
    variances = [
        arm.var(ddof=1) / len(arm) if len(arm) else math.nan for arm in (first, second)
    ]
    return float(first.mean() - second.mean()), float(sum(variances)) ** 0.5, False
