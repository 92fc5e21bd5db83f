"""Products and eigenvalues against dense Hessians, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widemin.attacks import inference
from widemin.hessian import (
    bottom_eigenvalues,
    density,
    hessian_product,
    lanczos,
    quadrature,
    top_eigenvalues,
    trace,
)


@pytest.fixture
def curved(smooth, grey):
    x, y = grey
    return smooth.double(), x.double(), y


def dense(model, x, y):
    """The whole Hessian of the mean loss, in inference mode."""
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat):
        parts = [v.view(s) for v, s in zip(flat.split(sizes), shapes, strict=True)]
        state = dict(zip(names, parts, strict=True))
        logits = torch.func.functional_call(model, state, (x,))
        return F.cross_entropy(logits, y)

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    with inference(model):
        return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("forward_from", [0, 1_000])
def test_products_are_those_of_the_dense_hessian_whatever_the_chunk(
    curved, generator, monkeypatch, forward_from
):
    monkeypatch.setattr("widemin.hessian.products.FORWARD_FROM", forward_from)
    model, x, y = curved
    matrix = dense(model, x, y)
    v = torch.randn(len(matrix), generator=generator).double()
    for chunk in (1, 3, 100):
        with inference(model):
            found = hessian_product(model, x, y, chunk)(v)
        torch.testing.assert_close(found, matrix @ v)


@pytest.mark.parametrize("k", [1, 3])
def test_top_eigenvalues_are_those_of_the_dense_hessian(curved, k):
    model, x, y = curved
    values = torch.linalg.eigvalsh(dense(model, x, y)).flip(0)[:k]
    found = top_eigenvalues(
        model, x, y, k, generator=torch.Generator().manual_seed(3), tolerance=1e-6
    )
    assert found.converged
    torch.testing.assert_close(found.values, values, atol=1e-6, rtol=1e-6)
    assert (found.residuals <= 1e-6 * found.values.abs()).all()


def test_the_answer_does_not_depend_on_the_start(curved):
    model, x, y = curved
    one, two = (
        top_eigenvalues(
            model, x, y, generator=torch.Generator().manual_seed(s), tolerance=1e-4
        ).values.item()
        for s in (0, 1)
    )
    assert one == pytest.approx(two, rel=1e-6)


def test_the_largest_value_not_the_largest_magnitude():
    diagonal = torch.tensor([-50.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = lanczos(lambda v: diagonal * v, torch.ones(4).double(), tolerance=1e-10)
    assert found.values.item() == pytest.approx(3.0)


def test_a_quadratic_with_condition_ten_thousand(generator):
    values = torch.logspace(0, 4, 60, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator).double())
    matrix = q @ torch.diag(values) @ q.T
    start = torch.randn(60, generator=generator).double()
    found = lanczos(lambda v: matrix @ v, start, k=2, tolerance=1e-8)
    torch.testing.assert_close(found.values, values.flip(0)[:2])


def test_an_invariant_space_is_exact_and_ends_the_iteration():
    found = lanczos(lambda v: 2 * v, torch.ones(5).double())
    assert found.products == 1
    assert found.values.item() == pytest.approx(2.0)


def test_too_few_products_are_reported_as_not_converged(generator):
    diagonal = torch.linspace(0, 1, 500, dtype=torch.float64)
    start = torch.randn(500, generator=generator).double()
    found = lanczos(lambda v: diagonal * v, start, tolerance=1e-10, most=4)
    assert found.products == 4
    assert not found.converged


def test_nothing_is_left_behind(smooth, grey, generator):
    x, y = grey
    buffers = [b.clone() for b in smooth.buffers()]
    top_eigenvalues(smooth, x, y, generator=generator)
    assert smooth.training
    assert all(p.grad is None for p in smooth.parameters())
    for now, before in zip(smooth.buffers(), buffers, strict=True):
        assert torch.equal(now, before)


@pytest.mark.parametrize("k", [1, 2])
def test_bottom_eigenvalues_are_those_of_the_dense_hessian(curved, k):
    model, x, y = curved
    values = torch.linalg.eigvalsh(dense(model, x, y))[:k]
    found = bottom_eigenvalues(
        model, x, y, k, generator=torch.Generator().manual_seed(3), tolerance=1e-6
    )
    assert found.converged and values[0] < 0
    torch.testing.assert_close(found.values, values, atol=1e-6, rtol=1e-6)


def test_the_trace_is_within_its_error_and_exact_on_a_diagonal(curved):
    model, x, y = curved
    exact = float(dense(model, x, y).trace())
    generator = torch.Generator().manual_seed(0)
    value, error = trace(model, x, y, generator=generator, probes=400)
    assert abs(value - exact) < 4 * error
    assert error < abs(exact) / 2


def test_quadrature_has_the_moments_of_the_spectrum(generator):
    """Weights sum to 1; k steps reproduce the first 2k moments of the start vector."""
    diagonal = torch.linspace(-1, 3, 40, dtype=torch.float64)
    start = torch.randn(40, generator=generator).double()
    nodes, weights = quadrature(lambda v: diagonal * v, start, 5)
    assert len(nodes) == 5
    for power in range(10):
        exact = float((start**2 * diagonal**power).sum() / (start**2).sum())
        assert float((weights * nodes**power).sum()) == pytest.approx(exact, rel=1e-9)


def test_the_density_has_the_spectrums_mass_and_mean(curved):
    model, x, y = curved
    values = torch.linalg.eigvalsh(dense(model, x, y))
    reach = float(values.abs().max()) * 1.5
    grid = torch.linspace(-reach, reach, 2000).double()
    found = density(
        model, x, y, grid, generator=torch.Generator().manual_seed(0), probes=60
    )
    assert float(torch.trapezoid(found, grid)) == pytest.approx(1, abs=0.01)
    mean = float(torch.trapezoid(found * grid, grid))
    assert mean == pytest.approx(float(values.mean()), abs=0.02 * reach)
    assert (found >= 0).all()


def test_pyhessian_behind_the_same_call_is_made_safe(smooth, grey):
    """Twice the same value, gradients and mode kept, the global generator untouched."""
    x, y = grey
    F.cross_entropy(smooth(x), y).backward()
    gradients = [p.grad.clone() for p in smooth.parameters()]
    state = torch.get_rng_state()
    values = []
    for _ in range(2):
        found = top_eigenvalues(
            smooth,
            x,
            y,
            generator=torch.Generator().manual_seed(1),
            most=500,
            method="pyhessian",
        )
        values.append(found.values.item())
    ours = top_eigenvalues(
        smooth, x, y, generator=torch.Generator().manual_seed(1), tolerance=1e-4
    )
    assert values[0] == values[1] == pytest.approx(ours.values.item(), rel=1e-3)
    assert found.converged and smooth.training
    assert torch.equal(torch.get_rng_state(), state)
    for parameter, before in zip(smooth.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, before)


@pytest.mark.filterwarnings("ignore:Using backward")  # its own way of working
def test_pyhessian_agrees(curved):
    """Its default tolerance is biased low; tightened, it agrees."""
    pyhessian = pytest.importorskip("pyhessian")
    model, x, y = curved
    model.eval()
    peer = pyhessian.hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
    [theirs], _ = peer.eigenvalues(maxIter=2_000, tol=1e-9, top_n=1)
    model.zero_grad(set_to_none=True)
    ours = top_eigenvalues(
        model, x, y, generator=torch.Generator().manual_seed(0), tolerance=1e-6
    )
    assert theirs == pytest.approx(ours.values.item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_curvlinops_agrees(curved, generator):
    curvlinops = pytest.importorskip("curvlinops")
    model, x, y = curved
    model.eval()
    parameters = list(model.parameters())
    peer = curvlinops.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
    )
    v = torch.randn(sum(p.numel() for p in parameters), generator=generator).double()
    ours = hessian_product(model, x, y, 3)(v)
    torch.testing.assert_close(ours, (peer @ v).detach(), atol=1e-9, rtol=1e-7)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(curved):
    model, x, y = curved
    here = top_eigenvalues(model, x, y, generator=torch.Generator().manual_seed(0))
    there = top_eigenvalues(
        model.cuda(), x.cuda(), y.cuda(), generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(there.values, here.values, atol=1e-8, rtol=1e-8)


def test_wrong_arguments_are_named(smooth, grey, generator):
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        top_eigenvalues(smooth, *grey, 0, generator=generator)
    with pytest.raises(ValueError, match="method must be 'lanczos' or 'pyhessian'"):
        top_eigenvalues(smooth, *grey, generator=generator, method="qr")
    with pytest.raises(ValueError, match="probes must be at least 2; got 1"):
        trace(smooth, *grey, generator=generator, probes=1)
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        density(smooth, *grey, torch.linspace(0, 1, 5), generator=generator, steps=0)
    for parameter in smooth.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="requires a gradient"):
        top_eigenvalues(smooth, *grey, generator=generator)
