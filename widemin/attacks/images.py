"""Images, logits and gradients, checked, with a model left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from widemin.attacks.losses import Loss, cross_entropy
from widemin.names import check, check_finite


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
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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
    check_labels(x, y)
    shape = "shape (batch, channels, height, width) with batch > 0"
    check(x.ndim == 4, f"x must be images, {shape}", f"shape {tuple(x.shape)}")
    low, high = (value.item() for value in x.detach().aminmax())
    check(
        low >= 0 and high <= 1,  # written so that NaN is caught too
        "x must be pixels in [0, 1], finite and not normalised",
        f"values from {low:.3g} to {high:.3g}",
    )
    check(x.is_floating_point(), "x must be pixels in floating point", x.dtype)


def check_labels(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x has an input and y a label for each of them.

    >>> check_labels(torch.zeros(2, 3), torch.tensor([0]))
    Traceback (most recent call last):
    ...
    ValueError: y must be int64 labels, shape (2,); got torch.int64, shape (1,)
    """
    for name, value in (("x", x), ("y", y)):
        kind = type(value).__name__
        check(isinstance(value, Tensor), f"{name} must be a tensor", kind)
    inputs = "x must be inputs, shape (batch, ...) with batch > 0"
    check(x.ndim > 0 and len(x) > 0, inputs, tuple(x.shape))
    check(
        y.shape == (len(x),) and y.dtype == torch.int64,
        f"y must be int64 labels, shape ({len(x)},)",
        f"{y.dtype}, shape {tuple(y.shape)}",
    )
    check(y.device == x.device, f"y must be on the device of x, {x.device}", y.device)


def check_logits(logits: Any, y: Tensor) -> None:
    """Raise ValueError unless logits are finite and cover the labels.

    >>> check_logits(torch.zeros(1, 2), torch.tensor([5]))
    Traceback (most recent call last):
    ...
    ValueError: y must be labels from 0 to 1; got 5 to 5
    """
    shape, known = tuple(getattr(logits, "shape", ())), isinstance(logits, Tensor)
    check(
        known and len(shape) == 2 and shape[0] == len(y) and shape[1] > 1,
        f"model must return logits, shape ({len(y)}, classes) with at least 2 classes",
        f"shape {shape}" if known else type(logits).__name__,
    )
    low, high, last = int(y.min()), int(y.max()), shape[1] - 1
    labels = f"y must be labels from 0 to {last}"
    check(0 <= low and high <= last, labels, f"{low} to {high}")
    check_finite("model must return finite logits", logits)


def logits_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a network's logits of x, shape (batch, classes), finite and for labels y.

    Raises:
        ValueError: Inputs of another precision or device than the network's, no logits,
            labels without a class; logits not finite (`NonFiniteError`).

    >>> logits_of(nn.Linear(4, 2), torch.rand(1, 4).double(), torch.tensor([0]))
    Traceback (most recent call last):
    ...
    ValueError: x must be torch.float32 on cpu, as the model; got torch.float64 on cpu
    """
    try:
        logits = model(x)
    except RuntimeError as error:
        held = [*model.parameters(), *model.buffers()]
        weight = next((t for t in held if t.is_floating_point()), x)
        own, given = (f"{t.dtype} on {t.device}" for t in (weight, x))
        said = f"x must be {own}, as the model; got {given}"
        if torch.is_grad_enabled() and any(t.is_inference() for t in held):
            said = "model must be made outside torch.inference_mode, in which tensors "
            said += "have no gradients; got one made inside"
        elif own == given:
            raise
        raise ValueError(said) from error
    check_logits(logits, y)
    return logits


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of each image's own loss, the losses and the logits.

    Errors as of `logits_of`, and for a loss with no value per image or no gradient, or
    a gradient that is not finite.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> [part.shape[0] for part in input_gradient(model, x, y)]
    [3, 3, 3]
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode know no gradients: their copies do.
        x, y = (t.clone() if t.is_inference() else t.detach() for t in (x, y))
        x.requires_grad_()
        logits = logits_of(model, x, y)
        losses = loss(logits, y)
        shape = f"loss must return a value per image, shape ({len(y)},)"
        check(losses.shape == y.shape, shape, f"shape {tuple(losses.shape)}")
        gradient = None
        if losses.requires_grad:
            # Sum, not mean: a mean divides each gradient, and FOSC, by the batch.
            (gradient,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
        if gradient is None:
            raise ValueError("model and loss must have a gradient in x; got none")
    check_finite("model must have finite gradients", gradient)
    return gradient, losses.detach(), logits.detach()
