"""Products and eigenvalues against dense Hessians, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widemin.attacks import inference
from widemin.hessian import hessian_product, lanczos, top_eigenvalues


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


def test_products_are_those_of_the_dense_hessian_whatever_the_chunk(curved, generator):
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


def test_wrong_arguments_are_named(smooth, grey, generator):
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        top_eigenvalues(smooth, *grey, 0, generator=generator)
    for parameter in smooth.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="requires a gradient"):
        top_eigenvalues(smooth, *grey, generator=generator)
