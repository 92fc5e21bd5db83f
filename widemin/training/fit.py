"""Training: steps repeated over epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from widemin.attacks import NonFiniteError, inference
from widemin.batches import restored
from widemin.names import check_choice, check_counts, check_sizes
from widemin.training.schedules import SCHEDULES
from widemin.training.sgd import Optimizer
from widemin.training.step import Step, train_step


@dataclass
class Position:
    """Where `fit` stands; with weights, optimiser and generators enough to go on."""

    epoch: int = 0  # finished
    order: Tensor | None = None  # of the images in the epoch under way, if any
    batch: int = 0  # steps of that epoch taken
    total: Tensor = field(default_factory=lambda: torch.zeros(()))  # of its losses


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
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train; return the mean loss over the images in each epoch.

    Args:
        model: Left in training mode.
        optimizer: Its learning rate is multiplied by the schedule, put back at the end.
        x: Training images, shape (images, channels, height, width).
        y: Labels, shape (images,).
        epochs: Passes over the images.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        generator: Draws the order of the images.
        step_at: Fraction of training done, in [0, 1), to the step to take:
            `train_step`, or a partial of it that perturbs images or climbs.
        schedule: One of SCHEDULES.
        rate_decay: The rate is also divided by 1 + rate_decay * steps taken, as by
            Keras' argument `decay`.
        augment: Makes the images of a step, before they are perturbed.
        position: Where to start, kept up to date after each step; with weights,
            optimiser and generators as they were then, training goes on exactly.
        pause: Called after each step, when position is up to date; it may raise.
        after_epoch: Called with the number of each epoch, from 1, and its mean loss.

    Raises:
        ValueError: No images, labels of another number, an unknown schedule, a count
            below 1, a decay below 0, or a last batch of one image where batch norm
            cannot train on it.
        NonFiniteError: The mean loss of an epoch is NaN or infinite.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.5)
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 2
    >>> losses = fit(model, optimizer, x, y, epochs=9, batch_size=4,
    ...              schedule="trapezoid", generator=torch.Generator())
    >>> len(losses), losses[-1] < losses[0]
    (9, True)
    """
    if len(x) == 0:
        raise ValueError("x must hold at least one image; got none")
    if len(y) != len(x):
        raise ValueError(f"y must be one label an image, {len(x)}; got {len(y)}")
    check_counts(epochs=epochs, batch_size=batch_size)
    check_choice("schedule", schedule, SCHEDULES)
    check_sizes(rate_decay=rate_decay)
    one = 1 in (batch_size, len(x) % batch_size) and x.is_floating_point()
    if one and not takes_one(model.train(), x[:1]):
        raise ValueError(
            "batch_size must leave no batch of one image, which batch norm cannot "
            f"train on; got {len(x)} images in batches of {batch_size}"
        )
    position, losses = position or Position(), []
    base = [group["lr"] for group in optimizer.param_groups]
    updates = epochs * -(-len(x) // batch_size)
    try:
        while position.epoch < epochs:
            model.train()
            if position.order is None:
                position.order = torch.randperm(len(x), generator=generator)
                position.total = torch.zeros((), device=x.device)
            parts = position.order.to(x.device).split(batch_size)
            for index in parts[position.batch :]:
                taken = position.epoch * len(parts) + position.batch
                factor = SCHEDULES[schedule](taken / updates)
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * factor / (1 + rate_decay * taken)
                step = step_at(taken / updates)
                loss = step(model, optimizer, augment(x[index]), y[index])
                position.total = position.total + loss * len(index)
                position.batch += 1
                pause()
            losses.append(float(position.total) / len(x))
            position.epoch, position.order, position.batch = position.epoch + 1, None, 0
            after_epoch(position.epoch, losses[-1])
            if not math.isfinite(losses[-1]):
                raise NonFiniteError(
                    f"training loss must be finite; got {losses[-1]} in epoch "
                    f"{position.epoch}"
                )
    finally:
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate
    return losses


def takes_one(model: nn.Module, x: Tensor) -> bool:
    """Return True if the network can be trained on one image, shape (1, ...).

    Batch norm cannot where it is left with one value per channel.

    >>> image = torch.rand(1, 1, 2, 2)
    >>> takes_one(nn.BatchNorm2d(1), image)
    True
    >>> takes_one(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), image)
    False
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    if not layers:
        return True
    with inference(model), restored(model.buffers), torch.no_grad():
        for layer in layers:
            layer.training = True
        try:
            model(x)
        except ValueError as error:
            if "per channel" not in str(error):  # "Expected more than 1 value per ..."
                raise
            return False
    return True
