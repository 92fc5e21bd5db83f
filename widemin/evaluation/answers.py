"""What a network answers, image by image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from widemin.attacks import (
    Ball,
    check_images,
    check_logits,
    inference,
    input_gradient,
    margin,
)

# float32 cross-entropy loses the true-class gradient beyond 24 ln 2 = 16.64.
MASKED_MARGIN = 16.635532


def correct(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500) -> Tensor:
    """Return which images the network classifies rightly, bool, shape (images,).

    Raises:
        ValueError: Images outside [0, 1], wrong labels or non-finite logits.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> correct(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    return margins(model, x, y, chunk) > 0


@torch.no_grad()
def margins(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500) -> Tensor:
    """Return each image's true logit minus the best other one, shape (images,).

    Ties count as wrong: a constant network is right by accident only.

    >>> class Two(nn.Module):
    ...     def forward(self, x):
    ...         return x.flatten(1)
    >>> x = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    >>> margins(Two(), x, torch.tensor([0]))
    tensor([0.5000])
    """
    check_images(x, y)
    parts = []
    with inference(model):
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            logits = model(images)
            check_logits(logits, labels)
            parts.append(-margin(logits, labels))
    return torch.cat(parts)


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
    """Return between how many classes a network chooses."""
    return int(model(x[:1]).shape[1])
