"""Attacks that must find a guaranteed example find it; blind ones do not."""

from functools import partial

import pytest
import torch
from torch import nn

from widemin.attacks import L2, Linf, clean, fgsm, margin, pgd
from widemin.evaluation import binarization, margins
from widemin.landscape import logit_scale

PGD = partial(pgd, steps=20, loss=margin)


def network(*hidden):
    """A random network of three classes, and ten images."""
    draws = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 3))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draws))
    return model, torch.rand(10, 1, 8, 8, generator=draws)


def binarized(model, x, ball, attacks, **options):
    draws = torch.Generator().manual_seed(0)
    return binarization(model, x, ball, attacks, generator=draws, **options)


def kept(ball, seen):
    """PGD that keeps the classifiers it is given, the images and what it finds."""

    def attack(model, x, y):
        moved = PGD(model, x, y, ball)
        seen.append((model, x, moved, y))
        return moved

    return attack


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)])
@pytest.mark.parametrize("boundary", [1, 3])
def test_on_linear_features_pgd_finds_what_random_points_and_the_image_miss(
    ball, boundary
):
    model, x = network()
    ways = {"pgd": partial(PGD, ball=ball), "none": clean}
    result = binarized(model, x, ball, ways, boundary=boundary)
    assert result.separable.all()
    assert result.found["pgd"].all()
    assert not result.found["none"].any()
    assert not result.random.any()


def test_the_points_found_are_of_class_1_and_in_the_ball():
    model, x = network(nn.Linear(64, 64), nn.ReLU())
    ball, seen = Linf(0.1), []
    result = binarized(model, x, ball, {"pgd": kept(ball, seen)})
    assert result.found["pgd"].sum() >= 9
    for found, (binary, image, moved, y) in zip(result.found["pgd"], seen, strict=True):
        assert y.tolist() == [0]
        assert bool(binary(moved).argmax(1)) == bool(found)
        assert float((moved - image).abs().max()) <= 0.1 + 1e-6
        assert float(moved.min()) >= 0
        assert float(moved.max()) <= 1


def test_the_classifier_is_as_sure_of_the_image_as_the_network():
    model, x = network(nn.Linear(64, 64), nn.ReLU())
    ball, seen = Linf(0.1), []
    assert binarized(model, x, ball, {"pgd": kept(ball, seen)}).separable.all()
    for binary, image, _, y in seen:
        with torch.no_grad():
            logits, own = binary(image), model(image)
        assert logits[0, 0].item() == pytest.approx(own.max().item(), rel=1e-5)
        answer = own.argmax(1)
        assert margins(binary, image, y).item() == pytest.approx(
            margins(model, image, answer).item(), rel=1e-4
        )


def test_the_threshold_is_just_below_the_boundary_point():
    model, x = network()
    ball, seen = Linf(0.1), []
    binarized(model, x[:1], ball, {"pgd": kept(ball, seen)})
    binary, image, _, _ = seen[0]
    draws = torch.Generator().manual_seed(0)
    ball.scaled(0.95).sample(image.expand(100, -1, -1, -1), draws)  # the inner points
    signs = torch.randn(image.shape, generator=draws).sign()
    with torch.no_grad():
        before = float(binary(image).diff())
        after = float(binary((image + 0.1 * signs).clamp(0, 1)).diff())
    assert 0 < after < 0.002 * -before


@pytest.mark.parametrize("hidden", [[], [nn.Linear(64, 64), nn.ReLU()]])
def test_confidence_blinds_cross_entropy_and_not_the_margin(hidden):
    model, x = network(*hidden)
    ball = Linf(0.1)
    ways = {
        "fgsm": partial(fgsm, ball=ball),
        "fgsm_margin": partial(fgsm, ball=ball, loss=margin),
        "pgd_margin": partial(PGD, ball=ball),
    }
    plain = binarized(model, x, ball, ways)
    with logit_scale(model, 1e4):
        sure = binarized(model, x, ball, ways)
    assert plain.found["fgsm"].sum() >= 9
    assert not sure.found["fgsm"].any()
    for name in ("fgsm_margin", "pgd_margin"):
        assert sure.found[name].sum() >= 9


def test_float32_loses_the_first_logit_of_the_classifier_as_of_the_network():
    """At a margin of 30 the loss still has a gradient, that of the second logit."""
    model, x = network()
    ball, ways = Linf(0.1), {"fgsm": partial(fgsm, ball=Linf(0.1))}
    median = margins(model, x, model(x).argmax(1)).median()
    with logit_scale(model, 30 / float(median)):
        assert binarized(model, x, ball, ways).found["fgsm"].sum() <= 5


class Away(nn.Module):
    """Features that grow along every direction away from grey."""

    def forward(self, x):
        return (x - 0.5).abs()


def test_random_points_find_what_every_corner_has():
    model, _ = network(Away())
    grey = torch.full((3, 1, 8, 8), 0.5)
    result = binarized(model, grey, Linf(0.1), {"none": clean})
    assert result.separable.all()
    assert result.random.all()


def test_images_without_a_separating_readout_say_nothing():
    model, x = network(nn.Linear(64, 64), nn.ReLU())
    nn.init.zeros_(model[1].weight)
    result = binarized(model, x, Linf(0.1), {"pgd": partial(PGD, ball=Linf(0.1))})
    assert not result.separable.any()
    assert not result.found["pgd"].any()


def test_the_network_stays_as_it_was():
    model, x = network(nn.BatchNorm1d(64), nn.ReLU())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    binarized(model.train(), x, Linf(0.1), {"pgd": partial(PGD, ball=Linf(0.1))})
    assert all(layer.training for layer in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Flatten()}, "model must be an nn.Sequential ending in nn.Linear"),
        (
            {"model": nn.Sequential()},
            "model must be an nn.Sequential ending in nn.Linear",
        ),
        ({"model": nn.Sequential(nn.Flatten())}, "ending in nn.Linear; got Sequential"),
        ({"x": torch.full((1, 1, 8, 8), 2.0)}, "x must be pixels in"),
        ({"x": torch.zeros(1, 1, 8, 8).double()}, "x must be torch.float32 on cpu"),
        ({"inner": 0}, "inner must be at least 1; got 0"),
        ({"boundary": 0}, "boundary must be at least 1; got 0"),
        ({"attacks": {"far": lambda m, x, y: 1 - x}}, "far must stay in Linf"),
    ],
)
def test_bad_input_is_one_line(change, message):
    model, x = network()
    asked = {"model": model, "x": x, "ball": Linf(0.1), "attacks": {}} | change
    with pytest.raises(ValueError, match=message) as error:
        binarized(**asked)
    assert "\n" not in str(error.value)
