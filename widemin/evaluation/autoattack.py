"""AutoAttack, by its authors' own code."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from logging.handlers import BufferingHandler

import torch
from torch import Tensor, nn

from widemin.attacks import L2, Ball, Linf, check_images, inference
from widemin.batches import at_once
from widemin.evaluation.accuracy import correct, within
from widemin.models import fuse
from widemin.names import check


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
    it returns are predicted again here. Square alone needs no gradient.

    Its attacks are made in order; by default they are the standard version. Those that
    are not defined for so few classes (apgd-t below 4, apgd-dlr below 3) or pixels
    (square in L2 below 5) are left out, with a warning. Other arguments and errors as
    of `robust_mask`; without the package (the extra `attacks`) an ImportError.

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
