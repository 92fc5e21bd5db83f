"""Widths against closed forms: quadratics, a single sample, a rescaled network."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from widemin.attacks import NonFiniteError
from widemin.data import images
from widemin.evaluation import margins
from widemin.experiments.measure import curvature
from widemin.experiments.measure.scale_free import scale_free_values
from widemin.experiments.recipe import Recipe, stream
from widemin.experiments.train import build
from widemin.hessian import batch_sharpness, top_eigenvalues
from widemin.landscape import (
    adaptive_sharpness,
    along,
    implicit_perturbation,
    input_landscape,
    logit_scale,
    nearest_level,
    node_norms,
    relative_flatness,
    weight_landscape,
    width,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def quadratic(curvatures):
    def bowl(v):
        return float((curvatures * v * v).sum() / 2), curvatures * v

    return bowl, torch.zeros_like(curvatures)


@pytest.mark.parametrize(("size", "condition"), [(10, 10), (100, 1e3), (1000, 1e4)])
@pytest.mark.parametrize("gap", [0.01, 1.0])
def test_the_worst_direction_of_a_quadratic_to_a_thousandth(size, condition, gap):
    curvatures = torch.logspace(0, -math.log10(condition), size, dtype=torch.float64)
    bowl, start = quadratic(curvatures)
    found = nearest_level(bowl, start, gap, generator=seeded(), random_directions=100)
    exact = math.sqrt(2 * gap)
    assert found.distance == pytest.approx(exact, rel=1e-3)
    assert found.distance >= exact * (1 - 1e-9)
    assert found.width == pytest.approx(found.distance / gap)
    # Random directions are only an upper bound, the looser the higher the dimension.
    assert found.random_distance > 1.05 * exact


def test_a_loose_tolerance_costs_little_and_errs_by_little():
    curvatures = torch.logspace(0, -3, 100, dtype=torch.float64)
    bowl, start = quadratic(curvatures)
    calls = []

    def counted(v):
        calls[-1] += 1
        return bowl(v)

    found = []
    for tolerance in (1e-7, 1e-3):
        calls.append(0)
        options = {"generator": seeded(), "starts": 1, "random_directions": 1}
        found.append(nearest_level(counted, start, 1.0, tolerance=tolerance, **options))
    assert found[1].distance == pytest.approx(found[0].distance, rel=0.05)
    assert calls[1] < calls[0] / 2
    # The direction found is the one to start from at the next level.
    torch.testing.assert_close(
        found[0].direction.abs()[0].item(), 1.0, atol=1e-3, rtol=0
    )
    calls.append(0)
    higher = nearest_level(
        counted, start, 4.0, first=found[0].direction, **options | {"starts": 0}
    )
    assert higher.distance == pytest.approx(math.sqrt(8), rel=1e-4)
    assert calls[2] < calls[0]


class Logistic(nn.Module):
    """One sample's logistic loss as the cross-entropy of the logits (s, 0)."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, x):
        s = x.flatten(1) @ self.theta
        return torch.stack([s, torch.zeros_like(s)], 1)


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("level", [math.log(2), 2.0])
def test_theorem_2_on_one_sample_scaled(k, level):
    """d_theta = gap of s over |x|; d_X the same over |theta|: 2.3 fails."""
    x = torch.rand(1, 1, 4, 4, generator=seeded(1)).double()
    theta = torch.randn(16, generator=seeded(2)).double()
    theta = k * 1.5 * theta / (x.flatten() @ theta)
    y = torch.zeros(1, dtype=torch.int64)
    model = Logistic(theta)
    loss = math.log1p(math.exp(-1.5 * k))
    gap = level - loss
    reach = 1.5 * k + math.log(math.expm1(level))  # from s = 1.5 k to the level's s
    options = {"gap": gap, "generator": seeded(), "starts": 2, "random_directions": 2}
    in_weights = width(model, x, y, **options)
    in_inputs = width(model, x, y, of="inputs", **options)
    assert in_weights.loss == pytest.approx(loss, rel=1e-9)
    assert in_weights.distance == pytest.approx(float(reach / x.norm()), rel=1e-6)
    assert in_inputs.distance == pytest.approx(float(reach / theta.norm()), rel=1e-6)


