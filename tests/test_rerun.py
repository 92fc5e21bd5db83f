"""The pages on rerunning and reading back, and every way in against bad input."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.__main__ import papermill

from tests.test_notebooks import WRONG
from widemin import paths
from widemin.book import notebooks
from widemin.cli import main
from widemin.experiments import frame

BIN = Path(sys.executable).parent


def blocks(page, language):
    text = (paths.BOOK / page).read_text(encoding="utf-8")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder as a checkout's is, with its programs on the path."""
    shutil.copytree(paths.NOTEBOOKS, tmp_path / "notebooks")
    shutil.copy(paths.BOOK / "examples" / "mine.py", tmp_path / "notebooks")
    (tmp_path / "values.yaml").write_text(blocks("rerun.md", "yaml")[0])
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    monkeypatch.setenv("WIDEMIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line):
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_every_line_of_the_page_on_rerunning_works(checkout):
    lines = "".join(blocks("rerun.md", "")).replace("\\\n", "").splitlines()
    [variable] = [line for line in lines if line.startswith("chapter=")]
    asked = [line for line in lines if "ipykernel" not in line and line != variable]
    assert sum("papermill" in line for line in asked) == 4 and len(lines) == 8
    for line in asked:
        # The page of the book would be drawn in the checkout that the tests run from.
        line += " --rows-only" if "widemin run" in line else ""
        run(f"{variable}; {line}")
        if "papermill" in line:
            drawn = (checkout / "out.ipynb").read_text()
            assert (
                "but dataset = mine:load" if "mine" in line else "epochs = 3"
            ) in drawn
    [grid] = blocks("rerun.md", "python")
    exec(grid, {})
    for epsilon in ("0.05", "0.1"):
        assert f"epsilon = {epsilon}" in (checkout / f"out-{epsilon}.ipynb").read_text()


@pytest.mark.slow
def test_what_is_ones_own_runs_on_dask(checkout):
    """The page's own lines, on a free port; a worker's rows name one's own attack."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    [block] = blocks("rerun.md", "sh")
    text = block.replace("\\\n", "").replace("8786", port)
    scheduler, worker, command = text.splitlines()
    said = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    programs = [
        subprocess.Popen(f"exec env {line.removesuffix('&')}", shell=True, **said)
        for line in (scheduler, worker)
    ]
    try:
        small = "-p epochs 1 -p batch_sizes '[20]' -p momenta '[0.9]'"
        run(f"{command} --rows-only {small}")
    finally:
        for program in programs:
            program.terminate()
            program.wait(30)
    rows = frame("04", "smoke", folder=str(checkout / "cache" / "results"))
    assert set(rows["own_attack"]) == {"mine:attack"}
    assert rows["own_accuracy"].notna().any()


@pytest.mark.slow
def test_the_page_on_reading_back_can_be_pasted(checkout, capsys):
    [line] = "".join(blocks("read_back.md", "")).splitlines()
    run(line)
    names = {}
    for code in blocks("read_back.md", "python"):
        exec(code, names)
    runs = len(list((checkout / "rows" / "runs").glob("*.json")))
    assert names["mine"]["key"].nunique() == runs > 10
    assert "networks of 01_width_of_minima" in capsys.readouterr().out


BAD = [
    *WRONG[0].args[1],
    ("03", "epochz", "3", "unknown parameter 'epochz' .did you mean 'epochs'"),
    ("04", "seeds", "0", "must leave a run to compute; got seeds = 0"),
    ("01", "preset", "paper", "preset must be given as --preset; got -p preset paper"),
]


def beginning(chapter, tmp_path):
    """Return a chapter's notebook as far as the cell that plans its runs."""
    [name] = notebooks.find(chapter)
    notebook = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
    end = next(i for i, named in enumerate(tags) if "recipes" in named)
    notebook["cells"] = notebook["cells"][: end + 1]
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    return notebook, tmp_path / f"{name}.ipynb"


def by_command(chapter, name, text, tmp_path):
    done = CliRunner().invoke(main, ["run", chapter, "-p", name, text])
    assert done.exit_code == 2 and "Traceback" not in done.output
    return done.output


def by_papermill(chapter, name, text, tmp_path, given=None):
    _, path = beginning(chapter, tmp_path)
    call = [str(path), str(tmp_path / "out.ipynb"), *(given or ["-p", name, text])]
    done = CliRunner().invoke(papermill, [*call, "--no-progress-bar"])
    assert done.exit_code
    return str(done.exception)


def by_yaml(chapter, name, text, tmp_path):
    given = ["-y", json.dumps({name: text})]
    return by_papermill(chapter, name, text, tmp_path, given)


def by_jupyter(chapter, name, text, tmp_path):
    """The line of the parameter cell edited, or one that is new; all cells run."""
    notebook, _ = beginning(chapter, tmp_path)
    [cell] = (
        c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])
    )
    line = f"{name} = {text!r}"
    known = re.search(rf"^{name} = .*$", cell["source"], re.MULTILINE)
    old = known[0] if known else ""
    cell["source"] = cell["source"].replace(old, line) if old else line
    with pytest.raises(CellExecutionError) as raised:
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()
    return str(raised.value)


def refused(way, inputs, tmp_path):
    for chapter, name, text, message in inputs:
        if way is by_jupyter and name in ("preset", "epochz"):
            continue  # its cell says the preset, and may hold names of one's own
        said = way(chapter, name, text, tmp_path)
        # papermill has made a number of what looks like one: its quotes are gone.
        told = message.partition("; got")[0]
        found = re.search(told, " ".join(said.split()))
        assert found, f"{shlex.join([chapter, name, text])}: {said[-800:]}"


WAYS = [by_command, by_papermill, by_yaml, by_jupyter]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_refuses_bad_input_in_the_same_words(way, tmp_path):
    """By the command all of it; by a kernel, of which each takes seconds, a quarter."""
    refused(way, BAD if way is by_command else [*BAD[1::5], *BAD[-3:]], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS[1:])
def test_every_way_in_refuses_all_of_it(way, tmp_path):
    refused(way, BAD, tmp_path)
