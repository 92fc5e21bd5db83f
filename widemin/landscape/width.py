"""The width of a minimum: the distance to a level set of the loss, over its height."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, nn

from widemin.attacks import NonFiniteError, inference
from widemin.batches import Data, Loss
from widemin.landscape.loss_surface import (
    Landscape,
    input_landscape,
    node_norms,
    weight_landscape,
)
from widemin.names import check_counts

PATIENCE = 3  # ways that are no shorter before an ascent ends


@dataclass(frozen=True)
class Width:
    """A measured width.

    Attributes:
        distance: d(c) by the worst direction found: an upper bound on it.
        width: distance / gap.
        random_distance: The least over random directions, a much looser bound.
        loss: phi at the minimum.
        gap: c - phi at the minimum.
        direction: Of the shortest way found, a unit vector, shape (n,).
    """

    distance: float
    width: float
    random_distance: float
    loss: float
    gap: float
    direction: Tensor


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

    Of "weights", of "nodes" (weights in units of their node's norm, which scaling one
    layer against the next leaves alone) or of "inputs". The gap is the height of the
    level above the network's own loss, the same for all that are compared.
    Other arguments as of `weight_landscape`, but that a width of inputs takes no
    DataLoader, and of `nearest_level`. The network is measured in inference mode.

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


def nearest_level(
    landscape: Landscape,
    start: Tensor,
    gap: float,
    *,
    generator: torch.Generator,
    starts: int = 4,
    random_directions: int = 20,
    iterations: int = 200,
    first: Tensor | None = None,
    tolerance: float = 1e-7,
) -> Width:
    """Return the distance to the nearest point where the loss has risen by gap.

    From several starts: linearise the loss at a point of the level set, go half-way
    to the foot of that plane, return to the level along the ray (a DeepFool step), and
    keep the shortest way found.

    Args:
        landscape: Displacement to (loss, gradient), in float64.
        start: Zeros of the displacement's shape, (n,).
        gap: How far above the loss at the start the level is.
        generator: Draws the directions.
        starts: Ascents from random directions.
        random_directions: Rays whose shortest is random_distance.
        iterations: Most steps of an ascent.
        first: A direction to start from as well, e.g. that of a lower level.
        tolerance: Share by which a way must be shorter than those before it to count;
            the level is met within about as much.

    Raises:
        NonFiniteError: A loss at the start that is NaN or infinite, or so large that
            the gap is lost to rounding.
        ValueError: A gap that is not above 0, or counts below 1.

    >>> def bowl(v):  # curvatures 1 and 100: the nearest way is along the second
    ...     h = torch.tensor([1.0, 100.0]).double()
    ...     return float((h * v * v).sum() / 2), h * v
    >>> found = nearest_level(bowl, torch.zeros(2).double(), 0.5,
    ...                       generator=torch.Generator())
    >>> round(found.distance, 4)
    0.1
    """
    if not 0 < gap < math.inf:
        raise ValueError(f"gap must be above 0 and finite; got {gap}")
    check_counts(1 if first is None else 0, starts=starts)
    check_counts(iterations=iterations)
    loss, slope = landscape(start)
    level = loss + gap
    if not loss < level < math.inf or not bool(slope.isfinite().all()):
        raise NonFiniteError(
            f"landscape must be finite and able to rise by {gap:g}; got a loss of "
            f"{loss:g}"
        )

    def draw() -> Tensor:
        v = torch.randn(len(start), generator=generator).to(start)
        return v / v.norm()

    near = tolerance**0.5 / 10
    cross = partial(_crossing, landscape, level=level, near=near)
    best, shortest = _Crossing(math.inf, draw(), start), attrgetter("radius")
    for _ in range(random_directions):
        best = min(best, cross(draw(), guess=best.radius), key=shortest)
    random_distance = best.radius
    directions = [draw() for _ in range(starts)]
    if first is not None:
        unit = first.to(start) / first.norm().to(start)
        directions += [unit, -unit]
    for direction in directions:
        way = _descend(cross, direction, best.radius, iterations, tolerance)
        best = min(best, way, key=shortest)
    return Width(
        distance=best.radius,
        width=best.radius / gap,
        random_distance=random_distance,
        loss=loss,
        gap=gap,
        direction=best.direction,
    )


@dataclass(frozen=True)
class _Crossing:
    """Where a ray from the minimum meets the level, and the gradient there."""

    radius: float
    direction: Tensor
    gradient: Tensor


def _descend(
    cross: Callable[..., _Crossing],
    direction: Tensor,
    guess: float,
    iterations: int,
    tolerance: float,
) -> _Crossing:
    """Return the shortest way to the level that iterating from a direction finds."""
    at = cross(direction, guess=guess)
    if math.isinf(at.radius):
        at = cross(-direction, guess=guess)
    best, still = at, 0
    for _ in range(iterations):
        square = float(at.gradient @ at.gradient)
        if math.isinf(at.radius) or square == 0:
            break
        v = at.radius * at.direction
        foot = float(at.gradient @ v) / square * at.gradient
        v = (v + foot) / 2
        length = float(v.norm())
        at = cross(v / length, guess=length)
        still = 0 if at.radius < best.radius * (1 - tolerance) else still + 1
        best = min(best, at, key=attrgetter("radius"))
        if still >= PATIENCE:
            break
    return best


def _crossing(
    landscape: Landscape,
    direction: Tensor,
    level: float,
    guess: float,
    near: float,
) -> _Crossing:
    """Return where the loss reaches the level along a ray, from a guess outwards.

    Newton's method in the radius, kept between a point below the level and one above;
    while none above is known, steps at most double the radius. Within a share `near`
    of the level it takes one step more, unseen.
    """
    low, high = 0.0, math.inf
    radius = guess if 0 < guess < math.inf else 1e-3
    gradient = direction
    for _ in range(100):
        value, gradient = landscape(radius * direction)
        slope = float(gradient @ direction)
        step = (level - value) / slope if slope > 0 else math.inf
        if abs(value - level) <= near * abs(level) and slope > 0:
            radius += step  # what is left after it is of the order of its square
            break
        if value < level:
            low = radius
        else:
            high = radius
        radius = min(radius + step, 2 * radius)
        if math.isinf(high) and radius > 1e6:
            return _Crossing(math.inf, direction, gradient)
        if not low < radius < high:
            radius = (low + high) / 2
    return _Crossing(radius, direction, gradient)
