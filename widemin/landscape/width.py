"""The width of a minimum: the distance to a level set of the loss, over its height."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

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
from widemin.names import check, check_counts

PATIENCE = 3  # ways that are no shorter before an ascent ends


@dataclass(frozen=True)
class Width:
    """A measured width."""

    distance: float  #: d(c) by the worst direction found: an upper bound on it
    width: float  #: distance / gap
    random_distance: float  #: the least over random directions, a much looser bound
    loss: float  #: phi at the minimum
    gap: float  #: c - phi at the minimum
    direction: Tensor  #: of the shortest way found, a unit vector, shape (n,)


def width(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    gap: float,
    generator: torch.Generator,
    of: str = "weights",
    iterations: int = 100,
    chunk: int | None = None,
    loss: Loss = None,
    **search: Any,
) -> Width:
    """Return the width of the minimum that a network sits in, in inference mode.

    Of "weights", of "nodes" (weights in units of `node_norms`) or of "inputs", which
    must be a tensor. Networks are compared at one gap, the level's height above their
    own loss; it, iterations and the search's other options are as of `nearest_level`,
    other arguments and errors as of `weight_landscape`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    >>> x, y = torch.rand(8, 1, 2, 2).double(), torch.arange(8) % 2
    >>> own = width(network, x, y, gap=0.1, generator=torch.Generator(), starts=2)
    >>> 0 < own.distance <= own.random_distance
    True
    """
    kinds = ("weights", "nodes", "inputs")
    check(of in kinds, "of must be 'weights', 'nodes' or 'inputs'", repr(of))
    if of == "inputs":
        if not isinstance(x, Tensor) or y is None:
            raise ValueError("x must be a tensor with labels for a width of inputs")
        surface = input_landscape(model, x, y, chunk, loss)
    else:
        scale = node_norms(model) if of == "nodes" else None
        surface = weight_landscape(model, x, y, scale, chunk, loss)
    search |= {"generator": generator, "iterations": iterations}
    with inference(model):
        return nearest_level(*surface, gap, **search)


class _Crossing(NamedTuple):
    """Where a ray from the minimum meets the level, and the gradient there."""

    radius: float
    direction: Tensor
    gradient: Tensor


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
    uphill: bool = False,
    reach: float = 1e-3,
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
        first: A direction to start from as well, both ways, e.g. that of a lower level.
        uphill: Start from the gradient at the start as well.
        reach: Distance at which the level is looked for first.
        tolerance: Share by which a way must be shorter than those before it to count;
            the level is met within about as much.

    Raises:
        NonFiniteError: A loss at the start that is NaN or infinite, or so large that
            the gap is lost to rounding.
        ValueError: A gap or a reach that is not above 0, or counts below 1.

    >>> def bowl(v):  # curvatures 1 and 100: the nearest way is along the second
    ...     h = torch.tensor([1.0, 100.0]).double()
    ...     return float((h * v * v).sum() / 2), h * v
    >>> draws = torch.Generator()
    >>> nearest = nearest_level(bowl, torch.zeros(2).double(), 0.5, generator=draws)
    >>> round(nearest.distance, 4)
    0.1
    """
    check(0 < gap < math.inf, "gap must be above 0 and finite", gap)
    check(0 < reach < math.inf, "reach must be above 0 and finite", reach)
    check_counts(1 if first is None and not uphill else 0, starts=starts)
    check_counts(iterations=iterations)
    loss, slope = landscape(start)
    level = loss + gap
    rises = loss < level < math.inf and bool(slope.isfinite().all())
    expected = f"landscape must be finite and able to rise by {gap:g}"
    check(rises, expected, f"a loss of {loss:g}", NonFiniteError)

    def draw() -> Tensor:
        v = torch.randn(len(start), generator=generator).to(start)
        return v / v.norm()

    def cross(direction: Tensor, guess: float) -> _Crossing:
        guess = guess if 0 < guess < math.inf else reach
        return _crossing(landscape, direction, level, guess, tolerance**0.5 / 10)

    best, shortest = _Crossing(math.inf, draw(), start), attrgetter("radius")
    for _ in range(random_directions):
        best = min(best, cross(draw(), best.radius), key=shortest)
    random_distance = best.radius
    directions = [draw() for _ in range(starts)]
    if first is not None:
        unit = first.to(start) / first.norm().to(start)
        directions += [unit, -unit]
    if uphill:
        directions.append(slope / slope.norm())
    for direction in directions:
        at = cross(direction, best.radius)
        if math.isinf(at.radius):
            at = cross(-direction, best.radius)
        way, still = at, 0
        for _ in range(iterations):
            square = float(at.gradient @ at.gradient)
            if math.isinf(at.radius) or square == 0:
                break
            v = at.radius * at.direction
            foot = float(at.gradient @ v) / square * at.gradient
            v = (v + foot) / 2
            length = float(v.norm())
            at = cross(v / length, length)
            still = 0 if at.radius < way.radius * (1 - tolerance) else still + 1
            way = min(way, at, key=shortest)
            if still >= PATIENCE:
                break
        best = min(best, way, key=shortest)
    radius = best.radius
    return Width(radius, radius / gap, random_distance, loss, gap, best.direction)


def _crossing(
    landscape: Landscape, direction: Tensor, level: float, guess: float, near: float
) -> _Crossing:
    """Return the point where the loss reaches the level along a ray.

    Newton's method in the radius from a guess, kept between a point below the level and
    one above; while none above is known, steps at most double the radius. Within a
    share `near` of the level it takes one step more, unseen.
    """
    low, high = 0.0, math.inf
    radius = guess
    for _ in range(100):
        value, gradient = landscape(radius * direction)
        slope = float(gradient @ direction)
        step = (level - value) / slope if slope > 0 else math.inf
        if abs(value - level) <= near * abs(level) and slope > 0:
            radius += step  # what is left after it is of the order of its square
            break
        low, high = (radius, high) if value < level else (low, radius)
        radius = min(radius + step, 2 * radius)
        if math.isinf(high) and radius > 1e6:
            return _Crossing(math.inf, direction, gradient)
        if not low < radius < high:
            radius = (low + high) / 2
    return _Crossing(radius, direction, gradient)
