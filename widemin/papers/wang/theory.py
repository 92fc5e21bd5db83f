"""FOSC in closed form, and adversarial training with inner problems left at FOSC delta.

Wang et al. 2019, equation 2 and theorem 1.
"""

import math

import numpy as np
from numpy.typing import ArrayLike


def first_order_gap(
    gradient: ArrayLike, moved: ArrayLike, epsilon: float, norm: str = "linf"
) -> np.ndarray:
    """Return FOSC: the largest <z - x, g> over the ball, in closed form.

    epsilon |g|_* - <x - x_0, g> for gradients g and moved = x - x_0, shape (..., n).

    >>> float(first_order_gap([1.0, -2.0], [0.1, -0.1], 0.1))
    0.0
    """
    g = np.asarray(gradient, float)
    dual = np.abs(g).sum(-1) if norm == "linf" else np.linalg.norm(g, axis=-1)
    return np.asarray(epsilon * dual - (np.asarray(moved, float) * g).sum(-1))


def rate_on_toy(
    steps: int,
    delta: float,
    *,
    start: float = 3.0,
    spread: float = 1.0,
    repeats: int = 20,
) -> tuple[float, float]:
    """Return the mean squared gradient norm of SGD on a toy problem, and its bound.

    f_i(theta, x) = |theta - a_i|^2 / 2 + theta . x - |x - x_i|^2 / 2 for x within 0.5
    of x_i in every coordinate: mu = 1, all Lipschitz constants are 1, and L = 2. Each
    inner problem is left at FOSC delta, on the side that biases the gradient most; the
    minimum, 0.5, lies where the inner maximum just meets the edge.

    Theorem 1 bounds the mean over T steps by 4 sigma sqrt(L Delta / T) + 5 delta: sigma
    is the root of a gradient's variance, Delta how far the loss starts above its
    minimum. Every coordinate of theta begins at `start`; `spread` is that of the a_i,
    and so of the gradients; so many runs are averaged, with the theorem's step size.

    >>> measured, bound = rate_on_toy(100, 0.1)
    >>> 0 < measured < bound
    True
    """
    n, count, radius = 5, 50, 0.5
    draws = np.random.default_rng(0)
    # a_i - x_i, centred where theta + clip(theta) puts the minimum
    pull = spread * draws.normal(size=(count, n))
    pull += 2 * radius - pull.mean(0)
    noise = float(np.sqrt(((pull - pull.mean(0)) ** 2).sum(1).mean()))

    def loss(theta: np.ndarray) -> float:  # what depends on theta
        inner = np.clip(theta, -radius, radius)
        rise = theta @ inner - inner @ inner / 2
        return float(theta @ theta / 2 - theta @ pull.mean(0) + rise)

    best = pull.mean(0) / 2  # where theta + clip(theta) = mean pull
    theta = np.full((repeats, n), start)
    smoothness, above = 2.0, max(0.0, loss(theta[0]) - loss(best))
    rate = 1 / smoothness
    if noise > 0:
        rate = min(rate, math.sqrt(above / (smoothness * noise**2 * steps)))
    total = np.zeros(repeats)
    for _ in range(steps):
        inner = np.clip(theta, -radius, radius)
        total += ((theta - pull.mean(0) + inner) ** 2).sum(1)
        left = inner - _short(theta, delta, radius)[:, None]
        drawn = draws.integers(count, size=repeats)
        theta = theta - rate * (theta - pull[drawn] + left)
    bound = 4 * noise * math.sqrt(smoothness * above / steps) + 5 * delta
    return float(total.mean() / steps), bound


def _short(theta: np.ndarray, delta: float, radius: float) -> np.ndarray:
    """Return the distance s of every coordinate from the maximum at FOSC delta.

    At v = clip(theta) - s FOSC is the sum of (radius - v)(theta - v), a quadratic in s.
    """
    edge = np.clip(theta, -radius, radius)
    gap, over = radius - edge, theta - edge  # one of them is 0 on the upper side
    b, c = (gap + over).sum(1), (gap * over).sum(1) - delta
    n = theta.shape[1]
    return np.asarray((-b + np.sqrt(np.maximum(b * b - 4 * n * c, 0))) / (2 * n))
