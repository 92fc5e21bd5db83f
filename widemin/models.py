"""The papers' networks, by name; each maps pixels in [0, 1] to logits.

Normalisation is the first layer where the paper normalises, so that an attack's
epsilon is always in pixels. Sizes are those of the papers unless a width is given.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from widemin.choices import check_choice

Shape = tuple[int, int, int]  # channels, height, width
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # means, standard deviations


class Normalise(nn.Module):
    """Subtract each channel's mean and divide by its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        """Keep means and standard deviations as constants that move with the model."""
        super().__init__()
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images, shape of x."""
        return (x - self.mean) / self.std


class InBfloat16(nn.Sequential):
    """Layers that training passes through in bfloat16, inference in float32.

    Weights, their gradients and the logits are float32 always. Attacks and
    measurements, made in inference mode, are those of the float32 network: bfloat16
    flips the sign of small gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images, shape (batch, classes)."""
        # Entered anew by every pass: what is cast once is kept until it is left, and
        # SAM's second pass would meet the weights of the first.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training):
            return super().forward(x).to(x.dtype)


def _classifier(features: nn.Sequential, shape: Shape, *widths: int) -> nn.Sequential:
    """Append fully connected layers, with ReLU between them, to convolutions."""
    with torch.no_grad():
        inputs = features(torch.zeros(1, *shape)).numel()
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*features, *layers, nn.Linear(inputs, widths[-1]))


def linear(shape: Shape, classes: int) -> nn.Sequential:
    """Return a linear model: one fully connected layer."""
    return _classifier(nn.Sequential(), shape, classes)


def mlp(shape: Shape, classes: int, width: int = 64) -> nn.Sequential:
    """Return a perceptron with two hidden ReLU layers."""
    return _classifier(nn.Sequential(), shape, width, width, classes)


def m1(shape: Shape, classes: int, pool: bool = True) -> nn.Sequential:
    """Return M1: conv 5x5x20, conv 5x5x20, FC 500, FC classes (Kamath et al.).

    The paper names no pooling; with a 2x2 pool after each convolution (our choice,
    a small LeNet) it has 176,050 weights on MNIST, without 4,016,050.
    """
    if min(shape[1:]) < 16:
        raise ValueError(
            f"model 'm1' needs images of at least 16 x 16 pixels; got {shape[1:]}"
        )
    # Pooling before ReLU is the same function at a quarter of the work.
    down: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    features = nn.Sequential(
        nn.Conv2d(shape[0], 20, 5),
        *down,
        nn.ReLU(),
        nn.Conv2d(20, 20, 5),
        *down,
        nn.ReLU(),
    )
    return _classifier(features, shape, 500, classes)


def stdcnn(shape: Shape, classes: int) -> nn.Sequential:
    """Return StdCNN: two unpadded 3x3 pairs of 10 and 20, FC 50, dropout (Kamath)."""
    if min(shape[1:]) < 16:
        raise ValueError(
            f"model 'stdcnn' needs images of at least 16 x 16 pixels; got {shape[1:]}"
        )
    layers: list[nn.Module] = []
    channels = shape[0]
    for width in (10, 20):
        layers += [nn.Conv2d(channels, width, 3), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3), nn.MaxPool2d(2), nn.ReLU()]
        channels = width
    network = _classifier(nn.Sequential(*layers), shape, 50, classes)
    network.insert(len(network) - 1, nn.Dropout(0.5))
    return network


def c1(shape: Shape, classes: int) -> nn.Sequential:
    """Return C1: conv 5x5x64, pool, BN, twice; FC 384, FC 192 (Kamath et al.)."""
    layers: list[nn.Module] = []
    for channels in (shape[0], 64):
        layers += [nn.Conv2d(channels, 64, 5, padding=2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, stride=2, padding=1), nn.BatchNorm2d(64)]
    return _classifier(nn.Sequential(*layers).eval(), shape, 384, 192, classes)


def cnn4(shape: Shape, classes: int) -> nn.Sequential:
    """Return the 4-layer CNN of Wang et al. for MNIST: 421,834 weights."""
    layers: list[nn.Module] = []
    channels = shape[0]
    for width in (32, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
        layers += [nn.MaxPool2d(2), nn.ReLU()]
        channels = width
    return _classifier(nn.Sequential(*layers).eval(), shape, 128, classes)


def cnn8(shape: Shape, classes: int) -> nn.Sequential:
    """Return the 8-layer CNN of Wang et al. for CIFAR-10: 1,639,794 weights."""
    layers: list[nn.Module] = []
    channels = shape[0]
    for width in (64, 128, 196):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers += [nn.MaxPool2d(2)]
    network = _classifier(nn.Sequential(*layers).eval(), shape, 256, classes)
    network.insert(len(network) - 2, nn.BatchNorm1d(256))
    return network


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


def _stages(
    block: Callable[[int, int, int], nn.Module],
    inputs: int,
    widths: tuple[int, ...],
    blocks: int,
) -> list[nn.Module]:
    """Return the blocks of all stages; every stage after the first halves the image."""
    layers = []
    for stage, width in enumerate(widths):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(block(inputs, width, stride))
            inputs = width
    return layers


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def preactresnet(
    shape: Shape,
    classes: int,
    width: int = 64,
    blocks: int = 2,
    stem_stride: int = 1,
) -> nn.Sequential:
    """Return a PreActResNet: width, 2, 4 and 8 times width, blocks a stage.

    The defaults are PreActResNet-18 as Wei et al. use it: a 3x3 stem without BN, a
    final BN and ReLU, 11,172,170 weights for 10 classes.
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


