"""The command answers bad input with one line and status 2, and nothing is lost."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import widemin
from widemin import paths
from widemin.book import notebooks
from widemin.cli import main
from widemin.cli import run as run_command
from widemin.cli.run import alone
from widemin.experiments import progress, provenance, results


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the command with results and pages in folders of the test's own."""
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")

    def call(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "06"], "unknown chapter '06'"),
        (
            ["run", "01", "--preset", "lap"],
            "unknown preset 'lap' (did you mean 'lab'?)",
        ),
        (
            ["run", "01", "-p", "epoch", "3"],
            "(did you mean 'epochs'?); known: dataset,",
        ),
        (
            ["run", "01", "-p", "epochs", "2.5"],
            "epochs must be a whole number of at least 0, e.g. 3",
        ),
        (["run", "01", "-p", "seeds", "yes"], "seeds must be a whole number"),
        (
            ["run", "02", "-p", "rhos", "a"],
            "rhos must be a list of at least one value, like [0.1, 0.2, 0.4]",
        ),
        (["run", "01", "-p", "epsilon", "-1"], "epsilon must be finite, at least 0"),
        (["run", "01", "-p", "epochs", "0"], "epochs must be at least 1; got 0"),
        (["run", "01", "-p", "model", "m2"], "unknown model 'm2'"),
        (["run", "01", "-p", "dataset", "x"], "unknown dataset 'x'"),
        (["run", "01", "-p", "batch_sizes", "[9999]"], "batch_size must be at most"),
        (["run", "01", "-p", "results_dir", "x"], "must be given as --results"),
        (["run", "01", "-p", "device", "cuda"], "must be given as --device"),
        (["run", "04", "-p", "seeds", "0"], "must leave a run to compute; got seeds 0"),
        (["run", "01", "--device", "gpu"], "unknown device 'gpu'"),
        (["run", "01", "--workers", "-1"], "workers must be at least 0; got -1"),
        (["run", "all", "-p", "epoch", "3"], "did you mean 'epochs'?"),
        (
            ["run", "00", "--rows-only"],
            "00_primer must come without -p and --rows-only",
        ),
        (["run", "00", "-p", "epochs", "3"], "it has no runs; got -p epochs 3"),
        (["run", "00", "--preset", "lap"], "unknown preset 'lap'"),
        (["data", "minst"], "unknown dataset 'minst' (did you mean 'mnist'?)"),
        (["status", "--preset", "lap"], "unknown preset 'lap'"),
        (["publish", "07"], "unknown chapter '07'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(call, tmp_path, arguments, message):
    if arguments[0] == "run":
        arguments = [*arguments, "--results", tmp_path / "rows"]
    found = call(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "rows").exists() and not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    "words",
    [["00"], ["0", "--preset", "paper"], ["00_primer", "--pages-only"]],
    ids=" ".join,
)
def test_the_primer_is_drawn_and_computes_nothing(call, tmp_path, monkeypatch, words):
    drawn = []
    monkeypatch.setattr(run_command, "draw", lambda *arguments: drawn.append(arguments))
    rows = tmp_path / "rows"
    found = call("run", *words, "--results", rows)
    assert found.exit_code == 0, found.stderr
    assert drawn == [("book", [("00_primer", {})], rows)]
    assert found.stderr == "" and not rows.exists()


def test_the_site_is_drawn_with_the_primer_first(call, monkeypatch):
    drawn = []
    monkeypatch.setattr(run_command, "draw", lambda *given, **more: drawn.append(given))
    for edition in ("site", "book"):
        assert call("book", "--edition", edition).exit_code == 0
    (_, site, _), (_, book, _) = drawn
    assert [name for name, _ in site] == notebooks.pages() and book == []


def test_cuda_without_a_gpu(call):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = call("run", "01", "--device", "cuda")
    assert found.exit_code == 2 and "without a GPU" in found.stderr


