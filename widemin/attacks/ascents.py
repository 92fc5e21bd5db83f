"""FGSM and PGD."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widemin.attacks.balls import Ball
from widemin.attacks.first_order import fosc, gaps_of
from widemin.attacks.images import check_images, check_logits, inference, input_gradient
from widemin.attacks.losses import Loss, cross_entropy
from widemin.models import lean


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
        ValueError: Images outside [0, 1], wrong labels or non-finite logits.

    >>> from widemin.attacks import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> moved = fgsm(model, x, torch.tensor([0]), Linf(0.25))
    >>> (moved - x).abs().max().item()
    0.25
    """
    check_images(x, y)
    with inference(model):
        gradient, _, _ = input_gradient(lean(model), x, y, loss)
    return (x + ball.epsilon * ball.steepest(gradient)).clamp(0, 1)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
    loss: Loss = cross_entropy,
    restarts: int = 1,
    keep: str = "last",
    steps_each: Tensor | None = None,
    fosc_below: float | None = None,
    fosc_from_start: bool = False,
    until_fooled: bool = False,
    record: list[dict[str, Tensor]] | None = None,
) -> Tensor:
    """Move x inside the ball to raise the loss, by projected gradient ascent.

    Args:
        model: Maps images to logits, shape (batch, classes).
        x: Images in [0, 1], shape (batch, channels, height, width).
        y: Labels, shape (batch,).
        ball: The perturbations allowed, e.g. Linf(8 / 255).
        steps: Number of ascent steps, at least 1.
        step_size: Length of a step in pixel units, e.g. 2 / 255.
        generator: Draws the random start; without one the ascent starts at x.
        loss: The loss to climb.
        restarts: Random starts; of each image the one with the highest loss is kept.
        keep: "last" iterate of an ascent, or the "best", with the highest loss.
        steps_each: Steps of each image, at most `steps`; shape (batch,), whole
            numbers. Without restarts alone.
        fosc_below: Stop each image once its FOSC is this small (Wang et al. 2019,
            algorithm 1), after at least one step.
        fosc_from_start: Measure FOSC from the random start, as the released code of
            Wang et al. does, instead of from the image.
        until_fooled: Stop each image once it is misclassified.
        record: Receives, for each gradient taken, a dict of the `images` still
            moving (indices), where they are (`at`), their `loss`, whether they are
            `fooled`, their `fosc` and their `reach`: the largest
            first-order gain from the centre, epsilon |gradient|_1 for Linf, by which
            FOSC is normalised; for Linf also `fosc_box` and `reach_box`.

    Returns:
        Adversarial images in [0, 1], shape of x. An image that has stopped leaves
        the batch and costs nothing more.

    Raises:
        ValueError: Images outside [0, 1], wrong labels, no steps, restarts without a
            generator, or non-finite logits.

    >>> from widemin.attacks import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> far = pgd(model, x, y, Linf(0.1), steps=5, step_size=0.05)
    >>> bool(torch.allclose(far, fgsm(model, x, y, Linf(0.1))))
    True
    """
    check_images(x, y)
    _check_climb(x, steps, step_size, generator, restarts, keep, steps_each)
    with inference(model):
        ascent = _Ascent(
            model=lean(model),
            ball=ball,
            loss=loss,
            steps=steps,
            step_size=step_size,
            generator=generator,
            keep_best=keep == "best",
            steps_each=steps_each,
            fosc_below=fosc_below,
            fosc_from_start=fosc_from_start,
            until_fooled=until_fooled,
            record=record,
        )
        found = ascent.climb(x, y)
        for _ in range(restarts - 1):
            highest, wrong = _losses(ascent.model, found, y, loss)
            again = torch.arange(len(x), device=x.device)
            again = again[~wrong] if until_fooled else again
            if len(again) == 0:
                break
            other = ascent.climb(x[again], y[again])
            losses, fooled = _losses(ascent.model, other, y[again], loss)
            better = losses > highest[again]
            better = better | fooled if until_fooled else better
            found[again[better]] = other[better]
    return found


def _check_climb(
    x: Tensor,
    steps: int,
    step_size: float,
    generator: torch.Generator | None,
    restarts: int,
    keep: str,
    steps_each: Tensor | None,
) -> None:
    """Raise ValueError for arguments of `pgd` that make no ascent."""
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    if not step_size > 0:
        raise ValueError(f"step_size must be above 0; got {step_size}")
    if restarts > 1 and generator is None:
        raise ValueError(f"restarts need a generator; got {restarts} and none")
    if steps_each is not None and (restarts > 1 or steps_each.shape != (len(x),)):
        raise ValueError(
            f"steps_each must have shape ({len(x)},) and come without restarts; got "
            f"{tuple(steps_each.shape)} and {restarts} restarts"
        )
    if keep not in ("last", "best"):
        raise ValueError(f"keep must be 'last' or 'best'; got {keep!r}")


@dataclass(frozen=True)
class _Ascent:
    """How `pgd` climbs and when an image stops: its arguments, checked."""

    model: nn.Module
    ball: Ball
    loss: Loss
    steps: int
    step_size: float
    generator: torch.Generator | None
    keep_best: bool
    steps_each: Tensor | None
    fosc_below: float | None
    fosc_from_start: bool
    until_fooled: bool
    record: list[dict[str, Tensor]] | None

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
            wrong = logits.argmax(1) != label
            if self.record is not None:
                gaps = gaps_of(self.ball, gradient, origin, at)
                found = {"images": moving, "at": at, "loss": losses, "fooled": wrong}
                self.record.append(found | gaps)
            if self.keep_best:
                better = losses > highest[moving]
                best[moving[better]] = at[better]
                highest[moving[better]] = losses[better]
            centre = start[moving] if self.fosc_from_start else origin
            go = self._goes_on(step, moving, gradient, at, centre, wrong)
            if not bool(go.all()):
                moving, at, origin = moving[go], at[go], origin[go]
                gradient = gradient[go]
            if len(moving) == 0:
                break
            at = at + self.step_size * self.ball.steepest(gradient)
            x_adv[moving] = (origin + self.ball.project(at - origin)).clamp(0, 1)
        if self.keep_best:
            better = _losses(self.model, x_adv, y, self.loss)[0] > highest
            x_adv = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
        return x_adv

    def _goes_on(
        self,
        step: int,
        moving: Tensor,
        gradient: Tensor,
        at: Tensor,
        centre: Tensor,
        wrong: Tensor,
    ) -> Tensor:
        """Return which of the moving images take this step."""
        go = torch.ones_like(moving, dtype=torch.bool)
        # Always one step, as published code does: a random start at which the loss is
        # flat must not pass for a solved inner problem.
        if self.fosc_below is not None and step > 0:
            go &= fosc(self.ball, gradient, at - centre) > self.fosc_below
        if self.steps_each is not None:
            go &= step < self.steps_each.to(moving.device)[moving]
        if self.until_fooled:
            go &= ~wrong
        return go


@torch.no_grad()
def _losses(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Return each image's loss and whether it is misclassified."""
    logits = model(x)
    check_logits(logits, y)
    return loss(logits, y), logits.argmax(1) != y
