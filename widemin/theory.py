"""Closed forms and exact solutions of the papers' toy models; numpy and scipy only.

The robust / non-robust feature model of Wei et al. (after Tsipras et al. 2018): y is
+1 or -1 with probability 1/2; x_1 = y with probability p, else -y; x_2 to x_{d+1} are
independent N(eta y, 1). The classifier is sign(w x_1 + x_2 + ... + x_{d+1}): one
weight w on the robust feature, the weak features share the weight 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr

# Margins beyond which floating point loses the true-class gradient of cross-entropy:
# 1 + e^-m rounds to 1 once e^-m <= 2^-t, t the bits of the significand.
SIGNIFICANDS = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}


def masked_margin(precision: str = "float32") -> float:
    """Return the logit margin beyond which cross-entropy loses the true class.

    >>> round(masked_margin(), 2)
    16.64
    """
    if precision not in SIGNIFICANDS:
        raise ValueError(
            f"precision must be one of {', '.join(SIGNIFICANDS)}; got {precision!r}"
        )
    return SIGNIFICANDS[precision] * math.log(2)


def _check_model(p: float, eta: float, d: int) -> None:
    if not 0.5 < p < 1:
        raise ValueError(f"p must lie between 1/2 and 1; got {p}")
    if not 0 < eta < math.inf:
        raise ValueError(f"eta must be above 0 and finite; got {eta}")
    if d < 1:
        raise ValueError(f"d must be at least 1; got {d}")


def accuracy(w: ArrayLike, p: float, eta: float, d: int) -> np.ndarray:
    """Return the expected accuracy of the classifier, shape of w.

    p Phi((m + w) / sqrt d) + (1 - p) Phi((m - w) / sqrt d), where m = d eta is the
    mean of the summed weak features.

    >>> float(accuracy(0.0, 0.95, 0.1, 100).round(4))  # the weak features alone
    0.8413
    """
    w, root = np.asarray(w, float), math.sqrt(d)
    high, low = ndtr((d * eta + w) / root), ndtr((d * eta - w) / root)
    return np.asarray(p * high + (1 - p) * low)


def optimum(p: float, eta: float, d: int) -> float:
    """Return the weight of standard training: ln(p / (1 - p)) / (2 eta), theorem 4.1.

    It does not depend on d. Raises ValueError for a model out of range.

    >>> round(optimum(0.95, 0.1, 100), 4)
    14.7222
    """
    _check_model(p, eta, d)
    return math.log(p / (1 - p)) / (2 * eta)


def adversarial_optimum(p: float, eta: float, d: int, epsilon: float) -> float:
    """Return the weight of adversarial training: theorem 4.2.

    The attack moves every weak feature by -epsilon y and leaves x_1 alone, so that
    eta becomes eta - epsilon; from epsilon = eta on the optimum is infinite: the weak
    features are worth nothing or less.

    Raises:
        ValueError: A model out of range or a negative epsilon.

    >>> round(adversarial_optimum(0.95, 0.1, 100, 0.05), 4)
    29.4444
    >>> adversarial_optimum(0.95, 0.1, 100, 0.1)
    inf
    """
    _check_model(p, eta, d)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0; got {epsilon}")
    return optimum(p, eta - epsilon, d) if epsilon < eta else math.inf


def sam_optimum(
    p: float, eta: float, d: int, epsilon: float, weights: str = "robust"
) -> float:
    """Return the weight of SAM: the exact max-min, to 1e-8 of its shift.

    The worst weights in the ball lie at one of its two ends, and the optimum balances
    both. With weights="robust" SAM moves w alone, as the theorems have it; with "all"
    it moves all d + 1 weights, as it does in practice, and since accuracy depends on
    their direction only, a ball is an angle.

    Args:
        p: Reliability of the robust feature, between 1/2 and 1.
        eta: Mean of a weak feature, above 0.
        d: Number of weak features.
        epsilon: SAM's radius, Euclidean.
        weights: What SAM perturbs, "robust" or "all".

    Raises:
        ValueError: A model out of range, or a ball so large that no optimum exists.

    >>> round(sam_optimum(0.95, 0.1, 100, 5.0) - optimum(0.95, 0.1, 100), 3)
    1.22
    >>> shift = sam_optimum(0.95, 0.1, 1000, 1.0, "all") - optimum(0.95, 0.1, 1000)
    >>> round(shift, 6)
    -0.008755
    """
    _check_model(p, eta, d)
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be at least 0 and finite; got {epsilon}")
    if weights not in ("robust", "all"):
        raise ValueError(f"weights must be 'robust' or 'all'; got {weights!r}")
    best = optimum(p, eta, d)
    if epsilon == 0:
        return best
    if weights == "robust":
        return best + _balance(best, eta, d, epsilon)
    return _balance_of_angles(best, eta, d, epsilon)


def _difference(low: float, high: float, w: float, eta: float, d: int) -> float:
    """Return u(w + high) - u(w + low), up to a positive factor.

    u' at w* + t is proportional to -exp(-(2 w* + t) t / 2d) sinh(eta t): written
    around w*, it loses no digits where the accuracies themselves agree to all of
    theirs. By Gauss-Legendre on panels, on each of which the exponential is tame.
    """
    points, values = np.polynomial.legendre.leggauss(40)
    decay = (2 * w + abs(low) + abs(high)) * (high - low) / (2 * d)
    edges = np.linspace(low, high, 2 + int(decay / 10))
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    t = middle[:, None] + half[:, None] * points
    exponent = -(2 * w + t) * t / (2 * d)
    slope = -np.exp(exponent - exponent.max()) * np.sinh(eta * t)
    return float((half[:, None] * values * slope).sum())


def _balance(best: float, eta: float, d: int, epsilon: float) -> float:
    """Return lam with u(best + lam - epsilon) = u(best + lam + epsilon).

    It lies between 0 and epsilon, for every epsilon (theorem 4.3).
    """

    def gap(share: float) -> float:
        lam = share * epsilon
        return _difference(lam - epsilon, lam + epsilon, best, eta, d)

    return epsilon * float(brentq(gap, 0.0, 1.0, xtol=1e-16, rtol=1e-14))


def _balance_of_angles(best: float, eta: float, d: int, epsilon: float) -> float:
    root = math.sqrt(d)

    def gap(w: float) -> float:
        if epsilon >= math.hypot(w, root):  # the ball holds every direction
            return -math.inf
        turn = math.asin(epsilon / math.hypot(w, root))
        angle = math.atan2(w, root)
        if angle + turn >= math.pi / 2:
            return -math.inf
        low, high = (root * math.tan(angle + s * turn) for s in (-1, 1))
        return _difference(low - best, high - best, best, eta, d)

    # Brackets: double the distance from w* until the two ends disagree in sign.
    step = max(1e-12, best * epsilon**2 / d)
    low = high = best
    while gap(low) < 0 and low > 0:
        low, step = max(0.0, low - step), 2 * step
    while gap(high) > 0:
        high, step = high + step, 2 * step
    if not gap(low) >= 0 or math.isinf(gap(high)):
        raise ValueError(
            "epsilon must be small enough that SAM on all weights has an optimum; "
            f"got {epsilon}"
        )
    return float(brentq(gap, low, high, xtol=1e-15, rtol=1e-14))


def sam_shift(p: float, eta: float, d: int, epsilon: float) -> float:
    """Return the leading term of w_SAM - w*: w* epsilon^2 / (3 d), theorem 4.4.

    The constant is derived from the balance of both ends; the paper prints 2/3 in the
    place of 1 / (3 d), which is `printed_sam_shift`.

    >>> round(sam_shift(0.95, 0.1, 100, 1.0), 4)
    0.0491
    """
    return optimum(p, eta, d) * epsilon**2 / (3 * d)


def printed_sam_shift(p: float, eta: float, d: int, epsilon: float) -> float:
    """Return theorem 4.4 as printed: w* (2/3) epsilon^2, too large by 2 d.

    >>> round(printed_sam_shift(0.95, 0.1, 100, 1.0) / sam_shift(0.95, 0.1, 100, 1.0))
    200
    """
    return optimum(p, eta, d) * 2 / 3 * epsilon**2


def sam_shift_all(p: float, eta: float, d: int, epsilon: float) -> float:
    """Return the leading term where SAM moves all weights.

    w* epsilon^2 (w*^2 - 2 d) / (3 d^2): positive only if w*^2 > 2 d.

    >>> sam_shift_all(0.95, 0.1, 100, 0.25) > 0 > sam_shift_all(0.95, 0.1, 1000, 0.25)
    True
    """
    best = optimum(p, eta, d)
    return best * epsilon**2 * (best**2 - 2 * d) / (3 * d**2)


def equivalent_adversarial_epsilon(eta: float, d: int, epsilon: float) -> float:
    """Return the attack that moves w as far as SAM of radius epsilon does: theorem 4.5.

    eta epsilon^2 / (3 d + epsilon^2); the paper has 3/2 in the place of 3 d.

    >>> round(equivalent_adversarial_epsilon(0.1, 100, 1.0), 6)
    0.000332
    """
    return eta * epsilon**2 / (3 * d + epsilon**2)


# The width of a minimum (Khritankov et al.): closed forms and counterexamples.


def quadratic_width(top_eigenvalue: float, gap: float) -> float:
    """Return the width of a quadratic minimum: sqrt(2 / (lambda_1 gap)).

    It grows without bound as the level comes down: widths compare only at equal gaps.

    >>> quadratic_width(8.0, 1.0)
    0.5
    """
    if not (top_eigenvalue > 0 and gap > 0):
        raise ValueError(
            f"top_eigenvalue and gap must be above 0; got {top_eigenvalue} and {gap}"
        )
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

    L = ln(1 + exp(-s)), s = x . theta; the level is reached at s_c = -ln(e^c - 1), at
    distance (s - s_c) / |x| in the weights and (s - s_c) / |theta| in the inputs
    (theorem 2.2). Scaling theta widens the first and, at c = ln 2, moves no image:
    theorem 2.3 is false.

    Args:
        x: The sample, shape (n,).
        theta: The weights, shape (n,).
        level: c, above the loss of the sample.

    Raises:
        ValueError: A level that is not above the sample's loss.

    >>> once = logistic_widths([1.0, 0.0], [1.0, 2.0], math.log(2))
    >>> scaled = logistic_widths([1.0, 0.0], [16.0, 32.0], math.log(2))
    >>> scaled[0] > 8 * once[0] and scaled[1] < once[1]
    True
    """
    x, theta = np.asarray(x, float), np.asarray(theta, float)
    s = float(x @ theta)
    loss = logistic_loss(x, theta)
    if not level > loss:
        raise ValueError(
            f"level must be above the sample's loss {loss:.3g}; got {level}"
        )
    way = s + math.log(math.expm1(level))
    gap = level - loss
    size_x, size_theta = float(np.linalg.norm(x)), float(np.linalg.norm(theta))
    return way / size_x / gap, way / size_theta / gap


