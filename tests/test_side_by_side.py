"""Fast training is the ordinary training, weight by weight."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from widemin import attacks, models
from widemin.experiments import lean_step, side_by_side
from widemin.experiments.side_by_side import Together
from widemin.training import SGD, fit, train_step

SETTINGS = {"plain": (0.0, 0.0), "momentum": (0.9, 0.0), "decay": (0.5, 1e-3)}
ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture
def images(generator):
    x = torch.rand(50, 1, 28, 28, generator=generator)
    return x, torch.randint(10, (50,), generator=generator)


def network(dtype, seed=0):
    return models.build("m1", torch.Generator().manual_seed(seed)).to(dtype)


def trained(model, x, y, rate, setting, seed, batch_size=8, epochs=3, **options):
    """The weights and losses of three epochs, batches of 8 and a rest of 2."""
    momentum, decay = SETTINGS[setting]
    return fit(
        model,
        SGD(model.parameters(), rate, momentum, decay),
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
        schedule="halve-20",
        **options,
    )


def largest_difference(one, two):
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_lean_steps_reach_the_weights_of_autograd(
    images, dtype, setting, channels_last
):
    x, y = images[0].to(dtype), images[1]
    one = network(dtype)
    if channels_last:
        one = one.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    two = copy.deepcopy(one)
    start = copy.deepcopy(one)
    slow = trained(one, x, y, 0.05, setting, seed=1)
    fast = trained(two, x, y, 0.05, setting, 1, step_at=lambda t: lean_step.step)
    assert largest_difference(one, start) > 1e-3
    assert largest_difference(one, two) < ALLOWED[dtype]
    assert fast == pytest.approx(slow, rel=1e-5)


LOSSES = attacks.TRAINED | {
    "smoothed": partial(F.cross_entropy, label_smoothing=0.2, reduction="none"),
    "squares": lambda logits, y: logits.square().sum(1) * (1 + y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_lean_steps_on_a_loss_reach_the_weights_of_autograd(images, name):
    x, y = images[0].double(), images[1]
    one = network(torch.float64)
    two, plain = copy.deepcopy(one), copy.deepcopy(one)
    ordinary = partial(train_step, loss=LOSSES[name])
    lean = partial(lean_step.step, loss=LOSSES[name])
    slow = trained(one, x, y, 0.01, "decay", 1, step_at=lambda t: ordinary)
    fast = trained(two, x, y, 0.01, "decay", 1, step_at=lambda t: lean)
    assert largest_difference(one, two) < ALLOWED[torch.float64]
    assert fast == pytest.approx(slow, rel=1e-10)
    trained(plain, x, y, 0.01, "decay", 1)
    same = name in ("logits", "clipped", "shifted")  # of networks that are unsure
    assert (largest_difference(one, plain) < ALLOWED[torch.float64]) == same


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("setting", SETTINGS)
def test_networks_side_by_side_reach_the_weights_of_each_alone(images, dtype, setting):
    """Three networks, each with its own weights, learning rate and order."""
    x, y = images[0].to(dtype), images[1]
    rates, seeds = [0.01, 0.05, 0.1], [0, 1, 2]
    alone = [network(dtype, seed) for seed in seeds]
    beside = [copy.deepcopy(model) for model in alone]
    expected = [
        trained(model, x, y, rate, setting, seed)
        for model, rate, seed in zip(alone, rates, seeds, strict=True)
    ]
    found = train_together(beside, rates, setting, seeds, x, y)
    for one, two in zip(alone, beside, strict=True):
        assert largest_difference(one, two) < ALLOWED[dtype]
    for losses, other in zip(expected, zip(*found, strict=True), strict=True):
        assert list(other) == pytest.approx(losses, rel=1e-5)


def train_together(
    group, rates, setting, seeds, x, y, batch_size=8, epochs=3, stretch=2
):
    momentum, decay = SETTINGS[setting]
    size = len(group)
    side_by_side = Together(group, rates, [momentum] * size, [decay] * size)
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    found = []
    for epoch in range(epochs):
        steps = -(-len(x) // batch_size)
        done = (torch.arange(steps) + epoch * steps) / (epochs * steps)
        factors = 0.5 ** (20 * done).floor()
        order = torch.stack([torch.randperm(len(x), generator=g) for g in orders])
        losses = side_by_side.epoch(
            x, y, order.to(x.device), batch_size, factors.to(x), stretch
        )
        found.append(losses.tolist())
    return found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("batch_size", [1, 7, 32, 128])
def test_networks_side_by_side_agree_at_every_batch_size(
    generator, batch_size, setting
):
    """In float64, over an epoch whose last batch may be smaller, each in its order."""
    x = torch.rand(130, 1, 28, 28, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (130,), generator=generator)
    alone = [network(torch.float64, seed) for seed in (0, 1)]
    beside = [copy.deepcopy(model) for model in alone]
    options = {"batch_size": batch_size, "epochs": 1}
    losses = [
        trained(model, x, y, rate, setting, seed, **options)
        for model, rate, seed in zip(alone, (0.01, 0.1), (0, 1), strict=True)
    ]
    [found] = train_together(beside, [0.01, 0.1], setting, [0, 1], x, y, **options)
    assert found == pytest.approx([first for [first] in losses], rel=1e-10)
    for one, two in zip(alone, beside, strict=True):
        assert largest_difference(one, two) < 1e-10


@pytest.mark.parametrize("sizes", [(5, 3), (3, 1), (1, 2)])
def test_networks_side_by_side_agree_at_every_kernel_size(generator, sizes):
    x = torch.rand(12, 3, 18, 15, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (12,), generator=generator)
    pooled = [nn.MaxPool2d(2), nn.ReLU()]
    first, second = nn.Conv2d(3, 4, sizes[0]), nn.Conv2d(4, 6, sizes[1])
    body = nn.Sequential(first, *pooled, second, *pooled, nn.Flatten())
    full = nn.Linear(body(x.float()).shape[1], 7)
    alone = nn.Sequential(*body, full, nn.ReLU(), nn.Linear(7, 4)).double()
    assert lean_step.covers(alone, SGD(alone.parameters(), 0.1))
    beside = copy.deepcopy(alone)
    options = {"batch_size": 6, "epochs": 2}
    losses = trained(alone, x, y, 0.1, "decay", 0, **options)
    found = train_together([beside], [0.1], "decay", [0], x, y, **options)
    assert [loss for [loss] in found] == pytest.approx(losses, rel=1e-10)
    assert largest_difference(alone, beside) < 1e-10


class Counting(TorchDispatchMode):
    """Counts the operations dispatched that are no views of others' numbers."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        view = operation.is_view or operation._schema.name == "aten::_unsafe_view"
        self.names += [] if view else [str(operation)]
        return operation(*args, **kwargs or {})


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("batch_size", [1, 8, 128])
def test_a_step_is_few_operations(generator, monkeypatch, batch_size, setting):
    """On a GPU each is a kernel, of about three microseconds for small batches."""

    monkeypatch.setitem(side_by_side.AT_ONCE, "cpu", 6_000)

    def operations(steps):
        x = torch.rand(steps * batch_size, 1, 28, 28, generator=generator)
        y = torch.zeros(len(x), dtype=torch.int64)
        group = [network(torch.float32, seed) for seed in (0, 1)]
        with Counting() as counting:
            options = {"batch_size": batch_size, "epochs": 1, "stretch": steps}
            train_together(group, [0.1, 0.1], setting, [0, 1], x, y, **options)
        return len(counting.names)

    assert operations(3) - operations(2) <= 36


