"""Perturbation sets: where their random starts lie."""

import pytest
import torch

from widemin.attacks import L2, Linf


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
