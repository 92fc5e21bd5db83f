"""The package alone, beside torch, numpy and scipy: science runs, commands say no."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_own_network import BLOCKS
from widemin import paths

# Hides the modules named in the first argument, runs the code in the second.
HARNESS = """
import json, sys
hidden = set(json.loads(sys.argv[1]))

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in hidden:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
code, sys.argv = sys.argv[2], ["widemin", *sys.argv[3:]]
exec(code)
"""


def needed(*names):
    """Return the distributions that some take, with those that they take in turn."""
    found, todo = set(), list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        wanted = map(Requirement, lines)
        todo += [r.name for r in wanted if not r.marker or r.marker.evaluate()]
    return found


@pytest.fixture
def alone(tmp_path):
    """Run code where the package lies as a wheel unpacks it, and little beside it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(paths.ROOT / "widemin", tmp_path / "widemin", ignore=ignored)

    def run(code, *arguments, more=()):
        there = needed("torch", "numpy", "scipy", *more)
        hidden = [
            module
            for module, owners in metadata.packages_distributions().items()
            if not {canonicalize_name(owner) for owner in owners} & there
            and module != "widemin"
        ]
        assert {"pandas", "torchvision"} <= {*hidden, *more}
        call = [sys.executable, "-c", HARNESS, json.dumps(hidden), code, *arguments]
        return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_a_report_needs_torch_numpy_and_scipy_alone(alone):
    done = alone("""
import torch, widemin
from widemin import attacks, evaluation, hessian, landscape, models, training
model = models.build("mlp", torch.Generator().manual_seed(0), shape=(1, 4, 4))
x, y = torch.rand(20, 1, 4, 4), torch.arange(20) % 10
step = training.train_step(model, training.SGD(model.parameters(), 0.1), x, y)
print(hessian.top_eigenvalues(model, x, y, generator=torch.Generator()))
print(evaluation.report(model, x, y, attacks.Linf(0.1)))
""")
    assert done.returncode == 0, done.stderr
    assert re.search(r"worst case accuracy +\d\.\d{3}", done.stdout)


def test_the_page_for_a_network_of_ones_own_needs_no_more(alone):
    """Every block of it that does not say that it does."""
    blocks = "\n".join(text for need, text, _ in BLOCKS if not need)
    done = alone(blocks)
    assert done.returncode == 0, done.stderr
    assert "worst case accuracy" in done.stdout and "AutoAttack" not in done.stdout


MAIN = "from widemin.__main__ import main; main()"
OWN = ("click", "pandas", "pyyaml", "filelock", "platformdirs")


@pytest.mark.parametrize(
    ("more", "said"), [((), "click must be installed"), (OWN, "a checkout")]
)
def test_a_command_that_lacks_something_says_so_in_one_line(alone, more, said):
    done = alone(MAIN, "run", "03", more=more)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr
