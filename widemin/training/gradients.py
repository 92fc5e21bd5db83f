"""Gradients of the mean loss in the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import inference
from widemin.batches import trainable


def backward(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    label_smoothing: float = 0.0,
    weighted: bool = False,
) -> Tensor:
    """Leave the gradient of the mean loss in the parameters; return the loss, shape ().

    Weighted, each image's loss counts as often as it is large: its own value, held
    fixed, multiplies it. A parameter that is frozen, or that the loss does not depend
    on, is left without a gradient.

    Raises:
        ValueError: No parameter requires a gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> loss = backward(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]))
    >>> loss.shape, model[1].bias.grad.shape
    (torch.Size([]), torch.Size([2]))
    """
    trainable(model)
    for parameter in model.parameters():
        parameter.grad = None
    kind = "none" if weighted else "mean"
    loss = F.cross_entropy(model(x), y, label_smoothing=label_smoothing, reduction=kind)
    if weighted:
        (loss.detach() * loss).mean().backward()
        return loss.detach().mean()
    loss.backward()
    return loss.detach()


def weight_gradient(
    model: nn.Module, batches: Iterable[Tensor], y: Tensor
) -> list[Tensor]:
    """Return the sum over batches of the mean loss's gradient.

    Args:
        model: Run in inference mode, as where attacks are made.
        batches: Images, each of shape (batch, channels, height, width).
        y: Labels of every one of them, shape (batch,).

    Returns:
        One gradient for each parameter that requires it, in their order; 0 where the
        loss does not depend on it.

    Raises:
        ValueError: No parameter requires a gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = weight_gradient(model, [torch.rand(3, 1, 2, 2)], torch.arange(3) % 2)
    >>> [tuple(gradient.shape) for gradient in found]
    [(2, 4), (2,)]
    """
    parameters = trainable(model)
    with inference(model):
        loss = torch.stack([F.cross_entropy(model(x), y) for x in batches]).sum()
    return list(torch.autograd.grad(loss, parameters, materialize_grads=True))
