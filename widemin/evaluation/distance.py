"""The smallest distance at which an image is fooled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from widemin.attacks import (
    L2,
    Ball,
    Linf,
    check_images,
    inference,
    input_gradient,
    margin,
)
from widemin.batches import at_once
from widemin.evaluation.accuracy import correct
from widemin.models import fuse


def minimal_distance(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "linf",
    most: float = 1.0,
    steps: int = 40,
    halvings: int = 8,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return each image's smallest radius at which margin-loss PGD fools the network.

    By bisection in the radius, image by image: an upper bound on the distance to the
    decision boundary that no confidence can hide.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        norm: "linf" or "l2".
        most: Largest radius tried, in pixels.
        steps: Steps of each ascent, of 2.5 radii over their number.
        halvings: Of the interval; the answer is `most` / 2^halvings too large at most.
        generator: Draws the random starts; without one each ascent starts at x.
        chunk: Images attacked at a time, by default what suits the device.

    Returns:
        Radii, shape (images,): 0 for an image that is wrong without an attack,
        infinity for one that is not fooled at `most`.

    Raises:
        ValueError: An unknown norm, a radius or counts out of range, wrong images.
        NonFiniteError: NaN or infinite logits or gradients.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> distance = minimal_distance(model, x, y)
    >>> bool((distance >= 0).all())
    True
    """
    shapes: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
    if norm not in shapes:
        raise ValueError(f"norm must be 'linf' or 'l2'; got {norm!r}")
    if not 0 < most < float("inf"):
        raise ValueError(f"most must be above 0 and finite; got {most}")
    for name, value in (("steps", steps), ("halvings", halvings)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    check_images(x, y)
    natural = correct(model, x, y)
    unit = shapes[norm](1.0)
    distance = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    chunk = at_once(model, chunk)
    chunks = natural.nonzero()[:, 0].split(chunk) if natural.any() else ()
    with inference(model):
        fast = fuse(model)
        for index in chunks:
            ascent = (fast, x[index], y[index], unit, steps, generator)
            high = torch.full_like(distance[index], most)
            low, reached = torch.zeros_like(high), _fooled_at(high, *ascent)
            for _ in range(halvings):
                middle = (low + high) / 2
                fooled = _fooled_at(middle, *ascent)
                high = torch.where(fooled, middle, high)
                low = torch.where(fooled, low, middle)
                reached = reached | fooled
            distance[index] = high.where(reached, torch.full_like(high, torch.inf))
    return distance


def _fooled_at(
    radii: Tensor,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    unit: Ball,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return a mask of the images that margin-loss PGD fools within their own radii.

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
