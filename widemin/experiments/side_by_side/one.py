"""A step of one network without autograd."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.experiments.side_by_side.kernels import (
    ONE,
    TWO,
    ZERO,
    convolution_backward,
    mean_loss,
    pool,
    pool_backward,
    relu_backward,
)
from widemin.models import is_plain
from widemin.training import SGD, Optimizer

_LAYERS = [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * 2
_LAYERS += [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]


def covers(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether `step` computes what `training.train_step` would.

    >>> from widemin.models import build
    >>> def descends(name):
    ...     model = build(name, torch.Generator().manual_seed(0))
    ...     return covers(model, SGD(model.parameters(), 0.1))
    >>> descends("m1"), descends("m1-unpooled")
    (True, False)
    """
    if type(model) is not nn.Sequential or not isinstance(optimizer, SGD):
        return False
    if [type(layer) for layer in model] != _LAYERS:
        return False
    weights = list(model.parameters())
    moved = [id(weight) for weight in optimizer.parameters]
    return (
        all(_is_plain(layer) for layer in (model, *model))
        and all(p.requires_grad and not p._backward_hooks for p in weights)
        and [id(weight) for weight in weights] == moved
    )


def _is_plain(layer: nn.Module) -> bool:
    """Return whether a layer of the family does what this module writes down."""
    if not is_plain(layer):
        return False
    if isinstance(layer, nn.Conv2d):
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return options == ((1, 1), (0, 0), (1, 1), 1) and layer.bias is not None
    if isinstance(layer, nn.MaxPool2d):
        bare = (layer.padding, layer.dilation, layer.ceil_mode) == (0, 1, False)
        return bare and layer.kernel_size == layer.stride == 2
    return not isinstance(layer, nn.Linear) or layer.bias is not None


@torch.no_grad()
def step(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """Take one step of SGD; return the loss before it, shape ().

    Arguments as of `training.train_step`. The weights reached differ from those of
    that step by rounding alone.

    >>> from widemin.models import build
    >>> model = build("m1", torch.Generator().manual_seed(0))
    >>> x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    >>> optimizer = SGD(model.parameters(), 0.1)
    >>> losses = [step(model, optimizer, x, y).item() for _ in range(20)]
    >>> losses[-1] < losses[0]
    True
    """
    if not isinstance(optimizer, SGD):
        raise ValueError(f"optimizer must be a training.SGD; got {optimizer}")
    with _few_images() if len(x) <= 3 else nullcontext():
        loss, inner, outer = _gradients(optimizer.parameters, x, y)
    if optimizer.momentum or optimizer.weight_decay:
        full = [(d.t() @ a, d.sum(0)) for d, a in outer]
        optimizer.descend([*inner, *itertools.chain(*full)])
        return loss
    # Without a velocity the largest gradients need not be written down at all.
    rate = optimizer.param_groups[0]["lr"]
    torch._foreach_add_(optimizer.parameters[:4], inner, alpha=-rate)
    for (d, a), (w, b) in zip(
        outer, (optimizer.parameters[4:6], optimizer.parameters[6:]), strict=True
    ):
        w.addmm_(d.t(), a, alpha=-rate)
        b.add_(d.sum(0), alpha=-rate)
    return loss


@contextmanager
def _few_images() -> Iterator[None]:
    """Leave oneDNN aside: its own overhead exceeds the work of a few images."""
    before = torch._C._get_mkldnn_enabled()
    # What torch.backends.mkldnn.flags sets, but for a warning on TF32.
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _gradients(
    weights: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return the mean loss and its gradients in the parameters of one network.

    Those of a full layer are d^T a and the column sums of d, for the pair (d, a): the
    gradient in its outputs and its inputs.
    """
    k1, b1, k2, b2, w3, b3, w4, b4 = weights
    z1 = F.conv2d(x, k1, b1)
    p1, i1 = pool(z1, TWO, TWO)
    a1 = p1.relu_()
    z2 = F.conv2d(a1, k2, b2)
    p2, i2 = pool(z2, TWO, TWO)
    a2 = p2.relu_()
    a3 = torch.addmm(b3, a2.flatten(1), w3.t()).relu_()
    loss, d4 = mean_loss(torch.addmm(b4, a3, w4.t()), y)
    d3 = relu_backward(d4 @ w4, a3, 0)
    d2 = relu_backward((d3 @ w3).view(a2.shape), a2, 0)

    def through(
        d: Tensor, z: Tensor, index: Tensor, a: Tensor, k: Tensor, deeper: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        d = pool_backward(d, z, TWO, TWO, ZERO, ONE, False, index)
        common = (ONE, ZERO, ONE, False, ZERO, 1)  # stride, padding, dilation, ...
        asked = [deeper, True, True]
        return convolution_backward(d, a, k, [len(k)], *common, asked)

    d1, gk2, gb2 = through(d2, z2, i2, a1, k2, True)
    _, gk1, gb1 = through(relu_backward(d1, a1, 0), z1, i1, x, k1, False)
    return loss, [gk1, gb1, gk2, gb2], [(d3, a2.flatten(1)), (d4, a3)]
