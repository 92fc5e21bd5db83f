"""The Hessian of the mean loss with respect to the weights.

Products with vectors, eigenvalues at both ends with their residuals, trace and
spectral density. Batch norm and dropout are in inference mode; weight decay is not
part of the loss.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import inference
from widemin.batches import Data, Loss, at_once, checked, summed, trainable
from widemin.names import check, check_counts, check_finite

Product = Callable[[Tensor], Tensor]

FORWARD_FROM = 1_000  # images


def hessian_product(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    chunk: int | None = None,
    loss: Loss = None,
) -> Product:
    """Return v -> H v for the Hessian of the mean loss over x.

    It is the forward derivative of the gradient; for fewer than 1,000 inputs, and for
    layers without a forward derivative, two backward passes (Pearlmutter 1994).
    Vectors have shape (weights,), in the order of the parameters that require a
    gradient.

    Args:
        model: Maps inputs to logits; used in the mode it is in.
        x: Inputs of any shape (n, ...), or a DataLoader, which is read once.
        y: Labels of a tensor, shape (n,); None with a DataLoader.
        chunk: Inputs differentiated at a time, by default what suits the device.
        loss: (outputs, y) to each input's loss, shape (batch,), or their mean, such as
            nn.MSELoss(); the cross-entropy by default.

    Raises:
        NonFiniteError: Weights, outputs or products that are NaN or infinite, or logits
            so large that their differences are lost to rounding.
        ValueError: No inputs, wrong labels, or no parameter that requires a gradient.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> product = hessian_product(network, x, y, chunk=2)
    >>> common = torch.ones(8)  # moves both logits alike: no curvature
    >>> bool(product(common).abs().max() < 1e-6)
    True
    """
    pairs = checked(model, x, y, at_once(model, chunk), loss)
    parameters = trainable(model)
    count = sum(len(targets) for _, targets in pairs)
    sizes = [parameter.numel() for parameter in parameters]
    slope = _forward_over_reverse if count >= FORWARD_FROM else _twice_backwards

    def mean(vector: Tensor) -> Tensor:
        pieces = zip(parameters, vector.split(sizes), strict=True)
        direction = [part.view_as(p).to(p) for p, part in pieces]
        total = torch.zeros_like(vector)
        for inputs, targets in pairs:
            there = inputs.to(vector.device), targets.to(vector.device)
            rows = slope(model, *there, direction, loss)
            total += torch.cat([row.reshape(-1) for row in rows])
        return total / count

    def product(vector: Tensor) -> Tensor:
        nonlocal slope
        try:
            moved = mean(vector)
        except RuntimeError:
            if slope is _twice_backwards:
                raise
            slope = _twice_backwards  # a layer of one's own has no forward derivative
            moved = mean(vector)
        check_finite("Hessian products must be finite", moved)
        return moved

    return product


def _twice_backwards(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor], loss: Loss
) -> Sequence[Tensor]:
    """Return the derivative of the gradient of the summed loss along a direction."""
    parameters = trainable(model)
    with torch.enable_grad():
        slope = summed(loss, model(x), y)
        if slope.requires_grad:
            gradients = torch.autograd.grad(
                slope, parameters, create_graph=True, materialize_grads=True
            )
            pairs = zip(gradients, direction, strict=True)
            slope = torch.stack([(g * v).sum() for g, v in pairs]).sum()
        if not slope.requires_grad:  # where a derivative is constant
            return [torch.zeros_like(p) for p in parameters]
        return torch.autograd.grad(slope, parameters, materialize_grads=True)


@cache
def _load_forward_mode() -> None:
    """Let torch import what its first forward derivative needs, without its warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def _forward_over_reverse(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor], loss: Loss
) -> Sequence[Tensor]:
    _load_forward_mode()
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def value(at: dict[str, Tensor]) -> Tensor:
        return summed(loss, torch.func.functional_call(model, at, (x,)), y)

    along = dict(zip(weights, direction, strict=True))
    slopes = torch.func.jvp(torch.func.grad(value), (weights,), (along,))[1]
    return list(slopes.values())


