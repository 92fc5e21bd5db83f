"""What a user wrote: imported, checked, keyed by its file, run by workers."""

import importlib
import pickle

import pytest
import torch
from click.testing import CliRunner

from widemin import data, models, paths
from widemin.cli import main
from widemin.experiments import own, results, running
from widemin.experiments.measure import measure
from widemin.experiments.recipe import Recipe

MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes, width=8):
        super().__init__()
        self.hidden = nn.Linear(shape[0] * shape[1] * shape[2], width)
        self.out = nn.Linear(width, classes)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x.flatten(1))))

def build(shape, classes, **options):
    return Net(shape, classes, **options)

def few(shape, classes):
    return Net(shape, classes - 1)

def none(shape):
    return None

def load(part):
    images = {"train": 50, "test": 30}[part]
    y = torch.arange(images) % 3
    x = torch.rand(images, 2, 4, 4, generator=torch.Generator().manual_seed(images))
    x[torch.arange(images), 0, y, y] = 1.0
    return (255 * x).byte(), y

def dark(part):
    x, y = load(part)
    return x.float(), y

def unlike(part):
    x, y = load(part)
    return (x if part == "train" else x[:, :1]), y

def push(model, x, y, ball, generator):
    away = torch.rand(x.shape, generator=generator).to(x)
    return (x + ball.epsilon * (2 * away - 1).sign()).clamp(0, 1)

def beyond(model, x, y, ball, generator):
    return 1 - x

number = 3
"""
TINY = {"train_size": 40, "batch_size": 20, "test_size": 20, "hessian_size": 20}
OWN = {"model": "mine_here:build", "dataset": "mine_here:load"}
OWN |= {"own_attack": "mine_here:push"}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The file of a module that this process and workers can import."""
    (tmp_path / "mine_here.py").write_text(MINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "none")
    forget(monkeypatch)
    yield tmp_path / "mine_here.py"
    forget(monkeypatch)


def forget(monkeypatch):
    """As in a new process."""
    for known in (models.BUILDERS, data.DATASETS):
        for name in [name for name in known if ":" in name]:
            del known[name]
    own.imported.cache_clear()
    importlib.invalidate_caches()
    monkeypatch.delitem(importlib.sys.modules, "mine_here", raising=False)


def test_workers_run_what_is_ones_own(mine, tmp_path):
    recipes = [Recipe(seed=s, **OWN, **TINY) for s in range(2)]
    run = running.runner("cpu", tmp_path)
    table = results.collect(recipes, run, tmp_path, workers=2)
    assert table.attrs["done"] == 2, table.to_dict("records")
    for name, value in OWN.items():
        assert set(table[name]) == {value}
    again = running.run(recipes[0], device="cpu", weights=tmp_path / "elsewhere")
    final = table[(table["measured"] == "final") & (table["seed"] == 0)].iloc[0]
    for column in ("final_train_loss", "own_accuracy", "worst_accuracy"):
        assert again[-1][column] == final[column]
    assert final["worst_accuracy"] <= final["own_accuracy"]


@pytest.mark.slow
def test_dasks_workers_run_what_is_ones_own(mine, tmp_path):
    from distributed import LocalCluster

    asked, run = Recipe(**OWN, **TINY), running.runner("cpu", tmp_path)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as here:
        address = here.scheduler_address
        table = results.collect([asked], run, tmp_path, cluster=address)
    assert table.attrs["done"] == 1, table.to_dict("records")
    assert set(table["own_attack"]) == {"mine_here:push"}


def test_the_command_finds_the_rows_of_what_is_ones_own(mine, tmp_path, monkeypatch):
    """Twice the same: nothing is computed; a changed file: all of it is."""
    command = ["run", "04", "--rows-only", "--workers", "1", "--results", str(tmp_path)]
    changes = {name.removeprefix("own_"): value for name, value in OWN.items()}
    changes |= {"batch_sizes": "[20]", "momenta": "[0.9]", "epsilons": "[0.1]"}
    changes |= {"epochs": "1", "train_size": "40", "test_size": "20"}
    changes |= {"hessian_size": "10", "strong_size": "0"}
    for name, value in changes.items():
        command += ["-p", name, value]

    def computed():
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        rows = (tmp_path / "runs").glob("*.json")
        return {path.name: path.stat().st_mtime_ns for path in rows}

    first = computed()
    assert len(first) > 3 and computed() == first
    mine.write_text(MINE + "# a change\n")
    forget(monkeypatch)
    third = computed()
    assert first.items() <= third.items() and len(third) == 2 * len(first)


