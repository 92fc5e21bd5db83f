"""Signs that gradients are masked, and Carlini's checklist filled in by measurement.

A network whose gradients fade or mislead looks robust to attacks that follow them.
Each sign compares two numbers that must agree, or stand in a known order, for a sound
evaluation (Athalye et al. 2018; Carlini et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from widemin import attacks
from widemin.attacks import Ball, Linf, check_images, inference
from widemin.evaluation.accuracy import MASKED_MARGIN, margins, share
from widemin.evaluation.worst_case import Attack, robust_mask, transfer
from widemin.landscape import logit_scale
from widemin.models import fuse

# A difference beyond this, in accuracy, is a sign; two standard errors of the sample
# are added to it.
TOLERANCE = 0.05

_UNBOUNDED = "PGD with epsilon 1, against a constant answer"
# A sign, and the attacks of which the first must not leave more than the second.
_COMPARED = {
    "PGD leaves more than FGSM": ("pgd", "fgsm"),
    "FGSM, cross-entropy above margin": ("fgsm", "fgsm_margin"),
    "PGD, cross-entropy above margin": ("pgd", "pgd_margin"),
    "FGSM, float32 above float64": ("fgsm", "fgsm_float64"),
    "FGSM leaves more than random signs": ("fgsm", "random"),
    "FGSM above FGSM at a median margin of 1": ("fgsm", "scaled"),
}
# Each sign's question in the checklist.
_QUESTIONS = {
    "PGD leaves more than FGSM": "iterative attacks beat single-step ones",
    "FGSM, cross-entropy above margin": "the attacked loss does not saturate (FGSM)",
    "PGD, cross-entropy above margin": "the attacked loss does not saturate (PGD)",
    "FGSM, float32 above float64": "precision does not decide",
    "FGSM leaves more than random signs": "gradients beat random search",
    "images with an all-zero gradient": "gradients are there",
    "images with a margin above 16.64": "margins are within float32's reach",
    _UNBOUNDED: "an unbounded attack succeeds",
    "FGSM above FGSM at a median margin of 1": "logit scale does not decide",
    "PGD leaves more than transfer": "white box beats black box",
}


@dataclass(frozen=True)
class Sign:
    """One test for masked gradients.

    Attributes:
        name: What is compared.
        found: The number measured.
        against: The number it is compared with.
        masked: Whether the two say that gradients are masked.
    """

    name: str
    found: float
    against: float
    masked: bool


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
    modules = list(model.modules())
    kept = [p.data for p in model.parameters()]
    buffers = [dict(module._buffers) for module in modules]
    try:
        # In inference mode the weights would come back as tensors without gradients.
        with torch.inference_mode(False), torch.no_grad():
            for tensor in model.parameters():
                tensor.data = _double(tensor.data)
            for module, held in zip(modules, buffers, strict=True):
                module._buffers |= {n: _double(tensor) for n, tensor in held.items()}
        yield
    finally:
        for tensor, data in zip(model.parameters(), kept, strict=True):
            tensor.data = data
        for module, held in zip(modules, buffers, strict=True):
            module._buffers.update(held)


def _double(tensor: Any) -> Any:
    """Return a floating-point tensor in float64, and anything else as it is."""
    real = isinstance(tensor, Tensor) and tensor.is_floating_point()
    return tensor.double() if real else tensor


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

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        ball: The set in which robustness is claimed.
        generator: Draws random starts and random signs.
        other: Another network for the same task, whose adversarial images are tried.
        steps: Of PGD, of 2.5 radii over their number.

    Raises:
        ValueError: Wrong images or labels, or non-finite logits.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(50, 1, 2, 2), torch.zeros(50, dtype=torch.int64)
    >>> found = signs(model, x, y, Linf(0.1), generator=torch.Generator(), steps=3)
    >>> any(sign.masked for sign in found)  # a small linear model hides nothing
    False
    """
    fgsm = partial(attacks.fgsm, ball=ball)
    pgd = partial(
        attacks.pgd,
        ball=ball,
        steps=steps,
        step_size=2.5 * ball.epsilon / steps or None,
        generator=generator,
        until_fooled=True,
    )
    ways: dict[str, Attack] = {
        "fgsm": fgsm,
        "fgsm_margin": partial(fgsm, loss=attacks.margin),
        "fgsm_float64": lambda _, x, y: fgsm_float64(model, x, y, ball),
        "pgd": pgd,
        "pgd_margin": partial(pgd, loss=attacks.margin),
        "random": partial(random_signs, ball=ball, generator=generator),
        # In the whole range of pixels it must fool on every image.
        "unbounded": partial(
            attacks.pgd,
            ball=Linf(1.0),
            steps=steps,
            step_size=2.5 / steps,
            loss=attacks.margin,
            until_fooled=True,
        ),
    }
    right = robust_mask(model, x, y, ways)
    rate = {name: share(mask) for name, mask in right.items()}
    margin = margins(model, x, y)
    # Predictions stay; only how sure the network is changes.
    with logit_scale(model, 1 / float(margin.abs().median().clamp_min(1e-6))):
        rate["scaled"] = share(robust_mask(model, x, y, {"fgsm": fgsm})["fgsm"])
    slack = TOLERANCE + 2 * (0.25 / len(x)) ** 0.5
    most_common = float(y.bincount().max()) / len(y)
    sure = share(margin > MASKED_MARGIN)
    still = share(_still(model, x, y))

    found = [
        Sign(name, rate[high], rate[low], rate[high] > rate[low] + slack)
        for name, (high, low) in _COMPARED.items()
    ]
    constant = rate["unbounded"] > most_common + slack
    found[5:5] = [
        Sign("images with an all-zero gradient", still, 0.0, still > 0.01),
        Sign("images with a margin above 16.64", sure, 0.0, sure > 0.01),
        Sign(_UNBOUNDED, rate["unbounded"], most_common, constant),
    ]
    if other is not None:
        moved = share(transfer(other, model, x, y, pgd))
        masked = rate["pgd"] > moved + slack
        found.append(Sign("PGD leaves more than transfer", rate["pgd"], moved, masked))
    return found


