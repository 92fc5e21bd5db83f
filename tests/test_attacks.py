"""Attacks are exact where an exact answer exists, and leave no trace."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from widemin import attacks
from widemin.attacks import L2, Linf, fgsm, fosc, inference, parse_ball, pgd

# Not DLR: of two classes it is constant.
LOSSES = [
    attacks.cross_entropy,
    attacks.clipped_cross_entropy,
    attacks.margin,
    attacks.rescaled_cross_entropy,
]


def direction(model, y):
    """The direction in pixels that hurts a two-class linear model most."""
    weight = model[1].weight
    return (weight[1 - y] - weight[y]).view(len(y), 1, 4, 4)


@pytest.mark.parametrize("loss", LOSSES)
def test_fgsm_is_exact_on_a_linear_model_whatever_the_loss(linear, loss):
    model, x, y = linear
    worst = x + 0.1 * direction(model, y).sign()
    torch.testing.assert_close(fgsm(model, x, y, Linf(0.1), loss=loss), worst)


def test_fgsm_leaves_no_pixel_outside_the_range(linear):
    model, _, y = linear
    x = torch.linspace(0, 1, 16).view(1, 1, 4, 4).repeat(8, 1, 1, 1)
    moved = fgsm(model, x, y, Linf(0.3))
    torch.testing.assert_close(
        moved, (x + 0.3 * direction(model, y).sign()).clamp(0, 1)
    )
    assert moved.min() == 0 and moved.max() == 1


def test_fgsm_in_l2_goes_straight_up(linear):
    model, x, y = linear
    way = direction(model, y)
    unit = way / way.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(fgsm(model, x, y, L2(0.3)), x + 0.3 * unit)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3)])
def test_pgd_reaches_the_maximum_of_a_linear_model_from_anywhere(linear, ball):
    model, x, y = linear
    best = fgsm(model, x, y, ball)
    for generator in (None, torch.Generator().manual_seed(1)):
        found = pgd(
            model,
            x,
            y,
            ball,
            steps=60,
            step_size=ball.epsilon / 8,
            generator=generator,
        )
        torch.testing.assert_close(found, best, atol=2e-3, rtol=0)


def test_one_step_of_pgd_from_the_image_is_fgsm(smooth, grey):
    x, y = grey
    once = pgd(smooth, x, y, Linf(0.05), steps=1, step_size=0.05)
    torch.testing.assert_close(once, fgsm(smooth, x, y, Linf(0.05)))


@pytest.mark.parametrize("ball", [Linf(0.0), L2(0.0)])
def test_radius_zero_returns_the_images(linear, ball):
    model, x, y = linear
    assert torch.equal(fgsm(model, x, y, ball), x)
    still = pgd(model, x, y, ball, steps=3, step_size=0.1)
    torch.testing.assert_close(still, x)


def test_fosc_is_zero_at_the_best_corner_and_largest_at_the_worst(linear):
    model, x, y = linear
    ball = Linf(0.1)
    best = fgsm(model, x, y, ball)
    gradient, _, _ = attacks.input_gradient(model, best, y)
    reach = ball.support(gradient)
    torch.testing.assert_close(
        fosc(ball, gradient, best - x), torch.zeros(8), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(fosc(ball, gradient, x - x), reach)
    torch.testing.assert_close(fosc(ball, gradient, x - best), 2 * reach)


def test_fosc_is_the_maximum_over_the_corners(generator):
    """Its closed form against brute force over all 2^6 corners, in float64."""
    gradient = torch.randn(1, 1, 2, 3, generator=generator).double()
    delta = 0.2 * (2 * torch.rand(1, 1, 2, 3, generator=generator).double() - 1)
    corners = torch.cartesian_prod(
        *[torch.tensor([-0.2, 0.2], dtype=torch.float64)] * 6
    )
    gains = (corners - delta.flatten()) @ gradient.flatten()
    found = fosc(Linf(0.2), gradient, delta)
    torch.testing.assert_close(found[0], gains.max(), atol=1e-13, rtol=0)


def test_fosc_in_the_box_is_the_maximum_over_its_corners(generator):
    """Where clipping pins pixels, by brute force over ball and range, in float64."""
    x = torch.tensor([0.0, 1.0, 0.5, 0.1, 0.95, 0.0]).double().view(1, 1, 2, 3)
    gradient = torch.randn(1, 1, 2, 3, generator=generator).double()
    low, high = (x - 0.2).clamp_min(0).flatten(), (x + 0.2).clamp_max(1).flatten()
    corners = torch.cartesian_prod(
        *[torch.stack(p) for p in zip(low, high, strict=True)]
    )
    reached = x + 0.5 * (high.view_as(x) - x)
    gains = (corners - reached.flatten()) @ gradient.flatten()
    gap, reach = attacks.fosc_box(Linf(0.2), gradient, x, reached)
    torch.testing.assert_close(gap[0], gains.max(), atol=1e-13, rtol=0)
    from_x = (corners - x.flatten()) @ gradient.flatten()
    torch.testing.assert_close(reach[0], from_x.max(), atol=1e-13, rtol=0)
    assert gap <= fosc(Linf(0.2), gradient, reached - x)


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_logit_scale_moves_fosc_and_leaves_the_normalised_value(linear, scale):
    """In float64; in float32 the scale would change the gradient's direction too."""
    model, x, y = linear
    model, x = model.double(), x.double()
    y = model(x).argmax(1)
    ball, delta = Linf(0.1), torch.full_like(x, 0.03)
    raw, share = {}, {}
    for k in (1.0, scale):
        scaled = nn.Sequential(model, _Times(k))
        gradient, _, _ = attacks.input_gradient(scaled, x + delta, y)
        raw[k] = fosc(ball, gradient, delta)
        share[k] = raw[k] / ball.support(gradient)
    torch.testing.assert_close(share[scale], share[1.0])
    assert not torch.allclose(raw[scale], raw[1.0])


