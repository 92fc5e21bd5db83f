"""SAM's climb in the weights, and the batch norm that it must leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def climbed(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by rho along their gradient; put them back exactly afterwards.

    The ball is Euclidean over all parameters jointly: w + rho g / |g| (Foret et al.
    2021, eq. 2).
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    before = [p.detach().clone() for p in parameters]
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
    """Normalise by batch statistics, but leave the running statistics alone."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    counts = [n for m in layers if (n := m.num_batches_tracked) is not None]
    before = [count.clone() for count in counts]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for count, value in zip(counts, before, strict=True):
            count.copy_(value)
