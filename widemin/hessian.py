"""The Hessian of the mean loss with respect to the weights.

Products with vectors, eigenvalues at both ends with their residuals, trace and
spectral density. Batch norm and dropout are in inference mode; weight decay is not
part of the loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import check_images, inference

Product = Callable[[Tensor], Tensor]

FORWARD_FROM = 1_000  # images


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


@cache
def _load_forward_mode() -> None:
    """Let torch import what its first forward derivative needs, without its warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def hessian_product(model: nn.Module, x: Tensor, y: Tensor, chunk: int) -> Product:
    """Return v -> H v for the Hessian of the mean cross-entropy over x.

    Args:
        model: Maps images to logits; used in the mode it is in.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        chunk: Images differentiated at a time; the result does not depend on it.

    Returns:
        A function of a vector, shape (weights,), ordered as model.parameters().

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> product = hessian_product(network, x, y, chunk=2)
    >>> common = torch.ones(8)  # moves both logits alike: no curvature
    >>> bool(product(common).abs().max() < 1e-6)
    True
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    slope = _forward_over_reverse if len(x) >= FORWARD_FROM else _twice_backwards

    def product(vector: Tensor) -> Tensor:
        pieces = zip(parameters, vector.split(sizes), strict=True)
        direction = [part.view_as(p) for p, part in pieces]
        total = torch.zeros_like(vector)
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            rows = slope(model, images, labels, direction)
            total += torch.cat([row.reshape(-1) for row in rows])
        return total / len(x)

    return product


# How the gradient of the summed loss changes along a direction, which is H v
# (Pearlmutter 1994), in two ways: the second costs less, but only once torch has
# imported for seconds what forward derivatives need.


def _twice_backwards(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor]
) -> Sequence[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        loss = F.cross_entropy(model(x), y, reduction="sum")
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        pairs = zip(gradients, direction, strict=True)
        slope = torch.stack([(g * v).sum() for g, v in pairs]).sum()
        return torch.autograd.grad(slope, parameters, materialize_grads=True)


def _forward_over_reverse(
    model: nn.Module, x: Tensor, y: Tensor, direction: list[Tensor]
) -> Sequence[Tensor]:
    _load_forward_mode()
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def loss(at: dict[str, Tensor]) -> Tensor:
        logits = torch.func.functional_call(model, at, (x,))
        return F.cross_entropy(logits, y, reduction="sum")

    along = dict(zip(weights, direction, strict=True))
    found = torch.func.jvp(torch.func.grad(loss), (weights,), (along,))
    return list(found[1].values())


class _Krylov:
    """An orthonormal basis of start, H start, H^2 start, ..., and H within it.

    Every new direction is orthogonalised against all before it, twice: once leaves
    rounding errors that grow.
    """

    def __init__(self, product: Product, start: Tensor) -> None:
        self.product = product
        self.next = start / start.norm()
        self.basis: list[Tensor] = []
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    def extend(self) -> None:
        self.basis.append(self.next)
        w = self.product(self.next)
        self.diagonal.append(float(self.next @ w))
        stack = torch.stack(self.basis)
        for _ in range(2):
            w = w - stack.T @ (stack @ w)
        self.beside.append(float(w.norm()))
        self.next = w / w.norm().clamp_min(torch.finfo(w.dtype).tiny)

    def tridiagonal(self) -> Tensor:
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
    krylov = _Krylov(product, start)
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


def _operator(
    model: nn.Module, x: Tensor, y: Tensor, chunk: int
) -> tuple[Product, Callable[[torch.Generator], Tensor]]:
    """Return the product and a function that draws Gaussian vectors for it."""
    check_images(x, y)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient")
    weights = sum(p.numel() for p in parameters)

    def draw(generator: torch.Generator) -> Tensor:
        # In float32 on the CPU, so that precisions and devices see the same draw.
        return torch.randn(weights, generator=generator).to(parameters[0])

    return hessian_product(model, x, y, chunk), draw


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
    product, draw = _operator(model, x, y, chunk)
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
    product, draw = _operator(model, x, y, chunk)
    with inference(model):
        found = lanczos(
            lambda v: -product(v),
            draw(generator),
            k=k,
            tolerance=tolerance,
            most=most,
        )
    return Eigenvalues(-found.values, found.residuals, found.products, found.converged)


def trace(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    probes: int = 50,
    chunk: int = 250,
) -> tuple[float, float]:
    """Return the trace of the Hessian and its standard error, by Hutchinson's estimate.

    The mean of v . H v over probes v with independent signs (Hutchinson 1990).

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        generator: Draws the probes.
        probes: How many, at least 2; the error falls with their square root.
        chunk: Images differentiated at a time.

    Raises:
        ValueError: As for `top_eigenvalues`, or fewer than 2 probes.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> value, error = trace(network, x, y, generator=torch.Generator())
    >>> value > 0 and error < value
    True
    """
    if probes < 2:
        raise ValueError(f"probes must be at least 2; got {probes}")
    product, draw = _operator(model, x, y, chunk)
    with inference(model):
        signs = (draw(generator).sign() for _ in range(probes))
        values = torch.stack([v @ product(v) for v in signs]).double()
    return float(values.mean()), float(values.std() / probes**0.5)


def density(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    grid: Tensor,
    *,
    generator: torch.Generator,
    probes: int = 10,
    steps: int = 30,
    width: float = 0.0,
    chunk: int = 250,
) -> Tensor:
    """Return the spectral density of the Hessian on a grid, by Lanczos quadrature.

    Each probe's Ritz values, weighted by the squared first components of their
    vectors, are the nodes of a Gauss quadrature of the density (Golub and Welsch
    1969); they are drawn as Gaussians of a common width.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        grid: Where the density is wanted, in loss per squared weight, shape (n,).
        generator: Draws the probes.
        probes: Random starts to average.
        steps: Hessian-vector products a probe.
        width: Standard deviation of the Gaussians; 0 is a hundredth of the grid.
        chunk: Images differentiated at a time.

    Returns:
        The density, shape of grid; it integrates to 1 over a grid that holds the
        whole spectrum.

    Raises:
        ValueError: As for `top_eigenvalues`, or counts below 1.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> grid = torch.linspace(-1, 2, 600)
    >>> found = density(network, x, y, grid, generator=torch.Generator())
    >>> round(float(torch.trapezoid(found, grid)), 2)
    1.0
    """
    for name, value in (("probes", probes), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    product, draw = _operator(model, x, y, chunk)
    sigma = width or float(grid.max() - grid.min()) / 100
    total = torch.zeros(len(grid), dtype=torch.float64)
    with inference(model):
        for _ in range(probes):
            nodes, weights = quadrature(product, draw(generator), steps)
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
    krylov = _Krylov(product, start)
    for _ in range(min(steps, len(start))):
        krylov.extend()
        if krylov.exhausted:
            break
    values, vectors = torch.linalg.eigh(krylov.tridiagonal())
    return values, vectors[0] ** 2
