"""Stochastic gradient descent, and how its rate falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# The factor on the learning rate after the fraction t of training, t in [0, 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    # Wei et al.: a tenth at epochs 75 and 90 of 100.
    "drop-75-90": lambda t: 0.1 ** ((t >= 0.75) + (t >= 0.9)),
    # Wang et al.: a tenth at 20 and 40 of 50 (MNIST), at 60 and 100 of 120 (CIFAR-10).
    "drop-40-80": lambda t: 0.1 ** ((t >= 0.4) + (t >= 0.8)),
    "drop-50-83": lambda t: 0.1 ** ((t >= 0.5) + (t >= 5 / 6)),
    # Kamath et al., Benchmark: halved every 5 of 100 epochs.
    "halve-20": lambda t: 0.5 ** int(20 * t),
    # Up over the first fifth, flat to the half, linearly down to 0.
    "trapezoid": lambda t: min(5 * t, 1.0, 2 * (1 - t)),
}


class SGD:
    """Stochastic gradient descent: v <- m v + g + decay w, w <- w - rate v.

    The update of torch.optim.SGD, bit for bit; its import, with the compiler that it
    brings, takes longer than a small network takes to train. It is written down here
    with the same `param_groups`, so that either serves `fit`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """Start with zero velocity."""
        self.parameters: list[Tensor] = list(parameters)
        self.velocities: list[Tensor] = []
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.param_groups = [{"lr": lr}]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return what an interrupted run needs to go on: the velocities."""
        return {"velocities": self.velocities}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from the velocities of `state_dict`."""
        self.velocities = state["velocities"]

    def step(self) -> None:
        """Move the parameters along the gradients they hold."""
        self.descend([p.grad for p in self.parameters if p.grad is not None])

    @torch.no_grad()
    def descend(self, update: list[Tensor]) -> None:
        """Move the parameters along gradients, one for each."""
        if self.weight_decay:
            update = list(
                torch._foreach_add(update, self.parameters, alpha=self.weight_decay)
            )
        if self.momentum:
            if not self.velocities:
                self.velocities = [gradient.clone() for gradient in update]
            else:
                torch._foreach_mul_(self.velocities, self.momentum)
                torch._foreach_add_(self.velocities, update)
            update = self.velocities
        rate = self.param_groups[0]["lr"]
        torch._foreach_add_(self.parameters, update, alpha=-rate)


Optimizer = SGD | torch.optim.Optimizer
