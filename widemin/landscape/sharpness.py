"""How far the loss rises around the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from widemin.attacks import NonFiniteError, inference
from widemin.batches import Data, Loss, trainable
from widemin.landscape.loss_surface import weight_landscape
from widemin.names import check_counts


def adaptive_sharpness(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    rho: float,
    steps: int = 20,
    chunk: int | None = None,
    loss: Loss = None,
) -> float:
    """Return how far the loss rises in a ball whose axes are the weights' own sizes.

    max L(w + |w| v) - L(w) over |v|_2 <= rho, by projected gradient ascent (Kwon et
    al. 2021). Scaling one layer up and the next one down leaves it alone.

    The radius rho is in units of each weight's absolute value, a step of the ascent a
    fifth of it; the network is measured in inference mode. Other arguments as of
    `weight_landscape`.

    Raises:
        NonFiniteError: Weights, outputs or a loss that are NaN or infinite.
        ValueError: Wrong inputs or labels, or a radius or count out of range.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> adaptive_sharpness(network, x, y, rho=0.1) >= 0
    True
    """
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be above 0 and finite; got {rho}")
    check_counts(steps=steps)
    sizes = torch.cat([p.detach().abs().reshape(-1) for p in trainable(model)])
    landscape, v = weight_landscape(model, x, y, sizes, chunk, loss)
    with inference(model):
        base, gradient = landscape(v)
        highest = base
        for _ in range(steps):
            norm = gradient.norm()
            if norm == 0:
                break
            v = v + rho / 5 * gradient / norm
            v = v * (rho / v.norm()).clamp_max(1.0)
            value, gradient = landscape(v)
            if not math.isfinite(value):
                raise NonFiniteError(f"loss must be finite within rho; got {value}")
            highest = max(highest, value)
    return highest - base
