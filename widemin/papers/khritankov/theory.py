"""Widths in closed form, and where theorems 1 and 2 of Khritankov et al. fail."""

import math

import numpy as np
from numpy.typing import ArrayLike

from widemin.names import check


def quadratic_width(top_eigenvalue: float, gap: float) -> float:
    """Return the width of a quadratic minimum at a level: sqrt(2 / (lambda_1 gap)).

    >>> quadratic_width(8.0, 1.0)
    0.5
    """
    both = f"{top_eigenvalue} and {gap}"
    sound = top_eigenvalue > 0 and gap > 0
    check(sound, "top_eigenvalue and gap must be above 0", both)
    return math.sqrt(2 / (top_eigenvalue * gap))


def logistic_loss(x: ArrayLike, theta: ArrayLike) -> float:
    """Return one sample's logistic loss, ln(1 + exp(-x . theta)).

    >>> round(logistic_loss([1.0, 0.0], [0.0, 2.0]), 4)
    0.6931
    """
    return float(np.logaddexp(0, -np.dot(np.asarray(x, float), theta)))


def logistic_widths(
    x: ArrayLike, theta: ArrayLike, level: float
) -> tuple[float, float]:
    """Return the widths in weights and in inputs of one sample's logistic loss.

    With s = x . theta the level c, above the loss, is reached at s_c = -ln(e^c - 1),
    (s - s_c) / |x| away in weights and (s - s_c) / |theta| in inputs (theorem 2.2).
    Scaling theta widens the first and, at c = ln 2, moves no image: 2.3 is false.

    >>> once = logistic_widths([1.0, 0.0], [1.0, 2.0], math.log(2))
    >>> scaled = logistic_widths([1.0, 0.0], [16.0, 32.0], math.log(2))
    >>> scaled[0] > 8 * once[0] and scaled[1] < once[1]
    True
    """
    x, theta = np.asarray(x, float), np.asarray(theta, float)
    s, loss = float(x @ theta), logistic_loss(x, theta)
    check(level > loss, f"level must be above the sample's loss {loss:.3g}", level)
    way, gap = s + math.log(math.expm1(level)), level - loss
    in_weights, in_inputs = (way / float(np.linalg.norm(v)) / gap for v in (x, theta))
    return in_weights, in_inputs


def bent_ramp(x: ArrayLike) -> np.ndarray:
    """Return 1.8 |x| up to 1/2, then slope 0.2: theorem 1.2 fails if convex on S alone.

    At c = 1, d = 1 and 1/w = 1; on S = [-1/2, 1/2] it is convex, and rises by 0.9.

    >>> float(bent_ramp(0.5)), float(bent_ramp(1.0))
    (0.9, 1.0)
    """
    size = np.abs(np.asarray(x, float))
    return np.where(size <= 0.5, 1.8 * size, 0.9 + 0.2 * (size - 0.5))


def two_sigmoids(theta: ArrayLike) -> np.ndarray:
    """Return the sum of (1 - sigmoid(t))^2 over the last axis: theorem 2.1 fails.

    Each term falls in its margin; the sum is larger half-way between two points.

    >>> ends, middle = two_sigmoids([[-8, 2], [2, -8]]), two_sigmoids([-3, -3])
    >>> bool((middle > ends).all())
    True
    """
    falling = 1 / (1 + np.exp(np.asarray(theta, float)))
    return np.asarray((falling**2).sum(-1))
