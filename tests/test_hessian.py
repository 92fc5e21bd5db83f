"""Products and eigenvalues against dense Hessians, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from widemin.attacks import NonFiniteError, inference
from widemin.experiments.measure.curvature import pyhessian
from widemin.hessian import (
    batch_sharpness,
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
    monkeypatch.setattr("widemin.hessian.FORWARD_FROM", forward_from)
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
    assert found.products == 1 and found.converged
    assert found.values.item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    "values",
    [
        [5.0, 5.0, 1.0, 0.5, 0.25],
        [3.0, 3.0, 3.0, 1.0, 1.0, 0.1],
        [4.0, 0.0, 0.0, 0.0],
        [2.0, 1.0, -9.0, -9.0, -1.0],
    ],
)
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_a_repeated_value_is_found_once(values, k, turned, generator):
    n = len(values)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator).double())
    q = q if turned else torch.eye(n).double()
    matrix = q @ torch.diag(torch.tensor(values).double()) @ q.T
    start = torch.randn(n, generator=generator).double()
    found = lanczos(lambda v: matrix @ v, start, k=k)
    right = torch.tensor(values).double().unique().flip(0)[:k]
    assert found.converged
    torch.testing.assert_close(found.values, right, atol=1e-3, rtol=1e-3)


class Spare(nn.Module):
    """A curved network with a head that its output does not depend on."""

    def __init__(self):
        super().__init__()
        self.spare, self.body = nn.Linear(4, 2), nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh())


class Cube(torch.autograd.Function):
    """A layer of one's own that has no forward derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class Cubed(Spare):
    def forward(self, x):
        return self.head(Cube.apply(self.body(x.flatten(1))))


@pytest.mark.parametrize("images", [20, 1_000])
@pytest.mark.parametrize("kind", [Spare, Cubed])
def test_frozen_unused_and_own_layers_at_every_size(kind, images, generator):
    """The curvature of what is not used is 0, that of what is frozen is left out."""
    model = kind().double()
    x = torch.rand(images, 1, 2, 2, generator=generator).double()
    y = torch.arange(images) % 3
    matrix = dense(model, x, y)
    assert (matrix[:10] == 0).all()
    for frozen in (False, True):
        model.body.requires_grad_(not frozen)
        keep = [0] * 10 + [int(not frozen)] * 25 + [1] * 18
        kept = torch.tensor(keep).bool() | (torch.arange(53) < 10)
        right = torch.linalg.eigvalsh(matrix[kept][:, kept])
        found = top_eigenvalues(
            model,
            x,
            y,
            generator=torch.Generator().manual_seed(0),
            tolerance=1e-5,
            most=500,
        )
        assert found.values.item() == pytest.approx(right[-1].item(), rel=1e-4)
        value, error = trace(model, x, y, generator=generator, probes=10)
        assert abs(value - right.sum().item()) < 6 * error


@pytest.mark.parametrize("forward_from", [0, 1_000])
@pytest.mark.parametrize("form", ["mean", "each"])
def test_any_inputs_and_loss_as_tensors_or_from_a_loader(
    generator, monkeypatch, forward_from, form
):
    """Least squares: the Hessian in the weights is 2 X^T X / n, with bias (x, 1)."""
    monkeypatch.setattr("widemin.hessian.FORWARD_FROM", forward_from)
    x = 3 * torch.randn(30, 5, generator=generator).double()
    y = torch.randn(30, 1, generator=generator).double()
    model = nn.Linear(5, 1).double()
    padded = torch.cat([x, torch.ones(30, 1).double()], 1)
    right = 2 * padded.T @ padded / 30
    squares = {"mean": nn.MSELoss(), "each": lambda a, b: (a - b).square().squeeze(1)}
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    vector = torch.randn(6, generator=generator).double()
    options = {"loss": squares[form], "chunk": 7}
    for data in ((x, y), (loader,)):
        product = hessian_product(model, *data, **options)
        torch.testing.assert_close(product(vector), right @ vector)
        options["generator"] = generator
        values = torch.linalg.eigvalsh(right)
        exact = {"tolerance": 1e-8}
        top = top_eigenvalues(model, *data, **options, **exact)
        assert top.values.item() == pytest.approx(values[-1].item(), rel=1e-6)
        low = bottom_eigenvalues(model, *data, **options, **exact)
        assert low.values.item() == pytest.approx(values[0].item(), rel=1e-6)
        value, error = trace(model, *data, **options, probes=10)
        assert abs(value - values.sum().item()) < 6 * error
        grid = torch.linspace(-20, 80, 500)
        pair = data if len(data) == 2 else (loader, None)
        found = density(model, *pair, grid, probes=2, **options)
        assert float(torch.trapezoid(found, grid)) == pytest.approx(1, abs=1e-3)
        del options["generator"]