def test_a_network_that_diverges_leaves_the_others_alone(images):
    x, y = images[0].double(), images[1]
    calm, wild = network(torch.float64), network(torch.float64, seed=1)
    alone = copy.deepcopy(calm)
    losses = train_together([calm, wild], [0.05, 1e200], "plain", [3, 3], x, y)
    expected = trained(alone, x, y, 0.05, "plain", 3)
    assert [first for first, _ in losses] == pytest.approx(expected, rel=1e-5)
    assert not all(torch.isfinite(p).all() for p in wild.parameters())
    assert largest_difference(calm, alone) < 1e-10


def test_only_the_family_is_covered():
    def covered(name, **options):
        model = models.build(name, torch.Generator().manual_seed(0), **options)
        return lean_step.covers(model, SGD(model.parameters(), 0.1))

    assert covered("m1")
    assert covered("m1", shape=(3, 32, 32))
    others = ["m1-unpooled", "mlp", "linear", "stdcnn", "cnn4"]
    assert not any(covered(name) for name in others)
    normalised = models.build(
        "m1", torch.Generator(), statistics=((0.5,), (0.5,)), shape=(1, 28, 28)
    )
    assert not lean_step.covers(normalised, SGD(normalised.parameters(), 0.1))
    model = network(torch.float32)
    assert not lean_step.covers(model, torch.optim.Adam(model.parameters()))
    model[0].weight.requires_grad_(False)
    assert not lean_step.covers(model, SGD(model.parameters(), 0.1))
    assert not lean_step.covers(nn.Linear(2, 2), SGD(model.parameters(), 0.1))
    heard = network(torch.float32)
    heard[3].register_full_backward_hook(lambda *_: None)
    assert not lean_step.covers(heard, SGD(heard.parameters(), 0.1))
    heads = network(torch.float32)
    assert not lean_step.covers(heads, SGD(heads[-1].parameters(), 0.1))


@pytest.mark.gpu
@pytest.mark.parametrize("setting", SETTINGS)
def test_on_a_gpu_replayed_steps_are_those_of_the_cpu(images, setting):
    x, y = images[0].double(), images[1]
    rates, seeds = [0.01, 0.05, 0.1], [0, 1, 2]
    here = [network(torch.float64, seed) for seed in seeds]
    there = [copy.deepcopy(model).cuda() for model in here]
    expected = train_together(here, rates, setting, seeds, x, y)
    found = train_together(there, rates, setting, seeds, x.cuda(), y.cuda())
    for one, two in zip(here, there, strict=True):
        assert largest_difference(one, two.cpu()) < 1e-10
    assert torch.tensor(found) == pytest.approx(torch.tensor(expected), rel=1e-8)
