"""The papers' networks, by name; each maps pixels in [0, 1] to logits.

Normalisation is the first layer where the paper normalises, so that an attack's
epsilon is always in pixels. Sizes are those of the papers unless a width is given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from widemin.models import residual, small
from widemin.models.fuse import fuse, is_plain
from widemin.models.residual import InBfloat16
from widemin.models.small import Shape
from widemin.names import check_choice
from widemin.seeding import seeded

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # means, standard deviations


class Normalise(nn.Module):
    """Subtract each channel's mean and divide by its standard deviation.

    >>> Normalise(((0.5,), (0.25,)))(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

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


def _in_bfloat16(
    builder: Callable[..., nn.Sequential], shape: Shape, classes: int, **options: int
) -> nn.Sequential:
    return InBfloat16(*builder(shape, classes, **options))


# The names a table may use. A laboratory's ResNets have one block a stage and, since
# that cuts the cost several times, a stem of stride 2.
BUILDERS: dict[str, Callable[..., nn.Sequential]] = {
    "linear": small.linear,
    "mlp": small.mlp,
    "m1": small.m1,
    "m1-unpooled": partial(small.m1, pool=False),
    "stdcnn": small.stdcnn,
    "c1": small.c1,
    "cnn4": small.cnn4,
    "cnn8": small.cnn8,
    "preactresnet18": residual.preactresnet,
    "preactresnet18-bf16": partial(_in_bfloat16, residual.preactresnet),
    "preactresnet10": partial(residual.preactresnet, blocks=1),
    "preactresnet10-stride2": partial(residual.preactresnet, blocks=1, stem_stride=2),
    "resnet18": residual.resnet,
    "resnet10": partial(residual.resnet, blocks=1),
    "wideresnet": residual.wideresnet,
}
# Those that accept a width of their own.
WIDTHS = {name for name in BUILDERS if "resnet" in name or name == "mlp"}


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
        width: Channels of the first stage (ResNets) or of the hidden layers (mlp).
        statistics: Channels' means and standard deviations; given, the first layer
            normalises.

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
    with seeded(seed):  # torch.nn initialises from the global generator alone
        network = BUILDERS[name](shape, classes, **options)
    if statistics is not None:
        network.insert(0, Normalise(statistics))
    return network.train()
