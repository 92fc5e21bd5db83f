"""Accuracy under attacks, counted by predicting the attacked images again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widemin.attacks import (
    L2,
    Ball,
    Linf,
    check_images,
    check_logits,
    inference,
    input_gradient,
    margin,
)
from widemin.models import folded
from widemin.statistics import wilson

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]

# float32 cross-entropy loses the true-class gradient beyond 24 ln 2 = 16.64.
MASKED_MARGIN = 16.635532


def correct(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500) -> Tensor:
    """Return which images the network classifies rightly, bool, shape (images,).

    Raises:
        ValueError: Images outside [0, 1], wrong labels or non-finite logits.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> correct(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    return margins(model, x, y, chunk) > 0


@torch.no_grad()
def margins(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500) -> Tensor:
    """Return each image's true logit minus the best other one, shape (images,).

    Ties count as wrong: a constant network is right by accident only.

    >>> class Two(nn.Module):
    ...     def forward(self, x):
    ...         return x.flatten(1)
    >>> x = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    >>> margins(Two(), x, torch.tensor([0]))
    tensor([0.5000])
    """
    check_images(x, y)
    parts = []
    with inference(model):
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            logits = model(images)
            check_logits(logits, labels)
            parts.append(-margin(logits, labels))
    return torch.cat(parts)


def survivors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    chunk: int = 250,
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
    found = {}
    for name, attack in attacks.items():
        right = natural.clone()
        for index in chunks:
            images, labels = x[index], y[index]
            right[index] = correct(model, attack(model, images, labels), labels)
        found[name] = right
    return found


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
    found = survivors(model, x, y, attacks, chunk)
    survived = torch.stack(list(found.values())).all(0)
    accuracy = _mean(survived)
    return Robustness(
        natural=_mean(correct(model, x, y)),
        attacks={name: _mean(mask) for name, mask in found.items()},
        accuracy=accuracy,
        interval=wilson(accuracy, len(x)),
        survived=survived,
    )


def _mean(mask: Tensor) -> float:
    return float(mask.double().mean())


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
        rates.append(_mean(right))
    return rates


def minimal_distance(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "linf",
    most: float = 1.0,
    steps: int = 40,
    halvings: int = 8,
    generator: torch.Generator | None = None,
    chunk: int = 250,
) -> Tensor:
    """Return each image's smallest radius at which margin-loss PGD fools the network.

    By bisection in the radius, image by image: an upper bound on the distance to the
    decision boundary that no confidence can hide.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        norm: "linf" or "l2".
        most: Largest radius tried, in pixels.
        steps: Steps of each ascent, of 2.5 radii over their number.
        halvings: Of the interval; the answer is `most` / 2^halvings too large at most.
        generator: Draws the random starts; without one each ascent starts at x.
        chunk: Images attacked at a time.

    Returns:
        Radii, shape (images,): 0 for an image that is wrong without an attack,
        infinity for one that is not fooled at `most`.

    Raises:
        ValueError: An unknown norm, a radius or counts out of range, wrong images.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> distance = minimal_distance(model, x, y)
    >>> bool((distance >= 0).all())
    True
    """
    shapes: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
    if norm not in shapes:
        raise ValueError(f"norm must be 'linf' or 'l2'; got {norm!r}")
    if not 0 < most < float("inf"):
        raise ValueError(f"most must be above 0 and finite; got {most}")
    for name, value in (("steps", steps), ("halvings", halvings)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    natural = correct(model, x, y)
    unit = shapes[norm](1.0)
    distance = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    chunks = natural.nonzero()[:, 0].split(chunk) if natural.any() else ()
    with inference(model):
        for index in chunks:
            images, labels = x[index], y[index]
            low = torch.zeros(len(index), dtype=x.dtype, device=x.device)
            high = torch.full_like(low, most)
            fooled = _fooled(model, images, labels, unit, high, steps, generator)
            reached = fooled
            for _ in range(halvings):
                middle = (low + high) / 2
                fooled = _fooled(model, images, labels, unit, middle, steps, generator)
                high = torch.where(fooled, middle, high)
                low = torch.where(fooled, low, middle)
                reached = reached | fooled
            distance[index] = high.where(reached, torch.full_like(high, torch.inf))
    return distance


def _fooled(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    unit: Ball,
    radii: Tensor,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return which images margin-loss PGD fools, each within its own radius.

    A ball of radius r is r times the unit ball, so that images with different radii
    share a batch; those that are fooled leave it.
    """
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    moving = torch.arange(len(x), device=x.device)
    start = unit.sample(x, generator) if generator is not None else torch.zeros_like(x)
    x_adv = (x + radii.view(-1, 1, 1, 1) * start).clamp(0, 1)
    for step in range(steps + 1):
        at, origin, labels = x_adv[moving], x[moving], y[moving]
        gradient, _, logits = input_gradient(model, at, labels, margin)
        fell = logits.argmax(1) != labels
        fooled[moving[fell]] = True
        if step == steps or bool(fell.all()):
            break
        moving, at, origin = moving[~fell], at[~fell], origin[~fell]
        radius = radii[moving].view(-1, 1, 1, 1)
        at = at + 2.5 / steps * radius * unit.steepest(gradient[~fell])
        # Divide only by radii that are there: a radius of 0 leaves the image.
        safe = radius.clamp_min(torch.finfo(x.dtype).tiny)
        x_adv[moving] = (origin + radius * unit.project((at - origin) / safe)).clamp(
            0, 1
        )
    return fooled


def transfer(
    source: nn.Module, target: nn.Module, x: Tensor, y: Tensor, attack: Attack
) -> Tensor:
    """Return which images the target classifies rightly after an attack on the source.

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

    def from_source(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attack(source, x, y)

    return survivors(target, x, y, {"transfer": from_source})["transfer"]


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    seed: int = 0,
    attacks: Sequence[str] = ("apgd-ce", "apgd-t", "fab-t", "square"),
    chunk: int = 250,
) -> tuple[Tensor, list[str]]:
    """Return which images survive AutoAttack (Croce and Hein 2020), and its warnings.

    Runs the authors' code, the package pyautoattack; the images it returns are
    predicted again here. Square alone, attacks=("square",), needs no gradient.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        ball: The perturbations allowed.
        seed: Of its random draws.
        attacks: Of its attacks, in order; the default is the standard version.
        chunk: Images attacked at a time.

    Returns:
        A mask, bool, shape (images,), and what AutoAttack warned of.

    Raises:
        ImportError: The package is not installed (dependency group `attacks`).
        ValueError: Wrong images or labels, or non-finite logits.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    >>> mask, heard = autoattack(network, x, y, Linf(1.0), attacks=("apgd-ce",))
    >>> bool(mask.any())
    False
    """
    from pyautoattack import AutoAttack

    x = x.contiguous()  # the authors' code views gradients, whose layout is the images'
    natural = correct(model, x, y)
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, listener = logging.getLogger("auto-attack"), Listener(logging.WARNING)
    norm = "Linf" if isinstance(ball, Linf) else "L2"
    logger.addHandler(listener)
    try:
        with inference(model), torch.random.fork_rng():
            peer = AutoAttack(
                folded(model),
                norm=norm,
                eps=ball.epsilon,
                version="custom",
                attacks=list(attacks),
                device=x.device,
                seed=seed,
            )
            few = min(9, _classes(model, x) - 1)
            peer.apgd_targeted.n_target_classes = peer.fab.n_target_classes = few
            moved = peer.run_standard_evaluation(x, y, batch_size=chunk)[0]
    finally:
        logger.removeHandler(listener)
    moved = moved.to(x).clamp(0, 1)
    delta = (moved - x).flatten(1)
    size = delta.norm(p=float("inf") if norm == "Linf" else 2, dim=1)
    outside = size > ball.epsilon * (1 + 1e-4) + 1e-6
    if bool(outside.any()):
        raise RuntimeError(f"AutoAttack left the set by {float(size.max()):.6g}")
    return natural & correct(model, moved, y), heard


@torch.no_grad()
def _classes(model: nn.Module, x: Tensor) -> int:
    return int(model(x[:1]).shape[1])
