"""Accuracy is counted from predictions, image by image."""

import math
import re
import sys
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from widemin import data, models, paths, training
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
    fgsm_float64,
    margins,
    minimal_distance,
    report,
    robust_mask,
    signs,
    transfer,
    within,
)
from widemin.statistics import median, over_seeds, spearman, wilson


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
    for name, mask in robust_mask(model, x, y, ways).items():
        assert torch.equal(mask, distance > epsilon), name


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_nothing_depends_on_the_chunk(linear, chunk):
    model, x, y = linear
    ways = {"none": clean, "fgsm": partial(fgsm, ball=Linf(0.02))}
    found = robust_mask(model, x, y, ways, chunk)
    reference = robust_mask(model, x, y, ways)
    for name in ways:
        assert torch.equal(found[name], reference[name])


def test_wrong_images_are_wrong_under_every_attack(linear):
    model, x, _ = linear
    y = model(x).argmin(1)
    found = robust_mask(model, x, y, {"away": lambda model, x, y: 1 - x})
    assert not found["away"].any()


def test_a_constant_network_is_never_right():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x, y = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)
    assert not correct(model, x, y).any()


FGSM = {"fgsm": partial(fgsm, ball=Linf(0.1))}
INSTRUMENTS = {
    "correct": correct,
    "margins": margins,
    "robust_mask": partial(robust_mask, attacks=FGSM),
    "minimal_distance": minimal_distance,
    "transfer": lambda m, x, y: transfer(m, m, x, y, FGSM["fgsm"]),
    "transfer to a sound one": lambda m, x, y: transfer(m, Sound(), x, y, FGSM["fgsm"]),
    "fgsm_float64": partial(fgsm_float64, ball=Linf(0.1)),
    "report": partial(report, ball=Linf(0.1)),
    "signs": partial(signs, ball=Linf(0.1), generator=torch.Generator()),
}


class Sound(nn.Module):
    """A network of two classes, of which it is sure of the second."""

    def forward(self, x):
        return torch.tensor([0.0, 9.0]) + x.flatten(1)[:, :2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_broken_networks_are_one_error_of_every_instrument(linear, name, value):
    model, x, y = linear
    if (name, value) == ("fgsm_float64", 1e38):
        pytest.skip("in float64 it is not broken")
    with torch.no_grad():
        model[1].weight.fill_(value)
    with pytest.raises(NonFiniteError):
        INSTRUMENTS[name](model, x, torch.ones_like(y))


@pytest.mark.parametrize("name", list(INSTRUMENTS)[2:])
def test_images_outside_their_range_are_refused_by_whatever_attacks_them(linear, name):
    model, x, y = linear
    with pytest.raises(ValueError, match=r"x must be pixels in .0, 1."):
        INSTRUMENTS[name](model, 3 * x, torch.ones_like(y))


def test_a_network_is_fused_once_and_its_answers_are_its_own(monkeypatch):
    """Attacks meet folded norms, predictions and all else the network as it is."""
    model = models.build("cnn4", torch.Generator().manual_seed(0))
    x, y = torch.rand(6, 1, 28, 28), torch.zeros(6, dtype=torch.int64)
    y = model.eval()(x).argmax(1)
    made, fuse = [], models.fuse
    module = sys.modules["widemin.evaluation.accuracy"]
    monkeypatch.setattr(module, "fuse", lambda m: made.append(fuse(m)) or made[-1])
    heard = []
    model.train()[1].register_forward_hook(lambda *_: heard.append(1))

    def attack(asked, x, y):
        heard.append("attack")
        return x

    robust_mask(model, x, y, {"one": attack, "two": attack}, chunk=3)
    assert len(made) == 1
    assert heard == [1] + ["attack", 1] * 4  # a hooked norm answers every time
    assert model.training


@pytest.mark.filterwarnings("ignore")
def test_evaluation_works_in_inference_mode(linear):
    model, x, _ = linear
    y = model(x).argmax(1)
    ways = {
        "fgsm": partial(fgsm, ball=Linf(0.02)),
        "float64": partial(fgsm_float64, ball=Linf(0.02)),
    }
    asked = [
        lambda: torch.stack(list(robust_mask(model, x, y, ways).values())),
        lambda: minimal_distance(model, x, y),
        lambda: autoattack(model, x, y, Linf(0.02), attacks=("apgd-ce",))[0],
    ]
    for ask in asked if find_spec("pyautoattack") else asked[:-1]:
        expected = ask()
        with torch.inference_mode():
            assert torch.equal(ask(), expected)
    assert all(p.requires_grad and not p.is_inference() for p in model.parameters())


def test_wilson_is_statsmodels_formula():
    low, high = wilson(0.9, 1000)
    n, p, z = 1000, 0.9, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert wilson(0.0, 10)[0] == 0 and wilson(1.0, 10)[1] == 1


def test_the_medians_interval_is_binomial():
    """Between order statistics k and n + 1 - k, the largest k that leaves 2.5 %."""
    n, k = 20, 6
    tails = [sum(math.comb(n, i) for i in range(k + j)) / 2**n for j in (0, 1)]
    assert tails[0] <= 0.025 < tails[1]
    assert median([float(n - i) for i in range(n)]) == (10.5, k, n + 1 - k)
    assert median([0.0] * 5 + [math.inf] * 25) == (math.inf, math.inf, math.inf)
    assert math.isnan(median([1.0, 2.0])[1])


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


def test_each_attack_is_counted_on_its_own(linear):
    model, x, y = linear
    y = model(x).argmax(1)
    half = torch.arange(8) < 4

    def fools(these):
        def attack(model, x_now, y_now):
            index = [int((x == image).flatten(1).all(1).nonzero()) for image in x_now]
            moved = fgsm(model, x_now, y_now, Linf(0.9))
            return torch.where(these[index].view(-1, 1, 1, 1), moved, x_now)

        return attack

    ways = {"first": fools(half), "last": fools(~half)}
    right = robust_mask(model, x, y, ways)
    assert torch.equal(right["first"], ~half) and torch.equal(right["last"], half)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda m, x, y: torch.rand_like(x), r"must stay in Linf\(epsilon=0.1\)"),
        (lambda m, x, y: (x + 0.102).clamp(0, 1), "got an image 0.102 away"),
        (lambda m, x, y: x + 0.09 - 1e-9, None),
        (lambda m, x, y: x + 0.1, None),
        (lambda m, x, y: x[:1], r"must return images, shape \(8, 1, 4, 4\)"),
        (lambda m, x, y: x * float("nan"), "got an image nan away"),
    ],
)
def test_an_attack_that_leaves_its_set_is_refused(linear, attack, message):
    model, x, _ = linear
    y, ways = model(x).argmax(1), {"mine": within(attack, Linf(0.1))}
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        robust_mask(model, x, y, ways)