def broken(model, kind):
    """Break a network in place."""
    weight = next(model.parameters())
    with torch.no_grad():
        if kind == "huge":
            list(model.parameters())[-1].copy_(torch.tensor([1e38, 0, -1e38]))
        else:
            weight.view(-1)[0] = {"nan": torch.nan, "inf": torch.inf}[kind]
    return model


INSTRUMENTS = {
    "top": lambda m, x, y, g: top_eigenvalues(m, x, y, generator=g),
    "bottom": lambda m, x, y, g: bottom_eigenvalues(m, x, y, generator=g),
    "trace": lambda m, x, y, g: trace(m, x, y, generator=g),
    "density": lambda m, x, y, g: density(m, x, y, torch.arange(3.0), generator=g),
    "product": lambda m, x, y, g: hessian_product(m, x, y, 3),
}


@pytest.mark.parametrize("kind", ["nan", "inf", "huge"])
@pytest.mark.parametrize("name", INSTRUMENTS)
@pytest.mark.parametrize("images", [8, 1_000])
def test_a_broken_network_has_no_curvature(smooth, grey, generator, kind, name, images):
    x, y = (part.repeat(125, *[1] * (part.ndim - 1))[:images] for part in grey)
    with pytest.raises(NonFiniteError, match="must"):
        INSTRUMENTS[name](broken(smooth, kind), x, y, generator)


