"""Signs that gradients are masked: questions of Carlini's checklist, measured.

Each sign compares two numbers that must agree, or stand in a known order, for a sound
evaluation (Athalye et al. 2018; Carlini et al. 2019).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from widemin import attacks
from widemin.attacks import Ball, Linf, inference
from widemin.evaluation.accuracy import Attack, margins, robust_mask, share, transfer
from widemin.landscape import logit_scale
from widemin.models import fuse

# float32 cross-entropy loses the true-class gradient beyond 24 ln 2 = 16.64.
MASKED_MARGIN = 16.635532
# A difference in accuracy beyond this and two standard errors of the sample is a sign.
TOLERANCE = 0.05

# Of each sign the two numbers that are compared: the first must not be the larger.
with Path(__file__).with_name("signs.csv").open(encoding="utf-8") as _file:
    _SIGNS = list(csv.DictReader(_file))


@dataclass(frozen=True)
class Sign:
    """One test for masked gradients."""

    name: str  #: what is compared
    value: float  #: the number measured
    against: float  #: the number it is compared with
    masked: bool  #: the two say that gradients are masked


def fgsm_float64(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Return FGSM's images, the gradient taken in float64, in x's precision.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(1, 1, 2, 2), torch.tensor([0])
    >>> fgsm_float64(model, x, y, Linf(0.1)).dtype, model[1].weight.dtype
    (torch.float32, torch.float32)
    """
    with in_float64(model):
        return attacks.fgsm(fuse(model), x.double(), y, ball).to(x)


@contextmanager
def in_float64(model: nn.Module) -> Iterator[None]:
    """Give a network float64 precision for a while; each tensor comes back as it was.

    >>> network = nn.Linear(4, 2)
    >>> with in_float64(network):
    ...     network.weight.dtype
    torch.float64
    >>> network.weight.dtype
    torch.float32
    """
    tensors = [*model.parameters(), *model.buffers()]
    kept = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point()]
    try:
        # In inference mode the weights would come back as tensors without gradients.
        with torch.inference_mode(False), torch.no_grad():
            for tensor, data in kept:
                tensor.data = data.double()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def random_signs(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator
) -> Tensor:
    """Return x moved along random signs to the edge of the ball: no gradient at all.

    >>> model, x = nn.Identity(), torch.full((1, 1, 2, 2), 0.5)
    >>> moved = random_signs(model, x, torch.zeros(1), Linf(0.1), torch.Generator())
    >>> round((moved - x).abs().max().item(), 3)
    0.1
    """
    signs = torch.randn(x.shape, generator=generator).to(x).sign()
    return (x + ball.epsilon * ball.steepest(signs)).clamp(0, 1)


def signs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    generator: torch.Generator,
    other: nn.Module | None = None,
    steps: int = 40,
) -> list[Sign]:
    """Return every sign of masked gradients, measured.

    Arguments and errors as of `robust_mask`, and these: `ball` is the set in which
    robustness is claimed; `generator` draws random starts and random signs; `other` is
    another network for the same task, whose adversarial images are tried; PGD takes
    `steps` of 2.5 radii over their number.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(50, 1, 2, 2), torch.zeros(50, dtype=torch.int64)
    >>> measured = signs(model, x, y, Linf(0.1), generator=torch.Generator(), steps=3)
    >>> any(sign.masked for sign in measured)  # a small linear model hides nothing
    False
    """
    fgsm = partial(attacks.fgsm, ball=ball)
    ascend = partial(attacks.pgd, steps=steps, until_fooled=True)
    size = 2.5 * ball.epsilon / steps or None
    pgd = partial(ascend, ball=ball, step_size=size, generator=generator)
    # In the whole range of pixels it must fool on every image.
    anywhere = partial(ascend, ball=Linf(1.0), step_size=2.5 / steps)
    ways: dict[str, Attack] = {
        "fgsm": fgsm,
        "fgsm_margin": partial(fgsm, loss=attacks.margin),
        "fgsm_float64": lambda _, x, y: fgsm_float64(model, x, y, ball),
        "pgd": pgd,
        "pgd_margin": partial(pgd, loss=attacks.margin),
        "random": partial(random_signs, ball=ball, generator=generator),
        "unbounded": partial(anywhere, loss=attacks.margin),
    }
    right = robust_mask(model, x, y, ways)
    rate = {name: share(mask) for name, mask in right.items()}
    margin = margins(model, x, y)
    # Predictions stay; only how sure the network is changes.
    with logit_scale(model, 1 / float(margin.abs().median().clamp_min(1e-6))):
        rate["scaled"] = share(robust_mask(model, x, y, {"fgsm": fgsm})["fgsm"])
    rate |= {"still": share(_still(model, x, y)), "sure": share(margin > MASKED_MARGIN)}
    rate |= {"nothing": 0.0, "constant": float(y.bincount().max()) / len(y)}
    if other is not None:
        rate["transfer"] = share(transfer(other, model, x, y, pgd))
    slack, measured = TOLERANCE + 2 * (0.25 / len(x)) ** 0.5, []
    for sign in _SIGNS:
        if sign["against"] in rate:
            number, against = rate[sign["number"]], rate[sign["against"]]
            most = against + (0.01 if sign["against"] == "nothing" else slack)
            measured.append(Sign(sign["sign"], number, against, number > most))
    return measured


def _still(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a mask of images whose cross-entropy gradient is exactly zero."""
    parts = zip(x.split(250), y.split(250), strict=True)
    with inference(model):
        gradients = [attacks.input_gradient(model, *part)[0] for part in parts]
    return (torch.cat(gradients) == 0).flatten(1).all(1)
