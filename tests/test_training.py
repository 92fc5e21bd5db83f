"""A step is what its arguments say: descent, SAM, adversarial, dynamic."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widemin import attacks, training
from widemin.attacks import Linf, NonFiniteError, pgd, pgd_path
from widemin.training import SGD, fit, perturbed_weights, train_step

SMOOTHED = partial(F.cross_entropy, label_smoothing=0.2, reduction="none")


def copy_of(model):
    return copy.deepcopy(model)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def net(smooth):
    """Without dropout, which draws from the global generator."""
    smooth[4].p = 0.0
    return smooth


@pytest.mark.parametrize(("momentum", "decay"), [(0, 0), (0.9, 0), (0.9, 5e-4)])
def test_sgd_is_torchs_bit_for_bit(net, grey, momentum, decay):
    x, y = grey
    peer = copy_of(net)
    ours = SGD(net.parameters(), 0.1, momentum, decay)
    theirs = torch.optim.SGD(
        peer.parameters(), 0.1, momentum=momentum, weight_decay=decay
    )
    for _ in range(4):
        train_step(net, ours, x, y)
        train_step(peer, theirs, x, y)
    assert torch.equal(weights(net), weights(peer))


class Spare(nn.Module):
    """A network with a head that its output does not depend on."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 8), nn.Linear(8, 3)
        self.spare = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 1e-2}])
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_frozen_and_unused_layers_stay_as_under_torchs_sgd(grey, options, rho):
    """One layer frozen, freed after two steps; another that nothing depends on."""
    ours, theirs = Spare(), Spare()
    theirs.load_state_dict(ours.state_dict())
    steps = {
        ours: SGD(ours.parameters(), 0.1, **options),
        theirs: torch.optim.SGD(theirs.parameters(), 0.1, **options),
    }
    body, head, spare = (copy_of(part) for part in ours.children())
    for model, optimizer in steps.items():
        model.body.requires_grad_(False)
        for step in range(4):
            if step == 2:
                assert torch.equal(weights(model.body), weights(body))
                model.body.requires_grad_(True)
            train_step(model, optimizer, *grey, rho=rho)
        assert not torch.equal(weights(model.body), weights(body))
        assert not torch.equal(weights(model.head), weights(head))
        assert torch.equal(weights(model.spare), weights(spare))
    assert torch.equal(weights(ours), weights(theirs))


def test_an_optimiser_goes_on_from_its_state(grey):
    """Velocities return to their own parameters, with a layer that has none."""
    model = Spare()
    model.body.requires_grad_(False)
    options = {"lr": 0.1, "momentum": 0.9}
    first = SGD(model.parameters(), **options)
    train_step(model, first, *grey)
    other = copy_of(model)
    second = SGD(other.parameters(), **options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for one, optimizer in ((model, first), (other, second)):
        one.requires_grad_(True)
        train_step(one, optimizer, *grey)
    assert torch.equal(weights(model), weights(other))


def test_a_leak_passes_frozen_and_unused_layers_by(grey):
    model = Spare()
    model.head.requires_grad_(False)
    before = copy_of(model)

    def leak(model, y):
        return training.weight_gradient(model, [grey[0]], y)

    train_step(model, SGD(model.parameters(), 0.1), *grey, rho=0.1, leak=leak)
    assert not torch.equal(weights(model.body), weights(before.body))
    assert torch.equal(weights(model.head), weights(before.head))
    assert torch.equal(weights(model.spare), weights(before.spare))


def test_sams_second_pass_leaves_every_buffer_alone(grey):
    """Also of instance norm, and of layers of one's own."""
    model = nn.Sequential(
        nn.InstanceNorm2d(1, track_running_stats=True), nn.Flatten(), nn.Linear(16, 3)
    )
    once = copy_of(model)
    once(grey[0])
    train_step(model, SGD(model.parameters(), 0.1), *grey, rho=0.5)
    assert torch.equal(model[0].running_mean, once[0].running_mean)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, y: SGD(m.parameters(), -0.1), "lr must be at least 0 and finite"),
        (lambda m, x, y: SGD(m.parameters(), 0.1, momentum=-1), "momentum must be"),
        (lambda m, x, y: SGD([], 0.1), "parameters must hold at least one; got none"),
        (
            lambda m, x, y: perturbed_weights(m, -0.1).__enter__(),
            "rho must be at least 0",
        ),
        (
            lambda m, x, y: train_step(m, SGD(m.parameters(), 0.1), x, y, rho=-0.1),
            "rho must be at least 0 and finite; got -0.1",
        ),
        (
            lambda m, x, y: training.algorithm_1(
                m, torch.optim.SGD(m.parameters()), x, y
            ),
            "optimizer must be a training.SGD",
        ),
        (
            lambda m, x, y: training.backward(m.requires_grad_(False), x, y),
            "model must have a parameter that requires a gradient",
        ),
    ],
)
def test_wrong_arguments_are_named(net, grey, call, message):
    with pytest.raises(ValueError, match=message):
        call(net, *grey)


