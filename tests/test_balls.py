"""Perturbation sets: where their random starts lie."""

import pickle

import pytest
import torch

from widemin.attacks import L2, Linf, parse_ball


@pytest.mark.parametrize("epsilon", [0.03, 0.5])
@pytest.mark.parametrize("kind", [Linf, L2])
def test_random_starts_cover_the_ball_and_stay_in_it(generator, kind, epsilon):
    """Of 10,000 draws some reach its surface, on every side, and none leaves it."""
    delta = kind(epsilon).sample(torch.zeros(10_000, 1, 1, 2), generator).flatten(1)
    size = delta.abs().amax(1) if kind is Linf else delta.norm(dim=1)
    assert 0.99 * epsilon < float(size.max()) <= epsilon * (1 + 1e-6)
    assert float(size.min()) < 0.05 * epsilon
    for side in (delta, -delta):
        assert bool((side.amax(0) > 0.9 * epsilon).all())
    # Uniform in each pixel, or in the radius.
    spread = delta.abs() if kind is Linf else size
    assert float(spread.mean()) == pytest.approx(epsilon / 2, rel=0.03)


@pytest.mark.parametrize("text", ["linf 8/255", "l2 0.50", "linf 1"])
def test_a_set_is_written_as_it_was_given(text):
    ball = parse_ball(text)
    assert str(ball) == str(pickle.loads(pickle.dumps(ball))) == text
    same = type(ball)(ball.epsilon)
    assert ball == same and hash(ball) == hash(same)
    assert parse_ball(str(same)) == ball
    half = ball.scaled(0.5)
    assert parse_ball(str(half)) == half and half.epsilon == ball.epsilon / 2
