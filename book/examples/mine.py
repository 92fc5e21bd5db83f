"""A network, a data set and an attack of your own, for a chapter to run with.

build(shape, classes)  a module from images, shape (n, *shape), to logits (n, classes)
load(part)             images in [0, 1] or bytes, shape (n, channels, height, width),
                       and labels 0, 1, ... of "train" or "test"
attack(model, x, y, ball, generator)  images in the ball around x, in [0, 1]
"""

import torch
from torch import nn


def build(shape, classes):
    """One hidden layer."""
    pixels = torch.Size(shape).numel()
    layers = nn.Flatten(), nn.Linear(pixels, 64), nn.Tanh(), nn.Linear(64, classes)
    return nn.Sequential(*layers)


def load(part):
    """Grey noise in which one of four quarters is brighter; its number is the label."""
    images, seed = {"train": (1_200, 0), "test": (300, 1)}[part]
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(images) % 4
    light = nn.functional.one_hot(y, 4).float().view(-1, 1, 2, 2)
    light = nn.functional.interpolate(light, scale_factor=4)
    x = 0.2 + 0.3 * torch.rand(images, 1, 8, 8, generator=draw) + 0.3 * light
    return x, y


def attack(model, x, y, ball, generator):
    """The best of twenty random corners of the ball: weak, and blind to gradients."""
    best, loss = x, nn.functional.cross_entropy(model(x), y, reduction="none")
    for _ in range(20):
        corner = ball.epsilon * (torch.rand(x.shape, generator=generator) - 0.5).sign()
        moved = (x + corner.to(x)).clamp(0, 1)
        now = nn.functional.cross_entropy(model(moved), y, reduction="none")
        best = torch.where((now > loss)[:, None, None, None], moved, best)
        loss = torch.maximum(now, loss)
    return best
