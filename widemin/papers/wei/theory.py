"""The robust / non-robust feature model of Wei et al., after Tsipras et al. 2018.

y is +1 or -1 with probability 1/2; x_1 = y with probability p in (1/2, 1), else -y; the
d weak features x_2 to x_{d+1} are independent N(eta y, 1), eta > 0. The classifier is
sign(w x_1 + x_2 + ... + x_{d+1}). Radii are Euclidean in weights, L-infinity in
features. A model out of range is a ValueError.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, ndtr

from widemin.names import check, check_choice, check_counts, check_sizes

_LEGENDRE = np.polynomial.legendre.leggauss(40)


def _check_model(p: float, eta: float, d: int) -> None:
    check(0.5 < p < 1, "p must lie between 1/2 and 1", p)
    check(0 < eta < math.inf, "eta must be above 0 and finite", eta)
    check_counts(d=d)


def accuracy(w: ArrayLike, p: float, eta: float, d: int) -> np.ndarray:
    """Return p Phi((m + w) / sqrt d) + (1 - p) Phi((m - w) / sqrt d), where m = d eta.

    >>> float(accuracy(0.0, 0.95, 0.1, 100).round(4))  # the weak features alone
    0.8413
    """
    w, root = np.asarray(w, float), math.sqrt(d)
    high, low = ndtr((d * eta + w) / root), ndtr((d * eta - w) / root)
    return np.asarray(p * high + (1 - p) * low)


def optimum(p: float, eta: float, d: int) -> float:
    """Return the weight of standard training: ln(p / (1 - p)) / (2 eta), theorem 4.1.

    >>> round(optimum(0.95, 0.1, 100), 4)
    14.7222
    """
    _check_model(p, eta, d)
    return math.log(p / (1 - p)) / (2 * eta)


def adversarial_optimum(p: float, eta: float, d: int, epsilon: float) -> float:
    """Return the weight of adversarial training: theorem 4.2.

    The attack moves every weak feature by -epsilon y: eta becomes eta - epsilon. From
    epsilon = eta on the optimum is infinite.

    >>> round(adversarial_optimum(0.95, 0.1, 100, 0.05), 4)
    29.4444
    """
    _check_model(p, eta, d)
    check_sizes(epsilon=epsilon)
    return optimum(p, eta - epsilon, d) if epsilon < eta else math.inf


def sam_optimum(
    p: float, eta: float, d: int, epsilon: float, weights: str = "robust"
) -> float:
    """Return the weight of SAM of a radius: the exact max-min, to 1e-8 of its shift.

    The worst weights lie at one of two ends of the ball, and the optimum balances them.
    With weights="robust" SAM moves w alone, as the theorems have it; with "all" it
    moves all d + 1 weights, and since only their direction matters, a ball is an angle.

    >>> round(sam_optimum(0.95, 0.1, 100, 5.0) - optimum(0.95, 0.1, 100), 3)
    1.22
    """
    _check_model(p, eta, d)
    check_sizes(epsilon=epsilon)
    check_choice("weights", weights, ("robust", "all"))
    best = optimum(p, eta, d)
    if epsilon == 0:
        return best
    if weights == "all":
        return _balance_of_angles(best, eta, d, epsilon)

    def gap(share: float) -> float:  # u at both ends; 0 < share < 1, by theorem 4.3
        lam = share * epsilon
        return _difference(lam - epsilon, lam + epsilon, best, eta, d)

    return best + epsilon * float(brentq(gap, 0.0, 1.0, xtol=1e-16, rtol=1e-14))


def _difference(low: float, high: float, w: float, eta: float, d: int) -> float:
    """Return u(w + high) - u(w + low), up to a positive factor.

    u' at w* + t is proportional to -exp(-(2 w* + t) t / 2d) sinh(eta t): around w*, it
    loses no digits. By Gauss-Legendre on panels where the exponential is tame.
    """
    points, values = _LEGENDRE
    decay = (2 * w + abs(low) + abs(high)) * (high - low) / (2 * d)
    edges = np.linspace(low, high, 2 + int(decay / 10))
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    t = middle[:, None] + half[:, None] * points
    exponent = -(2 * w + t) * t / (2 * d)
    slope = -np.exp(exponent - exponent.max()) * np.sinh(eta * t)
    return float((half[:, None] * values * slope).sum())


def _balance_of_angles(best: float, eta: float, d: int, epsilon: float) -> float:
    root = math.sqrt(d)

    def gap(w: float) -> float:
        # From a quarter turn on the ball holds every direction.
        turn = math.asin(min(1.0, epsilon / math.hypot(w, root)))
        angle = math.atan2(w, root)
        if max(turn, angle + turn) >= math.pi / 2:
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
    sound = gap(low) >= 0 and not math.isinf(gap(high))
    needed = "epsilon must be small enough that SAM on all weights has an optimum"
    check(sound, needed, epsilon)
    return float(brentq(gap, low, high, xtol=1e-15, rtol=1e-14))


def sam_shift(
    p: float, eta: float, d: int, epsilon: float, kind: str = "robust"
) -> float:
    """Return the leading term of w_SAM - w*: theorem 4.4.

    w* epsilon^2 times 1 / (3 d) where SAM moves the "robust" weight; (w*^2 - 2 d) /
    (3 d^2), positive only if w*^2 > 2 d, where it moves "all"; 2/3 as "printed".

    >>> round(sam_shift(0.95, 0.1, 100, 1.0), 4)
    0.0491
    """
    best = optimum(p, eta, d)
    if kind == "printed":
        return best * 2 / 3 * epsilon**2
    if kind == "all":
        return best * epsilon**2 * (best**2 - 2 * d) / (3 * d**2)
    return best * epsilon**2 / (3 * d)


def equivalent_adversarial_epsilon(eta: float, d: int, epsilon: float) -> float:
    """Return the attack that moves w as far as SAM of radius epsilon does: theorem 4.5.

    eta epsilon^2 / (3 d + epsilon^2); the paper has 3/2 in the place of 3 d.

    >>> round(equivalent_adversarial_epsilon(0.1, 100, 1.0), 6)
    0.000332
    """
    return eta * epsilon**2 / (3 * d + epsilon**2)


def sam_on_samples(
    p: float,
    eta: float,
    d: int,
    radii: Sequence[float],
    steps: int = 3_000,
    seed: int = 0,
) -> np.ndarray:
    """Return the robust weight over the norm of the weak ones, after actual SAM.

    All d + 1 weights of a linear classifier are trained on the logistic loss of fresh
    samples, the same for every radius; radius 0 is SGD. Averaged over the second half
    of the steps; shape (radii,). The minimum's ratio is `optimum` / sqrt(d).

    >>> sgd, sam = sam_on_samples(0.95, 0.1, 20, [0.0, 0.5])
    >>> bool(sam > sgd)
    True
    """
    _check_model(p, eta, d)
    draws, rho = np.random.default_rng(seed), np.asarray(radii, float)[:, None]
    sound = ((rho >= 0) & np.isfinite(rho)).all()
    check(sound, "radii must be at least 0 and finite", radii)
    (weights, mean), batch_size = np.zeros((2, len(rho), d + 1)), 64

    def gradient(at: np.ndarray, signed: np.ndarray) -> np.ndarray:
        return np.asarray(-expit(-at @ signed.T) @ signed / batch_size)

    for step in range(steps):
        # y x, which is all that the loss depends on
        robust = np.where(draws.random((batch_size, 1)) < p, 1.0, -1.0)
        weak = eta + draws.normal(size=(batch_size, d))
        signed = np.concatenate([robust, weak], axis=1)
        uphill = gradient(weights, signed)
        size = np.linalg.norm(uphill, axis=1, keepdims=True) + 1e-12
        rate = min(1.0, 40 / d) / (1 + step / 400) ** 0.7
        weights = weights - rate * gradient(weights + rho * uphill / size, signed)
        if step >= steps // 2:
            mean += weights
    return np.asarray(mean[:, 0] / np.linalg.norm(mean[:, 1:], axis=1))
