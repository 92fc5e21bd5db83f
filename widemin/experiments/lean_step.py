"""Small convolutional networks trained by a step as lean as it can be.

One family is covered, M1 of Kamath et al. with its pools: convolution, pool, ReLU,
convolution, pool, ReLU, two fully connected layers. Its gradient is written down by
hand, so that nothing is recorded; it is autograd's, up to rounding. Other networks take
the ordinary loop of `training`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import Loss
from widemin.models import is_plain
from widemin.training import SGD, Optimizer

_LAYERS = [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * 2
_LAYERS += [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
_OPTIONS: dict[type[nn.Module], dict[str, object]] = {
    nn.Conv2d: {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    nn.MaxPool2d: dict(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False),
}

# PyTorch's own kernels, called without autograd.
_TWO, _ONE, _ZERO = [2, 2], [1, 1], [0, 0]
_convolution_backward = torch.ops.aten.convolution_backward.default
_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
relu_backward = torch.ops.aten.threshold_backward.default


def pool(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of each two by two pixels, and where they stood."""
    return torch.ops.aten.max_pool2d_with_indices.default(z, _TWO, _TWO)


def unpool(d: Tensor, z: Tensor, index: Tensor) -> Tensor:
    """Return the gradient before a pool, of that behind it."""
    return _pool_backward(d, z, _TWO, _TWO, _ZERO, _ONE, False, index)


def covers(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return True where `step` computes what `training.train_step` would.

    >>> from widemin.models import build
    >>> def descends(name):
    ...     model = build(name, torch.Generator().manual_seed(0))
    ...     return covers(model, SGD(model.parameters(), 0.1))
    >>> descends("m1"), descends("m1-unpooled")
    (True, False)
    """
    if type(model) is not nn.Sequential or not isinstance(optimizer, SGD):
        return False
    weights = list(model.parameters())
    return (
        [type(layer) for layer in model] == _LAYERS
        and len(weights) == 8  # no bias is missing
        and all(is_plain(layer) for layer in (model, *model))
        and all(p.requires_grad and not p._backward_hooks for p in weights)
        and [id(p) for p in weights] == [id(p) for p in optimizer.parameters]
        and all(
            getattr(layer, name) == value
            for layer in model
            for name, value in _OPTIONS.get(type(layer), {}).items()
        )
    )


@torch.no_grad()
def step(
    model: nn.Module,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    loss: Loss | None = None,
) -> Tensor:
    """Take one step of SGD, as `training.train_step`; return the loss before it.

    The weights reached differ by rounding alone; no gradient is left in the parameters.

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
    weights = optimizer.parameters
    # oneDNN's own overhead exceeds the work of a few images. This is what
    # torch.backends.mkldnn.flags sets, but for a warning on TF32.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(before and len(x) > 3)
    try:
        mean, inner, outer = _gradients(weights, x, y, loss)
    finally:
        torch._C._set_mkldnn_enabled(before)
    if optimizer.momentum or optimizer.weight_decay:
        full = [(d.t() @ a, d.sum(0)) for d, a in outer]
        optimizer.descend([*inner, *itertools.chain(*full)])
        return mean
    # Without a velocity the largest gradients need not be written down at all.
    rate = optimizer.param_groups[0]["lr"]
    torch._foreach_add_(weights[:4], inner, alpha=-rate)
    for (d, a), w, b in zip(outer, weights[4::2], weights[5::2], strict=True):
        w.addmm_(d.t(), a, alpha=-rate)
        b.add_(d.sum(0), alpha=-rate)
    return mean


def _gradients(
    weights: Sequence[Tensor], x: Tensor, y: Tensor, own: Loss | None = None
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return the mean loss and its gradients in the parameters of one network.

    Those of a full layer are d^T a and the column sums of d, for the pair (d, a): the
    gradient in its outputs and its inputs.
    """
    k1, b1, k2, b2, w3, b3, w4, b4 = weights
    z1 = F.conv2d(x, k1, b1)
    p1, i1 = pool(z1)
    a1 = p1.relu_()
    z2 = F.conv2d(a1, k2, b2)
    p2, i2 = pool(z2)
    a2 = p2.relu_()
    a3 = torch.addmm(b3, a2.flatten(1), w3.t()).relu_()
    z4 = torch.addmm(b4, a3, w4.t())
    if own is None:
        log = z4.log_softmax(-1)
        picked = log.gather(-1, y[..., None])
        d4 = log.exp().scatter_add_(-1, y[..., None], -torch.ones_like(picked)) / len(y)
        loss = -picked.mean((-2, -1))
    else:
        with torch.enable_grad():
            loss = own(z4.requires_grad_(), y).mean()
            (d4,) = torch.autograd.grad(loss, z4)
        loss = loss.detach()
    d3 = relu_backward(d4 @ w4, a3, 0)
    d2 = relu_backward((d3 @ w3).view(a2.shape), a2, 0)

    common = _ONE, _ZERO, _ONE, False, _ZERO, 1  # stride, padding, dilation, ...
    d = unpool(d2, z2, i2), a1, k2, [len(k2)]
    d1, gk2, gb2 = _convolution_backward(*d, *common, [True, True, True])
    d = unpool(relu_backward(d1, a1, 0), z1, i1), x, k1, [len(k1)]
    _, gk1, gb1 = _convolution_backward(*d, *common, [False, True, True])
    return loss, [gk1, gb1, gk2, gb2], [(d3, a2.flatten(1)), (d4, a3)]
