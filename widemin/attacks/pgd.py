"""FGSM and PGD. They ask exactly the network they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from widemin.attacks.balls import Ball
from widemin.attacks.fosc import fosc, gaps_of
from widemin.attacks.images import check_images, inference, input_gradient, logits_of
from widemin.attacks.losses import Loss, cross_entropy, fooled


@torch.no_grad()
def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, loss: Loss = cross_entropy
) -> Tensor:
    """Move x once, to the edge of the ball (Goodfellow et al. 2015).

    Args:
        model: Maps images to logits, shape (batch, classes).
        x: Images in [0, 1], shape (batch, channels, height, width).
        y: Labels, shape (batch,).
        ball: The perturbations allowed, e.g. Linf(0.3).
        loss: The loss to climb.

    Returns:
        Adversarial images in [0, 1], shape of x.

    Raises:
        ValueError: Images outside [0, 1], wrong labels, a loss or model without a
            gradient; non-finite logits or gradients (`NonFiniteError`).

    >>> from widemin.attacks import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> moved = fgsm(model, x, torch.tensor([0]), Linf(0.25))
    >>> (moved - x).abs().max().item()
    0.25
    """
    check_images(x, y)
    with inference(model):
        gradient, _, _ = input_gradient(model, x, y, loss)
    return (x + ball.epsilon * ball.steepest(gradient)).clamp(0, 1)


class _Each(TypedDict, total=False):
    """What may be asked of each image of an ascent."""

    until_fooled: bool
    record: list[dict[str, Tensor]] | None


@torch.no_grad()
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
    loss: Loss = cross_entropy,
    restarts: int = 1,
    **each: Unpack[_Each],
) -> Tensor:
    """Move x inside the ball to raise the loss, by projected gradient ascent.

    Args:
        model: Maps images to logits, shape (batch, classes).
        x: Images in [0, 1], shape (batch, channels, height, width).
        y: Labels, shape (batch,); the classes wanted, where the loss is `targeted`.
        ball: The perturbations allowed, e.g. Linf(8 / 255).
        steps: Number of ascent steps, at least 1.
        step_size: Length of a step in pixel units, e.g. 2 / 255; a quarter of the
            ball's radius by default.
        generator: Draws the random start; without one the ascent starts at x.
        loss: The loss to climb.
        restarts: Random starts; of each image one that fools is kept, and else the
            one with the highest loss.
        each: `until_fooled=True` stops each image once it is misclassified, or is in
            the class wanted where the loss is `targeted`; `record`, a list, receives
            what each gradient saw, as of `pgd_path`.

    Returns:
        Adversarial images in [0, 1], shape of x. An image that has stopped leaves
        the batch and costs nothing more.

    Raises:
        ValueError: Images outside [0, 1], wrong labels, no steps, restarts without a
            generator, a loss or model without a gradient; non-finite logits or
            gradients (`NonFiniteError`).

    >>> from widemin.attacks import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> far = pgd(model, x, y, Linf(0.1))
    >>> bool(torch.allclose(far, fgsm(model, x, y, Linf(0.1))))
    True
    """
    for name in each.keys() - _Each.__annotations__.keys():
        raise TypeError(f"pgd() got an unexpected keyword argument {name!r}")
    check_images(x, y)
    step_size = _checked_step(ball, steps, step_size)
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1; got {restarts}")
    if restarts > 1 and generator is None:
        raise ValueError(f"restarts need a generator; got {restarts} and none")
    ascent = _Ascent(model, ball, loss, steps, step_size, generator, **each)
    with inference(model):
        found = ascent.climb(x, y)
        for _ in range(restarts - 1):
            highest, done = ascent.reached(found, y)
            again = torch.arange(len(x), device=x.device)
            again = again[~done] if ascent.until_fooled else again
            if len(again) == 0:
                break
            other = ascent.climb(x[again], y[again])
            losses, fools = ascent.reached(other, y[again])
            higher = losses > highest[again]
            better = torch.where(fools == done[again], higher, fools)
            found[again[better]] = other[better]
    return found


@torch.no_grad()
def pgd_path(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
    loss: Loss = cross_entropy,
    keep: str = "last",
    steps_each: Tensor | None = None,
    fosc_below: float | None = None,
    fosc_from_start: bool = False,
    record: list[dict[str, Tensor]] | None = None,
) -> Tensor:
    """Move x as `pgd` does; stop each image by its FOSC, and record its path.

    Arguments, returns and errors are those of `pgd`, and these:

    - keep: "last" iterate of an ascent, or the "best", with the highest loss.
    - steps_each: Steps of each image, at most `steps`; shape (batch,), whole numbers.
    - fosc_below: Stop each image once its FOSC is this small (Wang et al. 2019,
      algorithm 1), after at least one step.
    - fosc_from_start: Measure FOSC from the random start, as the released code of
      Wang et al. does, instead of from the image.
    - record: Receives, for each gradient taken, a dict of the `images` still moving
      (indices), where they are (`at`), their `loss`, whether they are `fooled`, their
      `fosc` and their `reach`: the largest first-order gain from the centre, epsilon
      |gradient|_1 for Linf, by which FOSC is normalised; for Linf also `fosc_box` and
      `reach_box`.

    >>> from widemin.attacks import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y, record = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]), []
    >>> _ = pgd_path(model, x, y, Linf(0.1), steps=5, fosc_below=1e9, record=record)
    >>> len(record)  # the gradients at the start and after the one step taken
    2
    """
    check_images(x, y)
    step_size = _checked_step(ball, steps, step_size)
    if steps_each is not None and steps_each.shape != y.shape:
        raise ValueError(
            f"steps_each must have shape ({len(x)},); got {tuple(steps_each.shape)}"
        )
    if keep not in ("last", "best"):
        raise ValueError(f"keep must be 'last' or 'best'; got {keep!r}")
    ascent = _Ascent(
        model,
        ball,
        loss,
        steps,
        step_size,
        generator,
        keep_best=keep == "best",
        steps_each=steps_each,
        fosc_below=fosc_below,
        fosc_from_start=fosc_from_start,
        record=record,
    )
    with inference(model):
        return ascent.climb(x, y)


def _checked_step(ball: Ball, steps: int, step_size: float | None) -> float:
    """Return the length of a step; raise ValueError for steps that climb nowhere."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if step_size is None:
        return ball.epsilon / 4
    if not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be above 0 and finite; got {step_size}")
    return step_size


