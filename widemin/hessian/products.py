"""Products of the Hessian of a network's loss with a vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache, reduce

import torch
from torch import Tensor, nn

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

Product = Callable[[Tensor], Tensor]

FORWARD_FROM = 1_000  # images


def hessian_product(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    chunk: int | None = None,
    loss: Loss = None,
) -> Product:
    """Return v -> H v for the Hessian of the mean loss over x.

    From 1,000 inputs on by the forward derivative of the gradient, of fewer, and of
    layers without a forward derivative, by two backward passes (Pearlmutter 1994).

    Args:
        model: Maps inputs to logits; used in the mode it is in.
        x: Inputs of any shape (n, ...), or a DataLoader of inputs and labels, which is
            read once.
        y: Labels of a tensor, shape (n,); None with a DataLoader.
        chunk: Inputs differentiated at a time, by default what suits the device; the
            result does not depend on it.
        loss: (outputs, y) to each input's loss, shape (batch,), or their mean, such as
            nn.MSELoss(); the cross-entropy by default.

    Returns:
        A function of a vector, shape (weights,), ordered as those parameters of the
        model that require a gradient. One that the loss does not depend on has
        curvature 0.

    Raises:
        NonFiniteError: Weights, outputs or products that are NaN or infinite, or logits
            so large that their differences are lost to rounding.
        ValueError: No inputs, wrong labels, or no parameter that requires a gradient.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> product = hessian_product(network, x, y, chunk=2)
    >>> common = torch.ones(8)  # moves both logits alike: no curvature
    >>> bool(product(common).abs().max() < 1e-6)
    True
    """
    pairs = batches(x, y, at_once(model, chunk))
    parameters = trainable(model)
    check_network(model, pairs, loss)
    count = sum(len(targets) for _, targets in pairs)
    sizes = [parameter.numel() for parameter in parameters]
    forwards = count >= FORWARD_FROM

    def mean(slope: Slope, vector: Tensor) -> Tensor:
        pieces = zip(parameters, vector.split(sizes), strict=True)
        direction = [part.view_as(p).to(p) for p, part in pieces]
        total = torch.zeros_like(vector)
        for inputs, targets in pairs:
            there = inputs.to(vector.device), targets.to(vector.device)
            rows = slope(model, *there, direction, loss)
            total += torch.cat([row.reshape(-1) for row in rows])
        return total / count

    def product(vector: Tensor) -> Tensor:
        nonlocal forwards
        moved = None
        if forwards:
            try:
                moved = mean(_forward_over_reverse, vector)
            except RuntimeError:  # a layer of one's own, without a forward derivative
                forwards = False
        moved = mean(_twice_backwards, vector) if moved is None else moved
        if not bool(moved.isfinite().all()):
            raise NonFiniteError("Hessian products must be finite; got NaN or infinity")
        return moved

    return product


# (model, inputs, targets, direction, loss) -> derivative of the gradient along it
Slope = Callable[[nn.Module, Tensor, Tensor, list[Tensor], Loss], Sequence[Tensor]]


def _twice_backwards(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor], loss: Loss
) -> Sequence[Tensor]:
    parameters = trainable(model)
    with torch.enable_grad():
        slope = summed(loss, model(x), y)
        if slope.requires_grad:
            gradients = torch.autograd.grad(
                slope, parameters, create_graph=True, materialize_grads=True
            )
            pairs = zip(gradients, direction, strict=True)
            slope = torch.stack([(g * v).sum() for g, v in pairs]).sum()
        if not slope.requires_grad:  # where a derivative is constant
            return [torch.zeros_like(p) for p in parameters]
        return torch.autograd.grad(slope, parameters, materialize_grads=True)


@cache
def _load_forward_mode() -> None:
    """Let torch import what its first forward derivative needs, without its warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def _forward_over_reverse(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor], loss: Loss
) -> Sequence[Tensor]:
    _load_forward_mode()
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def value(at: dict[str, Tensor]) -> Tensor:
        return summed(loss, torch.func.functional_call(model, at, (x,)), y)

    along = dict(zip(weights, direction, strict=True))
    slopes = torch.func.jvp(torch.func.grad(value), (weights,), (along,))[1]
    return list(slopes.values())


def gaussian(model: nn.Module, generator: torch.Generator) -> Tensor:
    """Return a Gaussian vector for a model's Hessian to multiply, shape (weights,)."""
    parameters = trainable(model)
    # In float32 on the CPU, so that precisions and devices see the same draw.
    drawn = torch.randn(sum(p.numel() for p in parameters), generator=generator)
    dtype = reduce(torch.promote_types, [p.dtype for p in parameters])
    return drawn.to(parameters[0].device, dtype)
