"""A recipe decides its rows: same recipe, same rows; every field is checked."""

import base64
import dataclasses
import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from widemin import attacks, data, instruments, landscape, models, networks
from widemin.experiments import pick_device, run
from widemin.instruments.final import _other_statistics
from widemin.networks import trained
from widemin.recipes import Recipe, grid, recipe, stream

SMALL = Recipe(train_size=60, batch_size=20, width=8, test_size=40, hessian_size=40)


def rows_of(recipe, folder):
    return run(recipe, device="cpu", weights=folder)


def final(rows):
    return [row for row in rows if row["measured"] == "final"]


def without_seconds(rows):
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rho": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        {"attack": "linf 0.1", "attack_steps": 3, "ramp": 0.5},
        {"attack": "l2 0.5", "attack_steps": 3, "fosc_max": 0.5},
        {"attack": "linf 0.1", "rho": 0.1, "gradient_leak": True},
        {"label_smoothing": 0.1},
        {"optimizer": "adam", "learning_rate": 0.01, "augment": "crop+flip"},
    ],
)
def test_the_same_recipe_gives_the_same_rows(tmp_path, change):
    recipe = dataclasses.replace(SMALL, epochs=2, watch="linf 0.1", **change)
    one, two = (rows_of(recipe, tmp_path / name) for name in "ab")
    pd.testing.assert_frame_equal(
        pd.DataFrame(without_seconds(one)), pd.DataFrame(without_seconds(two))
    )
    [last] = final(one)
    assert last["epoch"] == 2 and not last["diverged"]
    attacked = [v for k, v in last.items() if k.endswith("_accuracy") and k[0] in "fpw"]
    assert last["worst_accuracy"] == min(attacked)
    assert last["natural_accuracy"] >= max(attacked)


def test_weights_are_kept_and_measured_again_without_training(tmp_path, monkeypatch):
    first = final(rows_of(SMALL, tmp_path))

    def never(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(networks, "train", never)
    other = dataclasses.replace(SMALL, tests=("linf 0.1", "l2 0.2"))
    again = final(rows_of(other, tmp_path))
    assert [row["test"] for row in again] == ["linf 0.1", "l2 0.2"]
    assert again[0]["pgd_accuracy"] == first[0]["pgd_accuracy"]
    assert other.training_key == SMALL.training_key and other.key != SMALL.key


@pytest.mark.filterwarnings("ignore")
def test_the_strongest_attacks_leave_least_and_need_no_training(tmp_path, monkeypatch):
    first = final(rows_of(SMALL, tmp_path))
    monkeypatch.setattr(networks, "train", None)
    strong = dataclasses.replace(SMALL, strong_size=20, tests=("linf 0.1", "l2 0.5"))
    assert strong.training_key == SMALL.training_key and strong.key != SMALL.key
    for row in final(rows_of(strong, tmp_path)):
        assert row["strong_images"] == 20
        assert 0 <= row["distance_q25"] <= row["distance_q50"] <= row["distance_q75"]
        assert 0 <= row["autoattack_accuracy"] <= row["natural_accuracy"]
        assert 0 < row["moved_share"] <= 1
    assert "strong_images" not in first[0]


def test_scaling_logits_moves_no_prediction_and_not_the_margin_attack(tmp_path):
    recipe = dataclasses.replace(SMALL, brief_epochs=2, epochs=3)
    assert recipe.brief.epochs == 2 and recipe.brief.seed != recipe.seed
    rows = rows_of(recipe, tmp_path)
    scale = [row for row in rows if row["measured"] == "scale"]
    assert [row["factor"] for row in scale] == list(instruments.FACTORS)
    for column in ("natural_accuracy", "fgsm_margin_accuracy", "pgd_margin_accuracy"):
        assert len({row[column] for row in scale}) == 1, column
    for row in scale:
        exact = row["factor"] * scale[0]["median_margin"]
        assert row["median_margin"] == pytest.approx(exact, rel=1e-5)
    # Images that fool another network can only be as good as an attack of one's own.
    [last] = final(rows)
    assert last["pgd_margin_accuracy"] <= last["transfer_accuracy"]
    assert last["transfer_accuracy"] <= last["natural_accuracy"]


def test_pictures_are_the_attacked_images(tmp_path):
    recipe = dataclasses.replace(SMALL, pictures=2, tests=("linf 0.25",))
    rows = [r for r in rows_of(recipe, tmp_path) if r["measured"] == "picture"]
    model, _, _ = trained(recipe, "cpu", tmp_path)
    test = data.load("digits", "test", size=2)
    images = {(row["way"], row["image"]): row for row in rows}
    assert len(rows) == len(images) == 2 * 7
    moved = attacks.fgsm(model, test.x, test.y, attacks.Linf(0.25))
    for way, expected in (("natural", test.x), ("fgsm", moved)):
        for index in range(2):
            row = images[way, index]
            shades = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["png"]))))
            exact = 255 * expected[index, 0].numpy()
            np.testing.assert_allclose(shades, exact, atol=0.501)
            assert row["label"] == test.y[index]
            size = float((expected[index] - test.x[index]).abs().max())
            assert row["moved"] == pytest.approx(size)


