"""Attacks are exact where an exact answer exists, and leave no trace."""

import inspect
import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from widemin import attacks, evaluation
from widemin.attacks import L2, Linf, fgsm, fosc, inference, parse_ball, pgd, pgd_path

# Not DLR: of two classes it is constant.
LOSSES = [
    attacks.cross_entropy,
    attacks.clipped_cross_entropy,
    attacks.margin,
    attacks.rescaled_cross_entropy,
    attacks.TRAINED["shifted"],
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
    pgd_path(smooth, x, y, ball, steps=3, step_size=0.05, record=record)
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
    held = pgd_path(smooth, x, y, ball, **options, record=record)
    torch.testing.assert_close(held, expected)
    counts = [len(step["images"]) for step in record]
    assert counts[0] == counts[1] == 8  # always one step
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 8


def test_a_huge_threshold_gives_exactly_one_step(smooth, grey):
    x, y = grey
    ball = Linf(0.2)
    held = pgd_path(smooth, x, y, ball, steps=8, step_size=0.05, fosc_below=1e9)
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


class Frozen(nn.Sequential):
    """Layers that stay in training mode, whatever is asked of them."""

    def train(self, mode=True):
        return super().train(True)


@pytest.mark.parametrize("broken", [False, True])
def test_a_model_comes_back_as_it_was_though_an_attack_raises(smooth, grey, broken):
    heard = []
    model = nn.Sequential(Frozen(nn.Identity()), smooth, Returning(lambda z: z))
    model[2].head = nn.Linear(3, 2)
    model[1][1].eval().weight.requires_grad_(False)
    model[2].head.weight.register_hook(heard.append)
    model.register_forward_hook(lambda *_: heard.append("forward"))
    F.cross_entropy(model(grey[0]), grey[1]).backward()
    if broken:
        model[2].function = lambda z: z / 0

    def everything():
        state = [(m, m.training, len(m._forward_hooks)) for m in model.modules()]
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            grad = None if tensor.grad is None else tensor.grad.clone()
            state.append((name, tensor.dtype, tensor.requires_grad, id(tensor)))
            state += [tensor.detach().clone(), grad]
        return state

    before, calls = everything(), len(heard)
    for attack in (fgsm, pgd, pgd_path, evaluation.fgsm_float64):
        with pytest.raises(attacks.NonFiniteError) if broken else nullcontext():
            attack(model, *grey, Linf(0.1))
        assert len(heard) > calls  # the hook on the whole network is called
        for now, then in zip(everything(), before, strict=True):
            same = torch.equal(now, then) if torch.is_tensor(now) else now == then
            assert same, (attack, then)


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
    found = pgd_path(
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


def test_attacks_run_every_layer_of_the_network_they_are_given(
    smooth, grey, monkeypatch
):
    """No norm is folded away: each is run once a gradient."""
    calls, forward = [], nn.BatchNorm2d.forward

    def counted(self, x):
        calls.append(self)
        return forward(self, x)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", counted)
    fgsm(smooth, *grey, Linf(0.1))
    assert calls == [smooth[1]]
    pgd(smooth, *grey, Linf(0.1), steps=3)
    pgd_path(smooth, *grey, Linf(0.1), steps=2)
    assert calls == [smooth[1]] * 6


def test_pgd_takes_ten_steps_of_a_quarter_of_the_radius(smooth, grey):
    assert len(inspect.signature(pgd).parameters) <= 10
    x, y = grey
    spelt = {"steps": 10, "step_size": 0.025}
    for seed in (None, 0):
        draws = [seed if seed is None else torch.Generator() for _ in range(2)]
        usual = pgd(smooth, x, y, Linf(0.1), generator=draws[0])
        assert torch.equal(
            usual, pgd(smooth, x, y, Linf(0.1), **spelt, generator=draws[1])
        )
    # From the image itself, without a generator: one step goes a quarter of the way.
    one = pgd(smooth, x, y, Linf(0.1), steps=1)
    torch.testing.assert_close((one - x).abs().max(), torch.tensor(0.025))
    assert torch.equal(pgd(smooth, x, y, Linf(0.0)), x)


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
        pgd_path(
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


def test_a_targeted_attack_stops_at_its_class_and_not_before():
    """A network whose logits are its pixels: the way to each class is known."""
    model = nn.Flatten()
    x = torch.tensor([[0.5, 0.1, 0.31], [0.5, 0.1, 0.31]]).view(2, 1, 1, 3)
    wanted = torch.tensor([2, 0])
    towards = attacks.targeted(attacks.margin)
    options = {"steps": 20, "step_size": 0.02, "loss": towards, "until_fooled": True}
    found = pgd(model, x, wanted, Linf(0.2), **options)
    # Each step closes the gap of 0.19 by 0.04: five are enough.
    expected = torch.tensor([[0.4, 0.1, 0.41], [0.5, 0.1, 0.31]])
    torch.testing.assert_close(found.flatten(1), expected)
    record = []
    del options["until_fooled"]
    pgd_path(model, x, wanted, Linf(0.2), **options, record=record)
    assert [int(step["fooled"].sum()) for step in record[:2]] == [1, 1]
    assert all(step["fooled"].all() for step in record[5:])


@pytest.mark.parametrize("until_fooled", [False, True])
@pytest.mark.parametrize("is_targeted", [False, True])
def test_restarts_prefer_images_that_fool(wavy, grey, is_targeted, until_fooled):
    """Against the same starts one by one, with a loss that does not rank as they do."""
    x, _ = grey
    answers = wavy(x).argmax(1)
    y = (answers + 1) % 3 if is_targeted else answers

    def lowered(logits, y):
        return -logits.gather(1, y[:, None])[:, 0]

    loss = attacks.targeted(lowered) if is_targeted else lowered
    options = {"steps": 2, "step_size": 0.025, "loss": loss}
    draws = torch.Generator().manual_seed(5)
    ball = Linf(0.05)
    single = [pgd(wavy, x, y, ball, **options, generator=draws) for _ in range(6)]
    with torch.no_grad():
        logits = torch.stack([wavy(one) for one in single])
    hits = torch.stack([attacks.fooled(loss, z, y) for z in logits])
    losses = torch.stack([loss(z, y) for z in logits])
    draws.manual_seed(5)
    options |= {"restarts": 6, "until_fooled": until_fooled, "generator": draws}
    found = wavy(pgd(wavy, x, y, ball, **options)).detach()
    reached = attacks.fooled(loss, found, y)
    assert reached.sum() > hits[0].sum()  # it is worth trying again
    if not until_fooled:  # with it the starts are drawn for fewer and fewer images
        assert torch.equal(reached, hits.any(0))
        best = losses.where(hits | ~hits.any(0), -torch.inf).amax(0)
        torch.testing.assert_close(loss(found, y), best)


@pytest.mark.parametrize("size", [1, 3])
def test_one_image_is_attacked_as_in_any_batch(smooth, grey, size):
    x, y = grey
    whole = pgd_path(smooth, x, y, Linf(0.1), steps=4, step_size=0.03)
    part = pgd_path(smooth, x[:size], y[:size], Linf(0.1), steps=4, step_size=0.03)
    torch.testing.assert_close(part, whole[:size])


def test_l2_projection_is_the_nearest_point():
    delta = torch.tensor([[[[3.0, 4.0]]], [[[0.03, 0.04]]]])
    expected = torch.tensor([[[[0.6, 0.8]]], [[[0.03, 0.04]]]])
    torch.testing.assert_close(L2(1.0).project(delta), expected)


SIZES = [1e-42, 1e-30, 1e-22, 1e-20, 1e-12, 1.0, 1e18, 1e20, 1e30, 1e37]


@pytest.mark.parametrize("size", SIZES)
def test_l2_steps_and_projections_survive_gradients_of_any_size(size, generator):
    """In float32, against float64: squares of 1e-23 are 0 there, of 1e20 infinite."""
    v = size * torch.randn(3, 1, 4, 4, generator=generator)
    exact = v.double()
    norm = exact.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
    close(L2(0.5).steepest(v), (exact / norm).float())
    small = exact * (0.5 / norm).clamp_max(1)
    close(L2(0.5).project(v), small.float(), atol=1e-6 * float(small.abs().max()))
    if size > 1e-38:  # below, float32 itself has few digits
        close(L2(0.5).size(v), norm.flatten().float(), atol=0)
        close(L2(0.5).support(v), 0.5 * norm.flatten().float(), atol=0)


@pytest.mark.parametrize("margin", [40.0, 70.0, 95.0])
def test_sure_networks_are_attacked_in_l2_as_far_as_in_linf(margin):
    """Where float32 cross-entropy has a gradient of exp(-margin) all images move."""
    x = torch.full((1, 1, 4, 4), 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight[0] = margin / 16
        model[1].weight[1] = -margin / 16
    for ball in (L2(0.4), Linf(0.1)):  # of equal gradients both go along the diagonal
        for attack in (fgsm, partial(pgd, steps=1, step_size=ball.epsilon)):
            moved = attack(model, x, torch.tensor([0]), ball)
            torch.testing.assert_close(moved, x - 0.1)


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


# By its name, from logits z to those whose cross-entropy a loss computes.
LOGITS = {
    "normalised": lambda z: 10 * z / z.square().sum(1, keepdim=True).sqrt(),
    "quarter": lambda z: 4 * z,
}
COARSE = {"float16": 2e-2, "bfloat16": 2e-1}


@pytest.mark.parametrize("name", attacks.TRAINED)
def test_losses_trained_on_are_torchs_cross_entropy(name, generator):
    """Value and gradient, in float64, where nothing is clipped or underflows."""
    z = 3 * torch.randn(200, 10, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (200,), generator=generator)
    z.requires_grad_()
    exact = F.cross_entropy(LOGITS.get(name, lambda z: z)(z), y, reduction="none")
    got = attacks.TRAINED[name](z, y)
    assert got.dtype == z.dtype and got.shape == y.shape
    near = COARSE.get(name, 1e-9)
    torch.testing.assert_close(got, exact, rtol=near, atol=near)
    of = [torch.autograd.grad(loss.sum(), z)[0] for loss in (got, exact)]
    torch.testing.assert_close(*of, rtol=near, atol=near)


@pytest.mark.parametrize(
    ("name", "dtype", "true", "others"),
    [  # bits of 1 - p and of p, at the margins beyond which they are 0
        ("logits", torch.float32, 24, 150),
        ("shifted", torch.float32, 24, 150),
        ("quarter", torch.float32, 24 / 4, 150 / 4),
        ("clipped", torch.float64, math.log2(1e7), math.log2(1e7)),
        ("float16", torch.float32, 11, 25),
        ("bfloat16", torch.float32, 8, 134),
    ],
)
def test_losses_trained_on_lose_their_gradient_where_numbers_end(
    name, dtype, true, others
):
    """First in the true logit; float32 keeps the others', clipping keeps nothing."""
    for factor in (0.9, 0.98, 1.02, 1.1):
        for bits in (true, others):
            margin = factor * bits * math.log(2)
            logits = torch.tensor([[margin, 0.0]], dtype=dtype, requires_grad=True)
            attacks.TRAINED[name](logits, torch.tensor([0])).sum().backward()
            ends = [margin > end * math.log(2) for end in (true, others)]
            assert (logits.grad[0] == 0).tolist() == ends, margin


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_normalised_logits_have_no_margin_beyond_14_2(scale, generator):
    """10 sqrt 2, of two classes: a loss of exp(-14.14) at least, whatever the scale."""
    loss, y = attacks.TRAINED["normalised"], torch.tensor([0])
    best = torch.tensor([[scale, -scale]], dtype=torch.float64)
    assert loss(best, y).item() == pytest.approx(math.exp(-(200**0.5)), rel=1e-5)
    sure = torch.tensor([[scale, -0.5 * scale]], requires_grad=True)
    assert torch.autograd.grad(loss(sure, y).sum(), sure)[0].ne(0).all()
    z = torch.randn(500, 10, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (500,), generator=generator)
    at_least = math.log1p(9 * math.exp(-(200**0.5) / 0.9))
    assert loss(scale * z, y).min() > at_least
    torch.testing.assert_close(loss(scale * z, y), loss(z, y), rtol=1e-9, atol=0)


def test_dlr_is_the_ratio_of_its_paper():
    logits, y = torch.tensor([[5.0, 4.0, 1.0, 0.0]]), torch.tensor([0])
    torch.testing.assert_close(attacks.dlr(logits, y), torch.tensor([-1 / 4]))
    torch.testing.assert_close(attacks.dlr(8 * logits, y), torch.tensor([-1 / 4]))


@pytest.mark.parametrize(
    ("loss", "classes", "name"),
    [
        (attacks.dlr, 2, "DLR loss needs at least 3 classes; got 2"),
        (attacks.targeted(attacks.dlr), 2, "DLR loss needs at least 3 classes; got 2"),
        (attacks.margin, 1, "margin loss needs at least 2 classes; got 1"),
        (attacks.rescaled_cross_entropy, 1, "needs at least 2 classes; got 1"),
    ],
)
def test_a_loss_that_is_a_constant_of_so_few_classes_is_refused(loss, classes, name):
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=name):
        loss(torch.rand(3, classes), y)
    if classes == 2:
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))
        for attack in (fgsm, pgd):
            with pytest.raises(ValueError, match=name):
                attack(model, torch.rand(3, 1, 2, 2), y, Linf(0.1), loss=loss)


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_networks_are_an_error_not_robust(linear, value):
    model, x, y = linear
    with torch.no_grad():
        model[1].bias.fill_(value)
    for attack in (fgsm, pgd, pgd_path):
        with pytest.raises(attacks.NonFiniteError, match="finite logits"):
            attack(model, x, y, Linf(0.1))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1)])