class _Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_fosc_does_not_depend_on_the_batch(smooth, grey):
    x, y = grey
    ball = Linf(0.1)
    with inference(smooth):
        whole, _, _ = attacks.input_gradient(smooth, x, y)
        alone, _, _ = attacks.input_gradient(smooth, x[:1], y[:1])
    delta = torch.zeros_like(x)
    torch.testing.assert_close(
        fosc(ball, whole, delta)[:1], fosc(ball, alone, delta[:1])
    )


def test_stopped_images_leave_the_batch_and_move_no_more(smooth, grey):
    """Against the plain loop, in which a mask keeps the stopped images in place."""
    x, y = grey
    ball, record, expected = Linf(0.2), [], x.clone()
    pgd(smooth, x, y, ball, steps=3, step_size=0.05, record=record)
    threshold = record[-1]["fosc"].quantile(0.5).item()  # between two images
    moving = torch.ones(8, 1, 1, 1, dtype=torch.bool)
    with inference(smooth):
        for step in range(8):
            gradient, _, _ = attacks.input_gradient(smooth, expected, y)
            gap = fosc(ball, gradient, expected - x).view(-1, 1, 1, 1)
            if step > 0:
                moving &= gap > threshold
            further = ball.project(expected + 0.05 * gradient.sign() - x)
            expected = torch.where(moving, (x + further).clamp(0, 1), expected)
    record = []
    options = {"steps": 8, "step_size": 0.05, "fosc_below": threshold}
    held = pgd(smooth, x, y, ball, **options, record=record)
    torch.testing.assert_close(held, expected)
    counts = [len(step["images"]) for step in record]
    assert counts[0] == counts[1] == 8  # always one step
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 8


def test_a_huge_threshold_gives_exactly_one_step(smooth, grey):
    x, y = grey
    ball = Linf(0.2)
    held = pgd(smooth, x, y, ball, steps=8, step_size=0.05, fosc_below=1e9)
    once = pgd(smooth, x, y, ball, steps=1, step_size=0.05)
    assert torch.equal(held, once)


