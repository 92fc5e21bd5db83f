"""Networks by name, freshly initialised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from widemin.models.residual import preactresnet, resnet, wideresnet
from widemin.models.small import Shape, c1, cnn4, cnn8, linear, m1, mlp, stdcnn
from widemin.models.wrappers import InBfloat16, Normalise, Statistics
from widemin.names import check_choice, imported, in_a_line
from widemin.seeding import seeded


def _in_bfloat16(
    builder: Callable[..., nn.Sequential], shape: Shape, classes: int, **options: int
) -> nn.Sequential:
    return InBfloat16(*builder(shape, classes, **options))


def _own(name: str, shape: Shape, classes: int, **options: int) -> nn.Sequential:
    """Return the network that a user's function builds, tried on two images."""
    builder, _ = imported("model", name)
    try:
        network = builder(shape, classes, **options)
        with torch.no_grad():
            found = tuple(network.eval()(torch.zeros(2, *shape)).shape)
        if found != (2, classes):
            raise TypeError(f"logits of shape {found}")
    except Exception as error:
        raise ValueError(
            f"model {name!r} must return a module that gives two images of shape "
            f"{shape} logits of shape {(2, classes)}; got {in_a_line(error)}"
        ) from error
    return network if isinstance(network, nn.Sequential) else nn.Sequential(network)


# The names a table may use. A laboratory's ResNets have one block a stage and, since
# that cuts the cost several times, a stem of stride 2.
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
        name: One of BUILDERS, or a function of one's own, "mine.nets:build": it takes
            shape and classes (and width, where one is given) and returns a module.
        generator: Its next draw seeds the weights.
        shape: Channels, height and width of an image.
        classes: Number of logits.
        width: Channels of the first stage (ResNets) or of the hidden layers (mlp);
            the paper's by default.
        statistics: Means and standard deviations of the channels; given, the first
            layer normalises.

    Raises:
        ValueError: Unknown name, a width for a network that takes none, images too
            small for the network, or a network of one's own with other logits.

    >>> network = build("m1", torch.Generator().manual_seed(0))
    >>> sum(weight.numel() for weight in network.parameters())
    176050
    """
    own = ":" in name
    if not own:
        check_choice("model", name, BUILDERS)
    if width is not None and name not in WIDTHS and not own:
        raise ValueError(f"model {name!r} has a fixed width; got width {width}")
    options = {} if width is None else {"width": width}
    seed = int(torch.randint(2**62, (), generator=generator))
    with seeded(seed):  # torch.nn initialises from the global generator alone
        builder = partial(_own, name) if own else BUILDERS[name]
        network = builder(shape, classes, **options)
    if statistics is not None:
        network.insert(0, Normalise(statistics))
    return network.train()
