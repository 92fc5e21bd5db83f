"""Finished runs are kept, missing ones computed, broken ones set aside."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil
import pytest

from widemin import paths, results
from widemin.results import Incomplete, collect, finished, missing, write


@dataclass(frozen=True)
class Fake:
    """A recipe whose row is its number."""

    number: int
    seed: int = 0

    @property
    def key(self):
        return f"fake{self.number}"


def square(fake):
    return [{"number": fake.number, "square": fake.number**2, "pid": os.getpid()}]


def fails_on_three(fake):
    if fake.number == 3:
        raise ArithmeticError("three")
    return square(fake)


def die(fake):
    os._exit(1)


FAKES = [Fake(number) for number in range(5)]


def test_only_missing_runs_are_computed(tmp_path):
    write(tmp_path, "fake2", [{"number": 2, "square": "kept"}])
    table = collect(FAKES, square, tmp_path, workers=1)
    assert table["square"].tolist() == [0, 1, "kept", 9, 16]
    assert table["key"].tolist() == [fake.key for fake in FAKES]
    assert table.attrs == {"planned": 5, "done": 5}

    def never(fake):
        raise AssertionError("computed again")

    again = collect(FAKES, never, tmp_path, workers=1)
    assert again["square"].tolist() == table["square"].tolist()


def test_every_row_says_where_it_was_computed(tmp_path):
    row = collect(FAKES[:1], square, tmp_path, workers=1).iloc[0]
    for column in ("device", "hardware", "torch", "python", "source", "date"):
        assert row[column]
    assert row["source"].startswith(results.widemin.__version__)


def test_workers_are_other_processes_and_rows_the_same(tmp_path):
    table = collect(FAKES, square, tmp_path, workers=2)
    assert table["square"].tolist() == [0, 1, 4, 9, 16]
    assert os.getpid() not in set(table["pid"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_raises_is_named_and_the_others_are_kept(tmp_path, workers):
    with pytest.raises(Incomplete, match=r"1 of 5 .*\n.*number=3.*ArithmeticError: th"):
        collect(FAKES, fails_on_three, tmp_path, workers=workers)
    assert len(finished(tmp_path, [fake.key for fake in FAKES])) == 4


def test_a_worker_that_dies_is_reported(tmp_path):
    with pytest.raises(Incomplete, match="BrokenProcessPool"):
        collect(FAKES, die, tmp_path, workers=2)


def test_without_computing_only_what_is_there_is_read(tmp_path):
    write(tmp_path, "fake2", [{"number": 2}])
    table = collect(FAKES, square, tmp_path, compute=False)
    assert table["number"].tolist() == [2]
    assert table.attrs == {"planned": 5, "done": 1}


@pytest.mark.parametrize(
    "content", ["", '{"key": "fake2", "ro', "[]", json.dumps({"key": "x", "rows": []})]
)
def test_a_broken_file_is_set_aside_and_its_run_computed_again(tmp_path, content):
    path = tmp_path / "runs" / "fake2.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"fake2\.json is not a finished run"):
        assert [fake.key for fake in missing(FAKES[2:3], tmp_path)] == ["fake2"]
    assert path.with_suffix(".broken").read_text() == content
    table = collect(FAKES, square, tmp_path, workers=1)
    assert table["square"].tolist() == [0, 1, 4, 9, 16]


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, "fake1", [])
    assert not finished(tmp_path, ["fake1"])


def test_published_tables_lie_beneath(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "results")
    folder = tmp_path / "results" / "lab"
    folder.mkdir(parents=True)
    content = "key,number,square,augment\nfake1,1,published,\nfake4,4,published,\n"
    (folder / "01.csv").write_text(content)
    own = tmp_path / "own"
    write(own, "fake4", [{"number": 4, "square": "own"}])
    table = collect(FAKES, square, own, workers=1)
    assert table["square"].tolist() == [0, "published", 4, 9, "own"]


def test_a_table_survives_csv(tmp_path):
    rows = [{"number": 1, "tests": ["linf 0.1", "l2 1"], "value": 1 / 3}]
    write(tmp_path, "fake1", rows)
    table = results.table_of([Fake(1)], tmp_path)
    results.to_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == (
        "key,number,seed,tests,value\nfake1,1,0,linf 0.1 ; l2 1,0.333333\n"
    )


SWEEP = """
import os, sys, time
from pathlib import Path
from tests.test_results import FAKES, slow
from widemin.results import collect

if __name__ == "__main__":
    collect(FAKES, slow, Path(sys.argv[1]), workers=int(sys.argv[2]))
"""


def slow(fake):
    time.sleep(0.1 if fake.number < 2 else 120)
    return square(fake)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_sweep_goes_on_where_it_was_and_leaves_no_process(tmp_path, workers):
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, script, tmp_path, str(workers)]
    sweep = subprocess.Popen(command, env=environment)
    try:
        _wait(lambda: len(list((tmp_path / "runs").glob("*.json"))) == 2)
        children = psutil.Process(sweep.pid).children(recursive=True)
    finally:
        sweep.kill()
        sweep.wait()
    assert len(children) >= (workers if workers > 1 else 0)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    table = collect(FAKES, square, tmp_path, workers=1)
    assert table["square"].tolist() == [0, 1, 4, 9, 16]


def _wait(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
