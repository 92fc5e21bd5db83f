"""Answers of a network, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from widemin.attacks import (
    Ball,
    check_labels,
    inference,
    input_gradient,
    logits_of,
    margin,
)
from widemin.batches import at_once

# float32 cross-entropy loses the true-class gradient beyond 24 ln 2 = 16.64.
MASKED_MARGIN = 16.635532

Batches = Iterable[tuple[Tensor, Tensor]]  # of inputs and labels, e.g. a DataLoader


def correct(
    model: nn.Module,
    x: Tensor | Batches,
    y: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return a mask of the inputs that are classified rightly, bool, shape (inputs,).

    Arguments and errors as of `margins`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> correct(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    return margins(model, x, y, chunk) > 0


@torch.no_grad()
def margins(
    model: nn.Module,
    x: Tensor | Batches,
    y: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return each input's true logit minus the best other one, shape (inputs,).

    Ties count as wrong: a constant network is right by accident only.

    Args:
        model: Maps inputs to logits.
        x: Inputs of any kind, shape (inputs, ...), or batches of inputs and labels,
            such as a DataLoader.
        y: Labels, shape (inputs,); none beside batches.
        chunk: Inputs asked at a time, by default what suits the device.

    Raises:
        ValueError: Wrong labels, no input, a chunk below 1, or a network that does
            not take these inputs.
        NonFiniteError: NaN or infinite logits.

    >>> class Two(nn.Module):
    ...     def forward(self, x):
    ...         return x.flatten(1)
    >>> x = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    >>> margins(Two(), x, torch.tensor([0]))
    tensor([0.5000])
    """
    with inference(model):
        parts = [
            -margin(logits_of(model, inputs, labels), labels)
            for inputs, labels in _batches(x, y, at_once(model, chunk, 500))
        ]
    return torch.cat(parts)


def _batches(
    x: Tensor | Batches, y: Tensor | None, chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and labels, checked, at least one batch."""
    if isinstance(x, Tensor) != isinstance(y, Tensor):
        raise ValueError(
            "x must be a tensor with labels y, or batches of both and no y; got "
            f"{type(x).__name__} and {type(y).__name__}"
        )
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}")
    batches = x
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        check_labels(x, y)
        batches = zip(x.split(chunk), y.split(chunk), strict=True)
    empty = True
    for inputs, labels in batches:
        check_labels(inputs, labels)
        empty = False
        yield inputs, labels
    if empty:
        raise ValueError("x must hold at least one batch; got none")


def share(mask: Tensor) -> float:
    """Return the fraction of True.

    >>> share(torch.tensor([True, False, False, True]))
    0.5
    """
    return float(mask.double().mean())


def fooled_at(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    unit: Ball,
    radii: Tensor,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return which images margin-loss PGD fools, each within its own radius.

    A ball of radius r is r times the unit ball, so that images with different radii
    share a batch; those that are fooled leave it.
    """
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    moving = torch.arange(len(x), device=x.device)
    start = unit.sample(x, generator) if generator is not None else torch.zeros_like(x)
    x_adv = (x + radii.view(-1, 1, 1, 1) * start).clamp(0, 1)
    for step in range(steps + 1):
        at, origin, labels = x_adv[moving], x[moving], y[moving]
        gradient, _, logits = input_gradient(model, at, labels, margin)
        fell = logits.argmax(1) != labels
        fooled[moving[fell]] = True
        if step == steps or bool(fell.all()):
            break
        moving, at, origin = moving[~fell], at[~fell], origin[~fell]
        radius = radii[moving].view(-1, 1, 1, 1)
        at = at + 2.5 / steps * radius * unit.steepest(gradient[~fell])
        # Divide only by radii that are there: a radius of 0 leaves the image.
        safe = radius.clamp_min(torch.finfo(x.dtype).tiny)
        x_adv[moving] = (origin + radius * unit.project((at - origin) / safe)).clamp(
            0, 1
        )
    return fooled


@torch.no_grad()
def class_count(model: nn.Module, x: Tensor) -> int:
    """Return the number of classes of a network, from its logits of one image."""
    with inference(model):
        return int(model(x[:1]).shape[1])
