"""Images, logits and gradients, checked, with a model left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from widemin.attacks.losses import Loss, cross_entropy


class NonFiniteError(ValueError):
    """A network whose logits are NaN or infinite: broken, not robust."""


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run the network in inference mode; restore every layer's mode afterwards.

    >>> network = nn.Dropout()
    >>> with inference(network):
    ...     network.training
    False
    >>> network.training
    True
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def clean(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return x: the attack that does nothing.

    >>> x = torch.rand(1, 1, 2, 2)
    >>> clean(nn.Identity(), x, torch.tensor([0])) is x
    True
    """
    return x


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x are images in [0, 1] and y their labels.

    >>> normalised = torch.full((1, 1, 2, 2), 2.0)
    >>> check_images(normalised, torch.tensor([0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: x must be pixels in [0, 1], finite and not normalised; got ... 2 to 2
    """
    if x.ndim != 4 or len(x) == 0:
        raise ValueError(
            "x must be images, shape (batch, channels, height, width) with batch > 0; "
            f"got shape {tuple(x.shape)}"
        )
    low, high = (value.item() for value in x.detach().aminmax())
    if not (low >= 0 and high <= 1):  # written so that NaN is caught too
        raise ValueError(
            "x must be pixels in [0, 1], finite and not normalised; "
            f"got values from {low:.3g} to {high:.3g}"
        )
    if y.shape != (len(x),) or y.dtype != torch.int64:
        raise ValueError(
            f"y must be int64 labels, shape ({len(x)},); got {y.dtype}, "
            f"shape {tuple(y.shape)}"
        )


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Raise ValueError unless logits are finite and cover the labels.

    >>> check_logits(torch.zeros(1, 2), torch.tensor([5]))
    Traceback (most recent call last):
    ...
    ValueError: y must be labels from 0 to 1; got 5 to 5
    """
    if logits.ndim != 2 or len(logits) != len(y) or logits.shape[1] < 2:
        raise ValueError(
            f"model must return logits, shape ({len(y)}, classes) with at least 2 "
            f"classes; got shape {tuple(logits.shape)}"
        )
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise ValueError(
            f"y must be labels from 0 to {logits.shape[1] - 1}; "
            f"got {int(y.min())} to {int(y.max())}"
        )
    if not bool(logits.isfinite().all()):
        raise NonFiniteError("model must return finite logits; got NaN or infinity")


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of each image's own loss, the losses and the logits.

    Args:
        model: Maps images to logits, shape (batch, classes).
        x: Images in [0, 1], shape (batch, channels, height, width).
        y: Labels, shape (batch,).
        loss: What is differentiated: (logits, y) -> shape (batch,).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> [part.shape[0] for part in input_gradient(model, x, y)]
    [3, 3, 3]
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        check_logits(logits.detach(), y)
        losses = loss(logits, y)
        # Sum, not mean: a mean divides each gradient, and FOSC with it, by the batch.
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach(), logits.detach()
