"""A weight perturbation seen as a perturbation of the images (Wei et al., section 3).

Moving a layer's weights by D changes its output by D x; so does moving its input by
any u with W u = D x. Measured here at a network's first layer: how much of D x some u
explains, how large it is, what it does to the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import check_images, cross_entropy, inference, input_gradient
from widemin.batches import checked, trainable
from widemin.names import check, check_sizes


def least_squares(
    linear: Callable[[Tensor], Tensor],
    wanted: Tensor,
    like: Tensor,
    iterations: int = 100,
) -> tuple[Tensor, Tensor]:
    """Return for each image the smallest u with linear(u) nearest to what is wanted.

    Of the shape of `like`; and the share of |wanted|^2 that it explains, shape
    (batch,). By conjugate gradients on the normal equations; each image stops at its
    own solution.

    >>> least_squares(lambda u: 2 * u, torch.ones(1, 3), torch.zeros(1, 3))
    (tensor([[0.5000, 0.5000, 0.5000]]), tensor([1.]))
    """
    with torch.enable_grad():  # any point does: the map is linear
        point = torch.zeros_like(like).requires_grad_()
        there = linear(point)

    def transposed(v: Tensor) -> Tensor:
        v = v.view_as(there)
        return torch.autograd.grad(there, point, v, retain_graph=True)[0].flatten(1)

    def square(v: Tensor) -> Tensor:
        return v.square().sum(1, keepdim=True)

    def ratio(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(whole > 0, part / whole.where(whole > 0, 1), 0)

    left = wanted.flatten(1)
    u, direction = torch.zeros_like(like).flatten(1), transposed(left)
    steepness = square(direction)
    enough = steepness * torch.finfo(u.dtype).eps ** 2
    for _ in range(iterations):
        image = linear(direction.view_as(like)).flatten(1)
        going = steepness > enough
        length = ratio(steepness, square(image)) * going
        u = u + length * direction
        left = left - length * image
        slope, before = transposed(left), steepness
        steepness = square(slope)
        direction = slope + ratio(steepness, before) * going * direction
        if not bool(going.any()):
            break
    share = 1 - ratio(square(left), square(wanted.flatten(1)))
    return u.view_as(like), share.squeeze(1)


def at_first_layer(
    model: nn.Module, x: Tensor, y: Tensor, rho: float
) -> dict[str, float]:
    """Compare SAM's perturbation of the first layer with one of the images.

    Of SAM's step of length rho (L2 over all weights) the first layer's part is kept,
    and answered by the smallest perturbation of each image that explains most of it. In
    inference mode.

    `implicit_share` and `implicit_l2` are medians over images of the share of the
    layer's change that the perturbation explains, and of its L2 norm in pixels; the
    rises are of the mean loss, by moving the layer's weights, the images, or each image
    as far along its own gradient.

    Raises:
        NonFiniteError: Weights or logits that are NaN, infinite or too large.
        ValueError: A model that is no sequence with a convolution or linear layer whose
            weights require a gradient, wrong images or labels, or a rho below 0.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> round(at_first_layer(network, x, y, rho=0.1)["implicit_share"], 4)
    1.0
    """
    check_images(x, y)
    checked(model, x, y, len(x))
    check_sizes(rho=rho)
    layers: Any = model if isinstance(model, nn.Sequential) else []
    kinds = nn.Conv2d | nn.Linear
    first = next((i for i, m in enumerate(layers) if isinstance(m, kinds)), -1)
    check(
        first >= 0 and layers[first].weight.requires_grad,
        "model must be a sequence with a convolution or linear layer whose weights "
        "require a gradient",
        type(model).__name__,
    )
    before, layer, after = layers[:first], layers[first], layers[first + 1 :]

    def linear(weight: Tensor, v: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            return F.linear(v, weight)
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return F.conv2d(v, weight, None, *options)

    def from_pixels(u: Tensor) -> Tensor:  # linear: normalisation shifts and scales
        moved = before(u) - before(torch.zeros_like(u))
        return linear(layer.weight.detach(), moved)

    with inference(model):
        parameters = trainable(model)
        base = cross_entropy(model(x), y)
        gradients = torch.autograd.grad(base.mean(), parameters, materialize_grads=True)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        at = next(i for i, p in enumerate(parameters) if p is layer.weight)
        with torch.no_grad():
            inputs = before(x)
            change = linear(rho * gradients[at] / norm, inputs)
        u, share = least_squares(from_pixels, change, x)
        sizes = u.flatten(1).norm(dim=1)
        steepest = input_gradient(model, x, y)[0]
        lengths = steepest.flatten(1).norm(dim=1).clamp_min(1e-30)
        step = steepest * (sizes / lengths).view(-1, 1, 1, 1)
        with torch.no_grad():
            moved = after(layer(inputs) + change), model(x + u), model(x + step)
            rises = [float((cross_entropy(z, y) - base).mean()) for z in moved]
    return {
        "implicit_share": float(share.median()),
        "implicit_l2": float(sizes.median()),
        "implicit_weights_rise": rises[0],
        "implicit_images_rise": rises[1],
        "implicit_gradient_rise": rises[2],
    }
