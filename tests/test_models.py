"""The networks have the papers' sizes, and own their normalisation."""

import collections
import copy

import pytest
import torch

from widemin import attacks, models, training
from widemin.models import residual

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def weights(network):
    return sum(parameter.numel() for parameter in network.parameters())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("m1", MNIST, 10, 176_050),
        ("m1-unpooled", MNIST, 10, 4_016_050),
        ("stdcnn", MNIST, 10, 23_010),
        ("cnn4", MNIST, 10, 421_834),
        ("c1", CIFAR, 10, 1_756_682),
        ("cnn8", CIFAR, 10, 1_639_794),
        ("preactresnet18", CIFAR, 10, 11_172_170),
        ("preactresnet18", CIFAR, 100, 11_218_340),
        ("resnet18", CIFAR, 10, 11_173_962),
        ("wideresnet", CIFAR, 10, 46_160_474),
        ("linear", MNIST, 10, 7_850),
    ],
)
def test_weights_are_as_many_as_the_papers_say(name, shape, classes, count):
    network = models.build(name, generator(), shape=shape, classes=classes)
    assert weights(network) == count


@pytest.mark.parametrize("name", sorted(models.BUILDERS))
def test_every_network_maps_images_to_logits_in_both_modes(name):
    shape = MNIST if name in ("m1", "m1-unpooled", "stdcnn", "cnn4") else CIFAR
    width = 4 if name in models.WIDTHS else None
    network = models.build(name, generator(), shape=shape, classes=7, width=width)
    x = torch.rand(3, *shape)
    assert network.training
    assert network(x).shape == (3, 7)
    assert network.eval()(x).shape == (3, 7)