def test_an_attack_that_leaves_the_range_of_pixels_is_refused(linear):
    model, x, _ = linear
    y, ways = model(x).argmax(1), {"mine": lambda m, x, y: x + 0.5}
    message = r"what 'mine' returned: x must be pixels in \[0, 1\]"
    with pytest.raises(ValueError, match=message):
        robust_mask(model, x, y, ways)

    def far(model, x, y):
        return (x + 0.3).clamp(0, 1)

    within(far, L2(1.2 + 1e-5))(model, x, y)
    with pytest.raises(ValueError, match=r"mine must stay in L2\(epsilon=1\.19\)"):
        within(far, L2(1.19), "mine")(model, x, y)


def test_accuracy_takes_any_inputs_and_batches_of_them(generator):
    words = torch.randint(9, (7, 5), generator=generator)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    model.append(nn.Dropout(0.9))
    y = torch.arange(7) % 3
    expected = margins(model, words, y)
    assert torch.equal(expected > 0, model.eval()(words).argmax(1) == y)
    loader = torch.utils.data.DataLoader(list(zip(words, y, strict=True)), batch_size=3)
    torch.testing.assert_close(margins(model, loader), expected)
    assert torch.equal(correct(model, loader), expected > 0)
    points = 9 * torch.randn(7, 20, generator=generator) - 100  # far outside [0, 1]
    assert correct(model[1:], points, y).shape == (7,)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(2, 16), None, "y must come with a tensor x"),
        ([], None, "x must hold at least one input; got none"),
        ([(torch.rand(2, 16), torch.ones(3))], None, "y must be one target an input"),
        ([(torch.rand(2, 16), torch.ones(2))], None, "y must be int64 labels"),
        (
            [(torch.rand(2, 16), torch.arange(2))],
            torch.arange(2),
            "not with a DataLoader",
        ),
        (torch.rand(0, 16), torch.arange(0), "at least one input; got none"),
        (torch.rand(2, 16), 3 * torch.arange(2), "labels from 0 to 1; got 0 to 3"),
    ],
)
def test_what_is_no_sample_is_named(linear, x, y, message):
    with pytest.raises(ValueError, match=message):
        margins(linear[0], x, y)
    with pytest.raises(ValueError, match="chunk must be at least 1; got 0"):
        margins(*linear, chunk=0)


def test_order_of_the_images_decides_nothing(wavy, grey):
    x, y = grey
    attack = partial(pgd, ball=Linf(0.05), steps=5, step_size=0.02, until_fooled=True)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    straight = robust_mask(wavy, x, y, {"pgd": attack})["pgd"]
    mixed = robust_mask(wavy, x[order], y[order], {"pgd": attack})["pgd"]
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
    white = robust_mask(model, x, y, {"white": attack})["white"]
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


