"""Accuracy under several attacks, the worst case, and over radii."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from widemin.attacks import Ball
from widemin.evaluation.answers import correct, share

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def survivors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    chunk: int = 250,
    each: Callable[[str, Callable[[], Tensor]], Tensor] = lambda name, work: work(),
) -> dict[str, Tensor]:
    """Return which images are classified rightly after each attack, on its own.

    Images that are wrong already are not attacked: every set contains the unmoved
    image. Accuracy is the mean of a mask, the worst case the mean of all of them.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attacks: Name to (model, x, y) -> adversarial images.
        chunk: Images attacked at a time.
        each: How a mask is had, from an attack's name and what computes it: one may
            be kept, and not be computed again.

    Returns:
        Name to mask, bool, shape (images,).

    >>> from functools import partial
    >>> from widemin.attacks import Linf, clean, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> attacks = {"none": clean, "fgsm": partial(fgsm, ball=Linf(1))}
    >>> found = survivors(model, x, y, attacks)
    >>> bool((found["none"] == correct(model, x, y)).all())
    True
    """
    natural = correct(model, x, y)
    chunks = natural.nonzero()[:, 0].split(chunk) if natural.any() else ()

    def after(attack: Attack) -> Tensor:
        right = natural.clone()
        for index in chunks:
            images, labels = x[index], y[index]
            right[index] = correct(model, attack(model, images, labels), labels)
        return right

    return {name: each(name, partial(after, attacks[name])) for name in attacks}


@dataclass(frozen=True)
class Robustness:
    """Accuracy under several attacks and under all of them together.

    Attributes:
        natural: Accuracy without an attack, a fraction.
        attacks: Accuracy under each attack alone.
        accuracy: Share of images right under every attack: the mean of the minima.
        interval: Its 95 % Wilson interval over images.
        survived: Which images are right under every attack, bool, shape (images,).
    """

    natural: float
    attacks: dict[str, float]
    accuracy: float
    interval: tuple[float, float]
    survived: Tensor


def worst_case(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    chunk: int = 250,
) -> Robustness:
    """Return accuracy under each attack and in the worst case per image.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attacks: Name to (model, x, y) -> adversarial images; at least one.
        chunk: Images attacked at a time.

    Raises:
        ValueError: No attacks, images outside [0, 1], wrong labels or non-finite
            logits.

    >>> from functools import partial
    >>> from widemin.attacks import Linf, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> worst_case(model, x, y, {"fgsm": partial(fgsm, ball=Linf(1))}).accuracy
    0.0
    """
    if not attacks:
        raise ValueError("attacks must name at least one attack; got none")
    # Imported here: it brings scipy.stats, for which no worker waits otherwise.
    from widemin.statistics import wilson

    found = survivors(model, x, y, attacks, chunk)
    survived = torch.stack(list(found.values())).all(0)
    accuracy = share(survived)
    return Robustness(
        natural=share(correct(model, x, y)),
        attacks={name: share(mask) for name, mask in found.items()},
        accuracy=accuracy,
        interval=wilson(accuracy, len(x)),
        survived=survived,
    )


def sweep(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    balls: Sequence[Ball],
    attack: Callable[..., Tensor],
    chunk: int = 250,
) -> list[float]:
    """Return the accuracy under one attack in growing sets, which must fall to chance.

    An image that is fooled in a set counts as fooled in every larger one: the sets
    contain each other.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        balls: The sets, in growing order, of one norm.
        attack: (model, x, y, ball) -> adversarial images.
        chunk: Images attacked at a time.

    Raises:
        ValueError: Sets that do not grow, or are not of one norm.

    >>> from widemin.attacks import Linf, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> sweep(model, x, y, [Linf(0.1), Linf(1.0)], fgsm)[-1]
    0.0
    """
    radii = [ball.epsilon for ball in balls]
    if len({type(ball) for ball in balls}) != 1 or radii != sorted(radii):
        raise ValueError(f"balls must be of one norm and grow; got {list(balls)}")
    right, rates = correct(model, x, y, chunk), []
    for ball in balls:
        # What has fallen stays: only the others are attacked again.
        index = right.nonzero()[:, 0]
        if len(index):

            def inside(
                model: nn.Module, x: Tensor, y: Tensor, ball: Ball = ball
            ) -> Tensor:
                return attack(model, x, y, ball)

            ways = {"": inside}
            right[index] = survivors(model, x[index], y[index], ways, chunk)[""]
        rates.append(share(right))
    return rates
