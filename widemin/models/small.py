"""Small networks: the papers' on MNIST, C1 and the 8-layer CNN, a perceptron."""

from __future__ import annotations

import torch
from torch import nn

from widemin.names import check

Shape = tuple[int, int, int]  # channels, height, width


def _classifier(features: list[nn.Module], shape: Shape, *widths: int) -> nn.Sequential:
    """Append fully connected layers, with ReLU between them, to convolutions."""
    with torch.no_grad():
        inputs = nn.Sequential(*features).eval()(torch.zeros(1, *shape)).numel()
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*features, *layers, nn.Linear(inputs, widths[-1]))


def _check_size(name: str, shape: Shape) -> None:
    large = min(shape[1:]) >= 16
    check(large, f"model {name!r} needs images of at least 16 x 16 pixels", shape[1:])


def linear(shape: Shape, classes: int) -> nn.Sequential:
    """Return a linear model: one fully connected layer."""
    return _classifier([], shape, classes)


def mlp(shape: Shape, classes: int, width: int = 64) -> nn.Sequential:
    """Return a perceptron with two hidden ReLU layers."""
    return _classifier([], shape, width, width, classes)


def m1(shape: Shape, classes: int, pool: bool = True) -> nn.Sequential:
    """Return M1: conv 5x5x20, conv 5x5x20, FC 500, FC classes (Kamath et al.).

    The paper names no pooling; with a 2x2 pool after each convolution (our choice,
    a small LeNet) it has 176,050 weights on MNIST, without 4,016,050.
    """
    _check_size("m1", shape)
    # Pooling before ReLU is the same function at a quarter of the work.
    layers: list[nn.Module] = []
    for inputs in (shape[0], 20):
        layers += [nn.Conv2d(inputs, 20, 5), *[nn.MaxPool2d(2)] * pool, nn.ReLU()]
    return _classifier(layers, shape, 500, classes)


def stdcnn(shape: Shape, classes: int) -> nn.Sequential:
    """Return StdCNN: two unpadded 3x3 pairs of 10 and 20, FC 50, dropout (Kamath)."""
    _check_size("stdcnn", shape)
    layers: list[nn.Module] = []
    for inputs, width in ((shape[0], 10), (10, 20)):
        layers += [nn.Conv2d(inputs, width, 3), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3), nn.MaxPool2d(2), nn.ReLU()]
    network = _classifier(layers, shape, 50, classes)
    network.insert(len(network) - 1, nn.Dropout(0.5))
    return network


def c1(shape: Shape, classes: int) -> nn.Sequential:
    """Return C1: conv 5x5x64, pool, BN, twice; FC 384, FC 192 (Kamath et al.)."""
    layers: list[nn.Module] = []
    for inputs in (shape[0], 64):
        layers += [nn.Conv2d(inputs, 64, 5, padding=2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, stride=2, padding=1), nn.BatchNorm2d(64)]
    return _classifier(layers, shape, 384, 192, classes)


def cnn4(shape: Shape, classes: int) -> nn.Sequential:
    """Return the 4-layer CNN of Wang et al. for MNIST: 421,834 weights."""
    layers: list[nn.Module] = []
    for inputs, width in ((shape[0], 32), (32, 64)):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)]
        layers += [nn.MaxPool2d(2), nn.ReLU()]
    return _classifier(layers, shape, 128, classes)


def cnn8(shape: Shape, classes: int) -> nn.Sequential:
    """Return the 8-layer CNN of Wang et al. for CIFAR-10: 1,639,794 weights."""
    layers: list[nn.Module] = []
    for inputs, width in ((shape[0], 64), (64, 128), (128, 196)):
        for channels in (inputs, width):
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    network = _classifier(layers, shape, 256, classes)
    network.insert(len(network) - 2, nn.BatchNorm1d(256))
    return network
