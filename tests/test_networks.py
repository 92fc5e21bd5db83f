"""A network is trained once, whatever interrupts it, alone or beside others."""

import copy
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from widemin import data, evaluation, paths, training
from widemin.attacks import TRAINED
from widemin.experiments import checkpoints, epoch_metrics, pool, results, train
from widemin.experiments import epoch_metrics as watches
from widemin.experiments.checkpoints import (
    begun,
    keep_together,
    trained,
)
from widemin.experiments.measure import curvature, parts
from widemin.experiments.recipe import Recipe, grid, stream
from widemin.experiments.running import run
from widemin.experiments.train import family

SMALL = Recipe(train_size=60, batch_size=20, width=8, epochs=3, watch="linf 0.1")
SMALL = dataclasses.replace(SMALL, test_size=40, hessian_size=40)


class StopAt:
    """In place of the event that asks a worker to stop: set at its nth look."""

    def __init__(self, look):
        self.left = look

    def is_set(self):
        self.left -= 1
        return self.left == 0


def weights(model):
    return {k: v for k, v in model.state_dict().items()}


def assert_same(one, two):
    (first, curve, facts), (second, again, counted) = one, two
    assert weights(first).keys() == weights(second).keys()
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name
    assert curve == again
    del facts["train_seconds"], counted["train_seconds"]
    assert facts == counted


CHANGES = {
    "momentum, schedule": {"momentum": 0.9, "schedule": "trapezoid"},
    "adam, augmented": {
        "optimizer": "adam",
        "learning_rate": 0.01,
        "augment": "crop+flip",
    },
    "sam, batch norm": {"rho": 0.1, "model": "cnn4", "width": 0},
    "dynamic": {"attack": "linf 0.1", "fosc_max": 0.5, "ramp": 0.5, "attack_steps": 2},
    "own loss, nudged": {"cross_entropy": "quarter", "nudge": 2},
    "sam, late": {"rho": 0.1, "sam_from": 0.5},
    "an end by loss": {"stop_loss": 2.298},  # in the last step
}


@pytest.mark.parametrize("look", [1, 4, 6, 8])  # of 9 steps, 3 an epoch
@pytest.mark.parametrize("change", CHANGES)
def test_interrupted_training_goes_on_bit_for_bit(tmp_path, monkeypatch, change, look):
    recipe = dataclasses.replace(SMALL, **CHANGES[change])
    whole = trained(recipe, "cpu", tmp_path / "whole")
    folder = tmp_path / "parts"
    monkeypatch.setattr(pool, "stopping", StopAt(look))
    with pytest.raises(pool.Stopped):
        trained(recipe, "cpu", folder)
    [kept] = folder.iterdir()
    assert kept.suffix == ".checkpoint"
    assert begun([SMALL, recipe], folder) == (pytest.approx([look / 9]), 0)
    assert_same(whole, trained(recipe, "cpu", folder))
    [kept] = folder.iterdir()
    assert kept.suffix == ".safetensors" and begun([recipe], folder) == ([], 1)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8])
