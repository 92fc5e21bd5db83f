"""Gradients of the mean loss in the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import inference


def backward(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    label_smoothing: float = 0.0,
    weighted: bool = False,
) -> Tensor:
    """Leave the gradient of the mean loss in the parameters; return the loss.

    Weighted, each image's loss counts as often as it is large: its own value, held
    fixed, multiplies it.
    """
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
    """Return the sum over batches of the mean loss's gradient, one a parameter.

    Args:
        model: Run in inference mode, as where attacks are made.
        batches: Images, each of shape (batch, channels, height, width).
        y: Labels of every one of them, shape (batch,).
    """
    parameters = list(model.parameters())
    with inference(model):
        loss = torch.stack([F.cross_entropy(model(x), y) for x in batches]).sum()
    return list(torch.autograd.grad(loss, parameters))
