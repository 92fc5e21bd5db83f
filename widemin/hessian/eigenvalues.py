"""The ends of the spectrum, by Lanczos and by PyHessian."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import NonFiniteError, inference
from widemin.batches import Batches, Data, Loss, at_once, batches, summed, trainable
from widemin.hessian.products import Product, gaussian, hessian_product
from widemin.names import check_counts
from widemin.seeding import ALONE


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of a Hessian and how far they can be trusted.

    Attributes:
        values: From the end of the spectrum inwards, shape (k,), in loss per squared
            weight.
        residuals: |H v - value v| for each unit vector, shape (k,); a value lies within
            its residual of an eigenvalue.
        products: Hessian-vector products used.
        converged: Whether every residual is at most tolerance times |value|, or of
            the order of rounding, and nothing larger is left beside them, where
            `lanczos` looks for it.
        vectors: The unit vectors, shape (k, weights).
    """

    values: Tensor
    residuals: Tensor
    products: int
    converged: bool
    vectors: Tensor


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

    The iteration ends when each residual is at most tolerance times |value|; the error
    of a value goes with the square of its residual. From one start it sees a repeated
    value once, and none whose vectors are orthogonal to the start: the rest of the
    space is therefore searched from random starts, until nothing larger is left.

    Args:
        product: v -> H v, shape (n,) to shape (n,).
        start: A vector, shape (n,).
        k: How many; a value that is repeated counts as often.
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
    check_counts(k=k, most=most)
    first = _search(product, start, k, tolerance, most)
    if k == 1 and random_start:
        return first
    return _beside(product, first, k, tolerance, most)


def _search(
    product: Product,
    start: Tensor,
    k: int,
    tolerance: float,
    most: int,
    floor: float = 0.0,
) -> Eigenvalues:
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
        done = len(krylov.basis)
        exact = max(_rounding(values, start), floor)
        sure = done >= least or bool((residuals <= exact).all())
        converged = enough and sure and _near(values, residuals, tolerance, floor)
        if converged or krylov.exhausted or done >= min(most, len(start)):
            break
    converged = converged or krylov.exhausted or done == len(start)
    moved = vectors.T.to(start) @ torch.stack(krylov.basis)
    return Eigenvalues(values, residuals, done, converged, moved)


def _rounding(values: Tensor, like: Tensor) -> float:
    """Return the residual that rounding alone leaves, in the precision of `like`."""
    return 100 * torch.finfo(like.dtype).eps * float(values.abs().max())


def _near(values: Tensor, residuals: Tensor, tolerance: float, floor: float) -> bool:
    return bool((residuals <= (tolerance * values.abs()).clamp_min(floor)).all())


def _beside(
    product: Product, first: Eigenvalues, k: int, tolerance: float, most: int
) -> Eigenvalues:
    """Add larger eigenvalues of the orthogonal complement, if there are any."""
    values, residuals, known = first.values, first.residuals, first.vectors
    products, converged = first.products, first.converged
    order = torch.arange(len(values))  # of the k largest among the known
    close = min(tolerance, 1e-4)  # a repeated value is told from its neighbours
    draws = torch.Generator().manual_seed(958_170_263)  # nobody else's

    def rest(v: Tensor) -> Tensor:
        return v - known.T @ (known @ v)

    while converged and len(known) < known.shape[1]:
        left = most - products - 1  # one is kept for the residual
        if left < 1:
            converged = False
            break
        start = rest(torch.randn(known.shape[1], generator=draws).to(known))
        floor = _rounding(values, known)
        other = _search(lambda v: rest(product(v)), start, 1, close, left, floor)
        products, converged = products + other.products, other.converged
        value, least = float(other.values[0]), float(values[-1])
        if len(values) >= k and value <= least + tolerance * abs(least):
            break
        residual = (product(other.vectors[0]) - value * other.vectors[0]).norm()
        products += 1
        known = torch.cat([known, other.vectors])
        values = torch.cat([values, other.values])
        residuals = torch.cat([residuals, residual.reshape(1).to(residuals)])
        order = torch.cat([order, torch.tensor([len(known) - 1])])
        best = values.argsort(descending=True, stable=True)[:k]
        values, residuals, order = values[best], residuals[best], order[best]
    near = _near(values, residuals, tolerance, _rounding(values, known))
    return Eigenvalues(values, residuals, products, converged and near, known[order])


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

    The method "lanczos" finds the k largest; "pyhessian" is power iteration by that
    package, which finds those of largest magnitude, to compare with. The generator
    draws the starting vector; k, tolerance and most (of the Hessian-vector products)
    are as of `lanczos`, other arguments and errors as of `hessian_product`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> found = top_eigenvalues(network, x, y, generator=torch.Generator())
    >>> found.converged and found.values.item() > 0
    True
    """
    check_counts(k=k)
    if method not in ("lanczos", "pyhessian"):
        raise ValueError(f"method must be 'lanczos' or 'pyhessian'; got {method!r}")
    chunk = at_once(model, chunk)
    x = x if isinstance(x, Tensor) else batches(x, y, chunk)
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        if method == "lanczos":
            start = gaussian(model, generator)
            return lanczos(
                product, start, k=k, tolerance=tolerance, most=most, random_start=True
            )
        peers = _pyhessian(model, batches(x, y, chunk), k, generator, most, loss)
        values, vectors = peers
        moved = [product(vector) for vector in vectors]
    pairs_of = zip(moved, values, vectors, strict=True)
    residuals = torch.stack([(w - value * v).norm() for w, value, v in pairs_of])
    converged = _near(values, residuals, tolerance, 0.0)
    return Eigenvalues(values, residuals, most, converged, torch.stack(vectors))


def _pyhessian(
    model: nn.Module,
    pairs: Batches,
    k: int,
    generator: torch.Generator,
    most: int,
    loss: Loss,
) -> tuple[Tensor, list[Tensor]]:
    """Return eigenvalues and vectors by PyHessian 0.1, without its side effects.

    It adds to the gradients that are there and keeps a graph alive through them, draws
    from the global generator, and needs a loss in which every weight has a part.
    """
    from pyhessian import hessian as PyHessian

    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    weights = trainable(model)
    x, y = x.to(weights[0].device), y.to(weights[0].device)

    def mean_loss(outputs: Tensor, y: Tensor) -> Tensor:
        if loss is None:
            mean = F.cross_entropy(outputs, y)
        else:
            mean = summed(loss, outputs, y) / len(y)
        return mean + 0 * torch.stack([p.square().sum() for p in weights]).sum()

    gradients = [p.grad for p in model.parameters()]
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
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
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
    """Return the smallest eigenvalues, in ascending order.

    Arguments and errors as of `top_eigenvalues`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> found = bottom_eigenvalues(network, x, y, generator=torch.Generator())
    >>> found.values.item() > -1e-3  # a linear model's loss is convex
    True
    """
    product = hessian_product(model, x, y, chunk, loss)
    with inference(model):
        largest = lanczos(
            lambda v: -product(v),
            gaussian(model, generator),
            k=k,
            tolerance=tolerance,
            most=most,
            random_start=True,
        )
    return replace(largest, values=-largest.values)
