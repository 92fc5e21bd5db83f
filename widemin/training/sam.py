"""Sharpness-aware minimisation: the ascent in the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from widemin.batches import restored
from widemin.names import check_sizes


@contextmanager
def perturbed_weights(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by rho along their gradient; put them back exactly afterwards.

    w + rho g / |g|, with the L2 norm over all parameters jointly (Foret et al. 2021,
    eq. 2). Parameters without a gradient stay where they are.

    Raises:
        ValueError: A rho below 0 or not finite.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.grad = torch.ones(1, 1)
    >>> before = model.weight.item()
    >>> with perturbed_weights(model, 0.5):
    ...     round(model.weight.item() - before, 4)
    0.5
    >>> model.weight.item() == before
    True
    """
    check_sizes(rho=rho)
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    with restored(lambda: parameters):
        if parameters:
            with torch.no_grad():
                gradients = [p.grad for p in parameters if p.grad is not None]
                norm = torch.stack([g.norm() for g in gradients]).norm()
                # 1e-12 as in the released code of Wei et al.: no direction, no step.
                step = torch._foreach_mul(gradients, rho / (norm + 1e-12))
                torch._foreach_add_(parameters, list(step))
        yield