def test_a_folder_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("")
    found = call("run", "01", "--results", tmp_path / "file" / "rows")
    assert found.exit_code == 2
    assert "results must be a folder that can be written" in found.stderr


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Leave no data set but the embedded one within reach."""
    import urllib.error
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("WIDEMIN_DATA", str(tmp_path / "data"))


def test_missing_data_while_offline(call, tmp_path, offline):
    # A size of our own: published rows would need no data.
    size = ["-p", "train_size", "333", "--rows-only"]
    found = call("run", "03", "--preset", "lab", *size)
    assert found.exit_code == 2
    for part in (str(tmp_path / "data"), "WIDEMIN_DATA", "--preset smoke"):
        assert part in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    # Nothing half done is left, which a later call would take for the data set.
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert call("run", "03", "--preset", "lab", *size).stderr == found.stderr


def test_what_needs_no_missing_data_is_computed_before_it_is_an_error(
    call, tmp_path, offline
):
    sizes = {"other_dataset": "fashion-mnist", "epochs": 1, "batch_sizes": "[64]"}
    sizes |= {"momenta": "[0.9]", "strong_size": 0, "test_size": 20, "hessian_size": 20}
    options = [part for name, value in sizes.items() for part in ("-p", name, value)]
    options += ["--rows-only", "--workers", "1", "--results", tmp_path / "rows"]
    found = call("run", "04", *options)
    assert found.exit_code == 2
    waits, planned, error = found.stderr.strip().splitlines()
    assert waits == "fashion-mnist is not at hand; runs left out: 1"
    assert "WIDEMIN_DATA" in error
    computed = len(list((tmp_path / "rows" / "runs").glob("*.json")))
    assert planned.startswith(f"{computed + 1} runs planned") and computed > 1


def test_the_signal_of_batch_systems_is_heard_as_ctrl_c_is(call, monkeypatch):
    def terminated(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("widemin.data.load", terminated)
    found = call("data", "digits")
    assert found.exit_code == 143
    assert found.stderr == "Stopped; what is finished or begun is kept.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_help_everywhere_has_examples():
    commands = [[], *([name] for name in main.commands)]
    for command in commands:
        found = CliRunner().invoke(main, [*command, "--help"])
        assert found.exit_code == 0
        assert "Example" in found.output


def test_version():
    assert widemin.__version__ in CliRunner().invoke(main, ["--version"]).output


SMALL = ["-p", "epochs", "1", "-p", "corner_cells", "[[64, 0.01, 100, 1]]"]
SMALL += ["-p", "decisive_cells", "[[16, 0.1, 100, 1]]", "-p", "batch_sizes", "[64]"]
SMALL += ["-p", "adam_cells", "[[16, 0.001, 100, 1]]", "-p", "test_size", "20"]
SMALL += ["-p", "hessian_size", "20", "-p", "learning_rates", "[0.5]"]
SMALL += ["-p", "strong_size", "5", "--rows-only", "--workers", "1"]


def test_rows_are_computed_once(call, tmp_path, monkeypatch):
    first = call("run", "01", *SMALL, "--results", tmp_path)
    assert first.exit_code == 0, first.stderr
    assert "5 runs planned, 5 to compute (cpu)" in first.stderr
    again = call("run", "01", *SMALL, "--results", tmp_path)
    assert "5 runs planned, 0 to compute" in again.stderr
    files = list((tmp_path / "runs").glob("*.json"))
    assert len(files) == 5
    rows = json.loads(files[0].read_text())["rows"]
    assert rows[-1]["source"] == provenance.source()
    more = call("run", "01", *SMALL, "-p", "seeds", "2", "--results", tmp_path)
    assert "7 runs planned, 2 to compute" in more.stderr
    # A folder that can only be read will do where nothing is to be computed.
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    again = call("run", "01", *SMALL, "--results", tmp_path)
    assert again.exit_code == 0, again.stderr
    assert not progress._is_running(tmp_path, files[0].stem)
    more = call("run", "01", *SMALL, "-p", "seeds", "3", "--results", tmp_path)
    assert more.exit_code == 2 and "results must be a folder that can" in more.stderr


def read_only(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_disk_that_fills_is_one_clear_line(call, tmp_path, monkeypatch):
    """The rows are there, and cannot be written; without processes of its own."""

    def rows(todo, *_, **__):
        yield from ((item, [{}]) for item in todo)

    def full(folder, *_):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(results, "outcomes", rows)
    monkeypatch.setattr(results, "write", full)
    found = call("run", "01", "--rows-only", "--results", tmp_path / "rows")
    assert found.exit_code == 1
    assert f"Error: {tmp_path / 'rows'}: No space left on device" in found.stderr
    assert "Traceback" not in found.output


def test_pages_are_not_drawn_from_nothing(call, tmp_path):
    found = call("run", "01", "--pages-only", "--results", tmp_path / "empty")
    assert found.exit_code == 2
    [planned, error] = found.stderr.splitlines()
    assert planned == "15 runs planned, 0 there"
    assert "results must hold a row of 01_width_of_minima at preset smoke" in error
    assert not (tmp_path / "empty").exists()


def test_one_command_at_a_time_draws_pages(tmp_path, monkeypatch):
    """The second says that it waits, and goes on when the first is done."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    told, order = threading.Event(), []
    monkeypatch.setattr("click.echo", lambda said, err: told.set())

    def draw(name):
        with alone():
            order.append(name)

    with alone():
        second = threading.Thread(target=draw, args=["second"])
        second.start()
        assert told.wait(60)
        order.append("first")
    second.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    "words",
    ["run all", "run 01", "status", "status --papers", "book", "publish 01", "labs"],
)
def test_without_a_checkout_commands_say_that_they_need_one(words, call, monkeypatch):
    for name in ("ROOT", "NOTEBOOKS", "PRESETS", "BOOK", "PUBLISHED", "BUILD"):
        monkeypatch.setattr(paths, name, Path("/nowhere") / name)
    found = call(*words.split())
    assert found.exit_code == 2 and found.output == found.stderr
    assert len(found.stderr.splitlines()) == 1 and "a checkout" in found.stderr