def test_until_fooled_keeps_the_first_image_that_fools(linear):
    model, x, y = linear
    y = model(x).argmax(1)
    found = pgd(model, x, y, L2(2.0), steps=40, step_size=0.05, until_fooled=True)
    fooled = model(found).argmax(1) != y
    moved = (found - x).flatten(1).norm(dim=1)
    gap = (model(x).gather(1, y[:, None]) - model(x).gather(1, 1 - y[:, None]))[:, 0]
    distance = gap / direction(model, y).flatten(1).norm(dim=1)  # to the boundary
    inside = (found > 0).flatten(1).all(1) & (found < 1).flatten(1).all(1)
    sure = fooled & inside
    assert sure.any()
    assert ((moved - distance)[sure] <= 0.05 + 1e-4).all()
    assert ((moved - distance)[sure] >= -1e-4).all()


def test_attacks_leave_mode_gradients_and_buffers_as_they_were(smooth, grey):
    x, y = grey
    smooth[3].eval()
    F.cross_entropy(smooth(x), y).backward()
    modes = [module.training for module in smooth.modules()]
    gradients = [parameter.grad.clone() for parameter in smooth.parameters()]
    buffers = [buffer.clone() for buffer in smooth.buffers()]
    pgd(smooth, x, y, Linf(0.1), steps=2, step_size=0.05)
    assert [module.training for module in smooth.modules()] == modes
    for now, before in zip(smooth.parameters(), gradients, strict=True):
        assert torch.equal(now.grad, before)
    for now, before in zip(smooth.buffers(), buffers, strict=True):
        assert torch.equal(now, before)


def test_mode_is_restored_when_the_model_raises(grey):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    model = nn.Sequential(Broken())
    with pytest.raises(RuntimeError, match="broken"):
        fgsm(model, *grey, Linf(0.1))
    assert all(module.training for module in model.modules())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    epsilon=st.floats(0.001, 0.9),
    norm=st.sampled_from([Linf, L2]),
)
def test_pgd_stays_in_ball_and_box_and_fosc_is_not_negative(seed, epsilon, norm):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.rand(4, 1, 3, 3, generator=generator)
    y = torch.randint(3, (4,), generator=generator)
    ball, record = norm(epsilon), []
    found = pgd(
        model,
        x,
        y,
        ball,
        steps=4,
        step_size=epsilon / 2,
        generator=generator,
        record=record,
    )
    delta = found - x
    order = math.inf if norm is Linf else 2
    assert delta.flatten(1).norm(p=order, dim=1).max() <= epsilon + 1e-6
    assert 0 <= found.min() and found.max() <= 1
    for step in record:
        assert (step["fosc"] >= -1e-5).all()


@pytest.mark.parametrize("ball", [Linf(0.3), L2(0.3)])
def test_the_random_start_covers_the_ball(ball, generator):
    """Of ten thousand draws the furthest is at its edge, none beyond, some within."""
    drawn = ball.sample(torch.zeros(10_000, 1, 1, 2), generator)
    order = math.inf if isinstance(ball, Linf) else 2
    sizes = drawn.flatten(1).norm(p=order, dim=1)
    assert 0.299 < sizes.max() <= 0.3 + 1e-6 and sizes.min() < 0.01
    assert abs(drawn.mean()) < 0.01


