"""ResNets: PreActResNet, ResNet with the CIFAR stem, WideResNet; in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.models.small import Shape


class PreActBlock(nn.Module):
    """BN, ReLU, conv, BN, ReLU, conv, plus the input (He et al. 2016b, fig. 4e)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Use a 1x1 shortcut, fed by the activated input, where the shape changes."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, shape (batch, outputs, height / stride, width / stride)."""
        active = F.relu(self.bn1(x), inplace=True)
        skip = x if self.shortcut is None else self.shortcut(active)
        inner = F.relu(self.bn2(self.conv1(active)), inplace=True)
        return self.conv2(inner) + skip


class Block(nn.Module):
    """Conv, BN, ReLU, conv, BN, plus the input, ReLU (He et al. 2016a, fig. 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Use a 1x1 shortcut with BN where the shape changes."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return features, shape (batch, outputs, height / stride, width / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x), inplace=True)


class InBfloat16(nn.Sequential):
    """Layers that training passes through in bfloat16, inference in float32.

    Weights, their gradients and the logits are float32 always, and so is all that is
    done in inference mode: bfloat16 flips the sign of small gradients.

    >>> network, x = InBfloat16(nn.Linear(1, 1, bias=False)), torch.ones(1, 1)
    >>> _ = nn.init.constant_(network[0].weight, 1.001)
    >>> network(x).item() == 1, network.eval()(x).item() == 1
    (True, False)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images, shape (batch, classes)."""
        # Entered anew by every pass: what is cast once is kept until it is left, and
        # SAM's second pass would meet the weights of the first.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training):
            return super().forward(x).to(x.dtype)


def _stages(
    block: type[Block | PreActBlock], inputs: int, widths: tuple[int, ...], blocks: int
) -> list[Block | PreActBlock]:
    """Return the blocks of all stages; every stage after the first halves the image."""
    outputs = [width for width in widths for _ in range(blocks)]
    strides = [1] * blocks + [2, *[1] * (blocks - 1)] * (len(widths) - 1)
    sizes = zip([inputs, *outputs[:-1]], outputs, strides, strict=True)
    return [block(*size) for size in sizes]


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def preactresnet(
    shape: Shape, classes: int, width: int = 64, blocks: int = 2, stem_stride: int = 1
) -> nn.Sequential:
    """Return a PreActResNet; the defaults are PreActResNet-18 as Wei et al. use it.

    A 3x3 stem without BN, stages of width, 2, 4 and 8 times width, a final BN and ReLU.
    """
    widths = (width, 2 * width, 4 * width, 8 * width)
    stem = nn.Conv2d(shape[0], width, 3, stem_stride, 1, bias=False)
    last = [nn.BatchNorm2d(widths[-1]), nn.ReLU(), *_head(widths[-1], classes)]
    return nn.Sequential(stem, *_stages(PreActBlock, width, widths, blocks), *last)


def resnet(
    shape: Shape, classes: int, width: int = 64, blocks: int = 2
) -> nn.Sequential:
    """Return a ResNet with the CIFAR stem; the defaults are ResNet-18 (Kamath)."""
    widths = (width, 2 * width, 4 * width, 8 * width)
    stem = [nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
    body = _stages(Block, width, widths, blocks)
    return nn.Sequential(*stem, nn.ReLU(), *body, *_head(widths[-1], classes))


def wideresnet(
    shape: Shape, classes: int, width: int = 160, blocks: int = 5
) -> nn.Sequential:
    """Return a WideResNet; the defaults are WRN-32-10 as in Wang et al., table 3."""
    widths = (width, 2 * width, 4 * width)
    stem = nn.Conv2d(shape[0], 16, 3, 1, 1, bias=False)
    last = [nn.BatchNorm2d(widths[-1]), nn.ReLU(), *_head(widths[-1], classes)]
    return nn.Sequential(stem, *_stages(PreActBlock, 16, widths, blocks), *last)
