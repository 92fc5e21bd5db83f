"""Steps repeated over epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from widemin.training.descent import SCHEDULES, Optimizer
from widemin.training.steps import Step, train_step


@dataclass
class Position:
    """Where `fit` stands: with weights, optimiser and generators enough to go on.

    Attributes:
        epoch: Epochs finished.
        order: Order of the images in the epoch under way, shape (images,), if any.
        batch: Steps of that epoch taken.
        total: Sum of the losses of the images seen in it, shape ().
    """

    epoch: int = 0
    order: Tensor | None = None
    batch: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    step_at: Callable[[float], Step] = lambda t: train_step,
    schedule: str = "constant",
    rate_decay: float = 0.0,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
    position: Position | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, float]]:
    """Train; yield (epoch, mean loss over its images) after each epoch, from 1.

    Args:
        model: Left in training mode.
        optimizer: Its learning rate at the start is multiplied by the schedule.
        x: Training images, shape (images, channels, height, width).
        y: Labels, shape (images,).
        epochs: Passes over the images.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        generator: Draws the order of the images.
        step_at: Given the fraction of training done, in [0, 1), returns the step to
            take: `train_step`, or a partial of it that perturbs images or climbs.
        schedule: One of SCHEDULES.
        rate_decay: The rate is also divided by 1 + rate_decay times the number of
            steps taken, as Keras' argument `decay` does.
        augment: Makes the images of a step, before they are perturbed.
        position: Where to start, and kept up to date after each step; with weights,
            optimiser and generators as they were then, training goes on exactly.
        pause: Called after each step, when position is up to date; it may raise.
    """
    position = position or Position()
    base = [group["lr"] for group in optimizer.param_groups]
    updates = epochs * -(-len(x) // batch_size)
    while position.epoch < epochs:
        model.train()
        if position.order is None:
            position.order = torch.randperm(len(x), generator=generator)
            position.total = torch.zeros((), device=x.device)
        parts = position.order.to(x.device).split(batch_size)
        for index in parts[position.batch :]:
            done = (position.epoch * len(parts) + position.batch) / updates
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                taken = position.epoch * len(parts) + position.batch
                slower = 1 + rate_decay * taken
                group["lr"] = rate * SCHEDULES[schedule](done) / slower
            loss = step_at(done)(model, optimizer, augment(x[index]), y[index])
            position.total = position.total + loss * len(index)
            position.batch += 1
            pause()
        mean = float(position.total) / len(x)
        position.epoch, position.order, position.batch = position.epoch + 1, None, 0
        yield position.epoch, mean
