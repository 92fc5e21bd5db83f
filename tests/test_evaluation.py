"""Accuracy is counted from predictions, image by image."""

from functools import partial

import pytest
import torch
from torch import nn

from widemin import data, models, training
from widemin.attacks import (
    L2,
    Linf,
    NonFiniteError,
    clean,
    cross_entropy,
    fgsm,
    margin,
    pgd,
)
from widemin.evaluation import (
    autoattack,
    correct,
    margins,
    minimal_distance,
    survivors,
    sweep,
    transfer,
    worst_case,
)
from widemin.statistics import over_seeds, spearman, wilson


def test_margins_are_true_minus_best_other(linear):
    model, x, y = linear
    logits = model(x)
    expected = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None]))[:, 0]
    torch.testing.assert_close(margins(model, x, y), expected.detach())
    assert torch.equal(correct(model, x, y), expected > 0)


def test_robust_accuracy_of_a_linear_model_is_exact(linear):
    """An image survives L-infinity epsilon iff its margin exceeds epsilon |w|_1."""
    model, x, y = linear
    y = model(x).argmax(1)
    gap = (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    distance = margins(model, x, y) / gap
    epsilon = float(distance.median()) + 1e-4
    assert epsilon < 0.4
    ball = Linf(epsilon)
    ways = {
        "fgsm": partial(fgsm, ball=ball),
        "pgd": partial(pgd, ball=ball, steps=20, step_size=epsilon / 4),
        "margin": partial(fgsm, ball=ball, loss=margin),
    }
    for name, mask in survivors(model, x, y, ways).items():
        assert torch.equal(mask, distance > epsilon), name


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_nothing_depends_on_the_chunk(linear, chunk):
    model, x, y = linear
    ways = {"none": clean, "fgsm": partial(fgsm, ball=Linf(0.02))}
    found = survivors(model, x, y, ways, chunk)
    reference = survivors(model, x, y, ways)
    for name in ways:
        assert torch.equal(found[name], reference[name])


def test_wrong_images_are_wrong_under_every_attack(linear):
    model, x, _ = linear
    y = model(x).argmin(1)
    found = survivors(model, x, y, {"away": lambda model, x, y: 1 - x})
    assert not found["away"].any()


def test_a_constant_network_is_never_right():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x, y = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)
    assert not correct(model, x, y).any()


def test_broken_networks_are_an_error(linear):
    model, x, y = linear
    with torch.no_grad():
        model[1].bias.fill_(float("inf"))
    with pytest.raises(NonFiniteError):
        correct(model, x, y)


def test_wilson_is_statsmodels_formula():
    low, high = wilson(0.9, 1000)
    n, p, z = 1000, 0.9, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert wilson(0.0, 10)[0] == 0 and wilson(1.0, 10)[1] == 1


def test_wilson_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"got 1\.5 and 10"):
        wilson(1.5, 10)


def test_over_seeds_is_students_interval():
    mean, half = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert over_seeds([5.0])[0] == 5.0
    assert over_seeds([5.0])[1] != over_seeds([5.0])[1]  # NaN: one seed says nothing


def test_spearman_ranks_and_refuses_constants():
    assert spearman([1, 2, 3, 4], [10, 100, 1000, 1]) == pytest.approx(-0.2)
    for x, y in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])):
        found = spearman(x, y)
        assert found != found


def test_the_worst_case_is_the_mean_of_the_minima(linear):
    model, x, y = linear
    y = model(x).argmax(1)
    half = torch.arange(8) < 4

    def fools(these):
        def attack(model, x_now, y_now):
            index = [int((x == image).flatten(1).all(1).nonzero()) for image in x_now]
            moved = fgsm(model, x_now, y_now, Linf(0.9))
            return torch.where(these[index].view(-1, 1, 1, 1), moved, x_now)

        return attack

    found = worst_case(model, x, y, {"first": fools(half), "last": fools(~half)})
    assert found.natural == 1.0
    assert found.attacks == {"first": 0.5, "last": 0.5}
    assert found.accuracy == 0.0 and not found.survived.any()
    assert found.interval == wilson(0.0, 8)
    with pytest.raises(ValueError, match="at least one attack"):
        worst_case(model, x, y, {})


