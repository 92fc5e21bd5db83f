"""Losses as functions of a displacement: of weights, of images, in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import NonFiniteError
from widemin.batches import (
    Data,
    Loss,
    at_once,
    batches,
    check_network,
    summed,
    trainable,
)
from widemin.landscape.width import Landscape
from widemin.models import InBfloat16, is_plain


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

    Raises:
        NonFiniteError: A weight is NaN or infinite.
        ValueError: No parameter requires a gradient.

    >>> node_norms(nn.Linear(2, 1, bias=False)).shape
    torch.Size([2])
    """
    parts = []
    for p in trainable(model):
        w = p.detach()
        norm = w.abs() if w.ndim < 2 else w.flatten(1).norm(dim=1)
        shape = (-1,) + (1,) * (w.ndim - 1) if w.ndim > 1 else (-1,)
        parts.append(norm.view(shape).expand_as(w).reshape(-1))
    norms = torch.cat(parts)
    if not bool(norms.isfinite().all()):
        raise NonFiniteError("model must have finite weights; got NaN or infinity")
    return norms


def weight_landscape(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    scale: Tensor | None = None,
    chunk: int | None = None,
    loss: Loss = None,
) -> tuple[Landscape, Tensor]:
    """Return the mean loss as a function of a displacement of the weights.

    Args:
        model: Maps inputs to logits; to be used in inference mode.
        x: Inputs of any shape (n, ...), or a DataLoader of inputs and labels, which is
            read once.
        y: Labels of a tensor, shape (n,); None with a DataLoader.
        scale: Units of the displacement, shape (weights,), e.g. `node_norms`.
        chunk: Inputs evaluated at a time, by default what suits the device.
        loss: (outputs, y) to each input's loss, shape (batch,), or their mean, such as
            nn.MSELoss(); the cross-entropy by default.

    Returns:
        The landscape and zeros of its argument's shape, in float64.

    Raises:
        NonFiniteError: Weights or outputs that are NaN or infinite, or logits so large
            that their differences are lost to rounding.
        ValueError: No inputs, wrong labels, or no parameter that requires a gradient.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> landscape, start = weight_landscape(network, x, y)
    >>> landscape(start)[1].shape, start.dtype
    (torch.Size([10]), torch.float64)
    """
    pairs = batches(x, y, at_once(model, chunk, 500))
    parameters = trainable(model)
    check_network(model, pairs, loss)
    count, device = sum(len(targets) for _, targets in pairs), parameters[0].device
    units = torch.ones(sum(p.numel() for p in parameters), dtype=torch.float64)
    units = units.to(device)
    if scale is not None:
        units = scale.double()

    def landscape(v: Tensor) -> tuple[float, Tensor]:
        with _moved(parameters, units * v), torch.enable_grad():
            total, gradient = 0.0, torch.zeros_like(units)
            for inputs, targets in pairs:
                outputs = model(inputs.to(device)).double()
                value = summed(loss, outputs, targets.to(device))
                grads = torch.autograd.grad(value, parameters, materialize_grads=True)
                gradient += torch.cat([g.reshape(-1).double() for g in grads])
                total += value.item()
        return total / count, units * gradient / count

    return landscape, torch.zeros_like(units)


def input_landscape(
    model: nn.Module, x: Tensor, y: Tensor, chunk: int | None = None, loss: Loss = None
) -> tuple[Landscape, Tensor]:
    """Return the mean loss as a function of a displacement of all inputs.

    Arguments, returns and errors as for `weight_landscape`, without a scale and for a
    tensor of floating point inputs alone.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> landscape, start = input_landscape(network, x, y)
    >>> landscape(start)[1].shape
    torch.Size([12])
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError("x must be a tensor of floating point numbers")
    chunk = at_once(model, chunk, 500)
    check_network(model, batches(x, y, chunk), loss)

    def landscape(v: Tensor) -> tuple[float, Tensor]:
        moved = (x.double() + v.view(x.shape)).to(x).requires_grad_()
        with torch.enable_grad():
            total = torch.zeros((), dtype=torch.float64, device=x.device)
            for images, labels in zip(moved.split(chunk), y.split(chunk), strict=True):
                total = total + summed(loss, model(images).double(), labels)
            (gradient,) = torch.autograd.grad(total, moved)
        return total.item() / len(x), gradient.double().reshape(-1) / len(x)

    return landscape, torch.zeros(x.numel(), dtype=torch.float64, device=x.device)


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
    """Multiply a network's logits by a factor: same predictions, other margins.

    What moves with it does not measure robustness. Of a sequence that ends in a linear
    layer, that layer's weights are multiplied; of any other network, what it returns.

    Raises:
        ValueError: A factor that is not above 0 and finite.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.rand(1, 1, 2, 2)
    >>> before = network(x)
    >>> with logit_scale(network, 8.0):
    ...     bool(torch.allclose(network(x), 8 * before))
    True
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be above 0 and finite; got {factor}")
    parameters = _of_the_last_layer(model)
    kept = [p.detach().clone() for p in parameters]
    hook = None
    if not parameters:
        hook = model.register_forward_hook(
            lambda _, inputs, logits: (
                factor * logits if isinstance(logits, Tensor) else None
            )
        )
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(factor)
        yield
    finally:
        if hook:
            hook.remove()
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _of_the_last_layer(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that scale a network's logits and nothing else, if any."""
    last = model
    while type(last) in (nn.Sequential, InBfloat16) and list(last.children()):
        if not is_plain(last):
            return []
        last = list(last.children())[-1]
    if type(last) is not nn.Linear or not is_plain(last):
        return []
    every = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    own = list(last.parameters())
    return own if all(every.count(id(p)) == 1 for p in own) else []