def test_one_generator_gives_one_attack(smooth, grey):
    x, y = grey
    one, two, other = (
        pgd(
            smooth,
            x,
            y,
            Linf(0.1),
            steps=2,
            step_size=0.02,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_best_iterate_is_never_below_the_last(wavy, grey):
    x, y = grey
    options = {"steps": 9, "step_size": 0.15}  # steps so long that PGD jumps about
    with inference(wavy):
        lowest = attacks.cross_entropy(wavy(x), y)
        found = {
            keep: attacks.cross_entropy(
                wavy(pgd(wavy, x, y, Linf(0.2), **options, keep=keep)), y
            )
            for keep in ("last", "best")
        }
    assert (found["best"] >= found["last"] - 1e-6).all()
    assert (found["best"] > found["last"] + 1e-6).any()
    assert (found["best"] >= lowest - 1e-6).all()


def test_more_restarts_never_lower_the_loss(wavy, grey):
    x, y = grey

    def losses(restarts):
        generator = torch.Generator().manual_seed(5)
        options = {"steps": 2, "step_size": 0.05, "generator": generator}
        moved = pgd(wavy, x, y, Linf(0.2), **options, restarts=restarts)
        with inference(wavy):
            return attacks.cross_entropy(wavy(moved), y)

    one, five = losses(1), losses(5)
    assert (five >= one - 1e-6).all()
    assert (five > one + 1e-6).any()


def test_fosc_from_the_random_start_can_be_negative_and_stops_half(linear):
    """What the released code measures, on a loss whose maximiser is exact."""
    model, x, y = linear
    x, y = x.repeat(50, 1, 1, 1), y.repeat(50)
    ball = Linf(0.1)
    options = {"steps": 5, "step_size": 0.5, "fosc_below": 0.0}
    counts = {}
    for from_start in (False, True):
        record = []
        generator = torch.Generator().manual_seed(2)
        pgd(
            model,
            x,
            y,
            ball,
            **options,
            generator=generator,
            fosc_from_start=from_start,
            record=record,
        )
        counts[from_start] = len(record[-1]["images"]) / len(x)
    # After one step every image sits at its exact maximiser, where FOSC is 0 up to
    # rounding; measured from the start its sign is a coin's.
    assert 0.35 < counts[True] < 0.65


def test_a_targeted_attack_reaches_its_class(wavy, grey):
    x, _ = grey
    wavy.eval()
    wanted = (wavy(x).argmax(1) + 1) % 3
    loss = attacks.targeted(attacks.cross_entropy)
    moved = pgd(wavy, x, wanted, Linf(0.4), steps=30, step_size=0.05, loss=loss)
    before = attacks.cross_entropy(wavy(x), wanted)
    after = attacks.cross_entropy(wavy(moved), wanted)
    assert (after < before).all()
    assert (wavy(moved).argmax(1) == wanted).double().mean() > 0.5


@pytest.mark.parametrize("size", [1, 3])
def test_one_image_is_attacked_as_in_any_batch(smooth, grey, size):
    x, y = grey
    whole = pgd(smooth, x, y, Linf(0.1), steps=4, step_size=0.03, keep="best")
    part = pgd(
        smooth, x[:size], y[:size], Linf(0.1), steps=4, step_size=0.03, keep="best"
    )
    torch.testing.assert_close(part, whole[:size])


def test_l2_projection_is_the_nearest_point():
    delta = torch.tensor([[[[3.0, 4.0]]], [[[0.03, 0.04]]]])
    expected = torch.tensor([[[[0.6, 0.8]]], [[[0.03, 0.04]]]])
    torch.testing.assert_close(L2(1.0).project(delta), expected)


def test_float32_cross_entropy_loses_the_true_class_beyond_24_ln_2():
    """The mechanism behind chapter 1, at its threshold."""
    y = torch.tensor([0])
    for margin, lost in ((16.55, False), (16.7, True)):
        logits = torch.tensor([[margin, 0.0]], requires_grad=True)
        attacks.cross_entropy(logits, y).sum().backward()
        assert (logits.grad[0, 0] == 0) == lost
        assert logits.grad[0, 1] > 0
    logits = torch.tensor([[16.7, 0.0]], requires_grad=True)
    attacks.clipped_cross_entropy(logits, y).sum().backward()
    assert (logits.grad == 0).all()
    logits = torch.tensor([[500.0, 0.0]], requires_grad=True)
    attacks.margin(logits, y).sum().backward()
    assert logits.grad.tolist() == [[-1.0, 1.0]]


def test_dlr_is_the_ratio_of_its_paper():
    logits, y = torch.tensor([[5.0, 4.0, 1.0, 0.0]]), torch.tensor([0])
    torch.testing.assert_close(attacks.dlr(logits, y), torch.tensor([-1 / 4]))
    torch.testing.assert_close(attacks.dlr(8 * logits, y), torch.tensor([-1 / 4]))


def test_margin_loss_does_not_depend_on_logit_scale(linear):
    model, x, y = linear
    before = fgsm(model, x, y, Linf(0.1), loss=attacks.margin)
    with torch.no_grad():
        model[1].weight.mul_(1000)
    after = fgsm(model, x, y, Linf(0.1), loss=attacks.margin)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    ("text", "ball"),
    [("linf 8/255", Linf(8 / 255)), ("l2 0.5", L2(0.5)), ("linf 0.3", Linf(0.3))],
)
def test_balls_are_read_as_written(text, ball):
    assert parse_ball(text) == ball


@pytest.mark.parametrize("text", ["", "linf", "l1 0.3", "linf eight", "linf 1/0"])
def test_what_is_no_ball_is_named(text):
    with pytest.raises(ValueError, match="is written 'linf 8/255'"):
        parse_ball(text)


def ones(*shape):
    return torch.ones(*shape, dtype=torch.int64)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(2, 1, 4, 4) - 3, ones(2), "pixels in .0, 1."),
        (torch.full((2, 1, 4, 4), float("nan")), ones(2), "pixels in .0, 1."),
        (torch.rand(2, 16), ones(2), r"got shape \(2, 16\)"),
        (torch.rand(0, 1, 4, 4), ones(0), "batch > 0"),
        (torch.rand(2, 1, 4, 4), torch.ones(2), "y must be int64 labels"),
        (torch.rand(2, 1, 4, 4), ones(3), r"shape \(2,\)"),
        (torch.rand(2, 1, 4, 4), 5 * ones(2), "y must be labels from 0 to 1; got 5"),
    ],
)
def test_wrong_images_and_labels_are_named(linear, x, y, message):
    with pytest.raises(ValueError, match=message):
        fgsm(linear[0], x, y, Linf(0.1))


