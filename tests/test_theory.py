"""Every row of the theorems' tables, from an independent solution in high precision."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from widemin.attacks import L2, Linf, fosc
from widemin.evaluation import MASKED_MARGIN
from widemin.papers.khritankov import theory as khritankov
from widemin.papers.wang import theory as wang
from widemin.papers.wei import theory as wei
from widemin.papers.wei.theory import adversarial_optimum, optimum, sam_optimum

mpmath = pytest.importorskip("mpmath")

MODELS = [
    (p, eta, d)
    for p in (0.6, 0.8, 0.95, 0.99)
    for eta in (0.01, 0.1, 0.5)
    for d in (1, 10, 1000)
]


def exact_slope(w, p, eta, d):
    """du/dw from the Gaussian densities, 60 digits."""
    with mpmath.workdps(60):
        w, p, m, d = (mpmath.mpf(v) for v in (w, p, d * mpmath.mpf(eta), d))
        high = p * mpmath.exp(-((m + w) ** 2) / (2 * d))
        return high - (1 - p) * mpmath.exp(-((m - w) ** 2) / (2 * d))


@pytest.mark.parametrize(("p", "eta", "d"), MODELS)
def test_theorem_4_1_is_the_only_zero_of_the_slope(p, eta, d):
    best = optimum(p, eta, d)
    assert exact_slope(best * (1 - 1e-9), p, eta, d) > 0
    assert exact_slope(best * (1 + 1e-9), p, eta, d) < 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("p", "eta", "d"), MODELS)
def test_theorem_4_2_is_standard_training_with_weaker_features(p, eta, d, share):
    found = adversarial_optimum(p, eta, d, share * eta)
    assert found == pytest.approx(optimum(p, eta, d) / (1 - share), rel=1e-12)


def test_beyond_eta_only_the_robust_feature_is_left():
    assert adversarial_optimum(0.95, 0.1, 100, 0.1) == math.inf
    assert adversarial_optimum(0.95, 0.1, 100, 0.2) == math.inf


def exact_shift(p, eta, d, epsilon):
    """The balance of both ends by bisection on the accuracies, 120 digits."""
    with mpmath.workdps(120):
        p, eta, d, e = (mpmath.mpf(str(v)) for v in (p, eta, d, epsilon))
        m, root = d * eta, mpmath.sqrt(d)
        best = mpmath.log(p / (1 - p)) / (2 * eta)

        def u(w):
            return p * mpmath.ncdf((m + w) / root) + (1 - p) * mpmath.ncdf(
                (m - w) / root
            )

        low, high = mpmath.mpf(0), e
        for _ in range(60):
            middle = (low + high) / 2
            if u(best + middle + e) > u(best + middle - e):
                low = middle
            else:
                high = middle
        return float((low + high) / 2)


# p, eta, d, epsilon, w_SAM - w* in 120 digits, k = shift / (w* epsilon^2)
TABLE = [
    (0.95, 0.1, 1, 0.001, 4.9073e-6, 0.333329),
    (0.95, 0.1, 10, 0.001, 4.9074e-7, 0.0333333),
    (0.95, 0.1, 100, 0.001, 4.9074e-8, 0.00333333),
    (0.95, 0.1, 1000, 0.001, 4.9074e-9, 0.000333333),
    (0.95, 0.1, 100, 1, 0.049068, 0.0033329),
    (0.95, 0.1, 100, 5, 1.21999, 0.0033147),
    (0.7, 0.5, 1, 0.1, 0.0028281, 0.333784),
    (0.99, 0.05, 3000, 1, 0.0051051, 0.000111098),
]


@pytest.mark.parametrize(("p", "eta", "d", "epsilon", "shift", "k"), TABLE)
def test_sam_on_the_robust_weight_is_exact(p, eta, d, epsilon, shift, k):
    best = optimum(p, eta, d)
    found = sam_optimum(p, eta, d, epsilon) - best
    # The difference of two close numbers carries their rounding.
    rounding = 4e-16 * best
    assert found == pytest.approx(shift, rel=2e-5, abs=rounding)
    assert found / (best * epsilon**2) == pytest.approx(
        k, rel=2e-5, abs=rounding / (best * epsilon**2)
    )


@pytest.mark.parametrize(
    ("p", "eta", "d", "epsilon"),
    [
        (0.95, 0.1, 1, 0.001),
        (0.95, 0.1, 100, 5),
        (0.7, 0.5, 1, 0.1),
        (0.6, 0.3, 4, 2),
    ],
)
def test_sam_agrees_with_120_digits_to_1e_8(p, eta, d, epsilon):
    found = sam_optimum(p, eta, d, epsilon) - optimum(p, eta, d)
    exact = exact_shift(p, eta, d, epsilon)
    assert found == pytest.approx(exact, rel=1e-8, abs=1e-14)


def test_the_printed_constant_is_too_large_by_2d():
    for p, eta, d, epsilon, *_ in TABLE:
        right = wei.sam_shift(p, eta, d, epsilon)
        printed = wei.sam_shift(p, eta, d, epsilon, "printed")
        assert printed / right == pytest.approx(2 * d)
    for d in (1, 10, 100, 1000):
        shift = sam_optimum(0.95, 0.1, d, 0.01) - optimum(0.95, 0.1, d)
        assert wei.sam_shift(0.95, 0.1, d, 0.01) == pytest.approx(shift, rel=0.01)


@pytest.mark.parametrize(("p", "eta", "d"), MODELS)
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 10.0])
def test_theorem_4_3_holds_for_every_radius(p, eta, d, epsilon):
    best = optimum(p, eta, d)
    found = sam_optimum(p, eta, d, epsilon)
    assert best <= found < best + epsilon


ALL_WEIGHTS = [
    (0.95, 0.1, 20, 0.25, +0.135409, +0.135523),
    (0.95, 0.1, 100, 0.25, +0.000518, +0.000514),
    (0.95, 0.1, 1000, 1, -0.008755, -0.008751),
    (0.99, 0.3, 100, 1, -0.036356, -0.036084),
    (0.9, 0.2, 400, 1, -0.008822, -0.008810),
]


@pytest.mark.parametrize(("p", "eta", "d", "epsilon", "exact", "leading"), ALL_WEIGHTS)
def test_sam_on_all_weights(p, eta, d, epsilon, exact, leading):
    best = optimum(p, eta, d)
    shift = sam_optimum(p, eta, d, epsilon, "all") - best
    assert shift == pytest.approx(exact, abs=6e-7)
    assert wei.sam_shift(p, eta, d, epsilon, "all") == pytest.approx(leading, abs=6e-7)
    assert (shift > 0) == (best**2 > 2 * d)


def test_sam_on_all_weights_by_brute_force():
    """Worst accuracy over the whole ball, on a grid, then the best w."""
    p, eta, d, epsilon = 0.95, 0.1, 20, 0.25
    theta, phi = np.meshgrid(
        np.linspace(0, 2 * np.pi, 1441), np.linspace(0, 1.5708, 61)
    )

    def worst(w):
        robust = w + epsilon * np.cos(phi) * np.cos(theta)
        common = 1 + epsilon * np.cos(phi) * np.sin(theta) / np.sqrt(d)
        spread = np.sqrt(d * common**2 + (epsilon * np.sin(phi)) ** 2)
        # Weak weights `common` each: scale the classifier so that they are 1.
        scale = spread / np.sqrt(d)
        values = wei.accuracy(robust / scale, p, eta * common / scale, d)
        return values.min()

    best = optimum(p, eta, d)
    found = minimize_scalar(
        lambda w: -worst(w), bounds=(best - 1, best + 1), method="bounded"
    )
    assert sam_optimum(p, eta, d, epsilon, "all") == pytest.approx(found.x, abs=0.02)


def test_theorem_4_5():
    eta, d, epsilon = 0.1, 100, 1.0
    equal = wei.equivalent_adversarial_epsilon(eta, d, epsilon)
    assert equal == pytest.approx(3.3223e-4, rel=1e-4)
    there = adversarial_optimum(0.95, eta, d, equal)
    assert there == pytest.approx(sam_optimum(0.95, eta, d, epsilon), rel=1e-5)


def test_the_threshold_of_masking():
    """1 + e^-m rounds to 1 in float32, of 24 bits, once e^-m <= 2^-24."""
    assert MASKED_MARGIN == pytest.approx(24 * math.log(2), abs=1e-6)


# k, level, d_theta, w_theta / w_X as |theta| / |x| demands: theorem 2.2
@pytest.mark.parametrize("k", [1, 16])
@pytest.mark.parametrize("level", [math.log(2), 2.0])
def test_one_samples_widths(k, level):
    generator = np.random.default_rng(0)
    x, theta = generator.normal(size=20), generator.normal(size=20)
    theta = k * 1.5 * theta / (x @ theta)
    in_weights, in_inputs = khritankov.logistic_widths(x, theta, level)
    ratio = np.linalg.norm(x) / np.linalg.norm(theta)
    assert in_inputs == pytest.approx(in_weights * ratio)
    loss = np.logaddexp(0, -1.5 * k)
    unit = x / np.linalg.norm(x)
    there = theta - in_weights * (level - loss) * unit
    assert np.logaddexp(0, -x @ there) == pytest.approx(level)


def test_the_counterexamples_count():
    assert khritankov.bent_ramp(1.0) == 1.0  # d(1) = 1, so 1 / w = 1
    assert khritankov.bent_ramp(0.5) - khritankov.bent_ramp(0.0) > 0.5
    ends = khritankov.two_sigmoids([[-8, 2], [2, -8]])
    assert ends == pytest.approx([1.0135, 1.0135], abs=1e-4)
    assert khritankov.two_sigmoids([-3, -3]) == pytest.approx(1.8148, abs=1e-4)


def test_a_quadratics_width_is_distance_over_gap():
    gap, top = 0.3, 7.0
    assert khritankov.quadratic_width(top, gap) == pytest.approx(
        math.sqrt(2 * gap / top) / gap
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimum(0.5, 0.1, 10), "p must lie between 1/2 and 1; got 0.5"),
        (lambda: optimum(0.9, 0.0, 10), "eta must be above 0"),
        (lambda: optimum(0.9, 0.1, 0), "d must be at least 1; got 0"),
        (lambda: adversarial_optimum(0.9, 0.1, 1, -1), "epsilon must be at least 0"),
        (lambda: sam_optimum(0.9, 0.1, 1, math.nan), "epsilon must be at least 0"),
        (
            lambda: sam_optimum(0.9, 0.1, 1, 0.1, "some"),
            "unknown weights 'some'.*; known: robust, all",
        ),
        (lambda: sam_optimum(0.9, 0.1, 4, 99, "all"), "small enough"),
        (
            lambda: wei.sam_on_samples(0.9, 0.1, 2, [0, -1]),
            "radii must be at least",
        ),
        (
            lambda: khritankov.quadratic_width(0, 1),
            "must be above 0; got 0 and 1",
        ),
        (
            lambda: khritankov.logistic_widths([1.0], [1.0], 0.1),
            "level must be above",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_first_order_gap_is_the_attacks_own():
    generator = torch.Generator().manual_seed(0)
    g, moved = torch.randn(2, 6, 1, 1, 5, generator=generator).double()
    moved = 0.1 * moved
    for norm, ball in (("linf", Linf(0.2)), ("l2", L2(0.2))):
        ours = wang.first_order_gap(
            g.flatten(1).numpy(), moved.flatten(1).numpy(), 0.2, norm
        )
        expected = fosc(ball, g, moved).numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("delta", [0.01, 0.5])
@pytest.mark.parametrize("theta", [[0.5] * 5, [0.9, 0.5, 0.2, 0.0, -0.1]])
def test_stopping_short_leaves_fosc_at_delta(theta, delta):
    theta = np.array([theta])
    short = wang._short(theta, delta, radius=0.5)
    moved = np.clip(theta, -0.5, 0.5) - short[:, None]
    # The gradient in x of theta . x - |x - x_i|^2 / 2 is theta - (x - x_i).
    assert wang.first_order_gap(theta - moved, moved, 0.5) == pytest.approx(delta)


def test_without_noise_the_floor_is_known():
    """At the edge theta settles s above it, where 2 n s^2 = delta: |grad|^2 = n s^2."""
    still = {"spread": 0.0, "start": 0.5, "repeats": 1}
    measured, bound = wang.rate_on_toy(1_000, 0.1, **still)
    assert measured == pytest.approx(0.05, rel=0.01) and bound == pytest.approx(0.5)
    assert wang.rate_on_toy(1_000, 0.0, **still)[0] == 0


def test_noise_averages_down_as_the_root_of_the_steps():
    runs = [wang.rate_on_toy(steps, 0.0) for steps in (100, 10_000)]
    assert all(measured < bound for measured, bound in runs)
    assert runs[0][0] / runs[1][0] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("d", [5, 50])
def test_sgd_on_samples_finds_the_minimum_of_the_logistic_loss(d):
    """The posterior is logistic in the features: their weights are as w* to 1."""
    ratios = [
        wei.sam_on_samples(0.9, 0.3, d, [0.0], steps=4_000, seed=seed)[0]
        for seed in range(3)
    ]
    exact = optimum(0.9, 0.3, d) / math.sqrt(d)
    assert np.mean(ratios) == pytest.approx(exact, rel=0.05)


def test_a_radius_of_nearly_zero_is_sgd():
    sgd, sam = wei.sam_on_samples(0.95, 0.1, 20, [0.0, 1e-9], steps=300)
    assert sam == pytest.approx(sgd, rel=1e-6)