@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_autoattack_takes_networks_of_any_precision(linear, precision):
    pytest.importorskip("pyautoattack")
    model, x, _ = linear
    y = model(x).argmax(1)
    gap = (model[1].weight[1] - model[1].weight[0]).abs().sum().detach()
    ball = Linf(float((margins(model, x, y) / gap).median()) + 1e-3)
    expected, _ = autoattack(model, x, y, ball, attacks=("apgd-ce",))
    model, x = model.to(precision), x.to(precision)
    found, _ = autoattack(model, x, y, ball, attacks=("apgd-ce",))
    assert 0 < expected.sum() < len(x)
    assert (found == expected).sum() >= len(x) - (precision == torch.bfloat16)
    assert all(p.dtype == precision for p in model.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 3])
def test_autoattack_leaves_out_what_so_few_classes_do_not_allow(grey, classes):
    pytest.importorskip("pyautoattack")
    x, _ = grey
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    y = model(x).argmax(1)
    mask, heard = autoattack(model, x, y, L2(0.001), attacks=("apgd-t", "apgd-ce"))
    assert mask.any()
    assert f"apgd-t is left out: its loss needs 4 classes; got {classes}" in heard
    with pytest.raises(
        ValueError, match=f"leave one that works; got .*{classes}.*square"
    ):
        autoattack(model, x, y, L2(0.001), attacks=("apgd-t", "square"))


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
    ours = torch.stack(list(robust_mask(model, x, y, ways).values())).all(0)
    theirs, _ = autoattack(model, x, y, ball)
    assert 0.1 < float(theirs.double().mean()) < 0.9
    assert int((ours ^ theirs).sum()) <= 2  # one per cent of the images


@pytest.mark.filterwarnings("ignore")  # AutoAttack's own
@pytest.mark.parametrize("ball", [Linf, L2])
def test_a_report_of_a_linear_model_is_the_distribution_of_distances(ball):
    """Every attack is exact there, and so is the way to the boundary."""
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(40, 1, 4, 4, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 16, generator=generator))
    y = model(x).argmax(1)
    y[:4] = 1 - y[:4]  # wrong without an attack
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    dual = weight.abs().sum() if ball is Linf else weight.norm()
    distance = (margins(model, x, y) / dual).clamp_min(0)
    # Midway between two images, and between the median's: no rounding decides.
    ordered = distance.sort().values
    radius = float(ordered[24:26].mean())
    found = report(model, x, y, ball(radius))
    assert found.images == 40
    names = ["natural", "FGSM", "PGD-10", "margin PGD-40, 5 restarts"]
    names += ["AutoAttack"] if find_spec("pyautoattack") else []
    assert list(found.accuracy) == [*names, "worst case"]
    assert found.accuracy["natural"] == (0.9, *wilson(0.9, 40))
    for name in [*names[1:], "worst case"]:
        assert found.accuracy[name] == (0.375, *wilson(0.375, 40)), name
    exact = median(distance.tolist())
    assert found.distance == pytest.approx(exact, abs=4.0 / 2**8)
    assert found.signs[0].value == 0.375
    assert repr(found) == str(found)
    first = ["natural", "accuracy", "0.900", "0.769", "0.960"]
    assert first in [line.split() for line in str(found).splitlines()]
    assert len(found.table()) == len(found.accuracy) + 1 + len(found.signs)


def test_a_report_without_autoattack_leaves_it_out(linear, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    assert "AutoAttack" not in report(*linear, Linf(0.1)).accuracy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_readmes_first_example_prints_what_stands_below_it(capsys):
    pytest.importorskip("pyautoattack")
    text = (paths.ROOT / "README.md").read_text()
    code, shown = re.search(
        r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.S
    ).groups()
    exec(code, {})
    printed = capsys.readouterr().out
    for line, expected in zip(printed.splitlines(), shown.splitlines(), strict=True):
        number = re.compile(r"\d\.\d{3}")
        assert number.sub("#", line).split() == number.sub("#", expected).split()
        values = [list(map(float, number.findall(one))) for one in (line, expected)]
        assert values[0] == pytest.approx(values[1], abs=0.05)


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


def test_an_attack_of_ones_own_leaves_the_network_as_it_was():
    """It is run in inference mode, and batch norm's statistics stay."""
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm, nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    seen = []

    def own(network, x, y):
        seen.append(network.training)
        network(x)
        return x

    x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 2
    robust_mask(model, x, y, {"own": own})
    assert seen and not any(seen) and model.training
    assert int(norm.num_batches_tracked) == 0 and not norm.running_mean.any()
    with pytest.raises(ValueError, match="own must return images, a tensor; got tuple"):
        within(lambda m, x, y: (x, None), Linf(0.1), "own")(model, x, y)