def test_finite_logits_with_a_gradient_that_is_not_are_an_error(ball):
    class Root(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1).sqrt(), x.flatten(1).sum(1)], 1)

    x, y = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])  # where a root is steep
    for attack in (fgsm, pgd):
        with pytest.raises(attacks.NonFiniteError, match="finite gradients"):
            attack(Root(), x, y, ball)


def test_attacks_work_in_every_mode_of_autograd(smooth, grey):
    x, y = grey
    expected = fgsm(smooth, x, y, L2(0.3)), pgd(smooth, x, y, L2(0.3))
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            here = x.clone(), y.clone()  # in inference mode tensors of its own kind
            for images, labels in ((x, y), here):
                found = (
                    fgsm(smooth, images, labels, L2(0.3)),
                    pgd(smooth, images, labels, L2(0.3)),
                )
                assert all(map(torch.equal, found, expected)), mode
                assert not found[1].requires_grad
    with torch.inference_mode():
        frozen = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.ReLU())
    with pytest.raises(ValueError, match="made outside torch"):
        pgd(frozen, x, y % 2, L2(0.3))


class Returning(nn.Module):
    """A network whose answer is made by a function of its logits."""

    def __init__(self, function):
        super().__init__()
        self.head, self.function = nn.Linear(16, 2), function

    def forward(self, x):
        return self.function(self.head(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (Returning(lambda z: (z, z)), attacks.margin, "must return logits.*got tuple"),
        (Returning(lambda z: {"z": z}), attacks.margin, "return logits.*got dict"),
        (Returning(lambda z: z[:, 0]), attacks.margin, r"logits.*got shape \(8,\)"),
        (Returning(torch.detach), attacks.margin, "have a gradient in x; got none"),
        (Returning(lambda z: z), F.cross_entropy, r"value per image.*got shape \(\)"),
        (Returning(lambda z: z), lambda z, y: 1.0 * (z.argmax(1) != y), "got none"),
    ],
)
def test_models_and_losses_that_cannot_be_attacked_are_named(
    grey, model, loss, message
):
    for attack in (fgsm, pgd):
        with pytest.raises(ValueError, match=message):
            attack(model, *grey, Linf(0.1), loss=loss)