def _still(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a mask of images whose cross-entropy gradient is exactly zero."""
    check_images(x, y)
    parts = []
    with inference(model):
        for images, labels in zip(x.split(250), y.split(250), strict=True):
            gradient, _, _ = attacks.input_gradient(model, images, labels)
            parts.append((gradient == 0).flatten(1).all(1))
    return torch.cat(parts)


def checklist(found: list[Sign], *, ball: Ball, images: int) -> list[tuple[str, str]]:
    """Return Carlini et al.'s checklist (2019, section 4), answered by the signs.

    Args:
        found: What `signs` returned.
        ball: The set in which robustness is claimed.
        images: How many test images were attacked.

    >>> sign = Sign("PGD leaves more than FGSM", 0.9, 0.1, True)
    >>> checklist([sign], ball=Linf(0.3), images=100)[2]
    ('iterative attacks beat single-step ones', 'no: 90.0 % against 10.0 %')
    """
    norm = "L-infinity" if isinstance(ball, Linf) else "L2"
    threat = f"{norm}, epsilon {ball.epsilon:.4g}, in [0, 1]"
    answers = [("the threat model is stated", threat)]
    answers.append(("the sample is stated", f"{images} test images"))
    by_name = {sign.name: sign for sign in found}
    for name, question in _QUESTIONS.items():
        if sign := by_name.get(name):
            verdict = "no" if sign.masked else "yes"
            numbers = f"{100 * sign.found:.1f} % against {100 * sign.against:.1f} %"
            answers.append((question, f"{verdict}: {numbers}"))
        elif len(found) > 1:
            answers.append((question, "not tested"))
    return answers