def test_training_ends_at_the_first_look_at_a_loss_that_is_low_enough(
    tmp_path, monkeypatch, share
):
    """Every third of 30 steps an epoch, on 30 of 60 images: as a plain loop has it."""
    monkeypatch.setattr(train, "LOOKED_AT", 30)
    plain = dataclasses.replace(SMALL, batch_size=2)
    (model, images), seen = (train.build(plain), data.load("digits", "train")), []
    x, y = images.x[:60], images.y[:60]

    def look():
        with torch.no_grad():
            losses = F.cross_entropy(model.eval()(x), y, reduction="none")
        seen.append((float(losses[:30].mean()), copy.deepcopy(weights(model.train()))))

    training.fit(
        model,
        training.SGD(model.parameters(), plain.learning_rate),
        x,
        y,
        epochs=3,
        batch_size=2,
        generator=stream(0, "batches"),
        pause=look,
    )
    low = sorted(loss for loss, _ in seen)[round((1 - share) * 89)] + 1e-6
    step = next(i for i in range(3, 91, 3) if seen[i - 1][0] <= low)
    asked = dataclasses.replace(plain, stop_loss=low)
    network, curve, facts = trained(asked, "cpu", tmp_path / "whole")
    for name, value in seen[step - 1][1].items():
        assert torch.equal(weights(network)[name], value), name
    assert len(curve) == (step - 1) // 30
    assert facts["stopped_epoch"] == facts["gradients"] == pytest.approx(step / 30)
    whole = network, curve, facts
    for look in {1, step // 2, step - 1}:
        folder = tmp_path / f"parts {look}"
        monkeypatch.setattr(pool, "stopping", StopAt(look))
        with pytest.raises(pool.Stopped):
            trained(asked, "cpu", folder)
        facts["train_seconds"] = 0.0
        assert_same(whole, trained(asked, "cpu", folder))


def test_a_loss_never_reached_stops_nothing_and_moves_nothing(tmp_path):
    """Nor does looking at it: dropout and batch norm are as without."""
    plain = dataclasses.replace(SMALL, model="cnn4", width=0, epochs=2)
    asked = dataclasses.replace(plain, stop_loss=1e-9)
    one, two = (trained(r, "cpu", tmp_path) for r in (plain, asked))
    assert_same(one, two)
    assert "stopped_epoch" not in two[2]
    rows = run(asked, device="cpu", weights=tmp_path)
    assert all("stopped_epoch" not in row for row in rows)


def test_epochs_are_chosen_on_images_that_training_never_sees():
    """The validation part; where training takes that too, the last test images."""
    watching = dataclasses.replace(SMALL, test_size=60, validation_size=20)
    official = data.DATASETS["digits"].train
    greedy = dataclasses.replace(watching, train_size=official)
    x, _ = epoch_metrics.held_out(watching, "cpu")
    torch.testing.assert_close(x, data.load("digits", "validation", size=20).x)
    x, _ = epoch_metrics.held_out(greedy, "cpu")
    torch.testing.assert_close(x, data.load("digits", "test").x[-20:])
    model = train.build(watching)
    row = watches.watcher(watching, "cpu")(model, 1)
    right = evaluation.correct(model, *epoch_metrics.held_out(watching, "cpu"))
    assert row["validation_natural_accuracy"] == right.double().mean()
    assert row["validation_fgsm_accuracy"] <= row["validation_natural_accuracy"]
    assert (
        row["images"] == data.DATASETS["digits"].test
    )  # whatever is measured in the end


def test_dropout_goes_on_bit_for_bit_and_repeats(tmp_path, monkeypatch):
    def dropping(recipe):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()

    monkeypatch.setattr("widemin.experiments.checkpoints.build", dropping)
    state = torch.get_rng_state()
    whole = trained(SMALL, "cpu", tmp_path / "whole")
    torch.rand(7)  # whatever else draws
    monkeypatch.setattr(pool, "stopping", StopAt(5))
    with pytest.raises(pool.Stopped):
        trained(SMALL, "cpu", tmp_path / "parts")
    torch.rand(7)
    assert_same(whole, trained(SMALL, "cpu", tmp_path / "parts"))
    torch.set_rng_state(state)


def test_long_training_is_kept_as_it_goes(tmp_path, monkeypatch):
    """What a kill leaves behind is the last checkpoint; the next call goes on."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    whole = trained(SMALL, "cpu", tmp_path / "whole")
    saved = []

    def die_at_the_fifth(self, path):
        if len(saved) == 5:
            raise SystemExit  # as abrupt as a test can be: nothing is cleaned up
        saved.append(path)
        keep(self, path)

    keep = train._Progress.save
    monkeypatch.setattr(train._Progress, "save", die_at_the_fifth)
    with pytest.raises(SystemExit):
        trained(SMALL, "cpu", tmp_path / "parts")
    monkeypatch.setattr(train._Progress, "save", keep)
    steps = []
    original = training.train_step

    def count(*args, **kwargs):
        steps.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", count)
    assert_same(whole, trained(SMALL, "cpu", tmp_path / "parts"))
    assert len(steps) == 9 - 5


@pytest.mark.parametrize("content", [b"", b"PK nonsense", None])
def test_a_broken_checkpoint_is_set_aside(tmp_path, monkeypatch, content):
    whole = trained(SMALL, "cpu", tmp_path / "whole")
    monkeypatch.setattr(pool, "stopping", StopAt(5))
    with pytest.raises(pool.Stopped):
        trained(SMALL, "cpu", tmp_path)
    [path] = tmp_path.glob("*.checkpoint")
    path.write_bytes(path.read_bytes()[:-400] if content is None else content)
    with pytest.warns(UserWarning, match=f"{path.name} is not a checkpoint"):
        found = trained(SMALL, "cpu", tmp_path)
    assert_same(whole, found)
    assert len(list(tmp_path.glob("*.broken"))) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\nsize 18748\n")


def without_notes(path):
    save_file(load_file(path), path)


def other_shape(path):
    """A layer more, as a later version may build it."""
    state = load_file(path) | {"extra.weight": torch.zeros(3)}
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    save_file(state, path, metadata=notes)


def other_facts(path):
    state = load_file(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata() | {"training": '{"curve": [], "facts": {}}'}
    save_file(state, path, metadata=notes)


def other_seed(path):
    trained(dataclasses.replace(SMALL, seed=1), "cpu", path.parent / "other")
    [other] = (path.parent / "other").glob("*.safetensors")
    path.write_bytes(other.read_bytes())


BREAKS = [cut, pointer, without_notes, other_shape, other_facts, other_seed]


@pytest.mark.parametrize("broken", BREAKS)
def test_a_network_that_is_not_the_recipes_is_set_aside(tmp_path, broken):
    """Cut short, of another version, of another recipe: trained again."""
    weights = tmp_path / "weights"
    whole = trained(SMALL, "cpu", weights)
    [path] = weights.iterdir()
    broken(path)
    content = path.read_bytes()
    with pytest.warns(UserWarning, match="set aside") as warned:
        again = trained(SMALL, "cpu", weights)
    assert len(warned) == 1 and str(path) in str(warned[0].message)
    assert_same(whole, again)
    assert path.with_suffix(".broken").read_bytes() == content
    assert trained(SMALL, "cpu", weights)[1] == again[1]  # kept, without a word


def test_a_folder_in_place_of_a_file_is_set_aside(tmp_path):
    path = tmp_path / f"{SMALL.training_key}.safetensors"
    path.mkdir()
    with pytest.warns(UserWarning, match=r"it is a folder.*set aside"):
        trained(SMALL, "cpu", tmp_path)
    assert path.is_file() and path.with_suffix(".broken").is_dir()
    path = tmp_path / "runs" / f"{SMALL.key}.json"
    path.mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"Is a directory.*set aside"):
        assert results.missing([SMALL], tmp_path) == [SMALL]


@pytest.mark.parametrize("broken", [cut, pointer, without_notes, other_shape])
def test_a_broken_published_network_is_set_aside(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(paths, "NETWORKS", tmp_path / "book")
    whole = trained(SMALL, "cpu", tmp_path)
    checkpoints.publish([SMALL], tmp_path)
    [path] = (tmp_path / "book").iterdir()
    broken(path)
    (tmp_path / "book" / f"._{path.name}").write_bytes(b"Mac OS X")
    [name] = checkpoints.published()
    with pytest.raises(ValueError, match=rf"{path.name} must be a network; got"):
        checkpoints.load(name)
    with pytest.warns(UserWarning, match="set aside"):
        assert_same(whole, trained(SMALL, "cpu", tmp_path / "elsewhere"))
    assert not checkpoints.published()
    assert path.with_suffix(".broken").exists()


def test_a_broken_network_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NETWORKS", tmp_path / "book")
    trained(SMALL, "cpu", tmp_path / "weights")
    [path] = (tmp_path / "weights").iterdir()
    cut(path)
    with pytest.warns(UserWarning, match="set aside"):
        assert checkpoints.publish([SMALL], tmp_path / "weights") == []


def test_a_network_may_say_what_this_version_no_longer_asks(tmp_path, monkeypatch):
    """A field that is gone, and stood at its default, is in no key."""
    whole = trained(SMALL, "cpu", tmp_path)
    [path] = tmp_path.iterdir()
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    notes["recipe"] = notes["recipe"].replace("{", '{"gone": 0, ', 1)
    save_file(load_file(path), path, metadata=notes)
    monkeypatch.setattr(checkpoints, "train", None)
    assert_same(whole, trained(SMALL, "cpu", tmp_path))


OTHERS = {
    "without a part": lambda state: state.pop("generators"),
    "of another version": lambda state: state["position"].update(half=1),
    "of another optimiser": lambda state: state["optimizer"].clear(),
    "of another shape": lambda state: state["model"].update(extra=torch.zeros(1)),
    "of another training": lambda state: state.update(key="0123456789abcdef"),
    "of nothing": lambda state: state.clear(),
}


@pytest.mark.parametrize("change", OTHERS)
def test_a_checkpoint_that_does_not_fit_is_set_aside(tmp_path, monkeypatch, change):
    """And nothing of it is left in the training that begins anew."""
    recipe = dataclasses.replace(SMALL, **CHANGES["momentum, schedule"])
    whole = trained(recipe, "cpu", tmp_path / "whole")
    folder = tmp_path / "parts"
    monkeypatch.setattr(pool, "stopping", StopAt(5))
    with pytest.raises(pool.Stopped):
        trained(recipe, "cpu", folder)
    [path] = folder.iterdir()
    state = torch.load(path)
    OTHERS[change](state)
    torch.save(state, path)
    assert 0 <= begun([recipe], folder)[0][0] < 1  # `widemin status` says so much
    with pytest.warns(UserWarning, match="is not a checkpoint of this network"):
        assert_same(whole, trained(recipe, "cpu", folder))
    assert path.with_suffix(".broken").exists()


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def full(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("widemin.experiments.checkpoints.save_file", full)
        with pytest.raises(OSError, match="No space"):
            trained(SMALL, "cpu", tmp_path)
    assert not list(tmp_path.iterdir())
    assert trained(SMALL, "cpu", tmp_path)[2]["diverged"] is False


@pytest.fixture
def pictures(monkeypatch):
    """Images large enough for M1, learnable, in place of any data set: 120 a part."""

    def load(name, part, *, size, device):
        size = min(size, 120)
        draw = torch.Generator().manual_seed(len(part))
        y = torch.randint(10, (size,), generator=draw)
        x = torch.rand(size, 1, 28, 28, generator=draw) / 2
        x[torch.arange(size), 0, 2 * y] += 0.5
        names = tuple("0123456789")
        return data.Images(x.to(device), y.to(device), names)

    monkeypatch.setattr(data, "load", load)


BASE = dataclasses.replace(SMALL, dataset="mnist", model="m1", width=0, batch_size=16)
BASE = dataclasses.replace(BASE, schedule="halve-20")


def test_networks_trained_together_are_those_trained_alone(tmp_path, pictures):
    base = dataclasses.replace(BASE, validation_size=50)
    recipes = grid(base, seed=[0, 1], learning_rate=[0.01, 0.1])
    recipes.append(dataclasses.replace(base, momentum=0.9, weight_decay=1e-3))
    recipes.append(dataclasses.replace(base, learning_rate=1e20))
    keep_together(recipes, "cpu", tmp_path / "together")
    for recipe in recipes:
        one, curve, facts = trained(recipe, "cpu", tmp_path / "alone")
        two, again, counted = trained(recipe, "cpu", tmp_path / "together")
        assert facts["diverged"] == counted["diverged"] == (recipe.learning_rate > 1)
        if facts["diverged"]:
            continue
        assert facts["gradients"] == counted["gradients"] == 3
        for name, value in weights(one).items():
            torch.testing.assert_close(value, weights(two)[name], atol=1e-5, rtol=0)
        for row, other in zip(curve, again, strict=True):
            assert row == pytest.approx(other, abs=1e-4)


def test_a_network_that_overflows_ends_alone(tmp_path, pictures):
    """In its last step: the loss of the epoch is finite, what the watch sees is not."""
    one_step = dataclasses.replace(BASE, batch_size=BASE.train_size, epochs=2)
    rates = [0.1, 3e38, 0.01]
    recipes = grid(one_step, learning_rate=rates)
    keep_together(recipes, "cpu", tmp_path)
    found = [trained(recipe, "cpu", tmp_path) for recipe in recipes]
    assert [facts["diverged"] for _, _, facts in found] == [False, True, False]
    assert [len(curve) for _, curve, _ in found] == [2, 0, 2]


def test_training_together_goes_on_where_it_was(tmp_path, pictures, monkeypatch):
    recipes = grid(BASE, seed=[0, 1])
    keep_together(recipes, "cpu", tmp_path / "whole")
    monkeypatch.setattr(pool, "stopping", StopAt(2))
    with pytest.raises(pool.Stopped):
        keep_together(recipes, "cpu", tmp_path / "parts")
    [kept] = (tmp_path / "parts").iterdir()
    assert kept.suffix == ".group"
    keep_together(recipes, "cpu", tmp_path / "parts")
    for recipe in recipes:
        found = [trained(recipe, "cpu", tmp_path / p) for p in ("whole", "parts")]
        assert_same(*found)
    assert len(list((tmp_path / "parts").iterdir())) == 2


def test_one_process_trains_the_networks_of_a_group_and_others_wait(
    tmp_path, pictures, monkeypatch
):
    recipes = grid(BASE, seed=[0, 1, 2])
    groups, under_way = [], threading.Barrier(2, timeout=60)

    def counted(group, *rest):
        groups.append(group)
        under_way.wait()  # until the other process asks, too
        return train.train_together(group, *rest)

    def second():
        under_way.wait()
        return trained(recipes[1], "cpu", tmp_path, recipes)

    monkeypatch.setattr(checkpoints, "train_together", counted)
    with ThreadPoolExecutor() as threads:
        other = threads.submit(second)
        first = trained(recipes[0], "cpu", tmp_path, recipes)
    assert groups == [recipes]
    for recipe, found in zip(recipes, (first, other.result()), strict=False):
        assert_same(found, trained(recipe, "cpu", tmp_path))


def test_a_broken_checkpoint_of_many_is_set_aside(tmp_path, pictures, monkeypatch):
    recipes = grid(BASE, seed=[0, 1])
    monkeypatch.setattr(pool, "stopping", StopAt(2))
    with pytest.raises(pool.Stopped):
        keep_together(recipes, "cpu", tmp_path)
    [path] = tmp_path.glob("*.group")
    state = torch.load(path)
    del state["velocity"]
    torch.save(state, path)
    with pytest.warns(UserWarning, match=r"\.group is not a checkpoint"):
        keep_together(recipes, "cpu", tmp_path)
    keep_together(recipes, "cpu", tmp_path / "whole")
    for recipe in recipes:
        folders = (tmp_path / "whole", tmp_path)
        assert_same(*(trained(recipe, "cpu", folder) for folder in folders))


def test_only_what_differs_in_rates_and_seeds_is_trained_together():
    def fits(**change):
        return family(dataclasses.replace(BASE, **change)) == family(BASE) is not None

    assert fits(seed=3) and fits(learning_rate=1.0) and fits(momentum=0.5)
    assert fits(tests=("linf 0.2",))  # measured otherwise, trained alike
    assert not fits(batch_size=8) and not fits(epochs=4) and not fits(watch="")
    sam = dataclasses.replace(BASE, rho=0.1)
    assert family(sam) is None
    mlp = dataclasses.replace(BASE, model="mlp")
    assert family(mlp) is None
    alone = ({"label_smoothing": 0.1}, {"stop_loss": 0.1}, {"nudge": 1})
    for change in (*alone, *({"cross_entropy": name} for name in TRAINED)):
        plain = change == {"cross_entropy": "logits"}
        assert (family(dataclasses.replace(BASE, **change)) is not None) == plain


@pytest.mark.gpu
def test_on_a_gpu_a_run_trains_its_peers_beside_it(tmp_path, pictures):
    recipes = grid(BASE, seed=[0, 1])
    rows = run(recipes[0], device="cuda", weights=tmp_path, peers=recipes)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    alone = run(recipes[0], device="cpu", weights=tmp_path / "cpu")
    assert rows[0]["train_loss"] == pytest.approx(alone[0]["train_loss"], rel=1e-4)


def test_streams_of_one_seed_differ():
    names = ["weights", "batches", "augment", "attack", "dropout"]
    assert len({stream(0, name).initial_seed() for name in names}) == len(names)


def test_a_published_network_is_found_under_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NETWORKS", tmp_path / "book")
    model, curve, facts = trained(SMALL, "cpu", tmp_path)
    other = dataclasses.replace(SMALL, seed=1)  # never trained
    [file] = checkpoints.publish([SMALL, other], tmp_path)
    [name] = checkpoints.published()
    assert (
        file
        == f"{name}.safetensors"
        == "digits-mlp-sgd-b20-lr0.1-60x3-seed0.safetensors"
    )
    found = checkpoints.load(name)
    assert not found.training
    x = data.load("digits", "test", size=5).x
    assert torch.equal(found(x), model.eval()(x))
    with pytest.raises(ValueError, match="unknown name 'resnet'; known: digits-mlp"):
        checkpoints.load("resnet")

    def never(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(checkpoints, "train", never)
    again = trained(SMALL, "cpu", tmp_path / "elsewhere")
    assert again[1:] == (curve, facts)


def test_a_published_network_stands_in_for_nothing_else(tmp_path, monkeypatch):
    """The name leaves much out; the recipe inside does not."""
    monkeypatch.setattr(paths, "NETWORKS", tmp_path / "book")
    trained(SMALL, "cpu", tmp_path)
    checkpoints.publish([SMALL], tmp_path)
    wider = dataclasses.replace(SMALL, width=9)
    model, _, _ = trained(wider, "cpu", tmp_path / "elsewhere")
    assert sum(p.numel() for p in model.parameters()) != sum(
        p.numel() for p in checkpoints.load(checkpoints.published()[0]).parameters()
    )


EVERYTHING = dataclasses.replace(
    SMALL,
    attack="linf 0.1",
    attack_steps=2,
    tests=("linf 0.1", "l2 0.5"),
    pgd_steps=2,
    strong_size=10,
    strong_attacks=("restarts", "float64", "distance"),
    width_size=10,
    scale_free_size=10,
    line_size=10,
    spectrum_size=40,
    brief_epochs=1,
    fosc_bins=2,
    white_box=True,
    surrogate_epochs=1,
    pictures=2,
)


def rows_of(recipe, folder):
    rows = run(recipe, device="cpu", weights=folder)
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


def test_a_measurement_stopped_before_every_part_gives_the_same_rows(
    tmp_path, monkeypatch
):
    whole = rows_of(EVERYTHING, tmp_path)
    stops = 0
    while True:
        # The first part that is not there is measured, the second is not begun.
        monkeypatch.setattr(pool, "stopping", StopAt(2))
        try:
            rows = rows_of(EVERYTHING, tmp_path)
            break
        except pool.Stopped:
            stops += 1
            assert [path.stem for path in tmp_path.glob("*.measured")] == [
                EVERYTHING.key
            ]
    # Five of the network; in each of two sets thirteen: attacks, strong ones, those
    # made on others; seven kinds of rows beside. The last is followed by none.
    planned = 5 + 2 * (7 + 2 + 1 + 3) + 7
    assert stops == planned - 1
    assert rows == whole
    assert not list(tmp_path.glob("*.measured"))


def test_a_measurement_that_is_killed_loses_the_part_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "KEPT_SECONDS", -1)  # keep at once
    measured = []

    def dies_at_the_second(model, recipe, device):
        measured.append("width")
        if len(measured) == 2:
            raise SystemExit
        return {}

    def counted(model, recipe, device):
        measured.append("curvature")
        return {}

    counted.__name__, dies_at_the_second.__name__ = "curvature", "width"
    monkeypatch.setattr(curvature, "curvature_values", counted)
    monkeypatch.setattr(curvature, "width_values", dies_at_the_second)
    with pytest.raises(SystemExit):
        rows_of(SMALL, tmp_path)
    rows_of(SMALL, tmp_path)
    assert measured == ["curvature", "width", "width"]