def test_at_the_boundary_scaling_widens_weights_and_moves_no_image():
    x = torch.rand(1, 1, 4, 4, generator=seeded(1)).double()
    theta = torch.randn(16, generator=seeded(2)).double()
    theta = 1.5 * theta / (x.flatten() @ theta)
    y = torch.zeros(1, dtype=torch.int64)
    found = {}
    for k in (1, 16):
        gap = math.log(2) - math.log1p(math.exp(-1.5 * k))
        options = {"gap": gap, "generator": seeded(), "starts": 2}
        model = Logistic(k * theta)
        found[k] = (
            width(model, x, y, **options),
            width(model, x, y, of="inputs", **options),
        )
    assert found[16][0].width > 10 * found[1][0].width
    assert found[16][1].distance == pytest.approx(found[1][1].distance, rel=1e-6)
    assert found[16][1].width < found[1][1].width


@pytest.fixture
def trained(generator):
    """Two-layer ReLU network on forty points, near a minimum, in float64."""
    x = torch.rand(40, 1, 2, 2, generator=generator).double()
    y = (x.flatten(1) @ torch.tensor([1.0, -1, 1, -1]).double() > 0).long()
    y[::7] = 1 - y[::7]  # not separable: the minimum is inside
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(4, 6, bias=False),
        nn.ReLU(),
        nn.Linear(6, 2, bias=False),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    for _ in range(600):
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(0.5 * gradient)
    return model, x, y


def at_the_minimum(x, y):
    """Logistic regression at its interior minimiser, by Newton's method."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()

    def loss(flat):
        logits = x.flatten(1) @ flat.view(2, 4).T
        return F.cross_entropy(logits, y)

    flat = torch.zeros(8, dtype=torch.float64)
    for _ in range(20):
        gradient = torch.autograd.functional.jacobian(loss, flat)
        curvature = torch.autograd.functional.hessian(loss, flat)
        flat = flat - torch.linalg.pinv(curvature) @ gradient
    assert gradient.norm() < 1e-10
    with torch.no_grad():
        model[1].weight.copy_(flat.view(2, 4))
    return model


def test_small_gaps_agree_with_the_top_eigenvalue(trained):
    _, x, y = trained
    model = at_the_minimum(x, y)
    found = top_eigenvalues(model, x, y, generator=seeded(), tolerance=1e-6)
    for gap in (1e-4, 1e-3):
        measured = width(model, x, y, gap=gap, generator=seeded())
        expected = math.sqrt(2 * gap / found.values.item())
        assert measured.distance == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("a", [10.0, 100.0])
def test_rescaling_two_layers_moves_the_plain_width_alone(trained, a):
    model, x, y = trained

    options = {"generator": seeded(), "random_directions": 2, "iterations": 60}

    def widths():
        options["generator"].manual_seed(0)
        return {
            of: width(model, x, y, gap=0.5, of=of, **options).distance
            for of in ("weights", "nodes", "inputs")
        } | {"adaptive": adaptive_sharpness(model, x, y, rho=0.5)}

    before = widths()
    with torch.no_grad():
        model[1].weight.mul_(a)
        model[3].weight.div_(a)
    after = widths()
    for name in ("inputs", "adaptive"):
        assert after[name] == pytest.approx(before[name], rel=1e-6)
    assert after["nodes"] == pytest.approx(before["nodes"], rel=0.02)
    assert after["weights"] < before["weights"] / 2


def test_node_norms_are_those_of_rows_and_of_single_biases():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        layer.bias.copy_(torch.tensor([-7.0, 0.5]))
    assert node_norms(layer).tolist() == [5.0, 5.0, 2.0, 2.0, 7.0, 0.5]


def test_nothing_is_left_behind(smooth, grey):
    x, y = grey
    before = [p.detach().clone() for p in smooth.parameters()]
    width(smooth, x, y, gap=0.1, generator=seeded(), starts=1, iterations=3)
    adaptive_sharpness(smooth, x, y, rho=0.1, steps=2)
    with logit_scale(smooth, 3.0):
        pass
    assert smooth.training
    for now, then in zip(smooth.parameters(), before, strict=True):
        assert torch.equal(now, then)


def test_gradients_of_the_landscape_are_its_slopes(trained):
    model, x, y = trained
    scale = node_norms(model)
    function, start = weight_landscape(model, x, y, scale, chunk=7)
    v = 0.1 * torch.randn(len(start), generator=seeded()).double()
    _, gradient = function(v)
    step = 1e-6 * torch.randn(len(start), generator=seeded(1)).double()
    rise = function(v + step)[0] - function(v - step)[0]
    assert rise == pytest.approx(float(2 * gradient @ step), rel=1e-5)
    line = along(function, v, torch.tensor([0.0, float(v.norm())]).double())
    assert line[1].item() == pytest.approx(function(v)[0])


class HeadFirst(nn.Module):
    """The head is the first layer defined and the last that runs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh())

    def forward(self, x):
        return self.head(self.body(x))


