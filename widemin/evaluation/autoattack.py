"""Smallest distances, transfer between networks, AutoAttack."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from widemin.attacks import L2, Ball, Linf, check_images, inference
from widemin.batches import at_once
from widemin.evaluation.accuracy import class_count, correct, fooled_at
from widemin.evaluation.worst_case import Attack, survivors, within
from widemin.models import fuse


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
    chunk: int | None = None,
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
        chunk: Images attacked at a time, by default what suits the device.

    Returns:
        Radii, shape (images,): 0 for an image that is wrong without an attack,
        infinity for one that is not fooled at `most`.

    Raises:
        ValueError: An unknown norm, a radius or counts out of range, wrong images.
        NonFiniteError: NaN or infinite logits or gradients.

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
    check_images(x, y)
    natural = correct(model, x, y)
    unit = shapes[norm](1.0)
    distance = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    chunk = at_once(model, chunk)
    chunks = natural.nonzero()[:, 0].split(chunk) if natural.any() else ()
    with inference(model):
        model = fuse(model)
        for index in chunks:
            images, labels = x[index], y[index]
            low = torch.zeros(len(index), dtype=x.dtype, device=x.device)
            high = torch.full_like(low, most)
            fooled = fooled_at(model, images, labels, unit, high, steps, generator)
            reached = fooled
            for _ in range(halvings):
                middle = (low + high) / 2
                fooled = fooled_at(
                    model, images, labels, unit, middle, steps, generator
                )
                high = torch.where(fooled, middle, high)
                low = torch.where(fooled, low, middle)
                reached = reached | fooled
            distance[index] = high.where(reached, torch.full_like(high, torch.inf))
    return distance


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

    return survivors(target, x, y, {"transfer": from_source})["transfer"]


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    seed: int = 0,
    attacks: Sequence[str] = ("apgd-ce", "apgd-t", "fab-t", "square"),
    chunk: int | None = None,
) -> tuple[Tensor, list[str]]:
    """Return a mask of what survives AutoAttack, and its warnings.

    Runs the authors' code (Croce and Hein 2020), the package pyautoattack; the images
    it returns are predicted again here. Square alone, attacks=("square",), needs no
    gradient.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        ball: The perturbations allowed.
        seed: Of its random draws.
        attacks: Of its attacks, in order; the default is the standard version. Those
            that are not defined for so few classes (apgd-t below 4, apgd-dlr below 3)
            or pixels (square in L2 below 5) are left out, with a warning.
        chunk: Images attacked at a time, by default what suits the device.

    Returns:
        A mask, bool, shape (images,), and what AutoAttack warned of.

    Raises:
        ImportError: The package is not installed (dependency group `attacks`).
        ValueError: Wrong images or labels, or no attack that can be made.
        NonFiniteError: NaN or infinite logits.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    >>> mask, heard = autoattack(network, x, y, Linf(1.0), attacks=("apgd-ce",))
    >>> bool(mask.any())
    False
    """
    from pyautoattack import AutoAttack

    x = x.contiguous()  # the authors' code views gradients, whose layout is the images'
    check_images(x, y)
    natural, classes = correct(model, x, y), class_count(model, x)
    unfit = {}
    for name, least in (("apgd-t", 4), ("apgd-dlr", 3)):
        if classes < least:
            unfit[name] = f"its loss needs {least} classes; got {classes}"
    if isinstance(ball, L2) and x.shape[2] < 5:
        unfit["square"] = f"in L2 it needs images of 5 pixels; got {x.shape[2]}"
    fit = [name for name in attacks if name not in unfit]
    heard = [f"{n} is left out: {unfit[n]}" for n in attacks if n in unfit]
    if not fit:
        raise ValueError(f"attacks must leave one that works; got {heard}")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, listener = logging.getLogger("auto-attack"), Listener(logging.WARNING)
    norm = "Linf" if isinstance(ball, Linf) else "L2"
    fast = fuse(model)

    def in_float32(images: Tensor) -> Tensor:
        return fast(images.to(x.dtype)).float()

    logger.addHandler(listener)
    try:
        with (
            torch.inference_mode(False),
            inference(fast),
            torch.random.fork_rng(),
        ):
            # Copies: tensors made in inference mode have no gradients.
            images, labels = x.float().clone(), y.clone()
            peer = AutoAttack(
                in_float32,
                norm=norm,
                eps=ball.epsilon,
                version="custom",
                attacks=fit,
                device=x.device,
                seed=seed,
            )
            few = min(9, classes - 1)
            peer.apgd_targeted.n_target_classes = peer.fab.n_target_classes = few
            moved = peer.run_standard_evaluation(
                images, labels, batch_size=at_once(model, chunk)
            )[0]
    finally:
        logger.removeHandler(listener)
    moved = moved.to(x).clamp(0, 1)
    within(lambda *_: moved, ball, "AutoAttack")(model, x, y)
    return natural & correct(model, moved, y), heard