def _gaussian(model: nn.Module, generator: torch.Generator) -> Tensor:
    """Return a Gaussian vector for a model's Hessian to multiply, shape (weights,)."""
    parameters = trainable(model)
    # In float32 on the CPU, so that precisions and devices see the same draw.
    drawn = torch.randn(sum(p.numel() for p in parameters), generator=generator)
    dtype = reduce(torch.promote_types, [p.dtype for p in parameters])
    return drawn.to(parameters[0].device, dtype)


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of a Hessian and how far they can be trusted."""

    values: Tensor  #: from the end of the spectrum inwards, shape (k,)
    residuals: Tensor  #: |H v - value v|; some eigenvalue is as near to each value
    products: int  #: Hessian-vector products used
    converged: bool  #: every residual is small, or nothing is left to look at
    vectors: Tensor  #: unit vectors v, shape (k, weights)


def _krylov(
    product: Product, start: Tensor
) -> Iterator[tuple[Tensor, Tensor, float, bool]]:
    """Yield, product by product, H within start, H start, H^2 start, ...

    As a tridiagonal matrix, in float64, with the orthonormal basis, the length of what
    leaves their space, and whether that is nothing, which is the end.
    """
    length = start.norm()
    sound = 0 < float(length) < math.inf
    check(sound, "start must have a length above 0", f"{length:g}")
    direction, invariant = start / length, False
    basis: list[Tensor] = []
    within = torch.zeros(0, 0, dtype=torch.float64)
    while not invariant:
        basis.append(direction)
        w = product(direction)
        within = F.pad(within, (0, 1, 0, 1))
        within[-1, -1] = float(direction @ w)
        check_finite("products must be finite", within[-1, -1])
        if len(basis) > 1:
            within[-1, -2] = within[-2, -1] = float(length)
        stack = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that grow
            w = w - stack.T @ (stack @ w)
        length = w.norm()
        invariant = float(length) <= 1e-12 * max(1e-30, float(within.abs().max()))
        yield within, stack, float(length), invariant
        direction = w / length.clamp_min(torch.finfo(w.dtype).tiny)


def lanczos(
    product: Product,
    start: Tensor,
    *,
    k: int = 1,
    tolerance: float = 1e-2,
    most: int = 100,
) -> Eigenvalues:
    """Return the largest eigenvalues of a symmetric operator.

    The iteration ends when each of k residuals is at most tolerance times |value|, or
    after `most` products; the error of a value goes with the square of its residual. A
    repeated value is found once. A value whose vectors are orthogonal to the start,
    shape (n,), is not found: draw the start at random.

    >>> diagonal = torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64)
    >>> top = lanczos(lambda v: diagonal * v, torch.ones(3).double(), k=2)
    >>> top.values.round(decimals=3).tolist(), top.converged
    ([5.0, 2.0], True)
    """
    check_counts(k=k, most=most)
    # A start of n numbers holds about 1/sqrt(n) of a vector: where nearly all else is
    # one value, a single product shows none of the others.
    least = min(len(start), most, 4)
    for done, space in enumerate(_krylov(product, start), 1):
        within, basis, left, exact = space
        values, vectors = torch.linalg.eigh(within)
        values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
        residuals = left * vectors[-1].abs()
        rounding = 100 * torch.finfo(start.dtype).eps * float(values.abs().max())
        sure = done >= least or bool((residuals <= rounding).all())
        near = bool((residuals <= tolerance * values.abs()).all())
        converged = exact or done == len(start) or (done >= k and sure and near)
        if converged or done >= most:
            break
    return Eigenvalues(values, residuals, done, converged, vectors.T.to(start) @ basis)


def top_eigenvalues(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    k: int = 1,
    *,
    generator: torch.Generator,
    chunk: int | None = None,
    loss: Loss = None,
    sign: int = 1,
    **search: Any,
) -> Eigenvalues:
    """Return the largest eigenvalues of the Hessian of the mean loss, or of -H.

    sign=-1 gives those of -H. The generator draws the start of `lanczos`, which also
    takes k, tolerance and most; other arguments and errors as of `hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> top = top_eigenvalues(network, x, y, generator=torch.Generator())
    >>> top.converged and top.values.item() > 0
    True
    """
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        start = _gaussian(model, generator)
        return lanczos(lambda v: sign * product(v), start, k=k, **search)


def bottom_eigenvalues(
    model: nn.Module, x: Data, y: Tensor | None = None, k: int = 1, **options: Any
) -> Eigenvalues:
    """Return the smallest eigenvalues, in ascending order, as `top_eigenvalues` does.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> bottom = bottom_eigenvalues(network, x, y, generator=torch.Generator())
    >>> bottom.values.item() > -1e-3  # a linear model's loss is convex
    True
    """
    negated = top_eigenvalues(model, x, y, k, sign=-1, **options)
    return replace(negated, values=-negated.values)


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
    """Return the trace of the Hessian and its standard error (Hutchinson 1990).

    The mean of v . H v over probes v, at least 2, of independent signs. Other arguments
    and errors as of `hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> value, error = trace(network, x, y, generator=torch.Generator())
    >>> value > 0 and error < value
    True
    """
    check_counts(2, probes=probes)
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        signs = (_gaussian(model, generator).sign() for _ in range(probes))
        values = torch.stack([v @ product(v) for v in signs]).double()
    return float(values.mean()), float(values.std() / probes**0.5)


def batch_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    *,
    generator: torch.Generator,
    most: int = 100,
    chunk: int | None = None,
    loss: Loss = None,
) -> float:
    """Return the curvature of a batch's loss along its own gradient, over batches.

    The mean of g . H g / g . g for the gradient g and the Hessian H of a batch's mean
    loss (Andreyev and Beneventano 2024), over at most `most` disjoint batches that the
    generator draws; the last images are left out where they fill none. A batch without
    a gradient counts for nothing; NaN if no batch has one. Other arguments and errors
    as of `hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> batch_sharpness(network, x, y, 5, generator=torch.Generator()) > 0
    True
    """
    check_counts(batch_size=batch_size, most=most)
    expected = f"batch_size must be at most {len(x)}, the number of images"
    check(batch_size <= len(x), expected, batch_size)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    parameters, values = trainable(model), []
    with inference(model):
        for batch in order.split(batch_size)[: min(most, len(x) // batch_size)]:
            product = hessian_product(model, x[batch], y[batch], chunk, loss)
            slopes = [torch.zeros_like(p) for p in parameters]
            for some in batch.split(at_once(model, chunk)):
                value = summed(loss, model(x[some]), y[some])
                more = torch.autograd.grad(value, parameters, materialize_grads=True)
                slopes = [slope + g for slope, g in zip(slopes, more, strict=True)]
            gradient = torch.cat([slope.reshape(-1) for slope in slopes])
            if gradient.any():
                unit = gradient / gradient.norm()
                values.append(float(unit @ product(unit)))
    return math.fsum(values) / len(values) if values else math.nan


def density(
    model: nn.Module,
    x: Data,
    y: Tensor | None,
    grid: Tensor,
    *,
    generator: torch.Generator,
    probes: int = 10,
    steps: int = 30,
    chunk: int | None = None,
    loss: Loss = None,
) -> Tensor:
    """Return the spectral density of the Hessian on a grid, shape (n,).

    The mean over random starts, `probes`, of a `quadrature` in `steps` products, whose
    nodes are drawn as Gaussians of a hundredth of the grid, in loss per squared weight.
    Other arguments and errors as of `hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> grid = torch.linspace(-1, 2, 600)
    >>> values = density(network, x, y, grid, generator=torch.Generator())
    >>> round(float(torch.trapezoid(values, grid)), 2)
    1.0
    """
    check_counts(probes=probes, steps=steps)
    sigma = float(grid.max() - grid.min()) / 100 if grid.ndim == 1 and len(grid) else 0
    expected = "grid must be finite numbers that span a range, shape (n,)"
    check(0 < sigma < math.inf, expected, grid)
    product = hessian_product(model, x, y, chunk, loss)
    total = torch.zeros(len(grid), dtype=torch.float64)
    with inference(model):
        for _ in range(probes):
            nodes, weights = quadrature(product, _gaussian(model, generator), steps)
            shape = (grid.cpu().double()[:, None] - nodes) / sigma
            bumps = torch.exp(-(shape**2) / 2) / (sigma * (2 * torch.pi) ** 0.5)
            total += bumps @ weights / probes
    return total


def quadrature(product: Product, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of a symmetric operator's density, each of shape (k,).

    The nodes are the Ritz values of at most `steps` products, the weights the squared
    first components of their vectors (Golub and Welsch 1969).

    >>> nodes, weights = quadrature(lambda v: 2 * v, torch.ones(3).double(), 5)
    >>> nodes.round(decimals=6).tolist(), weights.round(decimals=6).tolist()
    ([2.0], [1.0])
    """
    check_counts(steps=steps)
    spaces = islice(_krylov(product, start), min(steps, len(start)))
    [(within, *_)] = deque(spaces, maxlen=1)
    values, vectors = torch.linalg.eigh(within)
    return values, vectors[0] ** 2
