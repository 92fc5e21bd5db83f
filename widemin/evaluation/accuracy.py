"""Accuracy: of answers, under attacks, by transfer, under AutoAttack."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from logging.handlers import BufferingHandler

import torch
from torch import Tensor, nn

from widemin.attacks import (
    L2,
    Ball,
    Linf,
    check_images,
    check_labels,
    inference,
    logits_of,
    margin,
)
from widemin.batches import Data, at_once, batches
from widemin.models import fuse
from widemin.names import check

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def correct(
    model: nn.Module, x: Data, y: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Return a mask of the inputs that are classified rightly, bool, shape (inputs,).

    Arguments and errors as of `margins`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> correct(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    return margins(model, x, y, chunk) > 0


@torch.no_grad()
def margins(
    model: nn.Module, x: Data, y: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Return each input's true logit minus the best other one, shape (inputs,).

    Ties count as wrong: a constant network is right by accident only.

    Args:
        model: Maps inputs to logits.
        x: Inputs of any kind, shape (inputs, ...), or batches of them and of labels.
        y: Labels, shape (inputs,); none beside batches, such as a DataLoader.
        chunk: Inputs asked at a time, by default what suits the device.

    Raises:
        ValueError: Wrong labels, no input, or none that the network takes.
        NonFiniteError: NaN or infinite logits.

    >>> x = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    >>> margins(nn.Flatten(), x, torch.tensor([0]))
    tensor([0.5000])
    """
    with inference(model):
        parts = []
        for inputs, labels in batches(x, y, at_once(model, chunk, 500)):
            check_labels(inputs, labels)
            parts.append(-margin(logits_of(model, inputs, labels), labels))
    return torch.cat(parts)


def share(mask: Tensor) -> float:
    """Return the fraction of True.

    >>> share(torch.tensor([True, False, False, True]))
    0.5
    """
    return float(mask.double().mean())


def robust_mask(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    chunk: int | None = None,
    each: Callable[[str, Callable[[], Tensor]], Tensor] = lambda name, work: work(),
) -> dict[str, Tensor]:
    """Return a mask of the images classified rightly after each attack, by its name.

    Each mask is bool, shape (images,); an image is right in the worst case if it is
    in every mask. Images that are wrong already are not attacked: every set contains
    the unmoved one.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attacks: Name to (model, x, y) -> adversarial images; the model is the network
            fused (`models.fuse`). `within` holds one of your own to its set.
        chunk: Images attacked at a time, by default what suits the device.
        each: From an attack's name and what computes its mask, the mask: one that is
            kept need not be computed again.

    Raises:
        ValueError: Images outside [0, 1], given or made by an attack, or wrong labels.
        NonFiniteError: NaN or infinite logits or gradients.

    >>> from widemin.attacks import Linf, clean, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> attacks = {"none": clean, "fgsm": partial(fgsm, ball=Linf(1))}
    >>> masks = robust_mask(model, x, y, attacks)
    >>> share(torch.stack(list(masks.values())).all(0)) <= share(masks["none"])
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

    Arguments and mask as of `robust_mask`.

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
        moved, images = attack(model, x, y), f"{name} must return images"
        kind = type(moved).__name__
        check(isinstance(moved, Tensor), f"{images}, a tensor", kind)
        shape = tuple(moved.shape)
        check(shape == x.shape, f"{images}, shape {tuple(x.shape)}", shape)
        furthest = float(ball.size(moved - x).max())
        slack = ball.epsilon * 1e-4 + 8 * torch.finfo(x.dtype).eps
        near = furthest <= ball.epsilon + slack  # False for NaN
        check(near, f"{name} must stay in {ball!r}", f"an image {furthest:.4g} away")
        return moved

    return inside


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
    """Return a mask of what survives AutoAttack, and its warnings (Croce, Hein 2020).

    Runs the authors' code; the images it returns are predicted again here. Attacks are
    made in order, by default those of the standard version. Those that are not defined
    for so few classes (apgd-t below 4, apgd-dlr below 3) or pixels (square in L2 below
    5) are left out, with a warning. Other arguments and errors as of `robust_mask`;
    without the package pyautoattack (the extra `attacks`) an ImportError.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    >>> mask, heard = autoattack(network, x, y, Linf(1.0), attacks=("apgd-ce",))
    >>> bool(mask.any())
    False
    """
    from pyautoattack import AutoAttack

    x = x.contiguous()  # the authors' code views gradients, whose layout is the images'
    check_images(x, y)
    natural = correct(model, x, y)
    with inference(model), torch.no_grad():
        classes = int(model(x[:1]).shape[1])
    few = {n: k for n, k in (("apgd-t", 4), ("apgd-dlr", 3)) if classes < k}
    unfit = {n: f"its loss needs {k} classes; got {classes}" for n, k in few.items()}
    if isinstance(ball, L2) and x.shape[2] < 5:
        unfit["square"] = f"in L2 it needs images of 5 pixels; got {x.shape[2]}"
    fit = [name for name in attacks if name not in unfit]
    heard = [f"{n} is left out: {unfit[n]}" for n in attacks if n in unfit]
    check(fit, "attacks must leave one that works", heard)

    logger, listener = logging.getLogger("auto-attack"), BufferingHandler(10_000)
    listener.setLevel(logging.WARNING)
    fast = fuse(model)
    logger.addHandler(listener)
    try:
        with torch.inference_mode(False), inference(fast), torch.random.fork_rng():
            peer = AutoAttack(
                lambda images: fast(images.to(x.dtype)).float(),
                norm="Linf" if isinstance(ball, Linf) else "L2",
                eps=ball.epsilon,
                version="custom",
                attacks=fit,
                device=x.device,
                seed=seed,
            )
            others = min(9, classes - 1)
            peer.apgd_targeted.n_target_classes = peer.fab.n_target_classes = others
            # Copies: tensors made in inference mode have no gradients.
            moved = peer.run_standard_evaluation(
                x.float().clone(), y.clone(), batch_size=at_once(model, chunk)
            )[0]
    finally:
        logger.removeHandler(listener)
    heard += [record.getMessage() for record in listener.buffer]
    moved = moved.to(x).clamp(0, 1)
    within(lambda *_: moved, ball, "AutoAttack")(model, x, y)
    return natural & correct(model, moved, y), heard