def test_the_level_is_further_the_higher_it_is(tmp_path):
    recipe = dataclasses.replace(SMALL, width_size=40, epochs=3)
    [row] = final(rows_of(recipe, tmp_path))
    assert row["width_images"] == 40 and row["adaptive_sharpness"] > 0
    for of in ("weights", "nodes", "inputs"):
        assert row[f"width_{of}_1"] > 0.1 * row[f"width_{of}_0.1"] > 0, of
    model, _, _ = trained(recipe, "cpu", tmp_path)
    train = data.load("digits", "train", size=40)
    slow = landscape.width(
        model, train.x, train.y, gap=1.0, generator=stream(1, "other"), starts=4
    )
    assert row["width_weights_1"] == pytest.approx(slow.width, rel=0.02)


def test_kept_weights_are_the_trained_ones(tmp_path):
    one, _, _ = trained(SMALL, "cpu", tmp_path)
    two, _, _ = trained(SMALL, "cpu", tmp_path)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradients_are_counted_as_taken(tmp_path):
    def spent(**change):
        recipe = dataclasses.replace(SMALL, epochs=2, **change)
        return final(rows_of(recipe, tmp_path))[0]["gradients"]

    assert spent() == 2
    assert spent(rho=0.1) == 4
    assert spent(attack="linf 0.1", attack_steps=3) == 8
    # Of 6 updates 5 take one step, the gradient that stops it and the update's own;
    # in the last, at 5/6 of training, the threshold is 0 and nothing stops.
    dynamic = spent(attack="linf 0.1", attack_steps=3, fosc_max=1e9)
    assert dynamic == pytest.approx((5 * 3 + 4) / 3)


def test_a_diverged_run_is_a_row_too(tmp_path):
    recipe = dataclasses.replace(SMALL, learning_rate=1e30, epochs=2)
    [row] = final(rows_of(recipe, tmp_path))
    assert row["diverged"]
    assert "pgd_accuracy" not in row and row["test"] == "linf 0.1"


def test_the_ascent_is_recorded_step_by_step(tmp_path):
    recipe = dataclasses.replace(SMALL, attack="linf 0.1", attack_steps=4)
    steps = [row for row in rows_of(recipe, tmp_path) if row["measured"] == "step"]
    assert [row["step"] for row in steps] == [0, 1, 2, 3, 4]
    assert steps[-1]["loss_q50"] > steps[0]["loss_q50"]
    for row in steps:
        assert 0 <= row["normalised_fosc_q25"] <= row["normalised_fosc_q75"] <= 2


def test_keys_are_departures_from_the_defaults():
    assert Recipe().key == Recipe(seed=0).key
    assert len({recipe.key for recipe in grid(Recipe(), seed=range(50))}) == 50
    assert Recipe(rho=0.1).key == "".join(Recipe(rho=0.1).key)


@pytest.mark.parametrize("name", ["TRAINING_REVISION", "MEASURING_REVISION"])
def test_a_raised_revision_gives_new_keys(monkeypatch, name):
    key, weights = SMALL.key, SMALL.training_key
    monkeypatch.setattr(recipe, name, 99)
    assert SMALL.key != key
    assert (SMALL.training_key != weights) == (name == "TRAINING_REVISION")