def test_a_sweep_of_a_linear_model_is_the_distribution_of_distances(linear):
    model, x, y = linear
    y = model(x).argmax(1)
    gap = (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    distance = margins(model, x, y) / gap
    radii = [0.0, 0.01, 0.05, 0.1, 0.39]
    rates = sweep(model, x, y, [Linf(r) for r in radii], fgsm)
    expected = [float((distance > r).double().mean()) for r in radii]
    assert rates == expected and rates[0] == 1.0
    assert sweep(model, x, y, [Linf(1.0)], fgsm) == [0.0]
    for balls in ([Linf(0.2), Linf(0.1)], [Linf(0.1), L2(0.2)]):
        with pytest.raises(ValueError, match="of one norm and grow"):
            sweep(model, x, y, balls, fgsm)


def test_order_of_the_images_decides_nothing(wavy, grey):
    x, y = grey
    attack = partial(pgd, ball=Linf(0.05), steps=5, step_size=0.02, until_fooled=True)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    straight = survivors(wavy, x, y, {"pgd": attack})["pgd"]
    mixed = survivors(wavy, x[order], y[order], {"pgd": attack})["pgd"]
    assert torch.equal(mixed, straight[order])


def test_identical_images_share_one_fate(wavy, grey):
    x, y = grey[0][:1].repeat(6, 1, 1, 1), grey[1][:1].repeat(6)
    found = minimal_distance(wavy, x, y)
    assert (found == found[0]).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_minimal_distance_of_a_linear_model_is_the_margin_over_the_dual_norm(
    linear, norm
):
    model, x, y = linear
    y = model(x).argmax(1)
    y[0] = 1 - y[0]  # wrong without an attack
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()
    exact = (margins(model, x, y) / dual).clamp_min(0)
    way = weight.sign() if norm == "linf" else weight / weight.norm()
    way = way.view(1, 1, 4, 4) * (1 - 2 * y.view(-1, 1, 1, 1))
    nearest = x + exact.view(-1, 1, 1, 1) * way
    free = ((nearest > 0) & (nearest < 1)).flatten(1).all(1)  # meets neither 0 nor 1
    assert free.sum() >= 3
    found = minimal_distance(model, x, y, norm=norm, halvings=12)
    assert found[0] == 0
    torch.testing.assert_close(found[free], exact[free], atol=1 / 2**12 + 1e-5, rtol=0)
    assert (found >= exact - 1e-5).all()
    generator = torch.Generator().manual_seed(0)
    options = {"norm": norm, "halvings": 12, "generator": generator}
    started = minimal_distance(model, x, y, **options)
    torch.testing.assert_close(started[free], exact[free], atol=2e-3, rtol=0.02)


def test_minimal_distance_does_not_depend_on_logit_scale_or_chunk(linear):
    model, x, y = linear
    y = model(x).argmax(1)
    before = minimal_distance(model, x, y, chunk=3)
    with torch.no_grad():
        model[1].weight.mul_(1e4)
    torch.testing.assert_close(minimal_distance(model, x, y), before)


def test_what_is_never_fooled_is_infinitely_far():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0.0]))
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    assert minimal_distance(model, x, y).isinf().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm must be 'linf' or 'l2'; got 'l1'"),
        ({"most": 0.0}, "most must be above 0"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"halvings": 0}, "halvings must be at least 1; got 0"),
    ],
)
def test_wrong_searches_are_named(linear, options, message):
    with pytest.raises(ValueError, match=message):
        minimal_distance(*linear, **options)


def test_transfer_attacks_one_network_and_counts_on_another(linear, wavy):
    model, x, y = linear
    y = model(x).argmax(1)
    attack = partial(fgsm, ball=Linf(0.5))
    mask = transfer(wavy, model, x, y, attack)
    expected = correct(model, attack(wavy, x, y), y)
    assert torch.equal(mask, expected)
    itself = transfer(model, model, x, y, attack)
    white = survivors(model, x, y, {"white": attack})["white"]
    assert torch.equal(itself, white)


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_autoattack_is_exact_on_a_linear_model(linear):
    pytest.importorskip("pyautoattack")
    model, x, y = linear
    y = model(x).argmax(1)
    y[0] = 1 - y[0]
    gap = (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    distance = margins(model, x, y) / gap
    epsilon = float(distance[1:].median()) + 1e-3
    state = torch.get_rng_state()
    mask, _ = autoattack(model, x, y, Linf(epsilon), attacks=("apgd-ce",))
    assert torch.equal(mask, distance > epsilon)
    assert torch.equal(torch.get_rng_state(), state)
    weak, _ = autoattack(model, x, y, Linf(epsilon), attacks=("square",))
    assert (weak | ~mask).all()  # without gradients it fools no more


@pytest.fixture(scope="module")
def digits_network():
    """A perceptron trained on real digits, and the first 200 test images."""
    train, test = data.load("digits"), data.load("digits", "test", size=200)
    model = models.build("mlp", torch.Generator().manual_seed(0), shape=(1, 8, 8))
    optimizer = training.SGD(model.parameters(), 0.1, 0.9)
    generator = torch.Generator().manual_seed(1)
    list(
        training.fit(
            model,
            optimizer,
            train.x,
            train.y,
            epochs=10,
            batch_size=32,
            generator=generator,
        )
    )
    return model.eval(), test.x, test.y


@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.6)])
def test_autoattack_agrees_on_a_trained_network(digits_network, ball):
    """Its whole standard suite against our worst case of two losses, image by image."""
    pytest.importorskip("pyautoattack")
    model, x, y = digits_network
    options = {
        "ball": ball,
        "steps": 50,
        "step_size": ball.epsilon / 10,
        "until_fooled": True,
        "restarts": 3,
    }
    ways = {
        name: partial(
            pgd, **options, loss=loss, generator=torch.Generator().manual_seed(2)
        )
        for name, loss in [("cross-entropy", cross_entropy), ("margin", margin)]
    }
    ours = worst_case(model, x, y, ways).survived
    theirs, _ = autoattack(model, x, y, ball)
    assert 0.1 < float(theirs.double().mean()) < 0.9
    assert int((ours ^ theirs).sum()) <= 2  # one per cent of the images


@pytest.mark.filterwarnings("ignore")
def test_autoattack_hears_its_own_warnings(grey):
    pytest.importorskip("pyautoattack")
    x, y = grey

    class Certain(nn.Module):
        def forward(self, x):
            return torch.softmax(x.flatten(1)[:, :4] * 9, 1)

    _, heard = autoattack(
        nn.Sequential(Certain()), x, y, Linf(0.1), attacks=("apgd-ce",)
    )
    assert any("probability" in line or "output" in line.lower() for line in heard)
