"""The width of a minimum, in weights and in inputs, and other looks at the landscape.

Khritankov et al. define the width of a minimum x* at a level c as
w = d(c) / (c - phi(x*)), where d(c) is the distance to the nearest point of the level
set. Widths of two networks compare only at equal c - phi(x*); the level here is
therefore given as a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import check_images, inference

# v -> value at the minimum plus v, and its gradient there
Landscape = Callable[[Tensor], tuple[float, Tensor]]

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
    for name, count, least in (
        ("starts", starts, 1 if first is None else 0),
        ("iterations", iterations, 1),
    ):
        if count < least:
            raise ValueError(f"{name} must be at least {least}; got {count}")
    loss, _ = landscape(start)
    level = loss + gap

    def draw() -> Tensor:
        v = torch.randn(len(start), generator=generator).to(start)
        return v / v.norm()

    best, near = _Crossing(math.inf, draw(), start), tolerance**0.5 / 10
    for _ in range(random_directions):
        found = _crossing(landscape, draw(), level, best.radius, near)
        best = min(best, found, key=attrgetter("radius"))
    random_distance = best.radius
    directions = [draw() for _ in range(starts)]
    if first is not None:
        unit = first.to(start) / first.norm().to(start)
        directions += [unit, -unit]
    for direction in directions:
        found = _descend(
            landscape, direction, level, best.radius, iterations, tolerance
        )
        best = min(best, found, key=attrgetter("radius"))
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
    landscape: Landscape,
    direction: Tensor,
    level: float,
    guess: float,
    iterations: int,
    tolerance: float,
) -> _Crossing:
    """Return the shortest way to the level that iterating from a direction finds."""
    near = tolerance**0.5 / 10
    at = _crossing(landscape, direction, level, guess, near)
    if math.isinf(at.radius):
        at = _crossing(landscape, -direction, level, guess, near)
    best, still = at, 0
    for _ in range(iterations):
        square = float(at.gradient @ at.gradient)
        if math.isinf(at.radius) or square == 0:
            break
        v = at.radius * at.direction
        foot = float(at.gradient @ v) / square * at.gradient
        v = (v + foot) / 2
        length = float(v.norm())
        at = _crossing(landscape, v / length, level, length, near)
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


def quadratic(curvatures: Sequence[float]) -> tuple[Landscape, Tensor]:
    """Return a bowl, the sum of curvature v^2 / 2, and zeros of v's shape.

    >>> bowl, start = quadratic([1.0, 8.0])
    >>> bowl(start + 1)[0]
    4.5
    """
    h = torch.tensor(curvatures, dtype=torch.float64)
    return lambda v: (float((h * v * v).sum() / 2), h * v), torch.zeros_like(h)


def logistic(x: Sequence[float], theta: Sequence[float]) -> tuple[Landscape, Tensor]:
    """Return one sample's logistic loss around theta, and zeros of theta's shape.

    Its widths are those of `theory.logistic_widths`.

    >>> loss, start = logistic([1.0, 0.0], [0.0, 2.0])
    >>> round(loss(start)[0], 4)
    0.6931
    """
    sample, weights = (torch.tensor(v, dtype=torch.float64) for v in (x, theta))

    def landscape(v: Tensor) -> tuple[float, Tensor]:
        s = sample @ (weights + v)
        return float(F.softplus(-s)), -torch.sigmoid(-s) * sample

    return landscape, torch.zeros_like(weights)


@contextmanager
def _moved(parameters: list[nn.Parameter], delta: Tensor) -> Iterator[None]:
    """Add delta, shape (weights,), to the weights; put them back exactly."""
    kept = [p.detach().clone() for p in parameters]
    sizes = [p.numel() for p in parameters]
    with torch.no_grad():
        for parameter, part in zip(parameters, delta.split(sizes), strict=True):
            parameter.add_(part.view_as(parameter).to(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def node_norms(model: nn.Module) -> Tensor:
    """Return, for each weight, the norm of the node (filter) it feeds.

    Shape (weights,). Vectors (biases, batch norm) are taken weight by weight.
    Distances in units of these norms do not change when one layer is scaled up and
    the next one down (Dinh et al. 2017).

    >>> node_norms(nn.Linear(2, 1, bias=False)).shape
    torch.Size([2])
    """
    parts = []
    for p in model.parameters():
        if not p.requires_grad:
            continue
        w = p.detach()
        norm = w.abs() if w.ndim < 2 else w.flatten(1).norm(dim=1)
        shape = (-1,) + (1,) * (w.ndim - 1) if w.ndim > 1 else (-1,)
        parts.append(norm.view(shape).expand_as(w).reshape(-1))
    return torch.cat(parts)


def weight_landscape(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    scale: Tensor | None = None,
    chunk: int = 500,
) -> tuple[Landscape, Tensor]:
    """Return the mean cross-entropy as a function of a displacement of the weights.

    Args:
        model: Maps images to logits; to be used in inference mode.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        scale: Units of the displacement, shape (weights,), e.g. `node_norms`.
        chunk: Images evaluated at a time.

    Returns:
        The landscape and zeros of its argument's shape, in float64.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> landscape, start = weight_landscape(network, x, y)
    >>> landscape(start)[1].shape, start.dtype
    (torch.Size([10]), torch.float64)
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient")
    count = sum(p.numel() for p in parameters)
    units = torch.ones(count, dtype=torch.float64, device=x.device)
    if scale is not None:
        units = scale.double()

    def landscape(v: Tensor) -> tuple[float, Tensor]:
        with _moved(parameters, units * v), torch.enable_grad():
            total, gradient = 0.0, torch.zeros_like(units)
            for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
                logits = model(images).double()
                loss = F.cross_entropy(logits, labels, reduction="sum")
                grads = torch.autograd.grad(loss, parameters, materialize_grads=True)
                gradient += torch.cat([g.reshape(-1).double() for g in grads])
                total += loss.item()
        return total / len(x), units * gradient / len(x)

    return landscape, torch.zeros_like(units)


