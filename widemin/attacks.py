"""Attacks on image classifiers: the sets they stay in, the losses they climb.

Images are pixels in [0, 1], shape (batch, channels, height, width); the network
normalises them itself. Gradients are those of the summed loss, so that no number
depends on the batch size. Attacks run the network in inference mode and leave its
mode, gradients and buffers as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.models import folded

Loss = Callable[[Tensor, Tensor], Tensor]


class NonFiniteError(ValueError):
    """A network whose logits are NaN or infinite: broken, not robust."""


def _column(values: Tensor) -> Tensor:
    """Return values, shape (batch,), so that they multiply images."""
    return values.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Linf:
    """Perturbations that move no pixel by more than epsilon.

    >>> Linf(0.1).project(torch.tensor([[[[0.3, -0.05]]]]))
    tensor([[[[ 0.1000, -0.0500]]]])
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Check the radius."""
        _check_epsilon(self.epsilon, most=1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction along which a linear loss grows fastest."""
        return gradient.sign()

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest point of the set."""
        return delta.clamp(-self.epsilon, self.epsilon)

    def support(self, gradient: Tensor) -> Tensor:
        """Return max <delta, gradient> over the set, shape (batch,)."""
        return self.epsilon * gradient.flatten(1).norm(p=1, dim=1)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return perturbations drawn uniformly from the set, shape of x."""
        uniform = torch.rand(x.shape, generator=generator).to(x)
        return self.epsilon * (2 * uniform - 1)

    def scaled(self, factor: float) -> Linf:
        """Return the set whose radius is factor times this one's."""
        return Linf(self.epsilon * factor)


@dataclass(frozen=True)
class L2:
    """Perturbations whose Euclidean norm, over all pixels, is at most epsilon.

    >>> L2(0.5).project(torch.tensor([[[[3.0, 4.0]]]]))
    tensor([[[[0.3000, 0.4000]]]])
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Check the radius."""
        _check_epsilon(self.epsilon, most=float("inf"))

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction along which a linear loss grows fastest."""
        norm = gradient.flatten(1).norm(dim=1)
        # A zero gradient has no direction: the image stays where it is.
        return gradient / _column(norm.where(norm > 0, torch.ones_like(norm)))

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest point of the set."""
        norm = delta.flatten(1).norm(dim=1)
        shrink = self.epsilon / norm.clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * _column(shrink.clamp_max(1.0))

    def support(self, gradient: Tensor) -> Tensor:
        """Return max <delta, gradient> over the set, shape (batch,)."""
        return self.epsilon * gradient.flatten(1).norm(dim=1)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return Gaussian directions, radius uniform in [0, epsilon], shape of x."""
        direction = torch.randn(x.shape, generator=generator).to(x)
        radius = torch.rand(len(x), generator=generator).to(x)
        return self.epsilon * _column(radius) * self.steepest(direction)

    def scaled(self, factor: float) -> L2:
        """Return the set whose radius is factor times this one's."""
        return L2(self.epsilon * factor)


Ball = Linf | L2


def _check_epsilon(epsilon: float, most: float) -> None:
    if not 0 <= epsilon <= most or epsilon == float("inf"):  # NaN fails too
        upper = "" if most == float("inf") else f" and at most {most:g}"
        raise ValueError(
            f"epsilon must be finite, at least 0{upper}, in pixels; got {epsilon}"
        )


def parse_ball(text: str) -> Ball:
    """Return the set that a text such as "linf 8/255" or "l2 0.5" names.

    >>> parse_ball("linf 8/255")
    Linf(epsilon=0.03137254901960784)
    """
    norm, _, radius = text.partition(" ")
    try:
        epsilon = float(Fraction(radius))
        norms: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
        ball = norms[norm]
    except (KeyError, ValueError, ZeroDivisionError):
        raise ValueError(
            f"a perturbation set is written 'linf 8/255' or 'l2 0.5'; got {text!r}"
        ) from None
    return ball(epsilon)


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run the network in inference mode; restore every layer's mode afterwards.

    >>> network = nn.Dropout()
    >>> with inference(network):
    ...     network.training
    False
    >>> network.training
    True
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


# Losses an attack can climb: (logits, labels) -> one value per image, shape (batch,).


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of the softmax; in float32 it loses margins > 16.64.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([0])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits, y, reduction="none")