def test_an_infinite_weight_that_no_output_shows_is_found(generator):
    """Behind it a ReLU answers 0."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    x, y = torch.rand(4, 2, generator=generator) + 0.1, torch.arange(4) % 2
    with torch.no_grad():
        model[0].weight[0] = -torch.inf
        assert model(x).isfinite().all()
    with pytest.raises(NonFiniteError, match="finite weights"):
        top_eigenvalues(model, x, y, generator=generator)


def test_an_operator_that_breaks_has_no_eigenvalues():
    for search in (lanczos, lambda product, start: quadrature(product, start, 3)):
        with pytest.raises(NonFiniteError, match="products must be finite"):
            search(lambda v: v * torch.nan, torch.ones(3))
        with pytest.raises(ValueError, match="start must have a length above 0; got 0"):
            search(lambda v: v, torch.zeros(3))


def test_a_density_needs_a_grid_that_spans_a_range(smooth, grey, generator):
    grids = [torch.tensor([1.0]), torch.ones(3), torch.zeros(0), torch.zeros(2, 2)]
    for grid in (*grids, torch.tensor([0.0, torch.nan]), torch.tensor([0, torch.inf])):
        with pytest.raises(ValueError, match="grid must be finite numbers that span"):
            density(smooth, *grey, grid, generator=generator, probes=1, steps=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x, y: (x,), "y must come with a tensor x"),
        (lambda x, y: ([(x, y)], y), "and not with a DataLoader"),
        (lambda x, y: (x, y[:3]), "y must be one target an input"),
        (lambda x, y: (x[:0], y[:0]), "x must hold at least one input"),
        (lambda x, y: (x / 0 - 1, y), "x must be finite"),
        (lambda x, y: (x, y.float()), "y must be int64 labels"),
        (lambda x, y: (x, y + 9), "y must be labels from 0 to 2"),
        (lambda x, y: ([(x[0], 1)],), "a DataLoader of pairs of tensors"),
    ],
)
def test_wrong_data_is_named(smooth, grey, generator, data, message):
    with pytest.raises(ValueError, match=message):
        top_eigenvalues(smooth, *data(*grey), generator=generator)


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
        model, x, y, grid, generator=torch.Generator().manual_seed(0), probes=20
    )
    assert float(torch.trapezoid(found, grid)) == pytest.approx(1, abs=0.01)
    mean = float(torch.trapezoid(found * grid, grid))
    assert mean == pytest.approx(float(values.mean()), abs=0.02 * reach)
    assert (found >= 0).all()


def test_pyhessian_is_made_safe(smooth, grey):
    """Twice the same value, gradients and mode kept, the global generator untouched."""
    x, y = grey
    F.cross_entropy(smooth(x), y).backward()
    gradients = [p.grad.clone() for p in smooth.parameters()]
    state = torch.get_rng_state()
    values = []
    for _ in range(2):
        found = pyhessian(smooth, x, y, torch.Generator().manual_seed(1), most=500)
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
    package = pytest.importorskip("pyhessian")
    model, x, y = curved
    model.eval()
    peer = package.hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
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
    with pytest.raises(ValueError, match="probes must be at least 2; got 1"):
        trace(smooth, *grey, generator=generator, probes=1)
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        density(smooth, *grey, torch.linspace(0, 1, 5), generator=generator, steps=0)
    for parameter in smooth.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="requires a gradient"):
        top_eigenvalues(smooth, *grey, generator=generator)


@pytest.mark.parametrize("top", [1.1, 1.3, 1.8])
def test_a_value_of_which_the_start_holds_little_is_not_missed(top):
    """Nearly all weights alike: the first product shows just their curvature."""
    diagonal = torch.ones(20_000, dtype=torch.float64)
    diagonal[0] = top
    for seed in range(3):
        draws = torch.Generator().manual_seed(seed)
        start = torch.randn(20_000, generator=draws, dtype=torch.float64)
        found = lanczos(lambda v: diagonal * v, start)
        assert float(found.values[0]) == pytest.approx(top, rel=1e-3)


def test_a_loss_that_is_no_mean_is_refused():
    model, x, y = nn.Linear(3, 2), torch.rand(6, 3), torch.arange(6) % 2
    options = {"generator": torch.Generator()}
    for loss, said in (
        (nn.CrossEntropyLoss(reduction="sum"), "a sum"),
        (lambda out, _: (out - 1) ** 2, r"shape \(6, 2\)"),
    ):
        with pytest.raises(ValueError, match=f"loss must return .* got {said}"):
            top_eigenvalues(model, x, y, loss=loss, **options)
    with pytest.raises(ValueError, match="got Tensor, Tensor, Tensor"):
        top_eigenvalues(model, [(x, y, y)], **options)


def test_batch_sharpness_is_the_curvature_along_each_batchs_gradient(curved, generator):
    """Against dense Hessians, batch by batch."""
    model, x, y = curved
    start, expected = generator.get_state(), []
    order = torch.randperm(len(x), generator=generator)
    for batch in order.split(3)[: len(x) // 3]:
        with inference(model):
            value = F.cross_entropy(model(x[batch]), y[batch])
            slopes = torch.autograd.grad(value, model.parameters())
        g = torch.cat([slope.flatten() for slope in slopes])
        expected.append(float(g @ dense(model, x[batch], y[batch]) @ g / (g @ g)))
    means = {100: sum(expected) / len(expected), 1: expected[0]}
    for most, chunk in ((100, None), (100, 2), (1, None)):
        generator.set_state(start)
        value = batch_sharpness(
            model, x, y, 3, generator=generator, most=most, chunk=chunk
        )
        assert value == pytest.approx(means[most], rel=1e-9)


def test_batch_sharpness_of_a_quadratic_is_its_curvature(generator):
    """Half the squared distance to a target, times c, curves by c everywhere."""
    model = nn.Linear(1, 1, bias=False).double()
    x, y = torch.ones(8, 1).double(), torch.zeros(8, 1).double()

    def loss(outputs, y):
        return 3.5 * ((outputs - y) ** 2).sum(1)

    for size in (1, 3, 8):
        value = batch_sharpness(model, x, y, size, generator=generator, loss=loss)
        assert value == pytest.approx(7.0)
    nn.init.zeros_(model.weight)  # at the minimum no batch has a direction
    lost = batch_sharpness(model, x, y, 2, generator=generator, loss=loss)
    assert lost != lost
    with pytest.raises(ValueError, match="batch_size must be at most 8"):
        batch_sharpness(model, x, y, 9, generator=generator, loss=loss)
