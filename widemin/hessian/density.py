"""The whole spectrum: trace and density, by random vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from widemin.attacks import inference
from widemin.batches import Data, Loss
from widemin.hessian.eigenvalues import Krylov
from widemin.hessian.products import Product, gaussian, hessian_product
from widemin.names import check_counts


def trace(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    *,
    generator: torch.Generator,
    probes: int = 50,
    chunk: int | None = None,
    loss: Loss = None,
) -> tuple[float, float]:
    """Return the trace of the Hessian and its standard error, by Hutchinson's estimate.

    The mean of v . H v over probes v, vectors of independent signs from the generator
    (Hutchinson 1990); the error falls with the square root of their number, at least 2.
    Other arguments and errors as of `hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> value, error = trace(network, x, y, generator=torch.Generator())
    >>> value > 0 and error < value
    True
    """
    check_counts(2, probes=probes)
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        signs = (gaussian(model, generator).sign() for _ in range(probes))
        values = torch.stack([v @ product(v) for v in signs]).double()
    return float(values.mean()), float(values.std() / probes**0.5)


def density(
    model: nn.Module,
    x: Data,
    y: Tensor | None,
    grid: Tensor,
    *,
    generator: torch.Generator,
    probes: int = 10,
    steps: int = 30,
    width: float = 0.0,
    chunk: int | None = None,
    loss: Loss = None,
) -> Tensor:
    """Return the spectral density of the Hessian on a grid, by Lanczos quadrature.

    Each probe's Ritz values, weighted by the squared first components of their
    vectors, are the nodes of a Gauss quadrature of the density (Golub and Welsch
    1969); they are drawn as Gaussians of a standard deviation `width`, where 0 is a
    hundredth of the grid. `probes` random starts of `steps` Hessian-vector products
    each are averaged. The grid is in loss per squared weight, shape (n,), and so is the
    density's shape; it integrates to 1 over a grid that holds the whole spectrum. Other
    arguments as of `hessian_product`.

    Raises:
        ValueError: As of `hessian_product`, counts below 1, or a grid that is not
            finite or, without a width, spans nothing.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> grid = torch.linspace(-1, 2, 600)
    >>> values = density(network, x, y, grid, generator=torch.Generator())
    >>> round(float(torch.trapezoid(values, grid)), 2)
    1.0
    """
    check_counts(probes=probes, steps=steps)
    if grid.ndim != 1 or len(grid) == 0 or not bool(grid.isfinite().all()):
        raise ValueError(f"grid must be finite numbers, shape (n,); got {grid}")
    sigma = width or float(grid.max() - grid.min()) / 100
    if not 0 < sigma < math.inf:
        raise ValueError(
            "width must be above 0, or 0 for a hundredth of a grid that spans a range; "
            f"got {width} and a grid from {float(grid.min()):g} to "
            f"{float(grid.max()):g}"
        )
    product = hessian_product(model, x, y, chunk, loss)
    total = torch.zeros(len(grid), dtype=torch.float64)
    with inference(model):
        for _ in range(probes):
            nodes, weights = quadrature(product, gaussian(model, generator), steps)
            shape = (grid.cpu().double()[:, None] - nodes) / sigma
            bumps = torch.exp(-(shape**2) / 2) / (sigma * (2 * torch.pi) ** 0.5)
            total += bumps @ weights / probes
    return total


def quadrature(product: Product, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return Ritz values and weights of a symmetric operator, each of shape (k,).

    >>> nodes, weights = quadrature(lambda v: 2 * v, torch.ones(3).double(), 5)
    >>> nodes.round(decimals=6).tolist(), weights.round(decimals=6).tolist()
    ([2.0], [1.0])
    """
    check_counts(steps=steps)
    krylov = Krylov(product, start)
    for _ in range(min(steps, len(start))):
        krylov.extend()
        if krylov.exhausted:
            break
    values, vectors = torch.linalg.eigh(krylov.tridiagonal())
    return values, vectors[0] ** 2
