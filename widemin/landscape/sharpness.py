"""How wide a minimum is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from widemin.attacks import NonFiniteError, inference
from widemin.batches import Data, Loss, trainable
from widemin.landscape.lines import input_landscape, node_norms, weight_landscape
from widemin.landscape.width import Width, nearest_level


def width(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    gap: float,
    generator: torch.Generator,
    of: str = "weights",
    starts: int = 4,
    random_directions: int = 20,
    iterations: int = 100,
    first: Tensor | None = None,
    tolerance: float = 1e-7,
    chunk: int | None = None,
    loss: Loss = None,
) -> Width:
    """Return the width of the minimum that a network sits in.

    Args:
        model: Maps inputs to logits; measured in inference mode.
        x: Inputs of any shape (n, ...), or, but for a width of inputs, a DataLoader of
            inputs and labels, which is read once.
        y: Labels of a tensor, shape (n,); None with a DataLoader.
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
        chunk: Inputs evaluated at a time, by default what suits the device.
        loss: (outputs, y) to each input's loss, shape (batch,), or their mean; the
            cross-entropy by default.

    Raises:
        NonFiniteError: Weights or outputs that are NaN or infinite, or a loss so large
            that the gap is lost to rounding.
        ValueError: Wrong inputs or labels, an unknown `of`, or a gap not above 0.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    >>> x, y = torch.rand(8, 1, 2, 2).double(), torch.arange(8) % 2
    >>> found = width(network, x, y, gap=0.1, generator=torch.Generator())
    >>> 0 < found.distance <= found.random_distance
    True
    """
    if of not in ("weights", "nodes", "inputs"):
        raise ValueError(f"of must be 'weights', 'nodes' or 'inputs'; got {of!r}")
    if of == "inputs":
        if not isinstance(x, Tensor) or y is None:
            raise ValueError("x must be a tensor with labels for a width of inputs")
        landscape, start = input_landscape(model, x, y, chunk, loss)
    else:
        scale = node_norms(model) if of == "nodes" else None
        landscape, start = weight_landscape(model, x, y, scale, chunk, loss)
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
    x: Data,
    y: Tensor | None = None,
    *,
    rho: float,
    steps: int = 20,
    chunk: int | None = None,
    loss: Loss = None,
) -> float:
    """Return how far the loss rises in a ball whose axes are the weights' own sizes.

    max L(w + |w| v) - L(w) over |v|_2 <= rho, by projected gradient ascent (Kwon et
    al. 2021). Scaling one layer up and the next one down leaves it alone.

    Args:
        model: Maps inputs to logits; measured in inference mode.
        x: Inputs or a DataLoader, as for `width`; so is y.
        y: Labels.
        rho: Radius, in units of each weight's absolute value.
        steps: Of the ascent, each a fifth of the radius.
        chunk: Inputs evaluated at a time, by default what suits the device.
        loss: As for `width`.

    Raises:
        NonFiniteError: Weights, outputs or a loss that are NaN or infinite.
        ValueError: Wrong inputs or labels, or a radius or count out of range.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> adaptive_sharpness(network, x, y, rho=0.1) >= 0
    True
    """
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be above 0 and finite; got {rho}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    sizes = torch.cat([p.detach().abs().reshape(-1) for p in trainable(model)])
    landscape, v = weight_landscape(model, x, y, sizes, chunk, loss)
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
            if not math.isfinite(value):
                raise NonFiniteError(f"loss must be finite within rho; got {value}")
            highest = max(highest, value)
    return highest - base