class Cosine(nn.Linear):
    """A linear layer that divides its weights by their norm."""

    def forward(self, x):
        return F.linear(x, F.normalize(self.weight), self.bias)


def _tied():
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), layer, nn.Tanh(), layer)


def _pruned():
    layer = nn.Linear(16, 3)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return nn.Sequential(nn.Flatten(), layer)


@pytest.mark.parametrize(
    "model",
    [
        HeadFirst(),
        _tied(),
        _pruned(),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh()),
        nn.Sequential(nn.Flatten(), Cosine(16, 3)),
        nn.Sequential(HeadFirst(), nn.Linear(3, 3), nn.Identity()),
        nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 3))),
        nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()),
    ],
    ids=[
        "head first",
        "tied",
        "pruned",
        "tanh",
        "cosine",
        "identity",
        "nested",
        "conv",
    ],
)
def test_logit_scale_multiplies_the_logits_of_any_network(model):
    x = torch.rand(5, 1, 4, 4, generator=seeded())
    before = model(x).detach()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with logit_scale(model, 10.0):
        torch.testing.assert_close(model(x), 10 * before)
    assert torch.equal(model(x), before) and not model._forward_hooks
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_adaptive_sharpness_of_one_weight_is_its_range():
    """One sample, one weight: the loss at w (1 - rho) minus the loss at w."""
    model = Logistic(torch.tensor([2.0]).double())
    x = torch.full((1, 1, 1, 1), 0.5).double()
    y = torch.zeros(1, dtype=torch.int64)
    found = adaptive_sharpness(model, x, y, rho=0.5)
    expected = math.log1p(math.exp(-0.5)) - math.log1p(math.exp(-1.0))
    assert found == pytest.approx(expected, rel=1e-9)


BREAKS = {"nan": math.nan, "inf": math.inf, "huge": 1e38}


@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize(
    "measure",
    [
        lambda m, x, y: width(m, x, y, gap=0.1, generator=seeded()),
        lambda m, x, y: width(m, x, y, gap=0.1, generator=seeded(), of="nodes"),
        lambda m, x, y: width(m, x, y, gap=0.1, generator=seeded(), of="inputs"),
        lambda m, x, y: adaptive_sharpness(m, x, y, rho=0.1),
        lambda m, x, y: weight_landscape(m, x, y),
        lambda m, x, y: input_landscape(m, x, y),
        lambda m, x, y: implicit_perturbation.at_first_layer(m, x, y, 0.1),
    ],
)
def test_a_broken_network_has_no_width(smooth, grey, kind, measure):
    with torch.no_grad():
        smooth[0].weight.view(-1)[0] = BREAKS[kind]
        smooth[5].bias[0] = BREAKS[kind]
    with pytest.raises(NonFiniteError, match="model must"):
        measure(smooth, *grey)


def test_node_norms_of_a_broken_network_are_refused():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="finite weights"):
        node_norms(layer)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e30])
def test_a_loss_that_cannot_rise_by_the_gap_has_no_level(loss):
    with pytest.raises(NonFiniteError, match=r"able to rise by 0\.1"):
        nearest_level(
            lambda v: (loss, v), torch.zeros(3).double(), 0.1, generator=seeded()
        )


