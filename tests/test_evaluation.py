"""Accuracy is counted from predictions, image by image."""

from functools import partial

import pytest
import torch
from torch import nn

from widemin.attacks import Linf, NonFiniteError, clean, fgsm, margin, pgd
from widemin.evaluation import correct, margins, survivors
from widemin.statistics import over_seeds, spearman, wilson


def test_margins_are_true_minus_best_other(linear):
    model, x, y = linear
    logits = model(x)
    expected = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None]))[:, 0]
    torch.testing.assert_close(margins(model, x, y), expected.detach())
    assert torch.equal(correct(model, x, y), expected > 0)


def test_robust_accuracy_of_a_linear_model_is_exact(linear):
    """An image survives L-infinity epsilon iff its margin exceeds epsilon |w|_1."""
    model, x, y = linear
    y = model(x).argmax(1)
    gap = (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    distance = margins(model, x, y) / gap
    epsilon = float(distance.median()) + 1e-4
    assert epsilon < 0.4
    ball = Linf(epsilon)
    ways = {
        "fgsm": partial(fgsm, ball=ball),
        "pgd": partial(pgd, ball=ball, steps=20, step_size=epsilon / 4),
        "margin": partial(fgsm, ball=ball, loss=margin),
    }
    for name, mask in survivors(model, x, y, ways).items():
        assert torch.equal(mask, distance > epsilon), name


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_nothing_depends_on_the_chunk(linear, chunk):
    model, x, y = linear
    ways = {"none": clean, "fgsm": partial(fgsm, ball=Linf(0.02))}
    found = survivors(model, x, y, ways, chunk)
    reference = survivors(model, x, y, ways)
    for name in ways:
        assert torch.equal(found[name], reference[name])


def test_wrong_images_are_wrong_under_every_attack(linear):
    model, x, _ = linear
    y = model(x).argmin(1)
    found = survivors(model, x, y, {"away": lambda model, x, y: 1 - x})
    assert not found["away"].any()


def test_a_constant_network_is_never_right():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x, y = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)
    assert not correct(model, x, y).any()


def test_broken_networks_are_an_error(linear):
    model, x, y = linear
    with torch.no_grad():
        model[1].bias.fill_(float("inf"))
    with pytest.raises(NonFiniteError):
        correct(model, x, y)


def test_wilson_is_statsmodels_formula():
    low, high = wilson(0.9, 1000)
    n, p, z = 1000, 0.9, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert wilson(0.0, 10)[0] == 0 and wilson(1.0, 10)[1] == 1


def test_wilson_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"got 1\.5 and 10"):
        wilson(1.5, 10)


def test_over_seeds_is_students_interval():
    mean, half = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert over_seeds([5.0])[0] == 5.0
    assert over_seeds([5.0])[1] != over_seeds([5.0])[1]  # NaN: one seed says nothing


def test_spearman_ranks_and_refuses_constants():
    assert spearman([1, 2, 3, 4], [10, 100, 1000, 1]) == pytest.approx(-0.2)
    for x, y in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])):
        found = spearman(x, y)
        assert found != found
