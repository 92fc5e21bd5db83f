"""Inputs and targets by batches, checked; the loss that is measured; a model kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import NonFiniteError, check_logits, inference

Data = Tensor | Iterable[tuple[Tensor, Tensor]]
Batches = list[tuple[Tensor, Tensor]]
# (outputs, targets) -> each input's own loss, shape (batch,), or their mean, shape ();
# None is the cross-entropy.
Loss = Callable[[Tensor, Tensor], Tensor] | None

# Beyond it float32 does not tell logits apart that differ by 1.
_LARGEST_LOGIT = 2.0**23


def summed(loss: Loss, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the sum of a batch's losses, shape ().

    >>> summed(nn.MSELoss(), torch.zeros(3, 1), torch.ones(3, 1))
    tensor(3.)
    """
    if loss is None:
        return F.cross_entropy(outputs, y, reduction="sum")
    values = loss(outputs, y)
    if getattr(loss, "reduction", "") == "sum" or values.shape not in ((), (len(y),)):
        raise ValueError(
            f"loss must return each input's own, shape ({len(y)},), or their mean; got "
            f"{'a sum' if values.ndim == 0 else f'shape {tuple(values.shape)}'}"
        )
    return values * len(y) if values.ndim == 0 else values.sum()


def batches(x: Data, y: Tensor | None, size: int) -> Batches:
    """Return pairs of inputs and targets, at most `size` in each.

    Args:
        x: Inputs of any shape (n, ...), or an iterable of pairs of inputs and targets,
            such as a DataLoader; it is read once, so that augmentation is drawn once.
        y: Targets of a tensor, shape (n, ...); None where x yields them.
        size: Inputs at a time.

    Raises:
        ValueError: No inputs, inputs that are not finite, targets of another number, or
            a size below 1.

    >>> pairs = batches(torch.rand(5, 2), torch.arange(5), 2)
    >>> [y.tolist() for _, y in pairs]
    [[0, 1], [2, 3], [4]]
    """
    return list(each_batch(x, y, size))


def each_batch(x: Data, y: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `batches` returns, one pair at a time.

    >>> next(each_batch(torch.arange(5), torch.arange(5), 2))
    (tensor([0, 1]), tensor([0, 1]))
    """
    if size < 1:
        raise ValueError(f"chunk must be at least 1; got {size}")
    if isinstance(x, Tensor) == (y is None):
        raise ValueError(
            "y must come with a tensor x, and not with a DataLoader; got "
            f"{type(x).__name__} and {type(y).__name__}"
        )
    empty = True
    for pair in [(x, y)] if isinstance(x, Tensor) else x:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            many = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
            raise ValueError(
                "x must yield pairs of inputs and targets; got a "
                f"{type(pair).__name__}{many}"
            )
        inputs, targets = pair
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise ValueError(
                "x must be a tensor or a DataLoader of pairs of tensors; got a pair of "
                f"{type(inputs).__name__} and {type(targets).__name__}"
            )
        if 0 in (inputs.ndim, targets.ndim) or len(inputs) != len(targets):
            raise ValueError(
                f"y must be one target an input; got shape {tuple(targets.shape)} for "
                f"inputs of shape {tuple(inputs.shape)}"
            )
        if not bool(inputs.isfinite().all()):
            raise ValueError("x must be finite; got NaN or infinity")
        if len(inputs):
            empty = False
            yield from zip(inputs.split(size), targets.split(size), strict=True)
    if empty:
        raise ValueError("x must hold at least one input; got none")


def at_once(model: nn.Module, chunk: int | None = None, cpu: int = 250) -> int:
    """Return how many inputs to ask a network at a time: what suits its device.

    Few stay in a CPU's caches; few leave a GPU idle between its kernels: 10,000 of a
    network with at most a million weights, fewer of a larger one.

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
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient")
    return parameters


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


def check_network(model: nn.Module, pairs: Batches, loss: Loss = None) -> None:
    """Raise unless a network, in inference mode, has outputs with a usable loss.

    Raises:
        NonFiniteError: Weights or outputs that are NaN or infinite, or logits so large
            that their differences are lost to rounding.
        ValueError: Outputs that are no tensor, or, for the cross-entropy, outputs or
            labels that it does not take.

    >>> broken = nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = broken.weight.fill_(torch.nan)
    >>> try:
    ...     check_network(broken, [(torch.rand(1, 2), torch.tensor([0]))])
    ... except NonFiniteError as error:
    ...     print(error)
    model must have finite weights; got NaN or infinity
    """
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise NonFiniteError("model must have finite weights; got NaN or infinity")
    with inference(model), torch.no_grad():
        for x, y in pairs:
            outputs = model(x.to(next(model.parameters(), x).device))
            if not isinstance(outputs, Tensor):
                kind = type(outputs).__name__
                raise ValueError(f"model must return a tensor; got {kind}")
            if loss is None:
                _check_cross_entropy(outputs, y)
            elif not bool(outputs.isfinite().all()):
                raise NonFiniteError("model must return finite outputs; got NaN or inf")


def _check_cross_entropy(logits: Tensor, y: Tensor) -> None:
    if y.ndim != 1 or y.dtype != torch.int64:
        raise ValueError(
            f"y must be int64 labels, shape ({len(y)},); got {y.dtype}, shape "
            f"{tuple(y.shape)}"
        )
    check_logits(logits, y)
    largest = float(logits.abs().max())
    most = max(_LARGEST_LOGIT, 1 / torch.finfo(logits.dtype).eps)
    if largest > most:
        raise NonFiniteError(
            f"model must return logits of at most {most:g}; got {largest:g}"
        )