def test_rho_zero_is_sgd_bit_for_bit(net, grey):
    x, y = grey
    plain = copy_of(net)
    train_step(net, SGD(net.parameters(), 0.1), x, y, rho=0.0)
    optimizer = SGD(plain.parameters(), 0.1)
    training.backward(plain, x, y)
    optimizer.step()
    assert torch.equal(weights(net), weights(plain))


def test_perturbed_weights_move_by_rho_along_the_gradient_and_come_back_exactly(
    net, grey
):
    training.backward(net, *grey)
    before = weights(net)
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    with perturbed_weights(net, 0.3):
        moved = weights(net) - before
    torch.testing.assert_close(moved, 0.3 * gradient / gradient.norm())
    assert torch.equal(weights(net), before)


class Logistic(nn.Module):
    """One weight, 2: its logits are w x and 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x):
        s = self.w * x.flatten()
        return torch.stack([s, torch.zeros_like(s)], 1)


@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_sams_step_on_one_logistic_weight_has_its_closed_form(rho):
    """The loss of w is log(1 + exp(-w x)): it rises towards w - rho, for x > 0."""
    model, x = Logistic(), 0.7
    images = torch.full((1, 1, 1, 1), x, dtype=torch.float64)
    step = SGD(model.parameters(), 0.1)
    train_step(model, step, images, torch.tensor([0]), rho=rho)
    expected = 2 + 0.1 * x / (1 + math.exp((2 - rho) * x))
    assert model.w.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_on_a_loss_of_ones_own_has_its_closed_form(rho, weighted):
    """The square of w x rises towards w + rho; weighted, its gradient is its own."""
    model, x = Logistic(), torch.tensor([0.7, 0.3], dtype=torch.float64)
    told = train_step(
        model,
        SGD(model.parameters(), 0.1),
        x.view(2, 1, 1, 1),
        torch.tensor([0, 1]),
        rho=rho,
        weighted=weighted,
        loss=lambda logits, y: logits[:, 0] ** 2,
    )
    w = 2 + rho
    each = (w * x) ** 2 if weighted else torch.ones(2)
    expected = 2 - 0.1 * (each * 2 * w * x**2).mean()
    assert model.w.item() == pytest.approx(expected.item(), rel=1e-12)
    assert told.item() == pytest.approx(4 * (x**2).mean().item(), rel=1e-12)


def test_a_loss_that_is_the_default_changes_no_bit(net, grey):
    twin = copy_of(net)
    for model, how in ((net, {}), (twin, {"loss": F.cross_entropy})):
        optimizer = SGD(model.parameters(), 0.1)
        for rho in (0.0, 0.5):
            train_step(model, optimizer, *grey, rho=rho, **how)
    assert torch.equal(weights(net), weights(twin))


@pytest.mark.parametrize("options", [{"loss": SMOOTHED}, {"weighted": True}])
def test_both_passes_of_sam_take_the_gradient_of_the_same_loss(net, grey, options):
    net.eval()
    plain = copy_of(net)
    train_step(net, SGD(net.parameters(), 0.1), *grey, rho=0.5, **options)
    optimizer = SGD(plain.parameters(), 0.1)
    training.backward(plain, *grey, **options)
    with perturbed_weights(plain, 0.5):
        training.backward(plain, *grey, **options)
    optimizer.step()
    assert torch.equal(weights(net), weights(plain))


@pytest.mark.parametrize("moves", [False, True])
def test_what_sams_second_pass_does_to_batch_norm_is_a_choice(net, grey, moves):
    x, y = grey
    once, twice = copy_of(net), copy_of(net)
    once(x)
    statistics = once[1].running_mean
    optimizer = SGD(twice.parameters(), 0.1)
    train_step(twice, optimizer, x, y, rho=0.5, second_pass_statistics=moves)
    same = torch.equal(twice[1].running_mean, statistics)
    assert same != moves
    assert int(twice[1].num_batches_tracked) == (2 if moves else 1)
    assert twice[1].momentum == once[1].momentum


def test_adversarial_training_is_a_step_on_the_attacked_images(net, grey):
    x, y = grey
    plain = copy_of(net)
    attack = partial(pgd, ball=Linf(0.1), steps=3, step_size=0.05)
    train_step(net, SGD(net.parameters(), 0.1), x, y, perturb=attack)
    moved = attack(plain, x, y)
    train_step(plain, SGD(plain.parameters(), 0.1), moved, y)
    assert torch.equal(weights(net), weights(plain))


def test_dynamic_training_at_threshold_zero_is_standard_bit_for_bit(net, grey):
    x, y = grey
    other = copy_of(net)
    attack = partial(pgd_path, ball=Linf(0.1), steps=3, step_size=0.02)
    record = []
    dynamic = partial(attack, fosc_below=0.0, record=record)
    train_step(net, SGD(net.parameters(), 0.1), x, y, perturb=dynamic)
    train_step(other, SGD(other.parameters(), 0.1), x, y, perturb=attack)
    assert all(len(step["images"]) == len(x) for step in record)
    assert torch.equal(weights(net), weights(other))


POINTS = {
    "constant": {0.0: 1, 0.99: 1},
    "drop-75-90": {0.0: 1, 0.74: 1, 0.75: 0.1, 0.9: 0.01},
    "drop-40-80": {0.39: 1, 0.4: 0.1, 0.8: 0.01},
    "drop-50-83": {0.49: 1, 0.5: 0.1, 0.84: 0.01},
    "halve-20": {0.0: 1, 0.05: 0.5, 0.1: 0.25, 0.5: 0.5**10},
    "trapezoid": {0.0: 0, 0.1: 0.5, 0.2: 1, 0.5: 1, 0.75: 0.5},
}


@pytest.mark.parametrize("name", training.SCHEDULES)
def test_schedules_are_the_papers(name):
    for t, factor in POINTS[name].items():
        assert training.SCHEDULES[name](t) == pytest.approx(factor)


def separable(generator):
    x = torch.rand(40, 1, 2, 2, generator=generator)
    return x, (x.flatten(1).sum(1) > 2).long()


@pytest.mark.parametrize("method", ["standard", "sam", "adversarial", "dynamic"])
def test_every_method_learns_forty_separable_points(generator, method):
    x, y = separable(generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    attack = partial(pgd_path, ball=Linf(0.01), steps=3, step_size=0.005)
    if method == "dynamic":
        attack = partial(attack, fosc_below=0.01)
    perturb = attack if method in ("adversarial", "dynamic") else attacks.clean
    step = partial(train_step, perturb=perturb, rho=0.05 if method == "sam" else 0.0)
    losses = fit(
        model,
        SGD(model.parameters(), 1.0),
        x,
        y,
        epochs=150,
        batch_size=10,
        generator=generator,
        step_at=lambda t: step,
    )
    assert len(losses) == 150
    assert losses[-1] < losses[0] / 2
    assert (model(x).argmax(1) == y).double().mean() >= 0.95


def test_fit_sees_every_image_once_an_epoch_and_reports_the_mean_loss(generator):
    x, y = separable(generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    seen = []

    def look(x):
        seen.append(x)
        return x

    frozen = SGD(model.parameters(), 0.0)
    options = {"epochs": 1, "batch_size": 16, "generator": generator}
    [loss] = fit(model, frozen, x, y, augment=look, **options)
    assert [len(part) for part in seen] == [16, 16, 8]
    rows = sorted(map(tuple, torch.cat(seen).flatten(1).tolist()))
    assert rows == sorted(map(tuple, x.flatten(1).tolist()))
    assert loss == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)


def test_smoothed_labels_are_a_mixture_of_losses(net, grey):
    """(1 - s) times the cross-entropy plus s times its mean over all classes."""
    x, y = grey
    loss = training.backward(net, x, y, loss=SMOOTHED)
    found = torch.cat([p.grad.flatten() for p in net.parameters()])
    log_p = net(x).log_softmax(1)
    own = -log_p.gather(1, y[:, None]).mean()
    wanted = 0.8 * own - 0.2 * log_p.mean()
    torch.testing.assert_close(loss, wanted.detach())
    expected = torch.autograd.grad(wanted, list(net.parameters()))
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))


def test_a_leak_tilts_sams_ascent_by_what_the_attack_left(net, grey):
    """With a leak of -gradient nothing is left to climb: SAM becomes SGD."""
    x, y = grey
    twin, plain = copy_of(net), copy_of(net)

    def cancel(model, labels):
        return [-g for g in training.weight_gradient(model, [x], labels)]

    net.eval(), plain.eval(), twin.eval()
    train_step(net, SGD(net.parameters(), 0.1), x, y, rho=0.5, leak=cancel)
    train_step(plain, SGD(plain.parameters(), 0.1), x, y)
    train_step(twin, SGD(twin.parameters(), 0.1), x, y, rho=0.5)
    assert torch.allclose(weights(net), weights(plain), atol=1e-6)
    assert not torch.allclose(weights(twin), weights(plain), atol=1e-4)


def test_the_leak_is_the_sum_over_the_attacks_batches(net, grey):
    x, y = grey
    net.eval()
    once = training.weight_gradient(net, [x], y)
    twice = training.weight_gradient(net, [x, x], y)
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * one, two)


def test_a_weighted_loss_counts_as_often_as_it_is_large(net, grey):
    x, y = grey
    loss = training.backward(net, x, y, weighted=True)
    found = torch.cat([p.grad.flatten() for p in net.parameters()])
    each = F.cross_entropy(net(x), y, reduction="none")
    torch.testing.assert_close(loss, each.detach().mean())
    wanted = (each.square() / 2).mean()  # its gradient is l dl
    expected = torch.autograd.grad(wanted, list(net.parameters()))
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))


def test_the_rate_decays_with_every_step_as_keras_has_it():
    """SGD on a constant gradient: the sum of 1 / (1 + decay k)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    seen = []

    def step(model, optimizer, x, y):
        seen.append(optimizer.param_groups[0]["lr"])
        return torch.zeros(())

    x, y = torch.zeros(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64)
    fit(
        model,
        SGD(model.parameters(), 1.0),
        x,
        y,
        epochs=2,
        batch_size=2,
        generator=torch.Generator(),
        step_at=lambda t: step,
        rate_decay=0.5,
    )
    assert seen == pytest.approx([1 / (1 + 0.5 * k) for k in range(6)])