def test_images_of_another_precision_than_the_networks_are_named(linear):
    model, x, y = linear
    with pytest.raises(ValueError, match=r"x must be torch.float32 on cpu, as the mod"):
        pgd(model, x.double(), y, Linf(0.1))
    with pytest.raises(ValueError, match="pixels in floating point; got"):
        pgd(model, torch.zeros_like(x, dtype=torch.uint8), y, Linf(0.1))
    with pytest.raises(ValueError, match="x must be a tensor; got ndarray"):
        pgd(model, x.numpy(), y, Linf(0.1))
    elsewhere = torch.zeros(len(x), dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="y must be on the device of x, cpu; got meta"):
        pgd(model, x, elsewhere, Linf(0.1))


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_a_radius_out_of_range_is_named(epsilon):
    with pytest.raises(ValueError, match=f"epsilon must be .*; got {epsilon}"):
        Linf(epsilon)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0, "step_size": 0.1}, "steps must be at least 1; got 0"),
        ({"steps": 1, "step_size": 0.0}, "step_size must be above 0 and finite; got 0"),
        ({"steps": 1, "step_size": 1.0, "restarts": 0}, "restarts must be at least 1"),
        ({"steps": 1, "step_size": 1.0, "restarts": 2}, "restarts need a generator"),
        ({"step_size": float("inf")}, "step_size must be above 0 and finite; got inf"),
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
    found = pgd_path(smooth, x, y, Linf(0.1), **options, steps_each=each)
    for steps in (1, 2, 3):
        draws.manual_seed(torch.Generator().initial_seed())
        alone = pgd_path(smooth, x, y, Linf(0.1), **options | {"steps": steps})
        draws.manual_seed(torch.Generator().initial_seed())
        found = pgd_path(smooth, x, y, Linf(0.1), **options, steps_each=each)
        chosen = each == steps
        assert torch.allclose(found[chosen], alone[chosen], atol=1e-6)
    with pytest.raises(ValueError, match="steps_each must have shape"):
        pgd_path(smooth, x, y, Linf(0.1), **options, steps_each=each[:2])