def bent_ramp(x: ArrayLike) -> np.ndarray:
    """Return 1.8 |x| up to 1/2, then slope 0.2: theorem 1.2 fails if convex on S alone.

    At c = 1 the level is at d = 1, so 1/w = 1, and the function is convex on
    S = [-1/2, 1/2]; yet it has risen by 0.9 at 1/2, where 1.2 allows 1/2.

    >>> float(bent_ramp(0.5)), float(bent_ramp(1.0))
    (0.9, 1.0)
    """
    size = np.abs(np.asarray(x, float))
    return np.where(size <= 0.5, 1.8 * size, 0.9 + 0.2 * (size - 0.5))


def two_sigmoids(theta: ArrayLike) -> np.ndarray:
    """Return the sum of (1 - sigmoid(t))^2 over the last axis: theorem 2.1 fails.

    Each term falls in its margin, yet the sum is not quasi-convex: it is larger
    half-way between (-8, 2) and (2, -8) than at either.

    >>> ends, middle = two_sigmoids([[-8, 2], [2, -8]]), two_sigmoids([-3, -3])
    >>> bool((middle > ends).all())
    True
    """
    falling = 1 / (1 + np.exp(np.asarray(theta, float)))
    return np.asarray((falling**2).sum(-1))


# Adversarial training with an inner problem solved to FOSC delta (Wang et al. 2019).