def test_any_inputs_and_loss_as_tensors_or_from_a_loader(generator):
    """Least squares in one weight: a^2 rises by gap at sqrt(gap / mean x^2)."""
    x = 3 * torch.randn(30, 1, generator=generator).double()
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        y = model(x)
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    options = {"loss": nn.MSELoss(), "generator": seeded(), "random_directions": 1}
    mean = x.square().mean().item()
    for data in ((x, y), (loader,)):
        found = width(model, *data, gap=0.1, **options)
        assert found.distance == pytest.approx(math.sqrt(0.1 / mean), rel=1e-6)
    # The target is w + 1: the loss rises from 1 to (1 + |w| / 2)^2, times mean x^2.
    for data in ((x, y + x), ([(x, y + x)],)):
        rise = adaptive_sharpness(model, *data, rho=0.5, loss=nn.MSELoss())
        exact = mean * ((1 + abs(model.weight.item()) / 2) ** 2 - 1)
        assert rise == pytest.approx(exact, rel=1e-6)


def test_widths_of_frozen_and_unused_layers(grey):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.spare = nn.Linear(16, 3), nn.Linear(16, 2)

        def forward(self, x):
            return self.body(x.flatten(1))

    model = Spare().double()
    x, y = grey[0].double(), grey[1]
    options = {"gap": 0.1, "starts": 2, "random_directions": 1}
    every = width(model, x, y, generator=seeded(), **options)
    model.spare.requires_grad_(False)
    body = width(model, x, y, generator=seeded(), **options)
    assert every.distance == pytest.approx(body.distance, rel=1e-4)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="requires a gradient"):
        width(model, x, y, generator=seeded(), **options)
    width(model, x, y, generator=seeded(), of="inputs", **options)


def test_widths_of_a_recipe_start_from_the_way_to_the_level_below():
    """Two random starts for the first level, for the next one the way found alone."""
    recipe = Recipe(train_size=60, batch_size=20, width=8, width_size=20)
    model = build(recipe)
    row = curvature.width_values(model, recipe, "cpu")
    x, y = images(recipe.dataset, "train", 20, "cpu")
    for of in ("weights", "nodes", "inputs"):

        def measured(gap, starts, first=None, of=of):
            return width(
                model,
                x,
                y,
                gap=gap,
                of=of,
                generator=stream(0, f"width of {of}"),
                starts=starts,
                random_directions=1,
                first=first,
                tolerance=1e-3,
            )

        low, cold = measured(0.1, starts=2), measured(1.0, starts=2)
        high = measured(1.0, starts=0, first=low.direction)
        assert row[f"width_{of}_0.1"] == low.width
        assert row[f"width_{of}_1"] == high.width != cold.width
    rise = adaptive_sharpness(model, x, y, rho=0.5)
    assert row["adaptive_sharpness"] == rise > 0
    assert rise < adaptive_sharpness(model, x, y, rho=2.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x, y: width(m, x, y, gap=0, generator=seeded()),
            "gap must be above",
        ),
        (
            lambda m, x, y: width(m, x, y, gap=1, generator=seeded(), of="bias"),
            "of must be 'weights'",
        ),
        (
            lambda m, x, y: width(m, x, y, gap=1, generator=seeded(), starts=0),
            "starts must be at least 1; got 0",
        ),
        (lambda m, x, y: adaptive_sharpness(m, x, y, rho=-1), "rho must be above 0"),
        (lambda m, x, y: logit_scale(m, 0).__enter__(), "factor must be above 0"),
    ],
)
def test_wrong_arguments_are_named(smooth, grey, call, message):
    with pytest.raises(ValueError, match=message):
        call(smooth, *grey)


def test_logits_are_scaled_behind_a_hook_of_the_container():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model.register_forward_hook(lambda *given: given[-1] + torch.tensor([5.0, 0.0]))
    x = torch.rand(3, 1, 2, 2)
    with torch.no_grad():
        plain = model(x)
        with logit_scale(model, 8):
            torch.testing.assert_close(model(x), 8 * plain)


def _penultimate(bias, seed=0):
    body = [nn.Flatten(), nn.Linear(16, 6), nn.ReLU()]
    model = nn.Sequential(*body, nn.Linear(6, 3, bias=bias)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(seed)))
    return model


