"""Products of the Hessian of a network's loss with a vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import check_images

Product = Callable[[Tensor], Tensor]

FORWARD_FROM = 1_000  # images


@cache
def _load_forward_mode() -> None:
    """Let torch import what its first forward derivative needs, without its warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def hessian_product(model: nn.Module, x: Tensor, y: Tensor, chunk: int) -> Product:
    """Return v -> H v for the Hessian of the mean cross-entropy over x.

    Args:
        model: Maps images to logits; used in the mode it is in.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        chunk: Images differentiated at a time; the result does not depend on it.

    Returns:
        A function of a vector, shape (weights,), ordered as model.parameters().

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> product = hessian_product(network, x, y, chunk=2)
    >>> common = torch.ones(8)  # moves both logits alike: no curvature
    >>> bool(product(common).abs().max() < 1e-6)
    True
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    slope = _forward_over_reverse if len(x) >= FORWARD_FROM else _twice_backwards

    def product(vector: Tensor) -> Tensor:
        pieces = zip(parameters, vector.split(sizes), strict=True)
        direction = [part.view_as(p) for p, part in pieces]
        total = torch.zeros_like(vector)
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            rows = slope(model, images, labels, direction)
            total += torch.cat([row.reshape(-1) for row in rows])
        return total / len(x)

    return product


def _twice_backwards(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor]
) -> Sequence[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        loss = F.cross_entropy(model(x), y, reduction="sum")
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        pairs = zip(gradients, direction, strict=True)
        slope = torch.stack([(g * v).sum() for g, v in pairs]).sum()
        return torch.autograd.grad(slope, parameters, materialize_grads=True)


def _forward_over_reverse(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor]
) -> Sequence[Tensor]:
    _load_forward_mode()
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def loss(at: dict[str, Tensor]) -> Tensor:
        logits = torch.func.functional_call(model, at, (x,))
        return F.cross_entropy(logits, y, reduction="sum")

    along = dict(zip(weights, direction, strict=True))
    found = torch.func.jvp(torch.func.grad(loss), (weights,), (along,))
    return list(found[1].values())


def loss_operator(
    model: nn.Module, x: Tensor, y: Tensor, chunk: int
) -> tuple[Product, Callable[[torch.Generator], Tensor]]:
    """Return the product and a function that draws Gaussian vectors for it."""
    check_images(x, y)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient")
    weights = sum(p.numel() for p in parameters)

    def draw(generator: torch.Generator) -> Tensor:
        # In float32 on the CPU, so that precisions and devices see the same draw.
        return torch.randn(weights, generator=generator).to(parameters[0])

    return hessian_product(model, x, y, chunk), draw
