"""The loss as a function of a displacement: of weights, of inputs, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import NonFiniteError, inference
from widemin.batches import Data, Loss, at_once, checked, restored, summed, trainable
from widemin.models import InBfloat16, is_plain
from widemin.names import check, check_counts, check_finite

# displacement v -> loss at the minimum plus v, and its gradient there
Landscape = Callable[[Tensor], tuple[float, Tensor]]


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


def node_norms(model: nn.Module) -> Tensor:
    """Return for each weight the norm of the node (filter) it feeds, shape (weights,).

    Vectors (biases, batch norm) have their own norm. Distances in these units do not
    change if one layer is scaled up and the next one down (Dinh et al. 2017).

    >>> node_norms(nn.Linear(2, 1, bias=False)).shape
    torch.Size([2])
    """
    parts = []
    for parameter in trainable(model):
        w = parameter.detach()
        rows = w.flatten(1) if w.ndim > 1 else w.reshape(-1, 1)
        parts.append(rows.norm(dim=1, keepdim=True).expand_as(rows).reshape(-1))
    norms = torch.cat(parts)
    check_finite("model must have finite weights", norms)
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

    Beside it are zeros of its argument's shape, both in float64; the network stays in
    its mode. Scale, shape (weights,), has the units of the displacement. Other
    arguments and errors as of `hessian.hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> landscape, start = weight_landscape(network, x, y)
    >>> landscape(start)[1].shape, start.dtype
    (torch.Size([10]), torch.float64)
    """
    pairs = checked(model, x, y, at_once(model, chunk, 500), loss)
    parameters = trainable(model)
    count, device = sum(len(targets) for _, targets in pairs), parameters[0].device
    sizes = [p.numel() for p in parameters]
    units = torch.ones(sum(sizes), device=device) if scale is None else scale
    units = units.double()

    def landscape(v: Tensor) -> tuple[float, Tensor]:
        with restored(lambda: parameters):
            parts = zip(parameters, (units * v).split(sizes), strict=True)
            with torch.no_grad():
                for parameter, part in parts:
                    parameter.add_(part.view_as(parameter).to(parameter))
            total, gradient = 0.0, torch.zeros_like(units)
            for inputs, targets in pairs:
                with torch.enable_grad():
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

    As `weight_landscape`, without a scale and for a tensor of floating point inputs.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> landscape, start = input_landscape(network, x, y)
    >>> landscape(start)[1].shape
    torch.Size([12])
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError("x must be a tensor of floating point numbers")
    chunk = at_once(model, chunk, 500)
    checked(model, x, y, chunk, loss)

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
    """Return the rise of the loss in a ball whose axes are the weights' own sizes.

    max L(w + |w| v) - L(w) over |v|_2 <= rho, by projected gradient ascent in steps of
    rho / 5 (Kwon et al. 2021), in inference mode. Scaling one layer up and the next one
    down does not change it. Other arguments and errors as of `weight_landscape`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> adaptive_sharpness(network, x, y, rho=0.1) >= 0
    True
    """
    check(0 < rho < math.inf, "rho must be above 0 and finite", rho)
    check_counts(steps=steps)
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
            finite = math.isfinite(value)
            check(finite, "loss must be finite within rho", value, NonFiniteError)
            highest = max(highest, value)
    return highest - base


@contextmanager
def logit_scale(model: nn.Module, factor: float) -> Iterator[None]:
    """Multiply a network's logits by a factor: same predictions, other margins.

    A number that changes with it does not measure robustness. In a sequence that ends
    in a linear layer, that layer's weights are multiplied; else the output is.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.rand(1, 1, 2, 2)
    >>> before = network(x)
    >>> with logit_scale(network, 8.0):
    ...     bool(torch.allclose(network(x), 8 * before))
    True
    """
    check(0 < factor < math.inf, "factor must be above 0 and finite", factor)
    last: Any = model
    while type(last) in (nn.Sequential, InBfloat16) and is_plain(last) and len(last):
        last = last[-1]
    own = list(last.parameters()) if type(last) is nn.Linear and is_plain(last) else []
    every = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    if own and all(every.count(id(p)) == 1 for p in own):
        with restored(lambda: own):
            with torch.no_grad():
                for parameter in own:
                    parameter.mul_(factor)
            yield
    else:
        with model.register_forward_hook(lambda _, inputs, out: factor * out):
            yield