def test_algorithm_1_is_a_step_an_image_from_zero_velocity(net, grey):
    """With one image a batch it is plain SGD: momentum never comes to act."""
    x, y = grey[0][:3], grey[1][:3]
    net.eval()
    plain, twin = copy_of(net), copy_of(net)
    ours = SGD(net.parameters(), 0.1, 0.9)
    theirs = SGD(plain.parameters(), 0.1, 0.0)
    for image, label in zip(x.split(1), y.split(1), strict=True):
        training.algorithm_1(net, ours, image, label)
        train_step(plain, theirs, image, label)
    assert torch.equal(weights(net), weights(plain))
    # Two batches of the same images: the second starts at rest.
    usual = SGD(twin.parameters(), 0.1, 0.9)
    other = copy_of(twin)
    printed = SGD(other.parameters(), 0.1, 0.9)
    for _ in range(2):
        usual.velocities = {}
        for image, label in zip(x.split(1), y.split(1), strict=True):
            train_step(twin, usual, image, label)
        training.algorithm_1(other, printed, x, y)
    assert torch.equal(weights(twin), weights(other))


def noted(seen):
    """A step that notes the rate it is taken with, and moves nothing."""

    def step(model, optimizer, x, y):
        seen.append(optimizer.param_groups[0]["lr"])
        return torch.zeros(())

    return step


