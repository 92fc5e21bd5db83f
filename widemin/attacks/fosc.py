"""The first-order stationary condition (FOSC) of Wang et al."""

from __future__ import annotations

import torch
from torch import Tensor

from widemin.attacks.balls import Ball, Linf


def fosc(ball: Ball, gradient: Tensor, delta: Tensor) -> Tensor:
    """Return the first-order stationary condition of each image, shape (batch,).

    FOSC is max <d - delta, gradient> over the perturbations d of the ball (Wang et
    al. 2019, eq. 2): at least 0 inside the ball, and 0 where the loss has no first-
    order way up.

    Args:
        ball: The perturbations allowed.
        gradient: Gradient of each image's own loss at x + delta, shape of x.
        delta: The perturbation reached, from the clean image, shape of x.

    >>> corner = torch.full((1, 1, 1, 2), 0.1)
    >>> fosc(Linf(0.1), torch.ones(1, 1, 1, 2), corner).item()
    0.0
    """
    return ball.support(gradient) - (delta * gradient).flatten(1).sum(1)


def fosc_box(
    ball: Linf, gradient: Tensor, x: Tensor, x_adv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return FOSC of the problem that clipped PGD solves, and its value at x.

    The set is the ball and the pixel range [0, 1] together: a pixel that clipping pins
    is no way up, and the exact maximiser of a linear loss has 0 there, unlike `fosc`.
    The value at x, along the same gradient, is the largest first-order gain, by which
    the other can be normalised. Each is of shape (batch,).

    >>> white, gradient = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    >>> gap, _ = fosc_box(Linf(0.1), gradient, white, white)
    >>> gap.item(), fosc(Linf(0.1), gradient, white - white).item() > 0
    (0.0, True)
    """
    low, high = (x - ball.epsilon).clamp_min(0), (x + ball.epsilon).clamp_max(1)

    def gain(start: Tensor) -> Tensor:
        best = torch.maximum(gradient * (high - start), gradient * (low - start))
        return best.flatten(1).sum(1)

    return gain(x_adv), gain(x)