def clipped_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of probabilities clipped to [1e-7, 1 - 1e-7], as Keras.

    Its gradient is exactly zero once the margin exceeds 16.1 (see the chapter on
    width): a network that is sure enough cannot be attacked through it.

    >>> z = torch.tensor([[20.0, 0.0]], requires_grad=True)
    >>> torch.autograd.grad(clipped_cross_entropy(z, torch.tensor([0])).sum(), z)[0]
    tensor([[0., 0.]])
    """
    probability = logits.softmax(1).gather(1, y[:, None])[:, 0]
    return -probability.clamp(1e-7, 1 - 1e-7).log()


def _true_and_best_other(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    true = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -float("inf"))
    return true, others.amax(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return best other logit minus true logit (Carlini and Wagner 2017, f6).

    Positive means misclassified; its gradient does not fade with confidence.

    >>> margin(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
    tensor([-2.])
    """
    true, other = _true_and_best_other(logits, y)
    return other - true


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce and Hein 2020, eq. 6).

    >>> dlr(torch.tensor([[5.0, 4.0, 1.0]]), torch.tensor([0]))
    tensor([-0.2500])
    """
    ordered = logits.sort(dim=1, descending=True).values
    spread = ordered[:, 0] - ordered[:, min(2, logits.shape[1] - 1)]
    return margin(logits, y) / spread.clamp_min(1e-12)


def rescaled_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy after dividing the logits by the image's own margin.

    >>> z, y = torch.tensor([[3.0, 1.0]]), torch.tensor([0])
    >>> bool(rescaled_cross_entropy(1000 * z, y) == rescaled_cross_entropy(z, y))
    True
    """
    size = margin(logits, y).abs().detach().clamp_min(1e-12)
    return cross_entropy(logits / size[:, None], y)


def targeted(loss: Loss) -> Loss:
    """Return the loss of an attack towards a class: its labels are the classes wanted.

    >>> towards = targeted(cross_entropy)
    >>> wanted = torch.tensor([1])
    >>> sure, unsure = torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]])
    >>> bool(towards(sure, wanted) > towards(unsure, wanted))
    True
    """
    return lambda logits, y: -loss(logits, y)


