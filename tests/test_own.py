"""A network that a user wrote: imported, checked, keyed by its file, run by workers."""

import importlib
import pickle

import pytest
import torch
from click.testing import CliRunner

from widemin import models, paths
from widemin.cli import main
from widemin.experiments import own, results, running
from widemin.experiments.recipe import Recipe

NETS = """
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

number = 3
"""
TINY = {"train_size": 40, "batch_size": 20, "test_size": 20, "hessian_size": 20}


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The file of a module `own_nets` that this process and workers can import."""
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "none")
    forget(monkeypatch)
    yield tmp_path / "own_nets.py"
    forget(monkeypatch)


def forget(monkeypatch):
    """As in a new process."""
    for name in [name for name in models.BUILDERS if ":" in name]:
        del models.BUILDERS[name]
    own.imported.cache_clear()
    importlib.invalidate_caches()
    monkeypatch.delitem(importlib.sys.modules, "own_nets", raising=False)


def test_workers_run_a_network_of_ones_own(nets, tmp_path):
    recipes = [Recipe(model="own_nets:build", seed=s, **TINY) for s in range(2)]
    run = running.runner("cpu", tmp_path)
    table = results.collect(recipes, run, tmp_path, workers=2)
    assert table.attrs["done"] == 2, table.to_dict("records")
    assert set(table["model"]) == {"own_nets:build"}
    again = running.run(recipes[0], device="cpu", weights=tmp_path / "elsewhere")
    final = table[(table["measured"] == "final") & (table["seed"] == 0)].iloc[0]
    assert again[-1]["final_train_loss"] == final["final_train_loss"]


def test_a_changed_file_is_a_new_key(nets, tmp_path, monkeypatch):
    plain, mine = Recipe(**TINY), Recipe(model="own_nets:build", **TINY)
    known = plain.key, mine.key, mine.training_key
    sent = pickle.dumps(mine)
    nets.write_text(NETS + "# a change\n")
    assert Recipe(model="own_nets:build", **TINY).key == mine.key  # code is the old one
    forget(monkeypatch)
    changed = Recipe(model="own_nets:build", **TINY)
    assert changed.key != known[1] and changed.training_key != known[2]
    assert Recipe(**TINY).key == known[0]
    late = pickle.loads(sent)  # as a worker has it that starts after the change
    assert late.key == known[1]
    with pytest.raises(ValueError, match="must stay as it was when the recipe"):
        running.run(late, device="cpu", weights=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_nets:no", "got 'own_nets:no' (AttributeError: module 'own_nets' has no"),
        ("own_nets:number", "(TypeError: number cannot be called)"),
        ("no_such_nets:build", "got 'no_such_nets:build' (FileNotFoundError"),
        ("own_nets:few", "logits of shape (2, 10); got TypeError: logits of shape"),
        ("own_nets:none", "must return a module that gives two images"),
        (":", "must be a function to import, like 'mine.nets:build'; got ':'"),
    ],
)
def test_what_is_no_network_is_named_in_a_line(nets, name, message):
    with pytest.raises(ValueError) as raised:
        Recipe(model=name, **TINY)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_width_is_handed_on_and_weights_are_seeded(nets):
    own.registered(model="own_nets:build")

    def built(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        network = models.build("own_nets:build", generator, shape=(1, 8, 8), **options)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(built(0), built(0)) and not torch.equal(built(0), built(1))
    assert len(built(0, width=3)) == 64 * 3 + 3 + 3 * 10 + 10


def test_the_command_refuses_what_is_no_network_in_a_line(nets):
    command = ["run", "01", "--preset", "smoke", "-p", "model", "own_nets:few"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and done.output.count("\n") == 1
    assert "must return a module that gives two images" in done.output