def test_broken_networks_are_an_error_not_robust(linear):
    model, x, y = linear
    with torch.no_grad():
        model[1].bias.fill_(float("nan"))
    with pytest.raises(attacks.NonFiniteError, match="finite logits"):
        fgsm(model, x, y, Linf(0.1))


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_a_radius_out_of_range_is_named(epsilon):
    with pytest.raises(ValueError, match=f"epsilon must be .*; got {epsilon}"):
        Linf(epsilon)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0, "step_size": 0.1}, "steps must be at least 1; got 0"),
        ({"steps": 1, "step_size": 0.0}, "step_size must be above 0; got 0.0"),
        ({"steps": 1, "step_size": 1.0, "restarts": 0}, "restarts must be at least 1"),
        ({"steps": 1, "step_size": 1.0, "restarts": 2}, "restarts need a generator"),
        ({"steps": 1, "step_size": 1.0, "keep": "first"}, "keep must be 'last' or"),
    ],
)
def test_wrong_steps_are_named(linear, options, message):
    with pytest.raises(ValueError, match=message):
        pgd(*linear, Linf(0.1), **options)


def test_attacks_agree_with_foolbox(smooth, grey):
    foolbox = pytest.importorskip("foolbox")
    x, y = grey
    smooth.eval()
    peer = foolbox.PyTorchModel(smooth, bounds=(0, 1))
    theirs = foolbox.attacks.FGSM(random_start=False).run(peer, x, y, epsilon=0.1)
    torch.testing.assert_close(fgsm(smooth, x, y, Linf(0.1)), theirs)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.02, steps=7, random_start=False)
    theirs = attack.run(peer, x, y, epsilon=0.1)
    ours = pgd(smooth, x, y, Linf(0.1), steps=7, step_size=0.02)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    attack = foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=7, random_start=False)
    theirs = attack.run(peer, x, y, epsilon=0.4)
    ours = pgd(smooth, x, y, L2(0.4), steps=7, step_size=0.1)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_each_image_takes_its_own_number_of_steps(smooth, grey):
    x, y = grey
    each = torch.arange(len(x)) % 3 + 1
    draws = torch.Generator()
    options = dict(steps=3, step_size=0.01, generator=draws)
    found = pgd(smooth, x, y, Linf(0.1), **options, steps_each=each)
    for steps in (1, 2, 3):
        draws.manual_seed(torch.Generator().initial_seed())
        alone = pgd(smooth, x, y, Linf(0.1), **options | {"steps": steps})
        draws.manual_seed(torch.Generator().initial_seed())
        found = pgd(smooth, x, y, Linf(0.1), **options, steps_each=each)
        chosen = each == steps
        assert torch.allclose(found[chosen], alone[chosen], atol=1e-6)
    with pytest.raises(ValueError, match="steps_each must have shape"):
        pgd(smooth, x, y, Linf(0.1), **options, steps_each=each[:2])
