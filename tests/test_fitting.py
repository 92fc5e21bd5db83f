"""A recipe's training is what its fields say."""

import dataclasses
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widemin import attacks, data, models, training
from widemin.experiments.recipe import Recipe, grid, stream
from widemin.experiments.running import run
from widemin.experiments.train import _augment, build, train

SMALL = Recipe(train_size=60, batch_size=20, width=8)


def curve(recipe):
    return [row["train_loss"] for row in train(build(recipe), recipe, "cpu")[0]]


def test_a_last_batch_of_one_image_is_refused_where_batch_norm_cannot_train_on_it():
    options = {"model": "preactresnet10", "width": 4, "batch_size": 16}
    for images in (32, 34):
        Recipe(train_size=images, **options)
    with pytest.raises(ValueError, match="got 33 images in batches of 16"):
        Recipe(train_size=33, **options)
    with pytest.raises(ValueError, match=r"got 33 images in batches of 1$"):
        Recipe(train_size=33, **options | {"batch_size": 1})
    with pytest.raises(ValueError, match=r"got 32 images in batches of 1$"):
        Recipe(train_size=32, optimizer="algorithm1", **options)
    # Larger images leave more than one value a channel; a perceptron has no such norm.
    Recipe(train_size=33, dataset="cifar10", **options)
    Recipe(train_size=33, batch_size=16)


def test_a_loss_is_weighted_from_the_second_epoch_on():
    plain = dataclasses.replace(SMALL, epochs=3)
    weighted = curve(dataclasses.replace(plain, loss_weighted=True))
    plain = curve(plain)
    assert weighted[0] == plain[0]
    assert weighted[1] != plain[1] and weighted[2] != plain[2]


def plain_training(recipe, step_at):
    """The network of a recipe by a plain loop over its training images."""
    torch.manual_seed(stream(0, "dropout").initial_seed())
    images = data.load("digits", "train", size=recipe.train_size)
    model = models.build("mlp", stream(0, "weights"), width=8, shape=(1, 8, 8))
    training.fit(
        model,
        training.SGD(model.parameters(), recipe.learning_rate),
        images.x,
        images.y,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        generator=stream(0, "batches"),
        step_at=step_at,
    )
    return model


def trained(recipe):
    model = build(recipe)
    return (model, *train(model, recipe, "cpu"))


def same_weights(one, two):
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("start", [0.0, 0.5, 2 / 3, 1.0])
def test_sam_begins_at_its_share_of_training(start):
    """Nine steps: before, plain descent; what it takes is one gradient more a step."""
    late = dataclasses.replace(SMALL, epochs=3, rho=0.5, sam_from=start)
    model, curve, facts = trained(late)
    steps = sum(k / 9 >= start for k in range(9))
    assert facts["gradients"] == pytest.approx((9 + steps) / 3, rel=1e-12)
    assert late.work == pytest.approx(60 * 3 * (2 - start))
    sam, descent = partial(training.train_step, rho=0.5), training.train_step
    expected = plain_training(late, lambda t: sam if t >= start else descent)
    assert same_weights(model, expected)
    plain, other, _ = trained(dataclasses.replace(SMALL, epochs=3))
    assert same_weights(model, plain) == (start == 1)
    whole = math.floor(3 * start)  # epochs of plain descent
    assert curve[:whole] == other[:whole]


def test_sam_that_ends_by_its_loss_counts_both_gradients_of_its_steps():
    asked = dataclasses.replace(SMALL, epochs=3, batch_size=2, rho=0.1)
    _, _, facts = trained(dataclasses.replace(asked, stop_loss=2.29))
    assert 0 < facts["stopped_epoch"] < 3
    assert facts["gradients"] == pytest.approx(2 * facts["stopped_epoch"])