@pytest.mark.parametrize("name", training.SCHEDULES)
@pytest.mark.parametrize("kind", [SGD, torch.optim.SGD])
def test_the_rate_falls_by_step_and_is_put_back(name, kind, generator):
    """Fraction k of the n steps done, not of the epochs; a second training the same."""
    x, y = separable(generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    optimizer = kind(model.parameters(), 0.2)
    factors = [training.SCHEDULES[name](k / 12) for k in range(12)]
    for _ in range(2):
        seen = []
        fit(
            model,
            optimizer,
            x,
            y,
            epochs=3,
            batch_size=10,
            schedule=name,
            generator=generator,
            step_at=lambda t, seen=seen: noted(seen),
        )
        assert seen == pytest.approx([0.2 * factor for factor in factors])
        assert optimizer.param_groups[0]["lr"] == 0.2


def test_the_rate_is_put_back_where_training_ends_early(generator):
    x, y = separable(generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    optimizer = SGD(model.parameters(), 0.2)

    def stop():
        raise KeyboardInterrupt

    options = {"epochs": 1, "batch_size": 10, "generator": generator, "pause": stop}
    with pytest.raises(KeyboardInterrupt):
        fit(model, optimizer, x, y, schedule="trapezoid", **options)
    assert optimizer.param_groups[0]["lr"] == 0.2


def test_fit_is_told_of_each_epoch_and_ends_at_a_broken_loss(generator):
    x, y = separable(generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    told = []

    def broken(model, optimizer, x, y):
        return torch.tensor(math.inf if len(told) == 2 else 1.0)

    with pytest.raises(NonFiniteError, match="must be finite; got inf in epoch 3"):
        fit(
            model,
            SGD(model.parameters(), 0.1),
            x,
            y,
            epochs=5,
            batch_size=10,
            generator=generator,
            step_at=lambda t: broken,
            after_epoch=lambda epoch, loss: told.append((epoch, loss)),
        )
    assert told == [(1, 1.0), (2, 1.0), (3, math.inf)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cosine"}, "unknown schedule 'cosine'"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"rate_decay": -1}, "rate_decay must be at least 0 and finite; got -1"),
        ({"y": torch.zeros(7, dtype=torch.int64)}, "one label an image, 8; got 7"),
        ({"x": torch.zeros(0, 1, 4, 4)}, "x must hold at least one image"),
    ],
)
def test_what_fit_cannot_use_is_named(net, grey, generator, change, message):
    given = {"x": grey[0], "y": grey[1], "epochs": 1, "batch_size": 4} | change
    before = weights(net)
    with pytest.raises(ValueError, match=message):
        fit(net, SGD(net.parameters(), 0.1), generator=generator, **given)
    assert torch.equal(weights(net), before)


@pytest.mark.parametrize(("images", "batch_size"), [(7, 3), (9, 1)])
def test_a_batch_of_one_is_trained_on_or_refused_before_training(
    generator, images, batch_size
):
    """Batch norm needs two values a channel: two images, or two pixels of one."""
    x, y = torch.rand(images, 1, 4, 4, generator=generator), torch.arange(images) % 2
    after, before = (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2)),
        nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2)),
    )
    options = {"epochs": 1, "batch_size": batch_size, "generator": generator}
    start = weights(after)
    with pytest.raises(ValueError, match=f"got {images} images in batches of"):
        fit(after, SGD(after.parameters(), 0.1), x, y, **options)
    assert torch.equal(weights(after), start)
    assert int(after[2].num_batches_tracked) == 0
    fit(before, SGD(before.parameters(), 0.1), x, y, **options)
    assert int(before[0].num_batches_tracked) == -(-images // batch_size)