def test_one_generator_gives_one_network_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    one, two = (models.build("mlp", generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    other = next(models.build("mlp", generator(4)).parameters())
    assert not torch.equal(other, next(one.parameters()))


def test_normalisation_is_the_first_layer():
    statistics = ((0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    network = models.build(
        "linear", generator(), shape=(3, 2, 2), statistics=statistics
    )
    plain = network[1:]
    x = torch.rand(4, 3, 2, 2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in statistics)
    torch.testing.assert_close(network(x), plain((x - mean) / std))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "preactresnet"}, "did you mean 'preactresnet18'"),
        ({"name": "m1", "width": 3}, "model 'm1' has a fixed width; got width 3"),
        ({"name": "m1", "shape": (1, 8, 8)}, "at least 16 x 16 pixels"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(generator=generator(), **arguments)


@pytest.mark.parametrize("name", ["cnn4", "cnn8", "preactresnet10", "resnet10", "c1"])
def test_fused_networks_compute_the_same_function(name):
    shape = MNIST if name == "cnn4" else CIFAR
    width = 4 if name in models.WIDTHS else None
    network = models.build(name, generator(), shape=shape, width=width).double()
    x = torch.rand(8, *shape, generator=generator(1)).double()
    with torch.no_grad():
        network(x)  # statistics of their own, which folding must carry over
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = models.fuse(network)
    torch.testing.assert_close(fused(x), network(x))
    norms = [
        sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
        for net in (network, fused)
    ]
    assert norms[1] < norms[0] or name == "c1"  # there a pool comes between
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def twins():
    """The same network twice, once with training passes in bfloat16."""
    names = ("preactresnet18", "preactresnet18-bf16")
    found = [models.build(n, generator(), shape=CIFAR, width=8) for n in names]
    for one, two in zip(*(network.parameters() for network in found), strict=True):
        assert torch.equal(one, two)
    return found


def test_inference_is_in_float32_bit_for_bit():
    plain, short = twins()
    x = torch.rand(4, *CIFAR, generator=generator(1))
    assert torch.equal(plain.eval()(x), short.eval()(x))
    assert torch.equal(models.fuse(plain)(x), models.fuse(short)(x))


def test_training_passes_in_bfloat16_with_gradients_in_float32():
    plain, short = twins()
    seen = []
    short[0].register_forward_hook(lambda layer, x, out: seen.append(out.dtype))
    x = torch.rand(32, *CIFAR, generator=generator(1))
    y = torch.randint(10, (32,), generator=generator(2))
    flat = []
    for network in (plain, short):
        training.backward(network, x, y)
        flat.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert seen == [torch.bfloat16] and short(x).dtype == torch.float32
    assert {g.dtype for g in flat} == {torch.float32}
    # Eight bits of mantissa leave the direction, and are not what float32 gives.
    assert 0.9 < torch.cosine_similarity(*flat, dim=0) < 1 - 1e-6


def test_sams_second_pass_in_bfloat16_is_taken_at_the_moved_weights():
    plain, short = twins()
    x = torch.rand(32, *CIFAR, generator=generator(1))
    y = torch.randint(10, (32,), generator=generator(2))
    losses = []
    for network in (plain, short):
        first = training.backward(network, x, y)
        with training.perturbed_weights(network, 1.0):
            losses.append(training.backward(network, x, y) - first)
    assert losses[0] > 0.1  # the climb is worth something
    torch.testing.assert_close(losses[1], losses[0], rtol=0.1, atol=0)


@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
@pytest.mark.parametrize("bias", [False, True])
def test_one_channels_input_gradient_is_exact_in_whole_numbers(padding, bias):
    # Whole numbers this small are added without rounding: autograd in float64 and
    # the product in float32 must agree in every bit.
    def whole(*shape, seed):
        return torch.randint(-9, 10, shape, generator=generator(seed)).float()

    layer = torch.nn.Conv2d(1, 6, (3, 2), padding=padding, bias=bias)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(whole(*parameter.shape, seed=i))
    x = whole(4, 1, 9, 8, seed=2)
    found = []
    for network, start in ((models.fuse(layer), x), (layer.double(), x.double())):
        start = start.clone().requires_grad_()
        out = network(start.contiguous(memory_format=torch.channels_last))
        d = whole(*out.shape, seed=3).to(out)
        found.append((out.double(), torch.autograd.grad(out, start, d)[0].double()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["m1", "stdcnn", "cnn4"])
def test_fused_networks_have_the_input_gradient_of_their_own(name):
    network = models.build(name, generator()).eval()
    x = torch.rand(4, *MNIST, generator=generator(1))
    y = torch.arange(4)
    own = attacks.input_gradient(network, x, y)[0]
    fused = attacks.input_gradient(models.fuse(network), x, y)[0]
    close = torch.testing.assert_close
    close(fused, own, rtol=1e-4, atol=1e-6 * float(own.abs().max()))
    # In float64, where a library's own gradient is as quick, it is taken.
    x, network = x.double(), network.double()
    fused = attacks.input_gradient(models.fuse(network), x, y)[0]
    close(fused, attacks.input_gradient(network, x, y)[0], rtol=1e-12, atol=1e-12)


def test_networks_that_gain_nothing_are_not_copied():
    plain = models.build("mlp", generator()).eval()
    assert models.fuse(plain) is plain
    colours = models.build("m1", generator(), shape=CIFAR).eval()
    assert models.fuse(colours) is colours


HOOKS = ["forward_hook", "forward_pre_hook", "full_backward_hook"]
HOOKS += ["full_backward_pre_hook"]


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("m1", ""),
        ("m1", "0"),
        ("cnn4", "1"),
        ("resnet10", "3.conv1"),
        ("resnet10", "3.bn2"),
        ("resnet10", "4.shortcut.1"),
        ("preactresnet10", "1"),
        ("preactresnet10", "1.bn2"),
    ],
)
def test_whatever_is_hooked_is_heard_and_with_its_own_numbers(kind, name, place):
    shape, width = (CIFAR, 4) if "resnet" in name else (MNIST, None)
    network = models.build(name, generator(), shape=shape, width=width)
    network = _with_statistics(network)
    if "backward" in kind and place in ("1.bn2", "3.bn2"):
        pytest.skip("torch allows none before an activation in place")
    x, y = torch.rand(2, *shape, generator=generator(1)), torch.arange(2)
    heard = []
    hook = getattr(network.get_submodule(place), f"register_{kind}")
    hook(lambda layer, *found: heard.append(found[-1]))
    for asked in (network, models.fuse(network)):
        attacks.input_gradient(asked, x, y)
    assert len(heard) == 2  # inputs, outputs or their gradients
    own, fused = (found if torch.is_tensor(found) else found[0] for found in heard)
    if own is not None:  # what no gradient in the images passes through has none
        torch.testing.assert_close(fused, own, rtol=1e-4, atol=1e-4)


def test_a_hook_on_every_module_hears_every_layer():
    network = _with_statistics(models.build("cnn4", generator()))
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert models.fuse(network) is network
    finally:
        handle.remove()
    assert models.fuse(network) is not network


def _with_statistics(network):
    """A network in inference mode, as after training: its norms do something."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d) and layer.track_running_stats:
            with torch.no_grad():
                layer.running_mean.uniform_(-1, 1, generator=generator(3))
                layer.running_var.uniform_(0.5, 2, generator=generator(4))
                if layer.affine:
                    layer.weight.uniform_(0.5, 2, generator=generator(5))
                    layer.bias.uniform_(-1, 1, generator=generator(6))
    return network.eval()


class Standardised(torch.nn.Conv2d):
    """A convolution whose weights have mean 0 per filter."""

    def forward(self, x):
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return torch.nn.functional.conv2d(x, w, self.bias, self.stride, self.padding)


class Halved(torch.nn.BatchNorm2d):
    """A norm of which half is left."""

    def forward(self, x):
        return super().forward(x) / 2


def _patched():
    layer = torch.nn.Conv2d(1, 4, 3)
    layer.forward = lambda x: x.expand(-1, 4, -1, -1)[..., 1:-1, 1:-1]
    return layer


def _conv(**options):
    return torch.nn.Conv2d(1, 4, 3, **options)


def _norm(**options):
    return torch.nn.BatchNorm2d(4, **options)


@pytest.mark.parametrize(
    ("layers", "folds"),
    [
        ((_conv(), _norm()), True),
        ((_conv(bias=False), _norm(affine=False)), True),
        ((_conv(padding=1, padding_mode="reflect", stride=2), _norm()), True),
        ((Standardised(1, 4, 3), _norm()), False),
        ((_conv(), Halved(4)), False),
        ((_patched(), _norm()), False),
        ((_conv(), _norm(track_running_stats=False)), False),
        ((torch.nn.utils.parametrizations.weight_norm(_conv()), _norm()), False),
        ((torch.nn.utils.parametrizations.spectral_norm(_conv()), _norm()), False),
        ((_conv(), torch.nn.SyncBatchNorm(4)), False),
        ((torch.nn.ConvTranspose2d(1, 4, 3), _norm()), False),
    ],
)
@pytest.mark.parametrize("where", ["sequence", "block", "preactblock"])
def test_only_torchs_own_layers_are_folded_and_all_networks_keep_their_function(
    layers, folds, where
):
    convolution, norm = copy.deepcopy(layers)
    if where == "sequence":
        parts = {"first": convolution, "norm": norm, "last": torch.nn.Flatten()}
        network = torch.nn.Sequential(collections.OrderedDict(parts))
    else:
        block = residual.Block(4, 4, 1) if where == "block" else None
        block = block or residual.PreActBlock(1, 4, 1)
        block.conv1 = convolution
        setattr(block, "bn1" if where == "block" else "bn2", norm)
        block.shortcut = torch.nn.Sequential(copy.deepcopy(convolution))
        network = torch.nn.Sequential(block, torch.nn.Flatten())
    _with_statistics(network)
    x = torch.rand(3, 1, 8, 8, generator=generator(1))
    fused = models.fuse(network)
    torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-4)
    assert [name for name, _ in fused.named_children()] == [
        name for name, _ in network.named_children()
    ]
    assert (norm in set(fused.modules())) == (not folds)
    assert {convolution, norm} <= set(network.modules())


def test_a_layer_used_twice_keeps_both_its_places():
    layer, norm = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
    other = torch.nn.BatchNorm2d(3)
    network = torch.nn.Sequential(layer, norm, layer, other, norm, layer)
    _with_statistics(network)
    other.running_mean.add_(1)
    x = torch.rand(2, *CIFAR, generator=generator(1))
    torch.testing.assert_close(models.fuse(network)(x), network(x))


def test_fused_networks_go_through_torchs_other_derivatives_and_precisions():
    network = models.build("m1", generator()).eval()
    fused = models.fuse(network)
    x = torch.rand(3, *MNIST, generator=generator(1))
    y = torch.arange(3)

    def twice(net):
        point = x.clone().requires_grad_()
        gradient, _, _ = attacks.input_gradient(net, x, y)
        loss = torch.nn.functional.cross_entropy(net(point), y)
        (first,) = torch.autograd.grad(loss, point, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), point)
        third = torch.func.grad(lambda a: net(a).logsumexp(1).sum())(x)
        with torch.autocast("cpu", torch.bfloat16):
            short, _, _ = attacks.input_gradient(net, x, y)
        return gradient, second, third, short

    for ours, theirs in zip(twice(fused), twice(network), strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * scale)
    fused.double()
    assert fused(x.double()).dtype == torch.float64
