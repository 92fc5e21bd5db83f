"""Every sign stays silent on a sound network and speaks on a masked one."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widemin.attacks import L2, Linf, fgsm, margin
from widemin.evaluation import fgsm_float64, random_signs, robust_mask, signs
from widemin.landscape import logit_scale


@pytest.fixture(scope="module")
def classifier():
    """A small ReLU network, trained to be moderately sure, and its images."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(4, 1, 5, 5, generator=generator)
    y = torch.randint(4, (400,), generator=generator)
    noise = 0.15 * torch.randn(400, 1, 5, 5, generator=generator)
    x = (centres[y] + noise).clamp(0, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    for _ in range(150):
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(0.3 * gradient)
    return model, x, y


BALL = Linf(0.25)


def by_name(found):
    return {sign.name: sign for sign in found}


def test_a_sound_network_shows_no_sign(classifier):
    model, x, y = classifier
    found = signs(model, x, y, BALL, generator=torch.Generator(), other=model, steps=10)
    assert len(found) == 10
    assert [sign for sign in found if sign.masked] == []


def test_logit_scale_masks_and_every_fading_loss_tells(classifier):
    """Same predictions, hence same robustness; only the arithmetic has changed."""
    model, x, y = classifier
    sound = by_name(signs(model, x, y, BALL, generator=torch.Generator(), steps=10))
    with logit_scale(model, 30.0):
        found = by_name(signs(model, x, y, BALL, generator=torch.Generator(), steps=10))
        moved = robust_mask(
            model, x, y, {"margin": partial(fgsm, ball=BALL, loss=margin)}
        )
    masked = {name for name, sign in found.items() if sign.masked}
    assert "images with a margin above 16.64" in masked
    assert "FGSM, cross-entropy above margin" in masked
    assert "FGSM above FGSM at a median margin of 1" in masked
    name = "FGSM, cross-entropy above margin"
    assert found[name].against == sound[name].against
    assert float(moved["margin"].double().mean()) == pytest.approx(found[name].against)


def test_a_network_without_gradients_is_found_out(classifier):
    model, x, y = classifier

    class Rounded(nn.Module):
        """Looks at rounded pixels, through which no gradient passes."""

        def forward(self, x):
            return (x * 4).round() / 4

    hidden = nn.Sequential(Rounded(), *model)
    found = by_name(
        signs(hidden, x, y, BALL, generator=torch.Generator(), other=model, steps=10)
    )
    for name in (
        "images with an all-zero gradient",
        "PGD with epsilon 1, against a constant answer",
        "PGD leaves more than transfer",
    ):
        assert found[name].masked, name


def test_float64_agrees_where_margins_are_small(classifier):
    model, x, y = classifier
    ways = {
        "float32": partial(fgsm, ball=BALL),
        "float64": partial(fgsm_float64, ball=BALL),
    }
    right = robust_mask(model, x, y, ways)
    assert (right["float32"] == right["float64"]).double().mean() > 0.98
    assert all(p.dtype == torch.float32 for p in model.parameters())


class Mixed(nn.Module):
    """A bfloat16 body, a frozen float32 head, constants of other kinds."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(25, 8).bfloat16()
        self.head = nn.Linear(8, 4).requires_grad_(False)
        self.body.weight.grad = torch.ones_like(self.body.weight)
        self.register_buffer("third", torch.tensor(1 / 3, dtype=torch.float64))
        self.register_buffer("seen", torch.tensor(7))
        self.register_buffer("none", None)

    def forward(self, x):
        inner = self.body(x.flatten(1).to(self.body.weight.dtype))
        return self.head(inner.to(self.head.weight.dtype)) * self.third.to(x.dtype)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("broken", [False, True])
def test_float64_leaves_every_tensor_as_it_was(classifier, mode, broken):
    _, x, y = classifier
    model = Mixed()
    if broken:
        model.head.weight.data[0] = float("nan")
    tensors = [*model.parameters(), *model.buffers()]
    before = [(t.dtype, t.requires_grad, t.data_ptr(), t.clone()) for t in tensors]
    with mode(), pytest.raises(ValueError) if broken else nullcontext():
        moved = fgsm_float64(model, x, y, BALL)
        assert moved.dtype == torch.float32
    now = [*model.parameters(), *model.buffers()]
    assert all(one is two for one, two in zip(now, tensors, strict=True))
    for tensor, (kind, grad, place, value) in zip(now, before, strict=True):
        assert (tensor.dtype, tensor.requires_grad) == (kind, grad)
        assert tensor.data_ptr() == place and not tensor.is_inference()
        assert torch.equal(tensor.nan_to_num(), value.nan_to_num())
    assert model.body.weight.grad.dtype == torch.bfloat16
    assert torch.equal(
        fgsm_float64(nn.Flatten(), x, y, BALL), fgsm(nn.Flatten(), x, y, BALL)
    )


@pytest.mark.parametrize("ball", [Linf(0.2), L2(0.5)])
def test_random_signs_reach_the_edge_of_the_set(ball, generator):
    x = torch.full((3, 1, 4, 4), 0.5)
    moved = random_signs(nn.Identity(), x, torch.zeros(3), ball, generator) - x
    order = float("inf") if isinstance(ball, Linf) else 2
    sizes = moved.flatten(1).norm(p=order, dim=1)
    torch.testing.assert_close(sizes, torch.full((3,), ball.epsilon))