@dataclass(frozen=True)
class _Ascent:
    """How `pgd` and `pgd_path` climb and when an image stops: arguments, checked."""

    model: nn.Module
    ball: Ball
    loss: Loss
    steps: int
    step_size: float
    generator: torch.Generator | None
    until_fooled: bool = False
    keep_best: bool = False
    steps_each: Tensor | None = None
    fosc_below: float | None = None
    fosc_from_start: bool = False
    record: list[dict[str, Tensor]] | None = None

    def climb(self, x: Tensor, y: Tensor) -> Tensor:
        """Return where one ascent from x, or from a random start, takes each image."""
        start = x
        if self.generator is not None:
            start = (x + self.ball.sample(x, self.generator)).clamp(0, 1)
        x_adv, moving = start.clone(), torch.arange(len(x), device=x.device)
        best, highest = x_adv.clone(), torch.full_like(x[:, 0, 0, 0], -torch.inf)
        for step in range(self.steps):
            at, origin, label = x_adv[moving], x[moving], y[moving]
            gradient, losses, logits = input_gradient(self.model, at, label, self.loss)
            done = fooled(self.loss, logits, label)
            if self.record is not None:
                gaps = gaps_of(self.ball, gradient, origin, at)
                found = {"images": moving, "at": at, "loss": losses, "fooled": done}
                self.record.append(found | gaps)
            if self.keep_best:
                better = losses > highest[moving]
                best[moving[better]] = at[better]
                highest[moving[better]] = losses[better]
            go = ~done if self.until_fooled else torch.ones_like(done)
            # Always one step, as published code does: a random start at which the
            # loss is flat must not pass for a solved inner problem.
            if self.fosc_below is not None and step > 0:
                centre = start[moving] if self.fosc_from_start else origin
                go &= fosc(self.ball, gradient, at - centre) > self.fosc_below
            if self.steps_each is not None:
                go &= step < self.steps_each.to(moving.device)[moving]
            if not bool(go.all()):
                moving, at, origin = moving[go], at[go], origin[go]
                gradient = gradient[go]
            if len(moving) == 0:
                break
            at = at + self.step_size * self.ball.steepest(gradient)
            x_adv[moving] = (origin + self.ball.project(at - origin)).clamp(0, 1)
        if self.keep_best:
            better = self.reached(x_adv, y)[0] > highest
            x_adv = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
        return x_adv

    def reached(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's loss and whether it fools, each of shape (batch,)."""
        logits = logits_of(self.model, x, y)
        return self.loss(logits, y), fooled(self.loss, logits, y)
