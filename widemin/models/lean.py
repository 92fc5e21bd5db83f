"""A network as an attack asks it: the same function, quicker at its input gradient."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from widemin.models.residual import Block, PreActBlock
from widemin.models.wrappers import InBfloat16


def lean(model: nn.Module) -> nn.Module:
    """Return the same function, quicker at the gradient in its input.

    Batch norm is folded into the convolution before it, and a convolution over a
    single channel takes its input gradient as a matrix product. An attack asks for
    that gradient many times, and of the weights for none: here they are constants.
    Layers that stay as they are are shared with the model. Outputs and gradients
    differ by rounding alone.

    Args:
        model: In inference mode.

    >>> from widemin.models import build
    >>> network = build("cnn4", torch.Generator().manual_seed(0)).eval()
    >>> x = torch.rand(2, 1, 28, 28)
    >>> bool(torch.allclose(lean(network)(x), network(x), atol=1e-5))
    True
    """
    if _is_heard(model):
        return model
    if type(model) in (nn.Sequential, InBfloat16):
        assert isinstance(model, nn.Sequential)
        layers = [lean(layer) for layer in model]
        for i, (layer, after) in enumerate(itertools.pairwise(model)):
            if _is_heard(layer) or _is_heard(after):
                continue
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                layers[i], layers[i + 1] = lean(_fold(layer, after)), nn.Identity()
        changed = any(new is not old for new, old in zip(layers, model, strict=True))
        return nn.Sequential(*layers) if changed else model
    if isinstance(model, PreActBlock | Block):
        block = copy.copy(model)
        block._modules = dict(model._modules)  # the layers themselves are shared
        if isinstance(block, PreActBlock):  # its first norm follows no convolution
            block.conv1, block.bn2 = _fold(block.conv1, block.bn2), nn.Identity()
        else:
            block.conv1, block.bn1 = _fold(block.conv1, block.bn1), nn.Identity()
            block.conv2, block.bn2 = _fold(block.conv2, block.bn2), nn.Identity()
            block.shortcut = lean(block.shortcut)
        return block
    if type(model) is nn.Conv2d and _is_over_one_channel(model):
        return _OneChannel(model)
    return model


def _fold(convolution: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm).requires_grad_(False)


def _is_heard(layer: nn.Module) -> bool:
    """Return whether somebody listens to a layer, who would not hear another one."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _is_over_one_channel(layer: nn.Conv2d) -> bool:
    """Return whether `_OneChannel` computes what a convolution does."""
    options = (layer.in_channels, layer.groups, layer.stride, layer.dilation)
    zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return zeros and options == (1, 1, (1, 1), (1, 1))


class _OneChannel(nn.Module):
    """A convolution over a single channel, its weights held fixed."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight.detach()
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        self.padding = convolution.padding

    def forward(self, x: Tensor) -> Tensor:
        # Elsewhere the libraries' own gradient is as quick.
        slow = x.device.type == "cpu" and x.dtype == torch.float32
        convolve = _ByProduct.apply if slow else F.conv2d
        out: Tensor = convolve(x, self.weight, self.bias, 1, self.padding)
        return out


class _ByProduct(torch.autograd.Function):
    """A convolution over one channel whose gradient in x is a product and shifts.

    oneDNN takes four times as long for it: its kernels spread over input channels.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.padding = x.shape, options[-1]
        return F.conv2d(x, weight, bias, *options)

    @staticmethod
    @once_differentiable
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
