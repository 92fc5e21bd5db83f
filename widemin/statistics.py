"""Intervals, rank correlations and areas under ROC curves; without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy  # scipy.stats, which takes seconds, is imported when it is first used
from numpy.typing import ArrayLike

from widemin.names import check


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a fraction of n images.

    >>> low, high = wilson(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    expected = "fraction must lie in [0, 1] and n be at least 1"
    check(n >= 1 and 0 <= fraction <= 1, expected, f"{fraction} and {n}")
    test = scipy.stats.binomtest(round(fraction * n), n)
    low, high = test.proportion_ci(method="wilson")
    return float(low), float(high)


def median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the ends of its 95 % interval, by order statistics.

    The ends are NaN where too few values allow none; values may be infinite.

    >>> median([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0])
    (4.0, 1.0, 7.0)
    """
    low, high = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    return float(np.median(values)), float(low), float(high)


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
    return mean, error * float(scipy.stats.t.ppf(0.975, len(values) - 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation; NaN where a side is constant or too short.

    >>> spearman([1, 2, 3], [1, 4, 9])
    1.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(x, y).statistic)


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Return the area under the ROC curve of a score, by ranks (Mann and Whitney).

    The probability that a positive's score is above a negative's, ties counted half;
    NaN if all are positive, or none.

    >>> auroc([0.1, 0.4, 0.3, 0.8], [False, True, False, True])
    1.0
    """
    positive = np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float("nan")
    ranks = scipy.stats.rankdata(score)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * others))


def partial_spearman(x: ArrayLike, y: ArrayLike, given: Sequence[ArrayLike]) -> float:
    """Return Spearman's correlation of what the ranks of others leave unexplained.

    A regression removes `given`; NaN for too few values, or if a side has none left.

    >>> x, noise = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    >>> round(partial_spearman(x, x, [noise]), 3)
    1.0
    """
    sides = [scipy.stats.rankdata(side) for side in (x, y)]
    others = [np.ones(len(sides[0]))] + [scipy.stats.rankdata(other) for other in given]
    if len(sides[0]) < len(others) + 3:
        return float("nan")
    basis = np.stack(others, 1)
    left = [s - basis @ np.linalg.lstsq(basis, s, rcond=None)[0] for s in sides]
    lengths = [float(np.linalg.norm(side)) for side in left]
    if min(lengths) < 1e-9 * len(left[0]):
        return float("nan")
    return float(left[0] @ left[1]) / (lengths[0] * lengths[1])


def spearman_interval(rho: float, n: int, given: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation of n pairs.

    Fisher's transformation with the variance of Bonett and Wright (2000), which has
    none at -1 and 1; in a partial one, `given` others are held fixed.

    >>> low, high = spearman_interval(0.8, 20)
    >>> round(low, 2), round(high, 2)
    (0.5, 0.93)
    """
    free = n - 3 - given
    if free < 1 or math.isnan(rho) or abs(rho) >= 1:
        return float("nan"), float("nan")
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / free)
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
