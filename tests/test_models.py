"""The networks have the papers' sizes, and own their normalisation."""

import pytest
import torch

from widemin import attacks, models, training

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
def test_lean_networks_compute_the_same_function(name):
    shape = MNIST if name == "cnn4" else CIFAR
    width = 4 if name in models.WIDTHS else None
    network = models.build(name, generator(), shape=shape, width=width).double()
    x = torch.rand(8, *shape, generator=generator(1)).double()
    with torch.no_grad():
        network(x)  # statistics of their own, which folding must carry over
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    lean = models.lean(network)
    torch.testing.assert_close(lean(x), network(x))
    norms = [
        sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
        for net in (network, lean)
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
    assert torch.equal(models.lean(plain)(x), models.lean(short)(x))


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
        with training.climbed(network, 1.0):
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
    for network, start in ((models.lean(layer), x), (layer.double(), x.double())):
        start = start.clone().requires_grad_()
        out = network(start.contiguous(memory_format=torch.channels_last))
        d = whole(*out.shape, seed=3).to(out)
        found.append((out.double(), torch.autograd.grad(out, start, d)[0].double()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["m1", "stdcnn", "cnn4"])
def test_lean_networks_have_the_input_gradient_of_their_own(name):
    network = models.build(name, generator()).eval()
    x = torch.rand(4, *MNIST, generator=generator(1))
    y = torch.arange(4)
    own = attacks.input_gradient(network, x, y)[0]
    lean = attacks.input_gradient(models.lean(network), x, y)[0]
    close = torch.testing.assert_close
    close(lean, own, rtol=1e-4, atol=1e-6 * float(own.abs().max()))
    # In float64, where a library's own gradient is as quick, it is taken.
    x, network = x.double(), network.double()
    lean = attacks.input_gradient(models.lean(network), x, y)[0]
    close(lean, attacks.input_gradient(network, x, y)[0], rtol=1e-12, atol=1e-12)


def test_networks_that_gain_nothing_are_not_copied():
    plain = models.build("mlp", generator()).eval()
    assert models.lean(plain) is plain
    colours = models.build("m1", generator(), shape=CIFAR).eval()
    assert models.lean(colours) is colours


def test_a_network_or_layer_that_somebody_listens_to_is_not_replaced():
    heard = []
    x, y = torch.rand(2, *MNIST, generator=generator(1)), torch.arange(2)
    for whole in (True, False):
        network = models.build("m1", generator()).eval()
        listened = network if whole else network[0]
        listened.register_forward_hook(lambda *_: heard.append(1))
        attacks.fgsm(network, x, y, attacks.Linf(0.1))
    network = models.build("cnn4", generator()).eval()
    network[1].register_forward_hook(lambda *_: heard.append(1))  # a batch norm
    attacks.fgsm(network, x, y, attacks.Linf(0.1))
    assert len(heard) == 3
