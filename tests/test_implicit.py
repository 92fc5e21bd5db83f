"""A weight perturbation answered in pixels: against numpy, and where it is exact."""

import pytest
import torch
from torch import nn

from widemin import models
from widemin.landscape.implicit_perturbation import at_first_layer, least_squares


@pytest.mark.parametrize("shape", [(7, 5), (4, 9), (6, 6)])
def test_least_squares_is_lapacks_with_the_smallest_norm(shape, generator):
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    wanted = torch.randn(3, shape[0], generator=generator, dtype=torch.float64)
    start = torch.zeros(3, shape[1], dtype=torch.float64)
    u, share = least_squares(lambda v: v @ matrix.T, wanted, start)
    expected = wanted @ torch.linalg.pinv(matrix).T
    torch.testing.assert_close(u, expected)
    left = (expected @ matrix.T - wanted).square().sum(1) / wanted.square().sum(1)
    torch.testing.assert_close(share, 1 - left)


def test_nothing_wanted_needs_nothing():
    u, share = least_squares(lambda v: v, torch.zeros(2, 3), torch.zeros(2, 3))
    assert not u.any() and share.tolist() == [1.0, 1.0]


def test_with_fewer_outputs_than_pixels_images_do_what_weights_do(generator):
    """W u = d x has a solution, so both perturbations give the same logits."""
    network = models.build("mlp", generator, shape=(1, 8, 8), width=20).double()
    x = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)
    found = at_first_layer(network, x, torch.arange(6), rho=0.3)
    assert found["implicit_share"] == pytest.approx(1)
    rise = found["implicit_weights_rise"]
    assert rise != 0 and found["implicit_images_rise"] == pytest.approx(rise)


def test_behind_a_normalisation_the_perturbation_is_still_in_pixels(generator):
    """Moving the pixels does what moving the weights does, so the units are right."""
    statistics = ((0.3,), (0.1,))
    net = models.build("mlp", generator, shape=(1, 8, 8), statistics=statistics)
    x = torch.rand(4, 1, 8, 8, generator=generator, dtype=torch.float64)
    found = at_first_layer(net.double(), x, torch.arange(4), rho=0.1)
    assert found["implicit_images_rise"] == pytest.approx(
        found["implicit_weights_rise"], rel=1e-4
    )


def test_the_gradient_is_the_worst_direction_of_its_length(generator):
    network = models.build("mlp", generator, shape=(1, 8, 8))
    x = torch.rand(8, 1, 8, 8, generator=generator)
    found = at_first_layer(network, x, torch.arange(8), rho=0.01)
    assert found["implicit_gradient_rise"] > found["implicit_images_rise"]


def test_a_model_without_a_first_layer_is_refused():
    with pytest.raises(ValueError, match="model must be a sequence"):
        at_first_layer(
            nn.Sequential(nn.Flatten()),
            torch.rand(1, 1, 2, 2),
            torch.tensor([0]),
            rho=0.1,
        )
