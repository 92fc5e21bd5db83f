"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from widemin.names import check_sizes


class SGD:
    """Stochastic gradient descent: v <- m v + g + decay w, w <- w - lr v.

    The update of torch.optim.SGD, bit for bit (in bfloat16, of its foreach=True), with
    the same `param_groups`, so that either serves `fit`. Importing torch's takes longer
    than a small network takes to train.

    Args:
        parameters: What is moved; those without a gradient stay where they are.
        lr: Learning rate, at least 0.
        momentum: m, at least 0.
        weight_decay: At least 0.

    Raises:
        ValueError: No parameter, or a number below 0 or not finite.

    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> w.grad = torch.tensor([2.0])
    >>> SGD([w], lr=0.25).step()
    >>> w.item()
    0.5
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """Start with zero velocity."""
        check_sizes(lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.parameters: list[Tensor] = list(parameters)
        if not self.parameters:
            raise ValueError("parameters must hold at least one; got none")
        self.velocities: dict[int, Tensor] = {}  # by the place of the parameter
        self.momentum, self.weight_decay = momentum, weight_decay
        self.param_groups = [{"lr": lr}]

    def state_dict(self) -> dict[str, list[Tensor | None]]:
        """Return the velocities, which an interrupted run needs to go on."""
        places = range(len(self.parameters))
        return {"velocities": [self.velocities.get(i) for i in places]}

    def load_state_dict(self, state: dict[str, list[Tensor | None]]) -> None:
        """Go on from the velocities of `state_dict`."""
        kept = enumerate(state["velocities"])
        self.velocities = {i: velocity for i, velocity in kept if velocity is not None}

    def step(self) -> None:
        """Move the parameters along the gradients they hold."""
        self.descend([p.grad for p in self.parameters])

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor | None]) -> None:
        """Move the parameters along gradients, one for each; None moves nothing."""
        held = [i for i, gradient in enumerate(gradients) if gradient is not None]
        if not held:
            return
        weights = [self.parameters[i] for i in held]
        update = [gradient for gradient in gradients if gradient is not None]
        if self.weight_decay:
            update = list(torch._foreach_add(update, weights, alpha=self.weight_decay))
        if self.momentum:
            for i, weight in zip(held, weights, strict=True):
                if i not in self.velocities:
                    self.velocities[i] = torch.zeros_like(weight)
            velocities = [self.velocities[i] for i in held]
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, update)
            update = velocities
        torch._foreach_add_(weights, update, alpha=-self.param_groups[0]["lr"])


Optimizer = SGD | torch.optim.Optimizer
