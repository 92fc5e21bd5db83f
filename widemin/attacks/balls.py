"""The sets in which an image may be moved: L-infinity and L2 balls."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from widemin.names import norm_and_radius


def _column(values: Tensor) -> Tensor:
    """Return values, shape (batch,), so that they multiply images."""
    return values.view(-1, 1, 1, 1)


def _scaled(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return v over a number per image, and these numbers, shape (batch,).

    They are 1, or the largest entry where squares of entries would leave the range of
    the precision: in float32 those of 1e-23 are 0, those of 1e20 infinite.
    """
    info, norm = torch.finfo(v.dtype), v.flatten(1).norm(dim=1)
    fits = (norm > info.tiny**0.5 / info.eps) & (norm < info.max**0.5)
    largest = v.flatten(1).abs().amax(1)
    size = largest.where(~fits & (largest > 0), torch.ones_like(largest))
    return v / _column(size), size


@dataclass(frozen=True)
class _Ball:
    epsilon: float
    text: str = field(default="", init=False, compare=False, repr=False)  # as given
    most: ClassVar[float] = math.inf  # epsilon's upper end

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= self.most or self.epsilon == math.inf:  # NaN too
            upper = "" if self.most == math.inf else f" and at most {self.most:g}"
            wanted = f"finite, at least 0{upper}, in pixels"
            raise ValueError(f"epsilon must be {wanted}; got {self.epsilon}")

    def __str__(self) -> str:
        """Return the set as it was given, or as `parse_ball` reads it."""
        return self.text or f"{type(self).__name__.lower()} {self.epsilon}"

    def scaled(self, factor: float) -> Self:
        """Return the set whose radius is factor times this one's."""
        return type(self)(self.epsilon * factor)


@dataclass(frozen=True)
class Linf(_Ball):
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
class L2(_Ball):
    """Perturbations whose Euclidean norm, over all pixels, is at most epsilon.

    >>> L2(0.5).project(torch.tensor([[[[3.0, 4.0]]]]))
    tensor([[[[0.3000, 0.4000]]]])
    """

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction along which a linear loss grows fastest."""
        gradient, _ = _scaled(gradient)
        norm = gradient.flatten(1).norm(dim=1)
        # A zero gradient has no direction: the image stays where it is.
        return gradient / _column(norm.where(norm > 0, torch.ones_like(norm)))

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest point of the set."""
        norm = self.size(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * _column((self.epsilon / norm).clamp_max(1.0))

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
        return self.epsilon * _column(radius) * self.steepest(direction)


Ball = Linf | L2


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
