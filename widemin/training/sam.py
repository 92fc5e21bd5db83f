"""SAM's climb in the weights, and the batch norm that it must leave alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def check_rho(rho: float) -> None:
    """Raise ValueError unless rho is a radius: at least 0 and finite."""
    if not 0 <= rho < math.inf:
        raise ValueError(f"rho must be at least 0 and finite; got {rho}")


@contextmanager
def climbed(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by rho along their gradient; put them back exactly afterwards.

    The ball is Euclidean over all parameters jointly: w + rho g / |g| (Foret et al.
    2021, eq. 2). Parameters without a gradient stay where they are.

    Raises:
        ValueError: A rho below 0 or not finite.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.grad = torch.ones(1, 1)
    >>> before = model.weight.item()
    >>> with climbed(model, 0.5):
    ...     round(model.weight.item() - before, 4)
    0.5
    >>> model.weight.item() == before
    True
    """
    check_rho(rho)
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    before = [p.detach().clone() for p in parameters]
    if parameters:
        with torch.no_grad():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.stack([g.norm() for g in gradients]).norm()
            # 1e-12 as in the released code of Wei et al.: no direction, no step.
            step = torch._foreach_mul(gradients, rho / (norm + 1e-12))
            torch._foreach_add_(parameters, list(step))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Put every buffer back afterwards, running statistics of batch norm among them.

    In training mode batches are still normalised by their own statistics.

    >>> layer = nn.BatchNorm1d(2)
    >>> with frozen_statistics(layer):
    ...     _ = layer(torch.rand(8, 2))
    >>> layer.running_mean, int(layer.num_batches_tracked)
    (tensor([0., 0.]), 0)
    """
    before = [buffer.detach().clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