def test_a_changed_file_is_a_new_key(mine, tmp_path, monkeypatch):
    plain, ours = Recipe(**TINY), Recipe(model="mine_here:build", **TINY)
    known = plain.key, ours.key, ours.training_key
    sent = pickle.dumps(ours)
    mine.write_text(MINE + "# a change\n")
    assert (
        Recipe(model="mine_here:build", **TINY).key == ours.key
    )  # code is the old one
    forget(monkeypatch)
    changed = Recipe(model="mine_here:build", **TINY)
    assert changed.key != known[1] and changed.training_key != known[2]
    assert Recipe(**TINY).key == known[0]
    late = pickle.loads(sent)  # as a worker has it that starts after the change
    assert late.key == known[1]
    with pytest.raises(ValueError, match="must stay as it was when the recipe"):
        running.run(late, device="cpu", weights=tmp_path)


@pytest.mark.parametrize(
    ("field", "name", "message"),
    [
        ("model", "mine_here:no", "got AttributeError: module 'mine_here' has no"),
        ("model", "mine_here:number", "got TypeError: number cannot be called"),
        ("model", "nobodys:build", "model 'nobodys:build' must be"),
        ("model", "mine_here:few", "of shape (2, 10); got TypeError: logits of shape"),
        ("model", "mine_here:none", "must return a module that gives two images"),
        (
            "model",
            ":",
            "model ':' must be a function to import, like 'mine.nets:build'",
        ),
        ("dataset", "mine_here:none", "and 'test'; got TypeError"),
        (
            "dataset",
            "mine_here:dark",
            "got ValueError: torch.float32 from 0.0 to 255.0",
        ),
        ("dataset", "mine_here:unlike", "got ValueError: test images of shape (1, 4, "),
        ("own_attack", "mine_here:number", "got TypeError: number cannot be called"),
        ("own_attack", "pgd", "must be a function to import, like 'mine.attacks:run'"),
    ],
)
def test_what_is_none_is_named_in_a_line(mine, field, name, message):
    with pytest.raises(ValueError) as raised:
        Recipe(**{field: name}, **TINY)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_data_set_has_its_parts_and_pixels(mine):
    Recipe(dataset="mine_here:load", **TINY)
    record = data.DATASETS["mine_here:load"]
    assert (record.train, record.held_out, record.test) == (50, 5, 30)
    assert (record.shape, record.classes) == ((2, 4, 4), 3)
    whole = data.load("mine_here:load", "train", size=50)
    held = data.load("mine_here:load", "validation")
    assert torch.equal(whole.x[45:], held.x) and torch.equal(whole.y[45:], held.y)
    assert whole.x.max() == 1 and whole.x.dtype == torch.float32
    with pytest.raises(
        ValueError, match="train_size must be at least 1 and at most 50"
    ):
        Recipe(dataset="mine_here:load", train_size=51)


def test_an_attack_is_made_in_each_set_and_held_to_it(mine):
    model = models.build("mlp", torch.Generator().manual_seed(0), shape=(1, 8, 8))
    asked = Recipe(own_attack="widemin.attacks:pgd", tests=("l2 0.5", "linf 0.3"))
    rows = measure(model, asked, "cpu", only={"attacks"})
    assert [row["own_accuracy"] <= row["fgsm_accuracy"] for row in rows] == [True] * 2
    assert asked.training_key == Recipe().training_key and asked.key != Recipe().key
    with pytest.raises(ValueError, match="mine_here:beyond must stay in Linf"):
        measure(model, Recipe(own_attack="mine_here:beyond"), "cpu", only={"attacks"})


def test_a_width_is_handed_on_and_weights_are_seeded(mine):
    Recipe(model="mine_here:build", **TINY)

    def built(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        network = models.build("mine_here:build", generator, shape=(1, 8, 8), **options)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(built(0), built(0)) and not torch.equal(built(0), built(1))
    assert len(built(0, width=3)) == 64 * 3 + 3 + 3 * 10 + 10


def test_the_command_refuses_what_is_no_network_in_a_line(mine):
    command = ["run", "01", "--preset", "smoke", "-p", "model", "mine_here:few"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and done.output.count("\n") == 1
    assert "must return a module that gives two images" in done.output
