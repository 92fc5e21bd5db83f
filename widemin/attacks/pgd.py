"""FGSM and PGD. They ask exactly the network they are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from widemin.attacks.balls import Ball, Linf, fosc, fosc_box
from widemin.attacks.images import check_images, inference, input_gradient, logits_of
from widemin.attacks.losses import Loss, cross_entropy, fooled
from widemin.names import check, check_counts


@torch.no_grad()
def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, loss: Loss = cross_entropy
) -> Tensor:
    """Move x once, to the edge of the ball (Goodfellow et al. 2015).

    Arguments, returns and errors as of `pgd`.

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
    until_fooled: bool = False,
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
        restarts: Random starts; for each image one that fools is kept, or else the
            one with the highest loss.
        until_fooled: Stop each image once it is misclassified, or is in the class
            wanted; it leaves the batch and costs nothing more.

    Returns:
        Adversarial images in [0, 1], shape of x.

    Raises:
        ValueError: Images outside [0, 1], wrong labels, no steps, restarts without a
            generator, no gradient; logits or gradients not finite (`NonFiniteError`).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> far = pgd(model, x, y, Linf(0.1))
    >>> bool(torch.allclose(far, fgsm(model, x, y, Linf(0.1))))
    True
    """
    check_counts(restarts=restarts)
    one = restarts == 1 or generator is not None
    check(one, "restarts need a generator", f"{restarts} and none")
    ascent: Any = {"steps": steps, "step_size": step_size, "generator": generator}
    ascent |= {"loss": loss, "until_fooled": until_fooled}

    def reached(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(model, x, y)
        return loss(logits, y), fooled(loss, logits, y)

    with inference(model):
        moved = pgd_path(model, x, y, ball, **ascent)
        for _ in range(restarts - 1):
            highest, done = reached(moved, y)
            again = torch.arange(len(x), device=x.device)
            again = again[~done] if until_fooled else again
            if len(again) == 0:
                break
            other = pgd_path(model, x[again], y[again], ball, **ascent)
            losses, fools = reached(other, y[again])
            higher = losses > highest[again]
            better = torch.where(fools == done[again], higher, fools)
            moved[again[better]] = other[better]
    return moved


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
    until_fooled: bool = False,
    steps_each: Tensor | None = None,
    fosc_below: float | None = None,
    fosc_from_start: bool = False,
    record: list[dict[str, Tensor]] | None = None,
) -> Tensor:
    """Move x as `pgd` does; stop each image by its FOSC, and record its path.

    Arguments, returns and errors are those of `pgd`, and these:

    - steps_each: Steps of each image, at most `steps`; shape (batch,), whole numbers.
    - fosc_below: Stop each image once its FOSC is this small (Wang et al. 2019,
      algorithm 1), after at least one step.
    - fosc_from_start: Measure FOSC from the random start, as the released code of
      Wang et al. does, instead of from the image.
    - record: Receives, for each gradient taken, a dict of the `images` still moving
      (indices), where they are (`at`), their `loss`, whether they are `fooled`, their
      `fosc` and their `reach`: the largest first-order gain from the centre, by which
      FOSC is normalised; for Linf also `fosc_box` and `reach_box`.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y, record = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]), []
    >>> _ = pgd_path(model, x, y, Linf(0.1), steps=5, fosc_below=1e9, record=record)
    >>> len(record)  # the gradients at the start and after the one step taken
    2
    """
    check_images(x, y)
    check_counts(steps=steps)
    length = ball.epsilon / 4 if step_size is None else step_size
    sound = step_size is None or 0 < length < float("inf")
    check(sound, "step_size must be above 0 and finite", length)
    if steps_each is not None:
        shape = tuple(steps_each.shape)
        check(shape == y.shape, f"steps_each must have shape ({len(x)},)", shape)
    start = x
    if generator is not None:
        start = (x + ball.sample(x, generator)).clamp(0, 1)
    x_adv, moving = start.clone(), torch.arange(len(x), device=x.device)
    with inference(model):
        for step in range(steps):
            at, origin, label = x_adv[moving], x[moving], y[moving]
            gradient, losses, logits = input_gradient(model, at, label, loss)
            done = fooled(loss, logits, label)
            if record is not None:
                taken = {"images": moving, "at": at, "loss": losses, "fooled": done}
                taken["fosc"] = fosc(ball, gradient, at - origin)
                taken["reach"] = ball.support(gradient)
                if isinstance(ball, Linf):
                    box = fosc_box(ball, gradient, origin, at)
                    taken["fosc_box"], taken["reach_box"] = box
                record.append(taken)
            go = ~done if until_fooled else torch.ones_like(done)
            # Always one step, as published code does: a random start at which the
            # loss is flat must not pass for a solved inner problem.
            if fosc_below is not None and step > 0:
                centre = start[moving] if fosc_from_start else origin
                go &= fosc(ball, gradient, at - centre) > fosc_below
            if steps_each is not None:
                go &= step < steps_each.to(moving.device)[moving]
            if not bool(go.all()):
                moving, at, origin = moving[go], at[go], origin[go]
                gradient = gradient[go]
            if len(moving) == 0:
                break
            at = at + length * ball.steepest(gradient)
            x_adv[moving] = (origin + ball.project(at - origin)).clamp(0, 1)
    return x_adv
