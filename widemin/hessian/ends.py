"""The ends of the spectrum, by Lanczos and by PyHessian."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widemin.attacks import inference
from widemin.hessian.products import Product, loss_operator


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


class Krylov:
    """An orthonormal basis of start, H start, H^2 start, ..., and H within it.

    Every new direction is orthogonalised against all before it, twice: once leaves
    rounding errors that grow.
    """

    def __init__(self, product: Product, start: Tensor) -> None:
        """Begin with a vector, of any length but 0."""
        self.product = product
        self.next = start / start.norm()
        self.basis: list[Tensor] = []
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    def extend(self) -> None:
        """Multiply once more."""
        self.basis.append(self.next)
        w = self.product(self.next)
        self.diagonal.append(float(self.next @ w))
        stack = torch.stack(self.basis)
        for _ in range(2):
            w = w - stack.T @ (stack @ w)
        self.beside.append(float(w.norm()))
        self.next = w / w.norm().clamp_min(torch.finfo(w.dtype).tiny)

    def tridiagonal(self) -> Tensor:
        """Return the operator in the basis found so far, in float64."""
        matrix = torch.diag(torch.tensor(self.diagonal, dtype=torch.float64))
        off = torch.tensor(self.beside[:-1], dtype=torch.float64)
        return matrix + torch.diag(off, 1) + torch.diag(off, -1)

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant: what is found in it is exact."""
        largest = max(map(abs, self.diagonal + self.beside[:-1]))
        return self.beside[-1] <= 1e-12 * max(1e-30, largest)


def lanczos(
    product: Product,
    start: Tensor,
    *,
    k: int = 1,
    tolerance: float = 1e-2,
    most: int = 100,
) -> Eigenvalues:
    """Return the largest eigenvalues of a symmetric operator.

    The iteration ends when each residual |H v - value v| is at most tolerance times
    |value|; the error of a value goes with the square of its residual.

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
    krylov = Krylov(product, start)
    while True:
        krylov.extend()
        values, vectors = torch.linalg.eigh(krylov.tridiagonal())
        values, last = values.flip(0)[:k], vectors[-1].flip(0)[:k]
        residuals = krylov.beside[-1] * last.abs()
        enough = len(values) == min(k, len(start))
        converged = enough and bool((residuals <= tolerance * values.abs()).all())
        done = len(krylov.basis)
        if converged or krylov.exhausted or done >= min(most, len(start)):
            return Eigenvalues(values, residuals, done, converged or krylov.exhausted)


def top_eigenvalues(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    k: int = 1,
    *,
    generator: torch.Generator,
    tolerance: float = 1e-2,
    most: int = 100,
    chunk: int = 250,
    method: str = "lanczos",
) -> Eigenvalues:
    """Return the largest eigenvalues of the Hessian of the mean cross-entropy.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        k: How many.
        generator: Draws the starting vector.
        tolerance: Largest residual accepted, relative to its value.
        most: Most Hessian-vector products to take.
        chunk: Images differentiated at a time.
        method: "lanczos" finds the largest values; "pyhessian" is power iteration by
            that package, which finds those of largest magnitude, to compare with.

    Raises:
        ValueError: Images outside [0, 1], wrong labels, k below 1, an unknown method,
            or no parameter that requires a gradient.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> found = top_eigenvalues(network, x, y, generator=torch.Generator())
    >>> found.converged and found.values.item() > 0
    True
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if method not in ("lanczos", "pyhessian"):
        raise ValueError(f"method must be 'lanczos' or 'pyhessian'; got {method!r}")
    product, draw = loss_operator(model, x, y, chunk)
    with inference(model):
        if method == "lanczos":
            start = draw(generator)
            return lanczos(product, start, k=k, tolerance=tolerance, most=most)
        values, vectors = _pyhessian(model, x, y, k, generator, most)
        moved = [product(vector) for vector in vectors]
    residuals = torch.stack(
        [
            (w - value * v).norm()
            for w, value, v in zip(moved, values, vectors, strict=True)
        ]
    )
    converged = bool((residuals <= tolerance * values.abs()).all())
    return Eigenvalues(values, residuals, most, converged)


def _pyhessian(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    k: int,
    generator: torch.Generator,
    most: int,
) -> tuple[Tensor, list[Tensor]]:
    """Call PyHessian 0.1 so that its faults do no harm.

    It adds to gradients that are there, keeps a graph alive through them, draws from
    the global generator, assumes CUDA and stops on a loose relative change.
    """
    from pyhessian import hessian as PyHessian

    kept = [p.grad for p in model.parameters()]
    seed = int(torch.randint(2**62, (), generator=generator))
    try:
        model.zero_grad(set_to_none=True)
        with torch.random.fork_rng(), warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings("ignore", message="Using backward")
            torch.manual_seed(seed)
            loss = nn.CrossEntropyLoss()
            peer = PyHessian(model, loss, data=(x, y), cuda=x.is_cuda)
            values, vectors = peer.eigenvalues(maxIter=most, tol=1e-7, top_n=k)
    finally:
        for parameter, gradient in zip(model.parameters(), kept, strict=True):
            parameter.grad = gradient
    flat = [torch.cat([part.reshape(-1) for part in v]).detach() for v in vectors]
    return torch.tensor(values, dtype=torch.float64), flat


def bottom_eigenvalues(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    k: int = 1,
    *,
    generator: torch.Generator,
    tolerance: float = 1e-2,
    most: int = 100,
    chunk: int = 250,
) -> Eigenvalues:
    """Return the smallest eigenvalues, in ascending order; arguments as at the top.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> found = bottom_eigenvalues(network, x, y, generator=torch.Generator())
    >>> found.values.item() > -1e-3  # a linear model's loss is convex
    True
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    product, draw = loss_operator(model, x, y, chunk)
    with inference(model):
        found = lanczos(
            lambda v: -product(v),
            draw(generator),
            k=k,
            tolerance=tolerance,
            most=most,
        )
    return Eigenvalues(-found.values, found.residuals, found.products, found.converged)