def input_landscape(
    model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500
) -> tuple[Landscape, Tensor]:
    """Return the mean cross-entropy as a function of a displacement of all images.

    Arguments and returns as for `weight_landscape`, without a scale.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> landscape, start = input_landscape(network, x, y)
    >>> landscape(start)[1].shape
    torch.Size([12])
    """

    def landscape(v: Tensor) -> tuple[float, Tensor]:
        moved = (x.double() + v.view(x.shape)).to(x).requires_grad_()
        with torch.enable_grad():
            total = torch.zeros((), dtype=torch.float64, device=x.device)
            for images, labels in zip(moved.split(chunk), y.split(chunk), strict=True):
                logits = model(images).double()
                total = total + F.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(total, moved)
        return total.item() / len(x), gradient.double().reshape(-1) / len(x)

    return landscape, torch.zeros(x.numel(), dtype=torch.float64, device=x.device)


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


def along(landscape: Landscape, direction: Tensor, distances: Tensor) -> Tensor:
    """Return the loss at each distance along a direction, shape of distances.

    >>> def bowl(v):
    ...     return float(v @ v), 2 * v
    >>> along(bowl, torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0]))
    tensor([0., 9.])
    """
    unit = direction / direction.norm()
    values = [landscape(float(t) * unit)[0] for t in distances.reshape(-1)]
    return torch.tensor(values).to(distances).view_as(distances)


@contextmanager
def logit_scale(model: nn.Module, factor: float) -> Iterator[None]:
    """Multiply the last linear layer by a factor: same predictions, other margins.

    What moves with it does not measure robustness.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.rand(1, 1, 2, 2)
    >>> before = network(x)
    >>> with logit_scale(network, 8.0):
    ...     bool(torch.allclose(network(x), 8 * before))
    True
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be above 0 and finite; got {factor}")
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ValueError("model must have a linear layer, whose scale is the logits'")
    parameters = list(layers[-1].parameters())
    kept = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(factor)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
