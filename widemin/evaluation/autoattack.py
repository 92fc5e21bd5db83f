"""AutoAttack, by its authors' own code."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from widemin.attacks import L2, Ball, Linf, check_images, inference
from widemin.batches import at_once
from widemin.evaluation.accuracy import correct
from widemin.evaluation.worst_case import within
from widemin.models import fuse


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
        ImportError: The package is not installed (the extra `attacks`).
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
    natural = correct(model, x, y)
    with inference(model), torch.no_grad():
        classes = int(model(x[:1]).shape[1])
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
