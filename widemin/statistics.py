"""Intervals and rank correlations; numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a fraction of n images.

    >>> low, high = wilson(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    if n < 1 or not 0 <= fraction <= 1:
        raise ValueError(
            f"fraction must lie in [0, 1] and n be at least 1; got {fraction} and {n}"
        )
    interval = stats.binomtest(round(fraction * n), n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and half width of the 95 % t interval; NaN width for one seed.

    >>> mean, half = over_seeds([0.5, 0.6, 0.7])
    >>> round(mean, 3), round(half, 3)
    (0.6, 0.248)
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, error * float(stats.t.ppf(0.975, len(values) - 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation; NaN where a side is constant or too short.

    >>> spearman([1, 2, 3], [1, 4, 9])
    1.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
