"""The ends of the spectrum, by Lanczos and by PyHessian."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import NonFiniteError, inference
from widemin.batches import Batches, Data, Loss, at_once, batches, summed, trainable
from widemin.hessian.products import Product, gaussian, hessian_product
from widemin.seeding import ALONE


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues of a Hessian and how far they can be trusted.

    Attributes:
        values: In descending order, shape (k,), in loss per squared weight.
        residuals: |H v - value v| for the unit vectors found, shape (k,); each value
            lies within its residual of an eigenvalue.
        products: Hessian-vector products used.
        converged: Whether every residual is at most tolerance times |value|, or of
            the order of rounding, and nothing larger is left beside them, where
            `lanczos` looks for it.
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
        length = start.norm()
        if not 0 < float(length) < math.inf:
            raise ValueError(f"start must have a length above 0; got {length:g}")
        self.product = product
        self.next = start / length
        self.basis: list[Tensor] = []
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    def extend(self) -> None:
        """Multiply once more."""
        self.basis.append(self.next)
        w = self.product(self.next)
        self.diagonal.append(float(self.next @ w))
        if not math.isfinite(self.diagonal[-1]):
            raise NonFiniteError("products must be finite; got NaN or infinity")
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


@dataclass(frozen=True)
class _Found:
    """What one search has: `Eigenvalues`, and unit vectors, shape (k, n)."""

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    products: int
    converged: bool


def lanczos(
    product: Product,
    start: Tensor,
    *,
    k: int = 1,
    tolerance: float = 1e-2,
    most: int = 100,
    random_start: bool = False,
) -> Eigenvalues:
    """Return the largest eigenvalues of a symmetric operator.

    The iteration ends when each residual |H v - value v| is at most tolerance times
    |value|; the error of a value goes with the square of its residual. From one start
    it sees a repeated value once, and none whose vectors are orthogonal to the start:
    the rest of the space is therefore searched from random starts, until nothing
    larger is left.

    Args:
        product: v -> H v, shape (n,) to shape (n,).
        start: A vector, shape (n,).
        k: How many of the largest eigenvalues; one that is repeated counts as often.
        tolerance: Largest residual accepted, relative to its value.
        most: Most products to take.
        random_start: Whether the start is drawn at random, so that no vector is
            orthogonal to it: the largest value alone (k 1) then needs no second search.

    Raises:
        NonFiniteError: A product that is NaN or infinite.
        ValueError: A start of length 0, or a count below 1.

    >>> diagonal = torch.tensor([5.0, 5.0, 1.0], dtype=torch.float64)
    >>> found = lanczos(lambda v: diagonal * v, torch.ones(3).double(), k=2)
    >>> found.values.round(decimals=3).tolist(), found.converged
    ([5.0, 5.0], True)
    """
    for name, count in (("k", k), ("most", most)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1; got {count}")
    found = _search(product, start, k, tolerance, most)
    if k > 1 or not random_start:
        found = _beside(product, found, k, tolerance, most)
    return Eigenvalues(found.values, found.residuals, found.products, found.converged)


def _search(
    product: Product,
    start: Tensor,
    k: int,
    tolerance: float,
    most: int,
    floor: float = 0.0,
) -> _Found:
    """Return the largest eigenvalues that are seen from one start.

    A residual of at most `floor` is accepted, too.
    """
    krylov = Krylov(product, start)
    # A start of n numbers holds about 1/sqrt(n) of a vector: where nearly all else is
    # one value, a single product shows none of the others.
    least = min(len(start), most, 4)
    while True:
        krylov.extend()
        values, vectors = torch.linalg.eigh(krylov.tridiagonal())
        values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
        residuals = krylov.beside[-1] * vectors[-1].abs()
        enough = len(values) == min(k, len(start))
        near = residuals <= (tolerance * values.abs()).clamp_min(floor)
        done = len(krylov.basis)
        exact = 100 * torch.finfo(start.dtype).eps * float(values.abs().max())
        sure = done >= least or bool((residuals <= max(exact, floor)).all())
        converged = enough and sure and bool(near.all())
        if converged or krylov.exhausted or done >= min(most, len(start)):
            break
    whole = krylov.exhausted or done == len(start)
    moved = vectors.T.to(start) @ torch.stack(krylov.basis)
    return _Found(values, residuals, moved, done, converged or whole)


def _beside(
    product: Product, found: _Found, k: int, tolerance: float, most: int
) -> _Found:
    """Add larger eigenvalues found in the orthogonal complement, if there are any."""
    values, residuals, known = found.values, found.residuals, found.vectors
    products, converged = found.products, found.converged
    close = min(tolerance, 1e-4)  # a repeated value is told from its neighbours
    draws = torch.Generator().manual_seed(958_170_263)  # nobody else's

    def rest(v: Tensor) -> Tensor:
        return v - known.T @ (known @ v)

    def floor() -> float:  # a residual of rounding alone
        return 100 * torch.finfo(known.dtype).eps * float(values.abs().max())

    while converged and len(known) < known.shape[1]:
        left = most - products - 1  # one is kept for the residual
        if left < 1:
            converged = False
            break
        start = rest(torch.randn(known.shape[1], generator=draws).to(known))
        other = _search(lambda v: rest(product(v)), start, 1, close, left, floor())
        products, converged = products + other.products, other.converged
        value, least = float(other.values[0]), float(values[-1])
        if len(values) >= k and value <= least + tolerance * abs(least):
            break
        residual = (product(other.vectors[0]) - value * other.vectors[0]).norm()
        products += 1
        known = torch.cat([known, other.vectors])
        values = torch.cat([values, other.values])
        residuals = torch.cat([residuals, residual.reshape(1).to(residuals)])
        order = values.argsort(descending=True, stable=True)[:k]
        values, residuals = values[order], residuals[order]
    near = residuals <= (tolerance * values.abs()).clamp_min(floor())
    converged = converged and bool(near.all())
    return _Found(values, residuals, known, products, converged)


def top_eigenvalues(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    k: int = 1,
    *,
    generator: torch.Generator,
    tolerance: float = 1e-2,
    most: int = 100,
    chunk: int | None = None,
    method: str = "lanczos",
    loss: Loss = None,
) -> Eigenvalues:
    """Return the largest eigenvalues of the Hessian of the mean loss.

    Args:
        model: Maps inputs to logits.
        x: Inputs of any shape (n, ...), or a DataLoader of inputs and labels, which is
            read once.
        y: Labels of a tensor, shape (n,); None with a DataLoader.
        k: How many.
        generator: Draws the starting vector.
        tolerance: Largest residual accepted, relative to its value.
        most: Most Hessian-vector products to take.
        chunk: Inputs differentiated at a time, by default what suits the device.
        method: "lanczos" finds the largest values; "pyhessian" is power iteration by
            that package, which finds those of largest magnitude, to compare with.
        loss: (outputs, y) to each input's loss, shape (batch,), or their mean, such as
            nn.MSELoss(); the cross-entropy by default.

    Raises:
        NonFiniteError: Weights, outputs or products that are NaN or infinite, or logits
            so large that their differences are lost to rounding.
        ValueError: No inputs, wrong labels, k below 1, an unknown method, or no
            parameter that requires a gradient.

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
    x = x if isinstance(x, Tensor) else batches(x, y, at_once(model, chunk))
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        if method == "lanczos":
            return lanczos(
                product,
                gaussian(model, generator),
                k=k,
                tolerance=tolerance,
                most=most,
                random_start=True,
            )
        pairs = batches(x, y, at_once(model, chunk))
        values, vectors = _pyhessian(model, pairs, k, generator, most, loss)
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
    pairs: Batches,
    k: int,
    generator: torch.Generator,
    most: int,
    loss: Loss,
) -> tuple[Tensor, list[Tensor]]:
    """Call PyHessian 0.1 so that its faults do no harm.

    It adds to gradients that are there, keeps a graph alive through them, draws from
    the global generator, assumes CUDA, stops on a loose relative change and needs a
    loss that every weight has a part in, here of 0.
    """
    from pyhessian import hessian as PyHessian

    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    weights = trainable(model)
    x, y = x.to(weights[0].device), y.to(weights[0].device)

    def mean_loss(outputs: Tensor, y: Tensor) -> Tensor:
        bare = loss is None
        mean = (
            F.cross_entropy(outputs, y) if bare else summed(loss, outputs, y) / len(y)
        )
        unmoved = torch.stack([p.square().sum() for p in weights]).sum()
        return mean + 0 * unmoved

    kept = [p.grad for p in model.parameters()]
    seed = int(torch.randint(2**62, (), generator=generator))
    try:
        model.zero_grad(set_to_none=True)
        with (
            ALONE,
            torch.random.fork_rng(),
            warnings.catch_warnings(),
            torch.enable_grad(),
        ):
            warnings.filterwarnings("ignore", message="Using backward")
            torch.manual_seed(seed)
            peer = PyHessian(model, mean_loss, data=(x, y), cuda=x.is_cuda)
            values, vectors = peer.eigenvalues(maxIter=most, tol=1e-7, top_n=k)
    finally:
        for parameter, gradient in zip(model.parameters(), kept, strict=True):
            parameter.grad = gradient
    flat = [torch.cat([part.reshape(-1) for part in v]).detach() for v in vectors]
    return torch.tensor(values, dtype=torch.float64), flat


def bottom_eigenvalues(
    model: nn.Module,
    x: Data,
    y: Tensor | None = None,
    k: int = 1,
    *,
    generator: torch.Generator,
    tolerance: float = 1e-2,
    most: int = 100,
    chunk: int | None = None,
    loss: Loss = None,
) -> Eigenvalues:
    """Return the smallest eigenvalues, in ascending order; arguments as at the top.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> found = bottom_eigenvalues(network, x, y, generator=torch.Generator())
    >>> found.values.item() > -1e-3  # a linear model's loss is convex
    True
    """
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        found = lanczos(
            lambda v: -product(v),
            gaussian(model, generator),
            k=k,
            tolerance=tolerance,
            most=most,
            random_start=True,
        )
    return Eigenvalues(-found.values, found.residuals, found.products, found.converged)