@pytest.mark.parametrize(
    ("words", "package"),
    [
        ("run 01", "nbclient"),
        ("run 01 --pages-only", "jupyter_book"),
        ("run 01 --rows-only --cluster tcp://127.0.0.1:8786", "distributed"),
        ("book", "nbclient"),
        ("book --edition site", "jupyter_book"),
        ("book --figures", "playwright"),
        ("book --pdf", "playwright"),
    ],
)
def test_a_package_that_is_not_installed_is_one_line_at_once(
    words, package, call, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    rows = tmp_path / "rows"
    found = call(*words.split(), *["--results", rows] * words.startswith("run"))
    assert found.exit_code == 2 and found.output == found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert f"{package} must be installed" in found.stderr
    assert not rows.exists() and not paths.BUILD.exists()


def test_status_counts(call, tmp_path):
    found = call("status", "--preset", "smoke", "--results", tmp_path)
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert len(lines) == 6
    row = ["01_width_of_minima", "smoke", "15", *["0"] * 6, "s"]
    assert lines[1].split()[: len(row)] == row


def test_publish_writes_the_table_that_is_read_back(call, tmp_path, monkeypatch):
    call("run", "01", *SMALL, "--results", tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr("widemin.book.notebooks.resolve", _resolve_small)
    found = call("publish", "01", "--preset", "smoke", "--results", tmp_path)
    assert "5 of 5 runs" in found.output
    assert len(results.published()) == 5
    both = ["--preset", "smoke", "--preset", "lab"]  # each run once
    assert "5 of 5 runs" in call("publish", "01", *both).output
    written = (tmp_path / "published" / "lab" / "01_width_of_minima.csv").read_bytes()
    monkeypatch.setattr(results, "table_of", _of_nothing)
    assert "left as it is" in call("publish", "01", "--results", tmp_path).output
    kept = (tmp_path / "published" / "lab" / "01_width_of_minima.csv").read_bytes()
    assert kept == written


def _of_nothing(recipes, folder):
    table = pd.DataFrame()
    table.attrs = {"planned": len(recipes), "done": 0}
    return table


def _resolve_small(chapter, preset, overrides):
    import yaml

    from widemin.book.notebooks import defaults

    given = dict(zip(SMALL[1::3], SMALL[2::3], strict=False))
    small = {k: yaml.safe_load(v) for k, v in given.items() if k in defaults(chapter)}
    return defaults(chapter) | small


LEAN = """
import sys
HEAVY = {"papermill", "nbformat", "nbclient", "matplotlib", "seaborn", "sklearn",
         "platformdirs", "jupyter_book", "IPython", "pyhessian", "distributed"}

class Without:
    # A finder that does not find what is not supposed to be there.

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(f) for f in sys.meta_path if hasattr(f, "find_spec")]
import widemin.cli, widemin.book.notebooks
from widemin.experiments import results, running
assert "torchvision" not in sys.modules and "papermill" not in sys.modules
from widemin.cli import main
main(sys.argv[1:], standalone_mode=False)
"""


def lean(*arguments, **environment):
    """Call the command where only torch, numpy, scipy, pandas, yaml and click are."""
    return subprocess.run(
        [sys.executable, "-c", LEAN, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_planning_needs_no_notebook_plotting_or_cache_library(tmp_path):
    done = lean("status", "--preset", "lab", WIDEMIN_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "01_width_of_minima" in done.stdout


@pytest.mark.slow
def test_rows_on_real_images_need_no_more_than_planning(tmp_path, mnist_here):
    sizes = {"train_size": 300, "epochs": 1, "longer_epochs": [1, 1], "batch_size": 100}
    sizes |= {"test_size": 20, "hessian_size": 20}
    options = [part for name, value in sizes.items() for part in ("-p", name, value)]
    command = ["run", "03", "--preset", "lab", *options, "--rows-only", "--workers", 1]
    results_here = {"WIDEMIN_DATA": mnist_here, "WIDEMIN_CACHE": str(tmp_path)}
    done = lean(*command, "--results", tmp_path, **results_here)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("*.json"))) == 4  # one a defence


def test_importing_the_package_is_free():
    code = "import sys, widemin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "widemin", "--version"], capture_output=True, text=True
    )
    assert done.stdout == CliRunner().invoke(main, ["--version"]).output