def clean(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return x: the attack that does nothing.

    >>> x = torch.rand(1, 1, 2, 2)
    >>> clean(nn.Identity(), x, torch.tensor([0])) is x
    True
    """
    return x


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless x are images in [0, 1] and y their labels.

    >>> normalised = torch.full((1, 1, 2, 2), 2.0)
    >>> check_images(normalised, torch.tensor([0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: x must be pixels in [0, 1], finite and not normalised; got ... 2 to 2
    """
    if x.ndim != 4 or len(x) == 0:
        raise ValueError(
            "x must be images, shape (batch, channels, height, width) with batch > 0; "
            f"got shape {tuple(x.shape)}"
        )
    low, high = (value.item() for value in x.detach().aminmax())
    if not (low >= 0 and high <= 1):  # written so that NaN is caught too
        raise ValueError(
            "x must be pixels in [0, 1], finite and not normalised; "
            f"got values from {low:.3g} to {high:.3g}"
        )
    if y.shape != (len(x),) or y.dtype != torch.int64:
        raise ValueError(
            f"y must be int64 labels, shape ({len(x)},); got {y.dtype}, "
            f"shape {tuple(y.shape)}"
        )


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Raise ValueError unless logits are finite and cover the labels.

    >>> check_logits(torch.zeros(1, 2), torch.tensor([5]))
    Traceback (most recent call last):
    ...
    ValueError: y must be labels from 0 to 1; got 5 to 5
    """
    if logits.ndim != 2 or len(logits) != len(y) or logits.shape[1] < 2:
        raise ValueError(
            f"model must return logits, shape ({len(y)}, classes) with at least 2 "
            f"classes; got shape {tuple(logits.shape)}"
        )
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise ValueError(
            f"y must be labels from 0 to {logits.shape[1] - 1}; "
            f"got {int(y.min())} to {int(y.max())}"
        )
    if not bool(logits.isfinite().all()):
        raise NonFiniteError("model must return finite logits; got NaN or infinity")


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of each image's own loss, the losses and the logits.

    Args:
        model: Maps images to logits, shape (batch, classes).
        x: Images in [0, 1], shape (batch, channels, height, width).
        y: Labels, shape (batch,).
        loss: What is differentiated: (logits, y) -> shape (batch,).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> [part.shape[0] for part in input_gradient(model, x, y)]
    [3, 3, 3]
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        check_logits(logits.detach(), y)
        losses = loss(logits, y)
        # Sum, not mean: a mean divides each gradient, and FOSC with it, by the batch.
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach(), logits.detach()


def fosc(ball: Ball, gradient: Tensor, delta: Tensor) -> Tensor:
    """Return the first-order stationary condition of each image, shape (batch,).

    FOSC is max <d - delta, gradient> over the perturbations d of the ball (Wang et
    al. 2019, eq. 2): at least 0 inside the ball, and 0 where the loss has no first-
    order way up.

    Args:
        ball: The perturbations allowed.
        gradient: Gradient of each image's own loss at x + delta, shape of x.
        delta: The perturbation reached, from the clean image, shape of x.

    >>> corner = torch.full((1, 1, 1, 2), 0.1)
    >>> fosc(Linf(0.1), torch.ones(1, 1, 1, 2), corner).item()
    0.0
    """
    return ball.support(gradient) - (delta * gradient).flatten(1).sum(1)


def fosc_box(
    ball: Linf, gradient: Tensor, x: Tensor, x_adv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return FOSC of the problem that clipped PGD solves, and its value at x.

    The set is the ball and the pixel range [0, 1] together, so that a pixel which
    clipping pins is no way up: the exact maximiser of a linear loss has 0, while
    `fosc` does not reach 0 there.

    Args:
        ball: The perturbations allowed.
        gradient: Gradient of each image's own loss at x_adv, shape of x.
        x: Clean images in [0, 1], shape (batch, channels, height, width).
        x_adv: Images reached, inside ball and range, shape of x.

    Returns:
        The gap at x_adv and, by which it can be normalised, the largest first-order
        gain from x along the same gradient; each of shape (batch,).

    >>> white = torch.ones(1, 1, 1, 1)
    >>> gap, _ = fosc_box(Linf(0.1), torch.ones(1, 1, 1, 1), white, white)
    >>> gap.item(), fosc(Linf(0.1), torch.ones(1, 1, 1, 1), white - white).item() > 0
    (0.0, True)
    """
    low, high = (x - ball.epsilon).clamp_min(0), (x + ball.epsilon).clamp_max(1)

    def gain(start: Tensor) -> Tensor:
        best = torch.maximum(gradient * (high - start), gradient * (low - start))
        return best.flatten(1).sum(1)

    return gain(x_adv), gain(x)


def _gaps(ball: Ball, gradient: Tensor, x: Tensor, x_adv: Tensor) -> dict[str, Tensor]:
    gaps = {"fosc": fosc(ball, gradient, x_adv - x), "reach": ball.support(gradient)}
    if isinstance(ball, Linf):
        gaps["fosc_box"], gaps["reach_box"] = fosc_box(ball, gradient, x, x_adv)
    return gaps


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

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> far = pgd(model, x, y, Linf(0.1), steps=5, step_size=0.05)
    >>> bool(torch.allclose(far, fgsm(model, x, y, Linf(0.1))))
    True
    """
    check_images(x, y)
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

    def ascend(x: Tensor, y: Tensor) -> Tensor:
        start = x
        if generator is not None:
            start = (x + ball.sample(x, generator)).clamp(0, 1)
        x_adv, moving = start.clone(), torch.arange(len(x), device=x.device)
        best, highest = x_adv.clone(), torch.full_like(x[:, 0, 0, 0], -torch.inf)
        for step in range(steps):
            at, origin = x_adv[moving], x[moving]
            gradient, losses, logits = input_gradient(net, at, y[moving], loss)
            if record is not None:
                gaps = _gaps(ball, gradient, origin, at)
                wrong = logits.argmax(1) != y[moving]
                found = {"images": moving, "at": at, "loss": losses, "fooled": wrong}
                record.append(found | gaps)
            if keep == "best":
                better = losses > highest[moving]
                best[moving[better]] = at[better]
                highest[moving[better]] = losses[better]
            go = torch.ones(len(moving), dtype=torch.bool, device=x.device)
            # Always one step, as published code does: a random start at which the
            # loss is flat must not pass for a solved inner problem.
            if fosc_below is not None and step > 0:
                centre = start[moving] if fosc_from_start else origin
                go &= fosc(ball, gradient, at - centre) > fosc_below
            if steps_each is not None:
                go &= step < steps_each.to(x.device)[moving]
            if until_fooled:
                go &= logits.argmax(1) == y[moving]
            if not bool(go.all()):
                moving, at, origin = moving[go], at[go], origin[go]
                gradient = gradient[go]
            if len(moving) == 0:
                break
            at = at + step_size * ball.steepest(gradient)
            x_adv[moving] = (origin + ball.project(at - origin)).clamp(0, 1)
        if keep == "best":
            better = _losses(net, x_adv, y, loss)[0] > highest
            x_adv = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
        return x_adv

    with inference(model):
        net = folded(model)
        found = ascend(x, y)
        for _ in range(restarts - 1):
            highest, wrong = _losses(net, found, y, loss)
            again = torch.arange(len(x), device=x.device)
            again = again[~wrong] if until_fooled else again
            if len(again) == 0:
                break
            other = ascend(x[again], y[again])
            losses, fooled = _losses(net, other, y[again], loss)
            better = losses > highest[again]
            better = better | fooled if until_fooled else better
            found[again[better]] = other[better]
    return found


@torch.no_grad()
def _losses(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Return each image's loss and whether it is misclassified."""
    logits = model(x)
    check_logits(logits, y)
    return loss(logits, y), logits.argmax(1) != y
