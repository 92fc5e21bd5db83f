"""Accuracy under several attacks, in the worst case, by transfer and over radii."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from widemin.attacks import Ball, check_images, inference
from widemin.batches import at_once
from widemin.evaluation.accuracy import correct, share
from widemin.models import fuse

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def robust_mask(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    chunk: int | None = None,
    each: Callable[[str, Callable[[], Tensor]], Tensor] = lambda name, work: work(),
) -> dict[str, Tensor]:
    """Return a mask of the images classified rightly after each attack, on its own.

    Images that are wrong already are not attacked: every set contains the unmoved
    image. Accuracy is the mean of a mask, the worst case the mean of all of them.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attacks: Name to (model, x, y) -> adversarial images. They are handed the
            network fused (`models.fuse`): the same function, quicker.
        chunk: Images attacked at a time, by default what suits the device.
        each: How a mask is had, from an attack's name and what computes it: one may
            be kept, and not be computed again.

    Returns:
        Name to mask, bool, shape (images,).

    Raises:
        ValueError: Images outside [0, 1], given or made by an attack, or wrong labels.
        NonFiniteError: NaN or infinite logits or gradients.

    >>> from functools import partial
    >>> from widemin.attacks import Linf, clean, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> attacks = {"none": clean, "fgsm": partial(fgsm, ball=Linf(1))}
    >>> found = robust_mask(model, x, y, attacks)
    >>> bool((found["none"] == correct(model, x, y)).all())
    True
    """
    check_images(x, y)
    natural, fast = correct(model, x, y), fuse(model)
    chunk = at_once(model, chunk)
    chunks = natural.nonzero()[:, 0].split(chunk) if natural.any() else ()

    def after(name: str) -> Tensor:
        right = natural.clone()
        for index in chunks:
            labels = y[index]
            with inference(fast):  # layers that are not fused are the caller's
                moved = attacks[name](fast, x[index], labels)
            try:
                check_images(moved, labels)
            except ValueError as error:
                raise ValueError(f"what {name!r} returned: {error}") from None
            right[index] = correct(model, moved, labels)
        return right

    return {name: each(name, partial(after, name)) for name in attacks}


def transfer(
    source: nn.Module, target: nn.Module, x: Tensor, y: Tensor, attack: Attack
) -> Tensor:
    """Return a mask of images the target has right after an attack on the source.

    Args:
        source: The network that the attack may look into.
        target: The network that is evaluated.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attack: (source, x, y) -> adversarial images.

    Returns:
        A mask, bool, shape (images,). Images that the target gets wrong unattacked
        are wrong.

    >>> from widemin.attacks import clean
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> bool((transfer(model, model, x, y, clean) == correct(model, x, y)).all())
    True
    """
    fast = fuse(source)

    def from_source(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with inference(fast):
            return attack(fast, x, y)

    return robust_mask(target, x, y, {"transfer": from_source})["transfer"]


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


def within(attack: Attack, ball: Ball, name: str = "attack") -> Attack:
    """Return an attack that raises ValueError where it leaves a set or changes shape.

    >>> from widemin.attacks import Linf
    >>> away = within(lambda model, x, y: 1 - x, Linf(0.1))
    >>> away(nn.Identity(), torch.zeros(1, 1, 2, 2), torch.tensor([0]))
    Traceback (most recent call last):
    ...
    ValueError: attack must stay in Linf(epsilon=0.1); got an image 1 away
    """

    def inside(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        moved = attack(model, x, y)
        if not isinstance(moved, Tensor):
            raise ValueError(
                f"{name} must return images, a tensor; got {type(moved).__name__}"
            )
        if moved.shape != x.shape:
            raise ValueError(
                f"{name} must return images, shape {tuple(x.shape)}; "
                f"got {tuple(moved.shape)}"
            )
        furthest = float(ball.size(moved - x).max())
        slack = ball.epsilon * 1e-4 + 8 * torch.finfo(x.dtype).eps
        if not furthest <= ball.epsilon + slack:  # written so that NaN is caught too
            raise ValueError(
                f"{name} must stay in {ball!r}; got an image {furthest:.4g} away"
            )
        return moved

    return inside


def worst_case(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    ball: Ball,
    chunk: int | None = None,
) -> Robustness:
    """Return accuracy under each attack and in the worst case per image.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attacks: Name to (model, x, y) -> adversarial images; at least one.
        ball: The perturbations allowed.
        chunk: Images attacked at a time, by default what suits the device.

    Raises:
        ValueError: No attacks, one that leaves the ball or [0, 1], images outside
            [0, 1] or wrong labels.
        NonFiniteError: NaN or infinite logits or gradients.

    >>> from functools import partial
    >>> from widemin.attacks import Linf, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> ways = {"fgsm": partial(fgsm, ball=Linf(1))}
    >>> worst_case(model, x, y, ways, Linf(1)).accuracy
    0.0
    """
    if not attacks:
        raise ValueError("attacks must name at least one attack; got none")
    # Imported here: it brings scipy.stats, for which no worker waits otherwise.
    from widemin.statistics import wilson

    inside = {name: within(attack, ball, name) for name, attack in attacks.items()}
    found = robust_mask(model, x, y, inside, chunk)
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
    chunk: int | None = None,
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
        chunk: Images attacked at a time, by default what suits the device.

    Raises:
        ValueError: Sets that do not grow, or are not of one norm; as of `worst_case`.

    >>> from widemin.attacks import Linf, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> sweep(model, x, y, [Linf(0.1), Linf(1.0)], fgsm)[-1]
    0.0
    """
    radii = [ball.epsilon for ball in balls]
    if len({type(ball) for ball in balls}) != 1 or radii != sorted(radii):
        raise ValueError(f"balls must be of one norm and grow; got {list(balls)}")
    check_images(x, y)
    right, rates = correct(model, x, y, chunk), []
    for ball in balls:
        # What has fallen stays: only the others are attacked again.
        index = right.nonzero()[:, 0]
        if len(index):

            def in_ball(
                model: nn.Module, x: Tensor, y: Tensor, ball: Ball = ball
            ) -> Tensor:
                return attack(model, x, y, ball)

            ways = {"": within(in_ball, ball)}
            right[index] = robust_mask(model, x[index], y[index], ways, chunk)[""]
        rates.append(share(right))
    return rates