@pytest.mark.parametrize("bias", [True, False])
def test_relative_flatness_is_its_sum_over_blocks_of_the_hessian(grey, bias):
    model, (x, y) = _penultimate(bias), grey
    x, w = x.double(), model[-1].weight.detach()

    def loss(rows):
        return F.cross_entropy(F.linear(model[:-1](x), rows, model[-1].bias), y)

    h = torch.autograd.functional.hessian(loss, w)  # (row, feature, row, feature)
    exact = ((w @ w.T) * torch.einsum("siti->st", h)).sum().item()
    assert relative_flatness(model, x, y, chunk=3) == pytest.approx(exact, rel=1e-9)
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    assert relative_flatness(model, batches) == pytest.approx(exact, rel=1e-9)
    with torch.no_grad():  # the features, and the layer that reads them
        for parameter in model[1].parameters():
            parameter.mul_(8.0)
        model[-1].weight.div_(8.0)
    assert relative_flatness(model, x, y) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("model", [_tied(), HeadFirst(), nn.Linear(16, 3)])
def test_relative_flatness_is_of_a_sequence_that_ends_in_a_linear_layer(model):
    x = torch.rand(2, 16)
    if isinstance(model, nn.Sequential):
        model = nn.Sequential(*model, nn.Tanh())
    with pytest.raises(ValueError, match="sequence that ends in a linear layer"):
        relative_flatness(model, x, torch.tensor([0, 1]))


def test_a_search_uphill_starts_from_the_gradient_and_where_it_is_told():
    """On a bowl, beside its bottom: the gradient is the nearest way."""
    h = torch.tensor([100.0, 1.0, 1.0], dtype=torch.float64)
    at = torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)
    asked = []

    def bowl(v):
        asked.append(float(v.norm()))
        return float((h * (at + v) ** 2).sum() / 2), h * (at + v)

    options = {"starts": 0, "random_directions": 0, "uphill": True, "reach": 0.3}
    found = nearest_level(
        bowl, torch.zeros(3).double(), 4.0, generator=seeded(), **options
    )
    assert found.distance == pytest.approx(0.2, rel=1e-6)  # 50 (0.1 + d)^2 is 4.5
    assert asked[:2] == [0.0, pytest.approx(0.3)]
    assert math.isinf(found.random_distance)
    assert len(asked) < 30


@pytest.mark.parametrize("other", [{}, {"width_size": 20}])
def test_scale_free_values_are_those_at_a_median_margin_of_1(other):
    asked = Recipe(train_size=60, batch_size=20, width=8, scale_free_size=30, **other)
    model = build(asked)
    x, y = images(asked.dataset, "train", 60, "cpu")
    for _ in range(400):
        gradients = torch.autograd.grad(
            F.cross_entropy(model(x), y), list(model.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(0.5 * gradient)
    row = scale_free_values(model, asked, "cpu")
    x, y = x[:30], y[:30]
    with logit_scale(model, 1 / float(margins(model, x, y).median())):
        assert float(margins(model, x, y).median()) == pytest.approx(1)
        straight = {
            "top_eigenvalue": float(
                top_eigenvalues(model, x, y, generator=seeded(), tolerance=1e-4).values
            ),
            "adaptive_sharpness": adaptive_sharpness(model, x, y, rho=0.5),
            "relative_flatness": relative_flatness(model, x, y),
            "batch_sharpness": batch_sharpness(
                model, x, y, 20, generator=stream(0, "batch sharpness")
            ),
            "images": 30,
        }
        for gap in (0.1, 1.0):
            thorough = width(model, x, y, gap=gap, of="nodes", generator=seeded())
            straight[f"width_nodes_{gap:g}"] = pytest.approx(thorough.width, rel=0.02)
    for name, value in straight.items():
        near = 1e-2 if name == "top_eigenvalue" else 1e-5
        expected = pytest.approx(value, rel=near) if isinstance(value, float) else value
        assert row.pop(f"scale_free_{name}") == expected, name
    if not other:
        for gap in (0.1, 1.0):
            thorough = width(model, x, y, gap=gap, generator=seeded()).width
            found = row.pop(f"width_weights_{gap:g}")
            assert 0.8 * thorough < found < 1.02 * thorough  # a shorter way is no error
    assert not row
    # The same network at another scale of its logits has the same numbers.
    with torch.no_grad():
        for parameter in list(model.parameters())[-2:]:
            parameter.mul_(4)
    again = scale_free_values(model, asked, "cpu")
    assert again["scale_free_relative_flatness"] == pytest.approx(
        straight["relative_flatness"], rel=1e-5
    )
    with torch.no_grad():  # every answer is turned around
        for parameter in list(model.parameters())[-2:]:
            parameter.neg_()
    assert scale_free_values(model, asked, "cpu") == {}
