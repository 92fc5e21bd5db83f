"""How wide a minimum is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from widemin.attacks import check_images, inference
from widemin.landscape.functions import input_landscape, node_norms, weight_landscape
from widemin.landscape.levels import Width, nearest_level


def width(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    gap: float,
    generator: torch.Generator,
    of: str = "weights",
    starts: int = 4,
    random_directions: int = 20,
    iterations: int = 100,
    first: Tensor | None = None,
    tolerance: float = 1e-7,
    chunk: int = 500,
) -> Width:
    """Return the width of the minimum that a network sits in.

    Args:
        model: Maps images to logits; measured in inference mode.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        gap: Height of the level above the network's own loss, the same for all that
            are compared.
        generator: Draws directions.
        of: "weights", "nodes" (weights in units of their node's norm, which scaling
            one layer against the next leaves alone) or "inputs".
        starts: Ascents from random directions.
        random_directions: Rays whose shortest is random_distance.
        iterations: Most steps of an ascent.
        first: A direction to start from as well.
        tolerance: As of `nearest_level`.
        chunk: Images evaluated at a time.

    Raises:
        ValueError: Wrong images or labels, an unknown `of`, or a gap not above 0.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    >>> x, y = torch.rand(8, 1, 2, 2).double(), torch.arange(8) % 2
    >>> found = width(network, x, y, gap=0.1, generator=torch.Generator())
    >>> 0 < found.distance <= found.random_distance
    True
    """
    check_images(x, y)
    if of not in ("weights", "nodes", "inputs"):
        raise ValueError(f"of must be 'weights', 'nodes' or 'inputs'; got {of!r}")
    if of == "inputs":
        landscape, start = input_landscape(model, x, y, chunk)
    else:
        scale = node_norms(model) if of == "nodes" else None
        landscape, start = weight_landscape(model, x, y, scale, chunk)
    with inference(model):
        return nearest_level(
            landscape,
            start,
            gap,
            generator=generator,
            starts=starts,
            random_directions=random_directions,
            iterations=iterations,
            first=first,
            tolerance=tolerance,
        )


def adaptive_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    rho: float,
    steps: int = 20,
    chunk: int = 500,
) -> float:
    """Return how far the loss rises in a ball whose axes are the weights' own sizes.

    max L(w + |w| v) - L(w) over |v|_2 <= rho, by projected gradient ascent (Kwon et
    al. 2021). Scaling one layer up and the next one down leaves it alone.

    Args:
        model: Maps images to logits; measured in inference mode.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        rho: Radius, in units of each weight's absolute value.
        steps: Of the ascent, each a fifth of the radius.
        chunk: Images evaluated at a time.

    Raises:
        ValueError: Wrong images or labels, or a radius or count out of range.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> adaptive_sharpness(network, x, y, rho=0.1) >= 0
    True
    """
    check_images(x, y)
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be above 0 and finite; got {rho}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = torch.cat([p.detach().abs().reshape(-1) for p in parameters])
    landscape, v = weight_landscape(model, x, y, sizes, chunk)
    with inference(model):
        base, gradient = landscape(v)
        highest = base
        for _ in range(steps):
            norm = gradient.norm()
            if norm == 0:
                break
            v = v + rho / 5 * gradient / norm
            v = v * (rho / v.norm()).clamp_max(1.0)
            value, gradient = landscape(v)
            highest = max(highest, value)
    return highest - base
