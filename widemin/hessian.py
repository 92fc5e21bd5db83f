"""The Hessian of the mean loss with respect to the weights: products, eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import check_images, inference

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues of a Hessian and how far they can be trusted.

    Attributes:
        values: In descending order, shape (k,), in loss per squared weight.
        residuals: |H v - value v| for the unit vectors found, shape (k,); each value
            lies within its residual of an eigenvalue.
        products: Hessian-vector products used.
        converged: Whether every residual is at most tolerance times |value|.
    """

    values: Tensor
    residuals: Tensor
    products: int
    converged: bool


def hessian_product(model: nn.Module, x: Tensor, y: Tensor, chunk: int) -> Product:
    """Return v -> H v for the Hessian of the mean cross-entropy over x.

    Args:
        model: Maps images to logits; used in the mode it is in.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        chunk: Images differentiated at a time; the result does not depend on it.

    Returns:
        A function of a vector, shape (weights,), ordered as model.parameters().
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]

    def product(vector: Tensor) -> Tensor:
        parts = [
            v.view_as(p) for v, p in zip(vector.split(sizes), parameters, strict=True)
        ]
        total = torch.zeros_like(vector)
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            with torch.enable_grad():
                loss = F.cross_entropy(model(images), labels, reduction="sum")
                gradients = torch.autograd.grad(loss, parameters, create_graph=True)
                # d/dw <gradient, v> is H v (Pearlmutter 1994).
                slope = sum(
                    (g * v).sum() for g, v in zip(gradients, parts, strict=True)
                )
                rows = torch.autograd.grad(slope, parameters, materialize_grads=True)
            total += torch.cat([row.reshape(-1) for row in rows])
        return total / len(x)

    return product


def lanczos(
    product: Product,
    start: Tensor,
    *,
    k: int = 1,
    tolerance: float = 1e-2,
    most: int = 100,
) -> Eigenvalues:
    """Return the largest eigenvalues of a symmetric operator.

    Every new direction is orthogonalised against all before it. The iteration ends
    when each residual |H v - value v| is at most tolerance times |value|; the error of
    a value goes with the square of its residual.

    Args:
        product: v -> H v, shape (n,) to shape (n,).
        start: A vector that is not orthogonal to the eigenvectors sought, shape (n,).
        k: How many of the largest eigenvalues.
        tolerance: Largest residual accepted, relative to its value.
        most: Most products to take.

    >>> diagonal = torch.arange(1.0, 11.0, dtype=torch.float64)
    >>> found = lanczos(lambda v: diagonal * v, torch.ones(10).double())
    >>> round(found.values.item(), 3), found.converged
    (9.999, True)
    """
    most = min(most, len(start))
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1])
        diagonal.append(float(basis[-1] @ w))
        stack = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that grow
            w = w - stack.T @ (stack @ w)
        beside.append(float(w.norm()))
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        off = torch.tensor(beside[:-1], dtype=torch.float64)
        tridiagonal += torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(tridiagonal)
        values, last = values.flip(0)[:k], vectors[-1].flip(0)[:k]
        residuals = beside[-1] * last.abs()
        enough = len(values) == min(k, len(start))
        converged = enough and bool((residuals <= tolerance * values.abs()).all())
        # A vanishing remainder means that the space found is invariant: exact.
        exact = beside[-1] <= 1e-12 * max(1e-30, float(values.abs().max()))
        if converged or exact or len(diagonal) >= most:
            return Eigenvalues(values, residuals, len(diagonal), converged or exact)
        basis.append(w / w.norm())


def top_eigenvalues(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    k: int = 1,
    *,
    generator: torch.Generator,
    tolerance: float = 1e-2,
    most: int = 100,
    chunk: int = 500,
) -> Eigenvalues:
    """Return the largest eigenvalues of the Hessian of the mean cross-entropy.

    Batch norm and dropout are in inference mode; weight decay is not part of the
    loss. By Lanczos, so the largest values, not those of largest magnitude.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        k: How many.
        generator: Draws the starting vector.
        tolerance: Largest residual accepted, relative to its value.
        most: Most Hessian-vector products to take.
        chunk: Images differentiated at a time.

    Raises:
        ValueError: Images outside [0, 1], wrong labels, k below 1, or no parameter
            that requires a gradient.
    """
    check_images(x, y)
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient")
    weights = sum(p.numel() for p in parameters)
    start = torch.randn(weights, generator=generator).to(parameters[0])
    with inference(model):
        product = hessian_product(model, x, y, chunk)
        return lanczos(product, start, k=k, tolerance=tolerance, most=most)