def test_work_counts_the_gradients_of_every_step():
    for change in ({}, {"rho": 0.1}, {"attack": "linf 0.1", "attack_steps": 3}):
        for more in ({}, {"rho": 0.1}, {"rho": 0.1, "sam_from": 0.5}):
            asked = dataclasses.replace(SMALL, epochs=2, **change | more)
            _, _, facts = trained(asked)
            assert asked.work == pytest.approx(60 * facts["gradients"]), asked


@pytest.mark.parametrize("name", [*attacks.TRAINED, "smoothed"])
def test_training_descends_the_loss_that_the_recipe_names(name):
    how = {"cross_entropy": name} if name != "smoothed" else {"label_smoothing": 0.2}
    asked = dataclasses.replace(SMALL, epochs=2, learning_rate=1.0, **how)
    smoothed = partial(F.cross_entropy, label_smoothing=0.2, reduction="none")
    loss = (attacks.TRAINED | {"smoothed": smoothed})[name]
    loss = None if name == "logits" else loss
    step = partial(training.train_step, loss=loss)
    model, _, _ = trained(asked)
    assert same_weights(model, plain_training(asked, lambda t: step))
    plain = plain_training(asked, lambda t: training.train_step)
    assert same_weights(model, plain) == (name == "logits")


def test_a_nudge_is_rounding_and_nothing_else(monkeypatch):
    """About 1e-7 of each weight, of its own draws; batches are in the same order."""
    draws = [build(dataclasses.replace(SMALL, nudge=n)) for n in (0, 1, 2)]
    of = [torch.cat([p.flatten() for p in m.parameters()]).detach() for m in draws]
    still = models.build("mlp", stream(0, "weights"), width=8, shape=(1, 8, 8))
    assert same_weights(draws[0], still)
    large = of[0].abs() > 0
    assert large.double().mean() > 0.9
    for one, two in ((of[0], of[1]), (of[0], of[2]), (of[1], of[2])):
        moved = (two.double() / one.double() - 1)[large].abs()
        assert 0.5e-7 < moved.mean() < 1.5e-7 and moved.max() < 8e-7
        assert torch.equal(one[~large], two[~large])
    again = build(dataclasses.replace(SMALL, nudge=1))
    assert same_weights(draws[1], again)
    other = build(dataclasses.replace(SMALL, nudge=1, seed=1))
    assert not same_weights(draws[1], other)

    def step(model, optimizer, x, y, **_):
        seen.append((x, y))
        return torch.zeros(())

    monkeypatch.setattr(training, "train_step", step)
    orders = []
    for n in (0, 1):
        seen = []
        asked = dataclasses.replace(SMALL, nudge=n, epochs=2)
        trained(asked)
        orders.append(torch.cat([x for x, _ in seen]))
    assert len(orders[0]) == 120 and torch.equal(*orders)


def test_crop_and_flip_shifts_images_and_flip_only_mirrors_them():
    images = data.load("digits", size=50).x
    wanted = {"crop+flip": 4, "flip": 0}
    for name, padding in wanted.items():
        ours, theirs = (torch.Generator().manual_seed(0) for _ in "ab")
        found = _augment(dataclasses.replace(SMALL, augment=name), ours)(images)
        expected = data.augment(images, generator=theirs, padding=padding)
        assert torch.equal(found, expected)
        pairs = zip(found, images, strict=True)
        mirrored = [torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in pairs]
        assert all(mirrored) == (name == "flip")


@pytest.mark.parametrize("seed", [0, 1, 999, 1_000, 2_000])
def test_networks_that_attack_another_have_another_seed(seed):
    recipe = dataclasses.replace(
        SMALL, seed=seed, brief_epochs=1, surrogate_epochs=1, attack="linf 0.1"
    )
    others = [recipe.transfer_source, *recipe.surrogates.values()]
    assert all(other.seed != seed for other in others)
    first, *rest = (build(other)[1].weight for other in (recipe, *others))
    assert not any(torch.equal(first, other) for other in rest)


