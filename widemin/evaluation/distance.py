"""The smallest distance at which an image is fooled."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from widemin.attacks import (
    L2,
    Ball,
    Linf,
    check_images,
    inference,
    input_gradient,
    logits_of,
    margin,
)
from widemin.batches import at_once
from widemin.evaluation.accuracy import correct
from widemin.models import fuse
from widemin.names import check, check_counts


def minimal_distance(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "linf",
    most: float = 1.0,
    steps: int = 150,
    halvings: int = 10,
    chunk: int | None = None,
) -> Tensor:
    """Return an upper bound on each image's distance to the decision boundary.

    In pixels, shape (images,): 0 for an image that is wrong without an attack, infinity
    for one that is not fooled within `most`. The share of larger ones is the accuracy
    at a radius.

    The better of two searches by the fast minimum-norm attack (Pintor et al. 2021,
    algorithm 1) up the margin, which no confidence can hide, each of `steps`: from the
    image, and from three times the distance at which a linear network would change its
    answer. At last, bisection shortens the line from the image to the point found.

    The norm is "linf" or "l2"; other arguments and errors as of `robust_mask`.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> bool((minimal_distance(model, x, y) >= 0).all())
    True
    """
    check(norm in ("linf", "l2"), "norm must be 'linf' or 'l2'", repr(norm))
    check(0 < most < math.inf, "most must be above 0 and finite", most)
    check_counts(steps=steps, halvings=halvings)
    check_images(x, y)
    natural = correct(model, x, y)
    unit = Linf(1.0) if norm == "linf" else L2(1.0)
    distance = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    chunks = natural.nonzero()[:, 0].split(at_once(model, chunk))
    with inference(model):
        fast = fuse(model)
        for index in chunks if natural.any() else ():
            asked = fast, x[index], y[index], unit, most, steps
            near, far = _search(*asked, 0.0, halvings), _search(*asked, 3.0, halvings)
            nearest = torch.minimum(near, far)
            distance[index] = nearest.where(nearest <= most, nearest * torch.inf)
    return distance


def _search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    unit: Ball,
    most: float,
    steps: int,
    start: float,
    halvings: int,
) -> Tensor:
    """Return the radius of the nearest point that fools, infinity where none does.

    Each step goes up the margin and back into a ball: of the linearised distance until
    the image is fooled, then a little smaller where it is and larger where it is not.
    """
    wide, tiny = (-1, 1, 1, 1), torch.finfo(x.dtype).tiny
    x_adv, best = x, x
    nearest = x.new_full((len(x),), torch.inf)
    radius = nearest.clone()
    for step in range(steps + 1):
        gradient, loss, logits = input_gradient(model, x_adv, y, margin)
        size, fooled = unit.size(x_adv - x), logits.argmax(1) != y
        better = fooled & (size < nearest)
        nearest = size.where(better, nearest)
        best = x_adv.where(better.view(wide), best)
        if step == steps:
            break
        slope = unit.support(gradient).clamp_min(tiny)
        away = (loss.abs() / slope).clamp_max(most)
        if step == 0 and start:
            moved = (start * away).view(wide) * unit.steepest(gradient)
            x_adv = (x + moved).clamp(0, 1)
            continue
        # Cosines: of the step from 1 to 0.01, of the radius' change from 5 to 0.1 %.
        left = (1 + math.cos(math.pi * step / steps)) / 2
        change = 0.001 + 0.049 * left
        outside = radius * (1 + change)
        outside = (size + away).where(nearest.isinf(), outside).clamp_max(most)
        inside = torch.minimum(radius * (1 - change), nearest)
        radius = inside.where(fooled, outside)
        ahead = x_adv + (0.01 + 0.99 * left) * L2(1.0).steepest(gradient)
        within = radius.clamp_min(tiny).view(wide)
        x_adv = (x + within * unit.project((ahead - x) / within)).clamp(0, 1)
    # The line from the image to the point: what is fooled is nearer by halves.
    low, high = torch.zeros_like(nearest), torch.ones_like(nearest)
    for _ in range(halvings):
        middle = (low + high) / 2
        point = x + middle.view(wide) * (best - x)
        fooled = logits_of(model, point, y).argmax(1) != y
        high, low = middle.where(fooled, high), low.where(fooled, middle)
    return nearest * high