def test_published_keys_do_not_move():
    """The committed tables are found by them; a change here disowns every row."""
    recipe = Recipe(dataset="mnist", model="m1", learning_rate=0.01)
    assert recipe.key == "bbd80e091b694527"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "minst"}, "unknown dataset 'minst' .did you mean 'mnist'"),
        ({"model": "m2"}, "unknown model 'm2'"),
        ({"optimizer": "agd"}, "unknown optimizer"),
        ({"schedule": "cosine"}, "unknown schedule"),
        ({"augment": "flop"}, "unknown augment"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2000}, "batch_size must be at most the number of training"),
        ({"train_size": 5000}, "train_size must be at least 1 and at most 1397"),
        ({"test_size": 5000}, "test_size must be at least 1 and at most 400"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and at most 0.999"),
        ({"rho": -0.1}, "rho must be at least 0; got -0.1"),
        ({"attack": "linf 1.5"}, "epsilon must be finite, at least 0 and at most 1"),
        ({"tests": ("linf -1",)}, "epsilon must be finite"),
        ({"watch": "1"}, "is written 'linf 8/255'"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_every_wrong_field_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


def test_streams_are_separate_and_repeatable():
    def draw(seed, purpose):
        return torch.rand(1, generator=stream(seed, purpose)).item()

    assert draw(0, "weights") == draw(0, "weights")
    assert len({draw(s, p) for s in (0, 1) for p in ("weights", "batches")}) == 4


def test_methods_share_weights_at_the_start():
    one, two = (
        models.build("mlp", stream(0, "weights"), shape=(1, 8, 8)) for _ in range(2)
    )
    assert torch.equal(one[1].weight, two[1].weight)


def test_devices():
    assert pick_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(ValueError, match="without a GPU"):
            pick_device("cuda")


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=2)
    here, there = (
        final(run(recipe, device=device, weights=tmp_path / device))[0]
        for device in ("cpu", "cuda")
    )
    assert there["final_train_loss"] == pytest.approx(
        here["final_train_loss"], rel=1e-3
    )
    assert there["top_eigenvalue"] == pytest.approx(here["top_eigenvalue"], rel=1e-2)


@pytest.mark.slow
def test_real_mnist_is_learnt(tmp_path, mnist_here, monkeypatch):
    monkeypatch.setenv("WIDEMIN_DATA", mnist_here)
    recipe = Recipe(
        dataset="mnist",
        model="m1",
        train_size=10_000,
        epochs=2,
        batch_size=16,
        tests=("linf 0.3",),
    )
    [row] = final(rows_of(recipe, tmp_path))
    assert row["natural_accuracy"] > 0.95
    assert row["pgd_margin_accuracy"] < 0.02


def test_a_leak_and_smoothed_labels_change_the_weights(tmp_path):
    attacked = dataclasses.replace(SMALL, attack="linf 0.1", rho=0.1)
    pairs = [
        (attacked, dataclasses.replace(attacked, gradient_leak=True)),
        (SMALL, dataclasses.replace(SMALL, label_smoothing=0.1)),
    ]
    for one, two in pairs:
        [first], [second] = (final(rows_of(r, tmp_path)) for r in (one, two))
        assert first["final_train_loss"] != second["final_train_loss"]
        assert first["gradients"] == second["gradients"]


def test_lines_start_at_the_loss_and_climb(tmp_path):
    rows = rows_of(dataclasses.replace(SMALL, line_size=40, epochs=3), tmp_path)
    points = [row for row in rows if row["measured"] == "line"]
    for of in ("weights", "images"):
        line = [row for row in points if row["of"] == of]
        assert len(line) == instruments.POINTS and line[0]["distance"] == 0
        losses = [row["loss"] for row in line]
        assert losses[1] > losses[0]
    [last] = final(rows)
    at_zero = next(row["loss"] for row in points if row["of"] == "weights")
    assert at_zero == pytest.approx(last["final_train_loss"], rel=1e-6)
    assert 0 < last["implicit_share"] <= 1 + 1e-6


def test_strong_attacks_are_run_as_asked(tmp_path):
    asked = dataclasses.replace(SMALL, strong_size=20, strong_attacks=("restarts",))
    [few] = final(rows_of(asked, tmp_path))
    assert few["strong_images"] == 20
    assert few["restarts_accuracy"] <= few["restarts_pgd_accuracy"] + 1e-9
    assert not {"autoattack_accuracy", "distance_q50"} & set(few)
    more = dataclasses.replace(asked, strong_steps=25)
    [found] = final(rows_of(more, tmp_path))
    assert found["restarts_accuracy"] <= few["restarts_accuracy"]
    assert more.key != asked.key and more.training_key == asked.training_key


def test_the_other_statistics_are_put_back(monkeypatch, tmp_path):
    """On made-up CIFAR: with its own statistics on both sides nothing is lost."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 32, 32, generator=generator)
    y = torch.arange(40) % 10
    recipe = Recipe(dataset="cifar10", model="linear", other_statistics=True)
    model = models.build(
        "linear",
        generator,
        shape=(3, 32, 32),
        statistics=data.STATISTICS["cifar10"],
    )
    ball = attacks.Linf(0.01)
    before = model(x)
    found = _other_statistics(model, x, y, ball, recipe)
    assert torch.equal(model(x), before)
    assert set(found) == {
        "all_steps_accuracy",
        "other_natural_accuracy",
        "other_statistics_accuracy",
    }
    same = {**data.STATISTICS, "cifar100": data.STATISTICS["cifar10"]}
    monkeypatch.setattr(data, "STATISTICS", same)
    again = _other_statistics(model, x, y, ball, recipe)
    assert again["other_statistics_accuracy"] == again["all_steps_accuracy"]
    assert again["all_steps_accuracy"] == found["all_steps_accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_leak": True}, "gradient_leak must come with an attack"),
        ({"other_statistics": True}, "must come with one of cifar10, cifar100"),
        ({"strong_attacks": ("restart",)}, "did you mean 'restarts'"),
        ({"optimizer": "algorithm1", "rho": 0.1}, "must come without attack and rho"),
        ({"label_smoothing": 1.5}, "label_smoothing must be at least 0 and at most 1"),
    ],
)
def test_new_fields_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


def test_schedules_spend_what_they_say(tmp_path):
    """Gradients an image: one for training, and as many as the attack has steps."""
    attacked = dataclasses.replace(SMALL, attack="linf 0.1", attack_steps=6, epochs=6)
    expected = {"": 7 * 6, "rising": 6 + 21, "weak-first": 2 * 2 + 4 * 7}
    expected["weak-last"] = expected["weak-first"]
    for schedule, gradients in expected.items():
        recipe = dataclasses.replace(attacked, step_schedule=schedule)
        [last] = final(rows_of(recipe, tmp_path))
        assert last["gradients"] == gradients, schedule
    [last] = final(
        rows_of(dataclasses.replace(attacked, step_schedule="random"), tmp_path)
    )
    # One to six steps, and the gradient at which an image that stops is seen to stop.
    assert 6 * (1 + 3.5) < last["gradients"] < 6 * (1 + 4.5 + 0.5)


def test_without_a_threshold_that_is_reached_dynamic_is_standard_bit_for_bit(tmp_path):
    """c_t = 0 and no image at 0: the weights are those of plain PGD training."""
    plain = dataclasses.replace(SMALL, attack="linf 0.1", attack_steps=3, epochs=2)
    dynamic = dataclasses.replace(plain, fosc_max=1e-12)
    one, two = (trained(r, "cpu", tmp_path)[0] for r in (plain, dynamic))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_huge_threshold_leaves_one_step_of_ascent(tmp_path):
    """Two gradients of the attack, the second to see that it may stop, and training's.

    The threshold falls to 0 at 5/6 of training, so that one epoch of six is full.
    """
    recipe = dataclasses.replace(
        SMALL, attack="linf 0.1", attack_steps=4, fosc_max=1e6, epochs=6
    )
    _, _, facts = trained(recipe, "cpu", tmp_path)
    assert facts["gradients"] == 5 * (1 + 2) + 1 * (1 + 4)


def test_the_released_codes_switches_change_the_weights(tmp_path):
    dynamic = dataclasses.replace(
        SMALL, attack="linf 0.1", attack_steps=3, epochs=3, fosc_max=0.05
    )
    losses = {
        str(change): final(rows_of(dataclasses.replace(dynamic, **change), tmp_path))[
            0
        ]["final_train_loss"]
        for change in (
            {},
            {"fosc_from_start": True},
            {"loss_weighted": True},
            {"rate_decay": 0.1},
            {"attack_step": 0.5},
        )
    }
    assert len(set(losses.values())) == 5, losses


def test_fosc_is_watched_where_training_stops_its_attack(tmp_path):
    recipe = dataclasses.replace(
        SMALL, attack="linf 0.1", epochs=2, watch_fosc=True, validation_size=30
    )
    epochs = [r for r in rows_of(recipe, tmp_path) if r["measured"] == "epoch"]
    for row in epochs:
        deciles = [row[f"fosc_d{i}"] for i in range(11)]
        assert deciles == sorted(deciles) and deciles[0] >= -1e-6
        assert deciles[0] <= row["fosc_mean"] <= deciles[-1]
        assert 0 <= row["validation_attack_accuracy"] <= 1
    plain = dataclasses.replace(recipe, watch_fosc=False, validation_size=0)
    one, two = (trained(r, "cpu", tmp_path)[0] for r in (recipe, plain))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)  # looking does not move the weights


def test_bins_share_the_images_and_surrogates_are_trained_once(tmp_path):
    recipe = dataclasses.replace(
        SMALL,
        attack="linf 0.1",
        fosc_bins=4,
        white_box=True,
        surrogate_epochs=1,
    )
    rows = rows_of(recipe, tmp_path)
    bins = [r for r in rows if r["measured"] == "bin"]
    assert len(bins) == 2 * 2 * 4
    last = [r for r in bins if r["pool"] == "last" and r["by"] == "fosc"]
    assert sum(r["images"] for r in last) == 40
    values = [r["value"] for r in last]
    assert values == sorted(values)
    [found] = final(rows)
    climbed = [r for r in rows if r["measured"] == "step"]
    right = sum(r["accuracy"] * r["images"] for r in last) / 40
    strengths = [r for r in rows if r["measured"] == "strength"]
    same = [r for r in strengths if (r["steps_taken"], r["step_radii"]) == (10, 0.25)]
    assert same[0]["accuracy"] == pytest.approx(right)
    assert same[0]["loss_q50"] == pytest.approx(climbed[-1]["loss_q50"])
    for kind in ("natural", "robust"):
        for way in ("fgsm", "pgd10", "pgd20", "cw"):
            assert 0 <= found[f"{kind}_{way}_accuracy"] <= found["natural_accuracy"]
            assert found[f"wang_{way}_accuracy"] <= found["natural_accuracy"]
    names = {r.training_key for r in recipe.surrogates.values()}
    assert names <= {path.stem for path in tmp_path.glob("*.safetensors")}
    dynamic = dataclasses.replace(recipe, fosc_max=0.5, loss_weighted=True)
    assert {r.training_key for r in dynamic.surrogates.values()} == names


def test_the_spectrum_agrees_with_itself_and_with_the_row(tmp_path):
    """On as many images as the table's eigenvalue, Lanczos gives the table's."""
    pytest.importorskip("pyhessian")
    rows = rows_of(dataclasses.replace(SMALL, spectrum_size=60, epochs=2), tmp_path)
    found = [row for row in rows if row["measured"] == "spectrum"]
    values = {row["way"]: row["value"] for row in found if row["of"] == "eigenvalue"}
    [last] = final(rows)
    assert values["Lanczos, 40 images"] == pytest.approx(last["top_eigenvalue"])
    top = values["Lanczos, 40 images"]
    assert values["PyHessian, 40 images"] == pytest.approx(top, rel=0.02)
    assert values["smallest, 40 images"] < top
    assert values["Lanczos, 60 images"] != top
    density = [(r["place"], r["value"]) for r in found if r["of"] == "density"]
    place, value = np.array(density).T
    assert np.trapezoid(value, place) == pytest.approx(1, abs=0.05)


def test_a_recipe_says_what_it_departs_in():
    assert str(Recipe(rho=0.1)) == "Recipe(rho=0.1)"
