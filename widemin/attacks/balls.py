"""The sets in which an image may be moved, and FOSC: how far it is from their best."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Self

import torch
from torch import Tensor

from widemin.names import check, norm_and_radius


def _scaled(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return v over a number per image, and these numbers, shape (batch,).

    They are 1, or the largest entry where squares would leave the range of the
    precision: in float32 those of 1e-23 are 0, those of 1e20 infinite.
    """
    info, norm = torch.finfo(v.dtype), v.flatten(1).norm(dim=1)
    fits = (norm > info.tiny**0.5 / info.eps) & (norm < info.max**0.5)
    largest = v.flatten(1).abs().amax(1)
    size = largest.where(~fits & (largest > 0), torch.ones_like(largest))
    return v / size.view(-1, 1, 1, 1), size


@dataclass(frozen=True)
class _Set:
    """A set of perturbations of radius epsilon, in pixels."""

    epsilon: float
    text: str = field(default="", init=False, compare=False, repr=False)  # as given
    most: ClassVar[float] = inf  # the largest radius

    def __post_init__(self) -> None:
        """Check the radius."""
        upper = "" if self.most == inf else f" and at most {self.most:g}"
        check(
            0 <= self.epsilon <= self.most and self.epsilon < inf,  # NaN fails too
            f"epsilon must be finite, at least 0{upper}, in pixels",
            self.epsilon,
        )

    def __str__(self) -> str:
        """Return the set as it was given, or as `parse_ball` reads it."""
        return self.text or f"{type(self).__name__.lower()} {self.epsilon}"

    def scaled(self, factor: float) -> Self:
        """Return the set whose radius is factor times this one's."""
        return type(self)(self.epsilon * factor)


@dataclass(frozen=True)
class Linf(_Set):
    """Perturbations that move no pixel by more than epsilon.

    >>> Linf(0.1).project(torch.tensor([[[[0.3, -0.05]]]]))
    tensor([[[[ 0.1000, -0.0500]]]])
    """

    most = 1.0

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction along which a linear loss grows fastest."""
        return gradient.sign()

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest point of the set."""
        return delta.clamp(-self.epsilon, self.epsilon)

    def size(self, delta: Tensor) -> Tensor:
        """Return the largest absolute entry of each perturbation, shape (batch,)."""
        return delta.flatten(1).abs().amax(1)

    def support(self, gradient: Tensor) -> Tensor:
        """Return max <delta, gradient> over the set, shape (batch,)."""
        return self.epsilon * gradient.flatten(1).norm(p=1, dim=1)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return perturbations drawn uniformly from the set, shape of x."""
        uniform = torch.rand(x.shape, generator=generator).to(x)
        return self.epsilon * (2 * uniform - 1)


@dataclass(frozen=True)
class L2(_Set):
    """Perturbations whose Euclidean norm, over all pixels, is at most epsilon.

    >>> L2(0.5).project(torch.tensor([[[[3.0, 4.0]]]]))
    tensor([[[[0.3000, 0.4000]]]])
    """

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction along which a linear loss grows fastest."""
        gradient, _ = _scaled(gradient)
        norm = gradient.flatten(1).norm(dim=1)
        # A zero gradient has no direction: the image stays where it is.
        norm = norm.where(norm > 0, torch.ones_like(norm))
        return gradient / norm.view(-1, 1, 1, 1)

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest point of the set."""
        norm = self.size(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * (self.epsilon / norm).clamp_max(1.0).view(-1, 1, 1, 1)

    def size(self, delta: Tensor) -> Tensor:
        """Return the Euclidean norm of each perturbation, shape (batch,)."""
        scaled, factor = _scaled(delta)
        return factor * scaled.flatten(1).norm(dim=1)

    def support(self, gradient: Tensor) -> Tensor:
        """Return max <delta, gradient> over the set, shape (batch,)."""
        return self.epsilon * self.size(gradient)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return Gaussian directions, radius uniform in [0, epsilon], shape of x."""
        direction = torch.randn(x.shape, generator=generator).to(x)
        radius = torch.rand(len(x), generator=generator).to(x)
        return self.epsilon * radius.view(-1, 1, 1, 1) * self.steepest(direction)


Ball = Linf | L2


def fosc(ball: Ball, gradient: Tensor, delta: Tensor) -> Tensor:
    """Return the first-order stationary condition of each image, shape (batch,).

    FOSC is max <d - delta, gradient> over the perturbations d of the ball (Wang et al.
    2019, eq. 2), of each image's own loss at x + delta: at least 0 inside the ball, and
    0 where the loss has no first-order way up.

    >>> corner = torch.full((1, 1, 1, 2), 0.1)
    >>> fosc(Linf(0.1), torch.ones(1, 1, 1, 2), corner).item()
    0.0
    """
    return ball.support(gradient) - (delta * gradient).flatten(1).sum(1)


def fosc_box(
    ball: Linf, gradient: Tensor, x: Tensor, x_adv: Tensor
) -> tuple[Tensor, Tensor]:
    """Return FOSC of the problem that clipped PGD solves, and its value at x.

    The set is the ball and the pixel range [0, 1] together: a pixel that clipping pins
    is no way up. The value at x, along the same gradient, is the largest first-order
    gain, by which the other can be normalised. Each is of shape (batch,).

    >>> white, gradient = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    >>> gap, _ = fosc_box(Linf(0.1), gradient, white, white)
    >>> gap.item(), fosc(Linf(0.1), gradient, white - white).item() > 0
    (0.0, True)
    """
    low, high = (x - ball.epsilon).clamp_min(0), (x + ball.epsilon).clamp_max(1)

    def gain(start: Tensor) -> Tensor:
        best = torch.maximum(gradient * (high - start), gradient * (low - start))
        return best.flatten(1).sum(1)

    return gain(x_adv), gain(x)


def parse_ball(text: str) -> Ball:
    """Return the set that a text such as "linf 8/255" or "l2 0.5" names.

    >>> ball = parse_ball("linf 8/255")
    >>> ball, str(ball), str(Linf(0.1))
    (Linf(epsilon=0.03137254901960784), 'linf 8/255', 'linf 0.1')
    """
    norm, radius = norm_and_radius(text)
    ball = (Linf if norm == "linf" else L2)(float(radius))
    object.__setattr__(ball, "text", text)
    return ball
