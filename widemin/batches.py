"""Inputs and targets by batches, checked; the loss that is measured; a model kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import NonFiniteError, check_labels, check_logits, inference
from widemin.names import check, check_counts, check_finite

Data = Tensor | Iterable[tuple[Tensor, Tensor]]
# (outputs, targets) -> each input's own loss, shape (batch,), or their mean, shape ();
# None is the cross-entropy.
Loss = Callable[[Tensor, Tensor], Tensor] | None


def summed(loss: Loss, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the sum of a batch's losses, shape ().

    >>> summed(nn.MSELoss(), torch.zeros(3, 1), torch.ones(3, 1))
    tensor(3.)
    """
    if loss is None:
        return F.cross_entropy(outputs, y, reduction="sum")
    values = loss(outputs, y)
    check(
        getattr(loss, "reduction", "") != "sum" and values.shape in ((), (len(y),)),
        f"loss must return each input's own, shape ({len(y)},), or their mean",
        "a sum" if values.ndim == 0 else f"shape {tuple(values.shape)}",
    )
    return values * len(y) if values.ndim == 0 else values.sum()


def batches(x: Data, y: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of inputs and targets, at most `size` in each.

    Args:
        x: Inputs, shape (n, ...), or an iterable of pairs of inputs and targets, such
            as a DataLoader.
        y: Targets of a tensor, shape (n, ...); None where x yields them.
        size: Inputs at a time.

    Raises:
        ValueError: No inputs, or not finite; targets of another number; a size below 1.

    >>> [y.tolist() for _, y in batches(torch.rand(5, 2), torch.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    check_counts(chunk=size)
    kinds = f"{type(x).__name__} and {type(y).__name__}"
    beside = "y must come with a tensor x, and not with a DataLoader"
    check(isinstance(x, Tensor) != (y is None), beside, kinds)
    empty = True
    pairs: Iterable[Any] = [(x, y)] if isinstance(x, Tensor) else x
    for pair in pairs:
        parts = pair if isinstance(pair, tuple | list) else [pair]
        two = len(parts) == 2 and all(isinstance(part, Tensor) for part in parts)
        kinds = ", ".join(type(part).__name__ for part in parts)
        check(two, "x must be a tensor or a DataLoader of pairs of tensors", kinds)
        inputs, targets = pair
        check(
            0 not in (inputs.ndim, targets.ndim) and len(inputs) == len(targets),
            "y must be one target an input",
            f"shape {tuple(targets.shape)} for inputs of shape {tuple(inputs.shape)}",
        )
        finite = bool(inputs.isfinite().all())
        check(finite, "x must be finite", "NaN or infinity")
        if len(inputs):
            empty = False
            yield from zip(inputs.split(size), targets.split(size), strict=True)
    check(not empty, "x must hold at least one input", "none")


def at_once(model: nn.Module, chunk: int | None = None, cpu: int = 250) -> int:
    """Return the number of inputs a network is asked at a time on its device.

    Few stay in a CPU's caches; few leave a GPU idle between its kernels.

    >>> at_once(nn.Linear(2, 2)), at_once(nn.Linear(2, 2), 40)
    (250, 40)
    """
    weights = list(model.parameters())
    if chunk is None and any(weight.is_cuda for weight in weights):
        count = sum(weight.numel() for weight in weights)
        return min(10_000, max(200, 10**10 // count))
    return cpu if chunk is None else chunk


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient, at least one.

    >>> [tuple(p.shape) for p in trainable(nn.Linear(3, 2))]
    [(2, 3), (2,)]
    """
    if parameters := [p for p in model.parameters() if p.requires_grad]:
        return parameters
    raise ValueError("model must have a parameter that requires a gradient")


@contextmanager
def restored(tensors: Callable[[], Iterable[Tensor]]) -> Iterator[None]:
    """Put the values of parameters or buffers back exactly afterwards.

    >>> layer = nn.BatchNorm1d(2)
    >>> with restored(layer.buffers):
    ...     _ = layer(torch.rand(8, 2))
    >>> layer.running_mean, int(layer.num_batches_tracked)
    (tensor([0., 0.]), 0)
    """
    before = [tensor.detach().clone() for tensor in tensors()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors(), before, strict=True):
                tensor.copy_(value)


def checked(
    model: nn.Module, x: Data, y: Tensor | None, size: int, loss: Loss = None
) -> list[tuple[Tensor, Tensor]]:
    """Return `batches`, read once, for which a network in inference mode has a loss.

    Raises:
        NonFiniteError: Weights or outputs that are NaN or infinite, or logits so large
            that their differences are lost to rounding.
        ValueError: Outputs or labels that the loss does not take.

    >>> checked(nn.Linear(2, 2), torch.rand(1, 2), torch.tensor([5]), 1)
    Traceback (most recent call last):
    ...
    ValueError: y must be labels from 0 to 1; got 5 to 5
    """
    pairs = list(batches(x, y, size))
    check_finite("model must have finite weights", *model.parameters())
    with inference(model), torch.no_grad():
        for x, y in pairs:
            outputs = model(x.to(next(model.parameters(), x).device))
            kind = type(outputs).__name__
            check(isinstance(outputs, Tensor), "model must return a tensor", kind)
            if loss is not None:
                check_finite("model must return finite outputs", outputs)
                continue
            check_labels(x, y)
            check_logits(outputs, y)
            largest = float(outputs.abs().max())
            # Beyond it float32 does not tell logits apart that differ by 1.
            most = max(2.0**23, 1 / torch.finfo(outputs.dtype).eps)
            expected = f"model must return logits of at most {most:g}"
            check(largest <= most, expected, f"{largest:g}", NonFiniteError)
    return pairs