def first_order_gap(
    gradient: ArrayLike, moved: ArrayLike, epsilon: float, norm: str = "linf"
) -> np.ndarray:
    """Return FOSC: the largest <z - x, g> over the ball, in closed form.

    epsilon |g|_* - <x - x_0, g>, with the dual norm: the sum of sizes for "linf", the
    Euclidean one for "l2".

    Args:
        gradient: g, shape (..., n).
        moved: x - x_0, shape (..., n).
        epsilon: Radius of the ball.
        norm: "linf" or "l2".

    >>> float(first_order_gap([1.0, -2.0], [0.1, -0.1], 0.1))
    0.0
    """
    g = np.asarray(gradient, float)
    dual = np.abs(g).sum(-1) if norm == "linf" else np.linalg.norm(g, axis=-1)
    return np.asarray(epsilon * dual - (np.asarray(moved, float) * g).sum(-1))


def rate_bound(
    steps: ArrayLike, delta: ArrayLike, *, noise: float, smoothness: float, start: float
) -> np.ndarray:
    """Return theorem 1's bound on the mean squared gradient norm over the steps.

    4 sigma sqrt(L Delta / T) + 5 L_theta,x^2 delta / mu, here with
    L_theta,x = mu = 1.

    Args:
        steps: T, how many steps of SGD.
        delta: FOSC at which each inner problem is left.
        noise: sigma, root of the variance of a stochastic gradient.
        smoothness: L.
        start: Delta, how far the loss starts above its minimum.

    >>> float(rate_bound(100, 0.1, noise=1.0, smoothness=2.0, start=2.0))
    1.3
    """
    slope = 4 * noise * np.sqrt(smoothness * start / np.asarray(steps, float))
    return np.asarray(slope + 5 * np.asarray(delta, float))


