"""A network fused for attacks: the same function, quicker at its input gradient."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.fusion import fuse_conv_bn_weights

from widemin.models.residual import Block, InBfloat16, PreActBlock

# Of a block, convolutions and the norms that follow them.
_PAIRS = {
    PreActBlock: [("conv1", "bn2")],
    Block: [("conv1", "bn1"), ("conv2", "bn2")],
}


def fuse(model: nn.Module) -> nn.Module:
    """Return a network's function in inference mode, quicker at the input gradient.

    Batch norm is folded into the convolution before it, and a convolution over a
    single channel takes its input gradient as a matrix product; their weights are
    constants, as they are now. Outputs and gradients differ by rounding alone.

    Only layers of exactly torch's own types, and this package's blocks, are replaced:
    none that is subclassed, parametrised, hooked or without running statistics. The
    model stays as it is; where nothing is replaced it is returned.

    >>> from widemin.models import build
    >>> network = build("cnn4", torch.Generator().manual_seed(0)).eval()
    >>> x = torch.rand(2, 1, 28, 28)
    >>> bool(torch.allclose(fuse(network)(x), network(x), atol=1e-5))
    True
    """
    # Weights made in inference mode could not be differentiated through.
    with torch.inference_mode(False), torch.no_grad():
        return _fused(model)


def _fused(model: nn.Module) -> nn.Module:
    if not is_plain(model):
        return model
    if type(model) is nn.Conv2d:
        one = _OneChannel.covers(model)
        return _fixed(model, _OneChannel, model.weight, model.bias) if one else model
    layers = dict(model._modules)
    if type(model) in (nn.Sequential, InBfloat16):
        pairs = list(itertools.pairwise(layers))
    else:
        pairs = _PAIRS.get(type(model), [])
    for name, after in pairs:
        if _folds(layers[name], layers[after]):
            layers[name] = _fold(layers[name], layers[after])
            layers[after] = nn.Identity()
    layers = {name: layer and _fused(layer) for name, layer in layers.items()}
    if all(layer is model._modules[name] for name, layer in layers.items()):
        return model
    fast = copy.copy(model)
    fast._modules = layers
    return fast


def is_plain(layer: nn.Module) -> bool:
    """Return True for a layer that runs its type's forward pass and nothing else.

    >>> layer = nn.ReLU()
    >>> _ = layer.register_forward_hook(lambda *_: None)
    >>> is_plain(nn.ReLU()), is_plain(layer)
    (True, False)
    """
    hooks = [layer._forward_hooks, layer._forward_pre_hooks]
    hooks += [layer._backward_hooks, layer._backward_pre_hooks]
    own = any(hooks) or "forward" in vars(layer)
    return not own and not _has_any_global_hook()


def _folds(layer: Any, norm: Any) -> bool:
    """Return True where a norm can be folded into the convolution before it."""
    known = (type(layer), type(norm)) == (nn.Conv2d, nn.BatchNorm2d)
    plain = known and is_plain(layer) and is_plain(norm)
    return plain and getattr(norm.running_mean, "dtype", None) == layer.weight.dtype


def _fold(layer: Any, norm: Any) -> nn.Module:
    """Return a convolution that does its own work and then the norm's."""
    statistics = (norm.running_mean, norm.running_var, norm.eps)
    weights = (layer.weight, layer.bias, *statistics, norm.weight, norm.bias)
    return _fixed(layer, nn.Conv2d, *fuse_conv_bn_weights(*weights))


def _fixed(layer: Any, kind: type, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Return a convolution with other weights, of which no gradient is asked."""
    fixed = copy.copy(layer)
    fixed.__class__ = kind
    fixed._parameters = {
        name: tensor if tensor is None else nn.Parameter(tensor.detach(), False)
        for name, tensor in (("weight", weight), ("bias", bias))
    }
    return fixed


class _OneChannel(nn.Conv2d):
    """A convolution over a single channel, its weights held fixed."""

    @staticmethod
    def covers(layer: nn.Conv2d) -> bool:
        options = (layer.in_channels, layer.groups, layer.stride, layer.dilation)
        zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return zeros and options == (1, 1, (1, 1), (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # Elsewhere the libraries' own gradient is as quick.
        slow = x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4
        slow = slow and not torch.is_autocast_enabled("cpu")
        convolve = _ByProduct.apply if slow else F.conv2d
        out: Tensor = convolve(x, self.weight, self.bias, 1, self.padding)
        return out


class _ByProduct(torch.autograd.Function):
    """A convolution over one channel whose gradient in x is a product and shifts.

    oneDNN takes four times as long for it: its kernels spread over input channels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Any, *options: Any) -> Tensor:
        return F.conv2d(x, weight, bias, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, _, ctx.padding = inputs
        ctx.save_for_backward(weight)
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        (images, _, height, width), (up, left) = ctx.shape, ctx.padding
        channels, _, *kernel = weight.shape
        side = d.shape[2:]
        # What each weight of the kernel hands back to the pixel under it.
        parts = weight.reshape(channels, -1).t() @ d.flatten(2)
        parts = parts.view(images, *kernel, *side)
        padded = d.new_zeros(images, height + 2 * up, width + 2 * left)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                padded[:, i : i + side[0], j : j + side[1]] += parts[:, i, j]
        inner = padded[:, up : up + height, left : left + width]
        return inner.unsqueeze(1), None, None, None, None
