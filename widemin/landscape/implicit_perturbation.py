"""A weight perturbation seen as a perturbation of the images (Wei et al., section 3).

Moving a layer's weights by D changes its output by D x; so does moving its input by
any u with W u = D x. What remains of that argument at a network's first layer is
measured here: how much of D x some u explains, how large it is, what it does to the
loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import check_images, inference
from widemin.batches import check_network

Linear = Callable[[Tensor], Tensor]


def least_squares(
    linear: Linear, wanted: Tensor, like: Tensor, iterations: int = 100
) -> tuple[Tensor, Tensor]:
    """Return for each image the smallest u with linear(u) nearest to what is wanted.

    By conjugate gradients on the normal equations, all images at once; each stops at
    its own solution.

    Args:
        linear: A linear map, images to outputs.
        wanted: Outputs, shape (batch, ...).
        like: Anything of the shape (batch, ...) that `linear` takes.
        iterations: At most.

    Returns:
        u, shape of `like`, and the share of |wanted|^2 it explains, shape (batch,).

    >>> u, share = least_squares(lambda u: 2 * u, torch.ones(1, 3), torch.zeros(1, 3))
    >>> u, share
    (tensor([[0.5000, 0.5000, 0.5000]]), tensor([1.]))
    """

    def square(v: Tensor) -> Tensor:
        return v.flatten(1).square().sum(1)

    def times(factor: Tensor, v: Tensor) -> Tensor:
        return factor.view(-1, *[1] * (v.ndim - 1)) * v

    def ratio(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(whole > 0, part / whole.where(whole > 0, 1), 0)

    with torch.enable_grad():  # any point does: the map is linear
        point = torch.zeros_like(like).requires_grad_()
        there = linear(point)

    def transposed(v: Tensor) -> Tensor:
        return torch.autograd.grad(there, point, v, retain_graph=True)[0]

    u = torch.zeros_like(like)
    left = wanted.clone()
    slope = transposed(left)
    direction, steepness = slope, square(slope)
    enough = steepness * torch.finfo(u.dtype).eps ** 2
    for _ in range(iterations):
        image = linear(direction)
        going = steepness > enough
        length = ratio(steepness, square(image)) * going
        u = u + times(length, direction)
        left = left - times(length, image)
        slope = transposed(left)
        before, steepness = steepness, square(slope)
        direction = slope + times(ratio(steepness, before) * going, direction)
        if not bool(going.any()):
            break
    return u, 1 - ratio(square(left), square(wanted))


def at_first_layer(
    model: nn.Module, x: Tensor, y: Tensor, rho: float
) -> dict[str, float]:
    """Return what SAM's perturbation of the first layer is worth in pixels.

    The weights climb by rho along the gradient over all of them; the first layer's part
    of that is kept and answered by the smallest perturbation of each image that
    explains most of it.

    Args:
        model: A sequence of layers; measured in inference mode.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        rho: SAM's radius, L2 over all weights.

    Returns:
        Medians over images of the share of the layer's change that the perturbation
        explains (`implicit_share`) and of its L2 norm in pixels (`implicit_l2`); and
        the rise of the mean loss by moving the layer's weights
        (`implicit_weights_rise`), by moving the images (`implicit_images_rise`), and
        by moving each image as far along its own gradient
        (`implicit_gradient_rise`).

    Raises:
        NonFiniteError: Weights or logits that are NaN, infinite or too large.
        ValueError: A model that is no sequence with a convolution or linear layer whose
            weights require a gradient, wrong images or labels, or a rho below 0.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> found = at_first_layer(network, x, y, rho=0.1)
    >>> round(found["implicit_share"], 4)
    1.0
    """
    check_images(x, y)
    check_network(model, [(x, y)])
    if not 0 <= rho < math.inf:
        raise ValueError(f"rho must be at least 0 and finite; got {rho}")
    layers: list[Any] = list(model.children())
    first = next(
        (i for i, m in enumerate(layers) if isinstance(m, nn.Conv2d | nn.Linear)), -1
    )
    if (
        first < 0
        or not isinstance(model, nn.Sequential)
        or not layers[first].weight.requires_grad
    ):
        raise ValueError(
            "model must be a sequence with a convolution or linear layer whose weights "
            f"require a gradient; got {type(model).__name__}"
        )
    before, layer, after = model[:first], layers[first], model[first + 1 :]
    weight = layer.weight.detach()

    def linear(weight: Tensor, v: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return F.linear(v, weight)
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return F.conv2d(v, weight, None, *options)

    def loss(images: Tensor) -> Tensor:
        return F.cross_entropy(model(images), y, reduction="none")

    with inference(model):
        parameters = [p for p in model.parameters() if p.requires_grad]
        base = loss(x)
        gradients = torch.autograd.grad(base.mean(), parameters, materialize_grads=True)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        at = next(i for i, p in enumerate(parameters) if p is layer.weight)
        moved = rho * gradients[at] / norm

        def from_pixels(u: Tensor) -> Tensor:  # linear: normalisation shifts and scales
            return linear(weight, before(u) - before(torch.zeros_like(u)))

        with torch.no_grad():
            inputs = before(x)
            change = linear(moved, inputs)
        u, share = least_squares(from_pixels, change, x)
        sizes = u.flatten(1).norm(dim=1)
        image = x.detach().requires_grad_()
        (steepest,) = torch.autograd.grad(loss(image).sum(), image)
        lengths = steepest.flatten(1).norm(dim=1).clamp_min(1e-30)
        step = steepest * (sizes / lengths).view(-1, 1, 1, 1)
        with torch.no_grad():
            by_weights = F.cross_entropy(
                after(layer(inputs) + change), y, reduction="none"
            )
            rises = {
                "implicit_weights_rise": by_weights - base,
                "implicit_images_rise": loss(x + u) - base,
                "implicit_gradient_rise": loss(x + step) - base,
            }
    found = {
        "implicit_share": float(share.median()),
        "implicit_l2": float(sizes.median()),
    }
    return found | {name: float(rise.mean()) for name, rise in rises.items()}