@pytest.fixture
def restless():
    """Threads that change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as threads:
        yield threads
    sys.setswitchinterval(before)


def test_threads_build_the_networks_that_one_builds(restless):
    recipes = [dataclasses.replace(SMALL, seed=seed) for seed in range(8)] * 10

    def weights(recipe):
        return torch.cat([p.detach().flatten() for p in build(recipe).parameters()])

    alone = list(map(weights, recipes))
    beside = list(restless.map(weights, recipes))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_threads_reach_the_rows_that_one_reaches(restless, tmp_path, monkeypatch):
    """With dropout, which draws from the generator that threads share."""

    def dropping(shape, classes, **options):
        network = models.small.mlp(shape, classes, **options)
        network.insert(len(network) - 1, nn.Dropout(0.5))
        return network

    monkeypatch.setitem(models.BUILDERS, "mlp", dropping)
    recipe = dataclasses.replace(SMALL, test_size=20, hessian_size=20, epochs=10)
    recipes = [dataclasses.replace(recipe, seed=seed) for seed in range(4)]

    def rows(recipe, folder):
        found = run(recipe, device="cpu", weights=tmp_path / folder)
        return [
            {k: v for k, v in r.items() if not k.endswith("seconds")} for r in found
        ]

    alone = [rows(recipe, "alone") for recipe in recipes]
    assert list(restless.map(rows, recipes, ["beside"] * 4)) == alone


PLAIN = Recipe(seed=1, rho=0.1, epochs=2, tests=("l2 0.5",), watch="linf 0.1")


@pytest.mark.parametrize(
    "values",
    [
        (np.int64(1), np.float64(0.1), np.uint8(2), np.array(["l2 0.5"])),
        (np.array(1), np.float32(0.1), np.float64(2.0), ["l2 0.5"]),
        (torch.tensor(1), torch.tensor(0.1), 2.0, [np.str_("l2 0.5")]),
    ],
)
def test_numbers_are_numbers_whoever_made_them(values):
    names = ("seed", "rho", "epochs", "tests")
    found = Recipe(watch="linf 0.1", **dict(zip(names, values, strict=True)))
    assert found == PLAIN and found.key == PLAIN.key and str(found) == str(PLAIN)


def test_axes_of_a_grid_may_be_arrays():
    axes = {"seed": np.arange(2), "rho": torch.linspace(0, 0.2, 3)}
    found = grid(Recipe(), tests=[["linf 0.1"], ["l2 1"]], **axes)
    tests = [("linf 0.1",), ("l2 1",)]
    assert found == grid(Recipe(), tests=tests, seed=[0, 1], rho=[0.0, 0.1, 0.2])
    thirds = np.linspace(0.1, 1, 7)
    found = grid(Recipe(), learning_rate=thirds)
    assert [recipe.learning_rate for recipe in found] == thirds.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 1.5}, "epochs must be a whole number; got 1.5"),
        ({"seed": "1"}, "seed must be a whole number; got '1'"),
        ({"width": True}, "width must be a whole number; got True"),
        ({"rho": "0.1"}, "rho must be a number; got '0.1'"),
        ({"tests": "linf 0.1"}, "tests must be a list; got 'linf 0.1'"),
        ({"tests": [0.1]}, "tests must be a perturbation set like Linf(0.1)"),
        ({"tests": [""]}, "a perturbation set is written 'linf 8/255'"),
        ({"watch": 0.1}, "watch must be a perturbation set like Linf(0.1)"),
        ({"watch_fosc": 1}, "watch_fosc must be True or False; got 1"),
    ],
)
def test_a_value_of_another_kind_is_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Recipe(**change)


def test_the_text_of_a_set_is_part_of_the_key_as_given():
    odd = Recipe(attack="linf 0.10", tests=("linf 1/10",))
    assert odd == Recipe(attack="linf 0.1")
    assert (odd.key, odd.training_key) == ("2c1238d12d0c13fc", "a3c10fec1576ff73")