# The names a table may use. A laboratory's ResNets have one block a stage and, since
# that cuts the cost several times, a stem of stride 2.
def _in_bfloat16(
    builder: Callable[..., nn.Sequential], shape: Shape, classes: int, **options: int
) -> nn.Sequential:
    return InBfloat16(*builder(shape, classes, **options))


BUILDERS: dict[str, Callable[..., nn.Sequential]] = {
    "linear": linear,
    "mlp": mlp,
    "m1": m1,
    "m1-unpooled": partial(m1, pool=False),
    "stdcnn": stdcnn,
    "c1": c1,
    "cnn4": cnn4,
    "cnn8": cnn8,
    "preactresnet18": preactresnet,
    "preactresnet18-bf16": partial(_in_bfloat16, preactresnet),
    "preactresnet10": partial(preactresnet, blocks=1),
    "preactresnet10-stride2": partial(preactresnet, blocks=1, stem_stride=2),
    "resnet18": resnet,
    "resnet10": partial(resnet, blocks=1),
    "wideresnet": wideresnet,
}
# Those that accept a width of their own.
WIDTHS = frozenset(name for name in BUILDERS if "resnet" in name or name == "mlp")


def build(
    name: str,
    generator: torch.Generator,
    *,
    shape: Shape = (1, 28, 28),
    classes: int = 10,
    width: int | None = None,
    statistics: Statistics | None = None,
) -> nn.Sequential:
    """Return a freshly initialised network in training mode.

    Args:
        name: One of BUILDERS.
        generator: Its next draw seeds the weights.
        shape: Channels, height and width of an image.
        classes: Number of logits.
        width: Channels of the first stage (ResNets) or of the hidden layers (mlp);
            the paper's by default.
        statistics: Means and standard deviations of the channels; given, the first
            layer normalises.

    Raises:
        ValueError: Unknown name, a width for a network that takes none, or images too
            small for the network.

    >>> network = build("m1", torch.Generator().manual_seed(0))
    >>> sum(weight.numel() for weight in network.parameters())
    176050
    """
    check_choice("model", name, BUILDERS)
    if width is not None and name not in WIDTHS:
        raise ValueError(f"model {name!r} has a fixed width; got width {width}")
    options = {} if width is None else {"width": width}
    seed = int(torch.randint(2**62, (), generator=generator))
    # torch.nn initialises from the global generator alone; it is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BUILDERS[name](shape, classes, **options)
    if statistics is not None:
        network.insert(0, Normalise(statistics))
    return network.train()


def folded(model: nn.Module) -> nn.Module:
    """Return the same function with batch norm folded into the convolutions before it.

    An attack asks a network for its input gradient many times; a folded one answers up
    to 1.5 times faster. Layers that cannot be folded are shared with the model; a
    model without batch norm is returned as it is. Outputs differ by rounding alone.

    Args:
        model: In inference mode.

    >>> network = build("cnn4", torch.Generator().manual_seed(0)).eval()
    >>> x = torch.rand(2, 1, 28, 28)
    >>> bool(torch.allclose(folded(network)(x), network(x), atol=1e-5))
    True
    """
    if type(model) in (nn.Sequential, InBfloat16):
        assert isinstance(model, nn.Sequential)
        layers = [folded(layer) for layer in model]
        for i, (layer, after) in enumerate(itertools.pairwise(layers)):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                layers[i], layers[i + 1] = _fold(layer, after), nn.Identity()
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
            block.shortcut = folded(block.shortcut)
        return block
    return model


def _fold(convolution: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm).requires_grad_(False)