def rate_on_toy(
    steps: int,
    delta: float,
    *,
    worst: bool = True,
    start: float = 3.0,
    spread: float = 1.0,
    repeats: int = 20,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the mean squared gradient norm of SGD on a toy problem, and its bound.

    f_i(theta, x) = |theta - a_i|^2 / 2 + theta . x - |x - x_i|^2 / 2 for x within 0.5
    of x_i in every coordinate: strongly concave in x with mu = 1, and all Lipschitz
    constants are 1, so that L = 2. Each inner problem is left at FOSC delta exactly,
    on the side that biases the gradient most.

    Args:
        steps: T, how many steps, with the step size that the theorem sets for them.
        delta: FOSC at which each inner problem is left.
        worst: Whether the minimum lies where the inner maximum just meets the edge, so
            that |x - x_max|^2 = delta / mu; else it lies inside.
        start: Every coordinate of theta at first; the minimum is at 0.5, or at 0.
        spread: Of the a_i, and so of the stochastic gradients; at 0 nothing is random.
        repeats: Runs averaged.
        seed: Of the draws.

    >>> measured, bound = rate_on_toy(100, 0.1)
    >>> 0 < measured < bound
    True
    """
    n, count, radius = 5, 50, 0.5
    draws = np.random.default_rng(seed)
    # a_i - x_i, centred where theta + clip(theta) puts the minimum
    pull = spread * draws.normal(size=(count, n))
    pull += (2 * radius if worst else 0) - pull.mean(0)
    noise = float(np.sqrt(((pull - pull.mean(0)) ** 2).sum(1).mean()))

    def loss(theta: np.ndarray) -> float:
        inner = np.clip(theta, -radius, radius)
        # What depends on theta; the rest is the same everywhere.
        rise = theta @ inner - inner @ inner / 2
        return float(theta @ theta / 2 - theta @ pull.mean(0) + rise)

    best = pull.mean(0) / 2  # at most the radius, where theta + clip(theta) = mean pull
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
    bound = rate_bound(steps, delta, noise=noise, smoothness=smoothness, start=above)
    return float(total.mean() / steps), float(bound)


def _short(theta: np.ndarray, delta: float, radius: float) -> np.ndarray:
    """Return by how much every coordinate stops short so that FOSC is delta.

    With v = clip(theta) - s the gradient is theta - v, and FOSC is the sum of
    radius |theta - v| - v (theta - v): with both ends of the interval above v, the sum
    of (radius - v)(theta - v), a quadratic in s.
    """
    edge = np.clip(theta, -radius, radius)
    gap, over = radius - edge, theta - edge  # one of them is 0 on the upper side
    b, c = (gap + over).sum(1), (gap * over).sum(1) - delta
    n = theta.shape[1]
    return np.asarray((-b + np.sqrt(np.maximum(b * b - 4 * n * c, 0))) / (2 * n))
