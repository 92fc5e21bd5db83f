"""What is guessed of a GPU: operations counted, and no step in no time."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from widemin import data, paths
from widemin.experiments import progress
from widemin.experiments.recipe import Recipe
from widemin.experiments.train import build


@pytest.mark.parametrize(
    ("dataset", "model"),
    [("mnist", "m1"), ("mnist", "stdcnn"), ("cifar10", "preactresnet18")],
)
def test_operations_are_products_forwards_and_twice_backwards(dataset, model):
    network = build(Recipe(dataset=dataset, model=model)).eval()
    products = []

    def count(layer, _, out):
        products.append(out.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *data.DATASETS[dataset].shape))
    assert progress.operations(dataset, model) == 6 * sum(products)


def test_operations_of_a_known_network():
    """PreActResNet-18 multiplies 0.556 billion times forwards, thrice that in all."""
    found = progress.operations("cifar10", "preactresnet18")
    assert found == pytest.approx(6 * 0.556e9, rel=0.01)


def test_hours_follow_the_work_of_large_networks_and_the_steps_of_small_ones():
    large = Recipe(
        dataset="cifar10", model="preactresnet18", train_size=40_000, epochs=5
    )
    one = progress.gpu_hours([large])
    attack = {"attack": "linf 8/255", "attack_steps": 10}
    harder = Recipe(
        dataset="cifar10", model="preactresnet18", train_size=40_000, epochs=5, **attack
    )
    assert progress.gpu_hours([harder]) == pytest.approx(11 * one)
    small = Recipe(train_size=1_000, batch_size=10, epochs=10)
    expected = 1_000 * progress.GPU_PASS / 3600
    assert progress.gpu_hours([small]) == pytest.approx(expected)


def test_networks_side_by_side_share_their_steps():
    one = Recipe(model="m1", dataset="mnist", train_size=60_000, epochs=2, batch_size=4)
    several = [replace(one, learning_rate=0.01 * (1 + i)) for i in range(46)]

    def expected(groups, networks):
        step = groups * progress.GPU_STEP + 4 * networks * progress.GPU_IMAGE
        return pytest.approx(30_000 * step / 3600)

    assert progress.gpu_hours(several[:45]) == expected(1, 45)
    assert progress.gpu_hours(several) == expected(2, 46)  # two graphs
    # What is measured in another way has the same network.
    again = [replace(one, pgd_steps=40), one]
    assert progress.gpu_hours(again) == progress.gpu_hours([one])


def test_steps_side_by_side_take_what_a_gpu_was_seen_to_take():
    """Of nine networks; a faster measured step asks for new constants."""
    rows = pd.read_csv(paths.PUBLISHED / "benchmarks.csv")
    steps = rows["work"].str.extract(r"a step of (\d+) M1 side by side, batch (\d+)")
    measured = rows["seconds"][steps[0].notna()]
    assert len(measured) >= 4
    steps = steps.dropna().astype(int)
    told = progress.GPU_STEP + progress.GPU_IMAGE * steps[0] * steps[1]
    assert told.to_numpy() == pytest.approx(measured.to_numpy(), rel=0.15)


def test_a_network_nobody_has_run_is_guessed_by_its_operations():
    known = dict(dataset="mnist", model="m1", gradients=10.0, train_size=1_000)
    known |= {"train_seconds": 8.0, "measure_seconds": 2.0}
    same = Recipe(dataset="mnist", model="m1", train_size=2_000, epochs=5)
    assert progress.seconds([same], [known]) == 10.0
    other = replace(same, model="stdcnn")
    ratio = progress.operations("mnist", "stdcnn")
    ratio /= progress.operations("mnist", "m1")
    found = progress.seconds([same, other], [known])
    assert found == pytest.approx(10.0 + 10.0 * ratio)
    assert progress.seconds([replace(other, epochs=1, train_size=64)], [known]) == 1
    assert progress.seconds([same], []) is None


def test_hours_of_a_core_are_not_those_of_a_gpu():
    """Where cores have run the network; where only a GPU has, its time must do."""
    recipe = Recipe(model="m1", dataset="mnist", train_size=1_000, epochs=10)
    took = {"model": "m1", "dataset": "mnist", "train_size": 1_000, "gradients": 10}
    core = took | {"device": "cpu", "train_seconds": 90, "measure_seconds": 10}
    gpu = took | {"device": "cuda", "train_seconds": 3, "measure_seconds": 1}
    assert progress.seconds([recipe], [core, gpu]) == pytest.approx(100)
    assert progress.seconds([recipe], [gpu]) == pytest.approx(4)
