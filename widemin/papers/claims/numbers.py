"""Numbers a claim is judged by: over seeds, in percent, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from widemin.experiments.provenance import block
from widemin.names import norm_and_radius
from widemin.statistics import over_seeds, seeds_to_decide, wilson

BALLS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True)
class Spread:
    """What a criterion is about, one value a seed.

    Attributes:
        mean: Over seeds.
        half: Half the width of its 95 % interval; NaN for one seed.
        words: How many seeds would decide.
    """

    mean: float
    half: float
    words: str


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of networks that did not diverge."""
    if table.empty:
        return table
    rows = table[table["measured"] == "final"]
    return rows[~rows["diverged"].astype(bool)]


def ball_name(test: str) -> str:
    """Return a set as axes and sentences name it, e.g. "L∞ 8/255"."""
    norm, _ = norm_and_radius(test)
    return test.replace(norm, BALLS[norm])


def percent(value: float) -> str:
    """Return a fraction as percent, one decimal."""
    return f"{100 * value:.1f} %"


def summary(values: pd.Series[Any], images: int) -> str:
    """Return mean and 95 % interval in percent: over seeds, or over images for one.

    >>> summary(pd.Series([0.5, 0.6, 0.7]), 1000)
    '60.0 ± 24.8 % (3 seeds)'
    >>> summary(pd.Series([0.5]), 100)
    '50.0 % (1 seed; 40.4 to 59.6 % over images)'
    """
    mean, half = over_seeds(list(values))
    if math.isnan(half):
        low, high = (100 * bound for bound in wilson(mean, images))
        return f"{percent(mean)} (1 seed; {low:.1f} to {high:.1f} % over images)"
    return f"{100 * mean:.1f} ± {100 * half:.1f} % ({len(values)} seeds)"


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


def deciding(values: Sequence[float], threshold: float, about: str = "") -> Spread:
    """Return how many seeds would decide, by one value of each seed.

    >>> deciding([0.5, 0.6, 0.7], 0.8).words
    '4 seeds, by the spread over the 3 seen'
    >>> deciding([0.5], 0.8).words
    'one seed tells no spread: at least 2'
    """
    known = [value for value in values if not math.isnan(value)]
    mean, half = over_seeds(known) if known else (math.nan, math.nan)
    if len(known) < 2:
        return Spread(mean, half, "one seed tells no spread: at least 2" + about)
    needed = seeds_to_decide(known, threshold)
    number = "more than 1,000" if needed is None else str(needed)
    words = f"{number} seeds, by the spread over the {len(known)} seen{about}"
    return Spread(mean, half, words)


def of_each_seed(
    rows: pd.DataFrame, number: Callable[[pd.DataFrame], float]
) -> list[float]:
    """Return a claim's number for every seed's runs alone, where they give one."""
    found = [float(number(part)) for _, part in rows.groupby("seed")]
    return [value for value in found if not math.isnan(value)]
