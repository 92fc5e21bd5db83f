"""Finished runs are kept, missing ones computed, broken ones set aside."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from filelock import FileLock

import widemin
from widemin import paths
from widemin.experiments import disk, pool, progress, provenance, results
from widemin.experiments.results import (
    Incomplete,
    collect,
    finished,
    missing,
    write,
)


@dataclass(frozen=True)
class Fake:
    """A recipe whose row is its number."""

    number: int
    seed: int = 0
    work: float = 1.0

    @property
    def key(self):
        return f"fake{self.number}"


def square(fake):
    return [{"number": fake.number, "square": fake.number**2, "pid": os.getpid()}]


def fails_on_three(fake):
    if fake.number == 3:
        raise ArithmeticError("three")
    return square(fake)


def fails(fake):
    raise AssertionError("computed again")


def die(fake):
    os._exit(1)


def is_killed(fake):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(fake):
    """Leave a trace in the working folder, so that the second time goes well."""
    trace = Path(os.environ["TRACES"]) / fake.key
    if not trace.exists():
        trace.touch()
        os._exit(1)
    return square(fake)


FAKES = [Fake(number) for number in range(5)]


def test_only_missing_runs_are_computed(tmp_path):
    write(tmp_path, "fake2", [{"number": 2, "square": "kept"}])
    table = collect(FAKES, square, tmp_path, workers=1)
    assert table["square"].tolist() == [0, 1, "kept", 9, 16]
    assert table["key"].tolist() == [fake.key for fake in FAKES]
    assert table.attrs == {"planned": 5, "done": 5}

    again = collect(FAKES, fails, tmp_path, workers=1)
    assert again["square"].tolist() == table["square"].tolist()


def test_every_row_says_where_it_was_computed(tmp_path):
    row = collect(FAKES[:1], square, tmp_path, workers=1).iloc[0]
    for column in ("device", "hardware", "torch", "python", "source", "date"):
        assert row[column]
    assert row["source"].startswith(widemin.__version__)


def test_workers_are_other_processes_and_rows_the_same(tmp_path):
    table = collect(FAKES, square, tmp_path, workers=2)
    assert table["square"].tolist() == [0, 1, 4, 9, 16]
    assert os.getpid() not in set(table["pid"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_raises_is_a_row_and_the_others_are_kept(tmp_path, workers):
    with pytest.raises(Incomplete, match=r"1 of 5 .*\n.*number=3.*ArithmeticError: th"):
        collect(FAKES, fails_on_three, tmp_path, workers=workers)
    assert len(finished(tmp_path, [fake.key for fake in FAKES])) == 4
    table = results.table_of(FAKES, tmp_path)
    [lost] = table[table["measured"] == "failed"].to_dict("records")
    assert (lost["number"], lost["error"]) == (3, "ArithmeticError: three")
    assert table.attrs == {"planned": 5, "done": 4}
    mended = collect(FAKES, square, tmp_path, workers=workers)
    assert mended["square"].tolist() == [0, 1, 4, 9, 16]
    assert not results.failed(tmp_path)


def test_a_worker_that_dies_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "traces").mkdir()
    monkeypatch.setenv("TRACES", str(tmp_path / "traces"))
    table = collect(FAKES[:2], dies_once, tmp_path, workers=2)
    assert table["square"].tolist() == [0, 1]


def test_a_run_that_kills_its_workers_is_a_failure(tmp_path):
    for ends, status in ((die, "1"), (is_killed, "-9 .-9 is SIGKILL")):
        message = (
            f"number=0.*its worker died 4 times, the last with exit status {status}"
        )
        with pytest.raises(Incomplete, match=message):
            collect(FAKES[:1], ends, tmp_path, workers=1)


UNGUARDED = """
from tests.test_results import FAKES, square
from widemin.experiments import results
from pathlib import Path

print("begins")
results.collect(FAKES, square, Path("{folder}"), workers=2)
"""


def test_a_script_that_computes_when_it_is_imported_is_told_so(tmp_path):
    """Workers import it: at once and in one line, not four deaths later."""
    script = tmp_path / "own.py"
    script.write_text(UNGUARDED.format(folder=tmp_path / "results"))
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    found = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True
    )
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 1
    assert last.startswith("RuntimeError: a script that computes runs must do so below")
    assert found.stderr.count("Traceback") == 1 and "died" not in found.stderr
    assert not list((tmp_path / "results").glob("failed/*"))


class Clock:
    """In place of the module `time`: an hour goes by once a folder has two runs."""

    sleep = staticmethod(time.sleep)

    def __init__(self, folder):
        self.folder = folder

    def time(self):
        done = len(list((self.folder / "runs").glob("*.json")))
        return 3600.0 * (done >= 2)


def test_a_deadline_is_kept_and_what_is_unfinished_is_left(tmp_path, monkeypatch):
    """Whatever the machine is slow at: the clock stands still until two runs are done.

    Then workers have GRACE to keep what they have, by a real clock; they never end.
    """
    assert pool.LEAD > pool.GRACE
    monkeypatch.setattr(pool, "GRACE", 0.0)
    monkeypatch.setattr(pool, "time", Clock(tmp_path))
    table = collect(FAKES, endless_from_two, tmp_path, workers=2, until=3600.0)
    assert table["square"].tolist() == [0, 1]
    assert table.attrs == {"planned": 5, "done": 2}
    assert not [*filter(works, psutil.Process().children(recursive=True))]


def works(child):
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.Error:  # it has ended and waits to be reaped
        return False


def endless_from_two(fake):
    while fake.number > 1:
        time.sleep(1)
    return square(fake)


def test_rows_computed_elsewhere_are_a_source(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    table = collect(FAKES, square, there, workers=1)
    here.mkdir()
    results.to_csv(table, here / "from_the_gpu.csv")
    assert not missing(FAKES, here)
    again = results.table_of(FAKES, here)
    assert again["square"].tolist() == [0, 1, 4, 9, 16]
    assert again["source"].tolist() == table["source"].tolist()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fake2,2,", "fake2,7,", r"t.csv must hold number=2 for run fake2; got 7"),
        (",cpu,", ",,", "t.csv must say the device of run fake0"),
    ],
)
def test_rows_that_are_not_what_they_say_are_refused(tmp_path, old, new, message):
    there, here = tmp_path / "there", tmp_path / "here"
    results.to_csv(collect(FAKES, square, there, workers=1), tmp_path / "t.csv")
    here.mkdir()
    text = (tmp_path / "t.csv").read_text()
    assert old in text
    (here / "t.csv").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        missing(FAKES, here)


def test_duplicates_must_agree(tmp_path):
    collect(FAKES, square, tmp_path, workers=1)
    table = results.table_of(FAKES, tmp_path)
    results.to_csv(table, tmp_path / "same.csv")
    assert not missing(FAKES, tmp_path)
    results.to_csv(table.assign(square=table["square"] + 1), tmp_path / "zother.csv")
    message = "runs and zother.csv .* must agree on run fake0; got different square"
    with pytest.raises(ValueError, match=message):
        missing(FAKES, tmp_path)


def test_a_table_that_is_not_of_runs_is_left_alone(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert len(missing(FAKES, tmp_path)) == 5


FOREIGN = {
    "._01.csv": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xb0\xff",
    "notes.csv": "caf\xe9;1\n".encode("latin-1"),
    "empty.csv": b"",
    "wide.csv": "a;b\n1;2;3\n".encode("utf-16"),
    "long.csv": b"a,b\n1,2,3\n1\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_among_results_are_left_alone(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FOREIGN[name])
    write(tmp_path, "fake1", [{"number": 1}])
    assert len(missing(FAKES, tmp_path)) == 4
    assert path.read_bytes() == FOREIGN[name]


def test_folders_and_links_named_like_tables_are_left_alone(tmp_path):
    (tmp_path / "old.csv").mkdir()
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    assert len(missing(FAKES, tmp_path)) == 5


def test_a_table_of_runs_that_breaks_off_is_named(tmp_path):
    path = tmp_path / "from the gpu.csv"
    path.write_bytes(b"key,number\nfake1,1\nfake2,caf\xe9\n")
    with pytest.raises(ValueError, match=r"from the gpu\.csv must be a table of runs"):
        missing(FAKES, tmp_path)


def test_other_peoples_json_among_runs_is_no_run_and_no_failure(tmp_path):
    write(tmp_path, "fake1", [{"number": 1, "seed": 0}])
    for i, text in enumerate(["[1]", "3", '{"rows": [7]}', '{"rows": {}}', "", "\x00"]):
        (tmp_path / "runs" / f"other{i}.json").write_text(text)
        (tmp_path / "failed").mkdir(exist_ok=True)
        (tmp_path / "failed" / f"other{i}.json").write_text(text)
    (tmp_path / "runs" / "folder.json").mkdir()
    found = progress.state(FAKES, tmp_path)
    assert (found.done, found.stale, found.failed) == (1, 0, 0)
    assert len(list((tmp_path / "runs").iterdir())) == 8


def test_what_is_set_aside_stays(tmp_path):
    """However often: nothing set aside before is written over."""
    path = tmp_path / "runs" / "fake2.json"
    path.parent.mkdir()
    for text in ("first", "second"):
        path.write_text(text)
        with pytest.warns(UserWarning, match="set aside"):
            assert not finished(tmp_path, ["fake2"])
    aside = sorted((tmp_path / "runs").iterdir())
    assert [p.read_text() for p in aside] == ["second", "first"]


def test_a_lock_that_cannot_be_locked_is_set_aside(tmp_path):
    """A folder, or a link that leads nowhere, in place of the file."""
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "fake0.lock").mkdir()
    (locks / "fake1.lock").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match=r"fake\d\.lock is not a lock"):
        for fake in FAKES[:2]:
            assert progress.state([fake], tmp_path).running == 0
            results.compute_once(fake, run=square, folder=tmp_path, device="cpu")
    assert len(finished(tmp_path, ["fake0", "fake1"])) == 2
    assert len(list(locks.glob("*.broken"))) == 2


def test_what_is_written_may_be_read_by_whoever_may_read_the_rest(tmp_path):
    """Whatever mode the library that writes it asks for."""
    old = os.umask(0o027)
    try:
        with disk.atomic(tmp_path / "own") as part:
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(old)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o640


def test_two_processes_in_one_folder_share_the_work(tmp_path):
    """Each run is computed once, by whichever comes first."""
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP.replace("slow", "brief"))
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "TRACES": str(tmp_path)}
    command = [sys.executable, script, tmp_path, "1"]
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    table = results.table_of(FAKES, tmp_path)
    assert table["square"].tolist() == [0, 1, 4, 9, 16]
    counts = [len((tmp_path / fake.key).read_text()) for fake in FAKES]
    assert counts == [1, 1, 1, 1, 1]


def brief(fake):
    with open(Path(os.environ["TRACES"]) / fake.key, "a") as trace:
        trace.write("x")
    time.sleep(0.7)
    return square(fake)


def test_the_state_of_a_sweep(tmp_path):
    with pytest.raises(Incomplete):
        collect(FAKES, fails_on_three, tmp_path, workers=1)
    write(tmp_path, "old", [{"number": 3, "seed": 0, "work": 1.0}])  # another revision
    (tmp_path / "runs" / "fake4.json").unlink()
    found = progress.state(FAKES, tmp_path)
    assert (found.planned, found.done, found.failed, found.stale) == (5, 3, 1, 1)
    with FileLock(tmp_path / "locks" / "fake4.lock"):
        assert progress.state(FAKES, tmp_path).running == 1
    assert found.running == 0 and found.left is None
    timed = [{"train_seconds": 2.0, "measure_seconds": 1.0, "gradients": 1}]
    timed = [row | {"train_size": 1, "diverged": True} for row in timed]
    write(tmp_path, "fake0", timed)
    found = progress.state(FAKES, tmp_path)
    assert (found.spent, found.diverged) == (3.0, 1)
    assert found.left == 6.0  # two runs of the same work


def test_a_part_of_a_table_has_its_own_counts(tmp_path):
    for number in (0, 1):
        write(tmp_path, f"fake{number}", [{"measured": "final", "number": number}])
    part = results.part(results.table_of(FAKES, tmp_path), FAKES[1:3])
    assert part.attrs == {"planned": 2, "done": 1}
    assert list(part["number"]) == [1]
    nothing = results.part(results.table_of(FAKES, tmp_path / "empty"), FAKES)
    assert nothing.empty and nothing.attrs == {"planned": 5, "done": 0}


def test_without_computing_only_what_is_there_is_read(tmp_path):
    write(tmp_path, "fake2", [{"number": 2}])
    table = collect(FAKES, square, tmp_path, device="none")
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
        "key,number,seed,work,tests,value\nfake1,1,0,1,linf 0.1 ; l2 1,0.333333\n"
    )


SWEEP = """
import os, sys, time
from pathlib import Path
from tests.test_results import FAKES, slow
from widemin.experiments.results import collect

if __name__ == "__main__":
    collect(FAKES, slow, Path(sys.argv[1]), workers=int(sys.argv[2]))
"""


def slow(fake):
    return endless_from_two(fake)


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
    assert len(children) >= workers
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    table = collect(FAKES, square, tmp_path, workers=1)
    assert table["square"].tolist() == [0, 1, 4, 9, 16]


def _wait(condition):
    for _ in range(30_000):  # ten minutes: it hangs
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it has not come")


def test_columns_at_their_defaults_are_left_out_and_read_back(tmp_path, monkeypatch):
    """The file is smaller, the table that is read from it the same."""
    from widemin.experiments.recipe import Recipe

    recipes = [Recipe(seed=seed, rho=0.1 * seed) for seed in range(2)]
    for recipe in recipes:
        row = {"measured": "final", "seed": recipe.seed, "accuracy": 0.5}
        results.write(tmp_path, recipe.key, [row])
    table = results.table_of(recipes, tmp_path)
    slim = results.without_defaults(table, recipes)
    assert {"seed", "rho", "accuracy", "key"} <= set(slim)
    assert not {"momentum", "tests", "strong_attacks"} & set(slim)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    (tmp_path / "published" / "lab").mkdir(parents=True)
    results.to_csv(slim, tmp_path / "published" / "lab" / "table.csv")
    again = results.table_of(recipes, tmp_path / "empty")
    pd.testing.assert_frame_equal(again[table.columns], table, check_dtype=False)


def test_published_files_are_small_and_say_once_what_a_run_shares(
    tmp_path, monkeypatch
):
    from widemin.experiments.recipe import Recipe

    recipes = [Recipe(seed=seed, rho=0.1, tests=("l2 1",)) for seed in range(3)]
    about = dict.fromkeys(provenance.PROVENANCE, "somewhere")
    for recipe in recipes:
        rows = [{"measured": "epoch", "epoch": e, "loss": 1 / e} for e in (1, 2)]
        rows += [{"measured": "final", "epoch": 2, "accuracy": 0.5}]
        results.write(tmp_path, recipe.key, [row | about for row in rows])
    table = results.table_of(recipes, tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    folder = tmp_path / "published" / "lab"
    for most, names in ((500, ["t", "t-2", "t-3"]), (10_000, ["t"])):
        slim = results.without_defaults(table, recipes)
        results.publish(slim, folder, "t", most)
        assert sorted(path.stem for path in folder.iterdir()) == names
        text = "".join(path.read_text() for path in folder.iterdir())
        assert text.count("l2 1") == 3 and text.count("somewhere") == 3 * len(about)
        assert "0.0," not in text  # seeds are whole numbers
        again = results.table_of(recipes, tmp_path / "empty")
        rounded = table.assign(loss=table["loss"].round(6))
        pd.testing.assert_frame_equal(again[table.columns], rounded, check_dtype=False)


def test_publishing_removes_only_what_it_wrote(tmp_path):
    foreign = {"t-9.csv": "a,b\n1,2\n", "t-notes.csv": "key,number\nfake1,1\n"}
    for name, text in foreign.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "t-8.csv").write_text("key,number\nfake1,1\n")
    table = pd.DataFrame([{"key": "fake1", "number": 1, "measured": "final"}])
    results.publish(table, tmp_path, "t")
    left = {path.name: path.read_text() for path in tmp_path.glob("t-*.csv")}
    assert left == foreign


def test_rows_say_the_block_that_computed_them(tmp_path):
    """Processor with its flags, threads and precision; both arms must share it."""
    [said] = collect(FAKES[:1], square, tmp_path, workers=1).to_dict("records")
    assert set(provenance.PROVENANCE) <= set(said)
    own = provenance.block(said)
    assert own is not None and own == provenance.block(said | {"seed": 7})
    for name in provenance.BLOCK:
        assert provenance.block(said | {name: "another"}) not in (own, None)
        assert provenance.block(said | {name: float("nan")}) is None
    # Read back from a CSV, a number of threads is a number.
    assert provenance.block(said | {"threads": float(said["threads"])}) == own


def cube(fake):
    return [{"number": fake.number, "square": fake.number**3, "source": "before"}]


def test_runs_computed_again_replace_their_rows_and_keep_what_they_say(tmp_path):
    collect(FAKES, square, tmp_path, workers=1)
    collect(FAKES[2:4], cube, tmp_path, workers=1, again=True)
    table = results.table_of(FAKES, tmp_path)
    assert table["square"].tolist() == [0, 1, 8, 27, 16]
    assert (table["source"] == "before").tolist() == [False, False, True, True, False]


def test_where_no_process_can_be_started_it_is_said(tmp_path, monkeypatch):
    """As where memory or processes run out: an error, not a wait without end."""

    def full(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", full)
    with pytest.raises(BlockingIOError, match="temporarily unavailable"):
        collect(FAKES, square, tmp_path, workers=2)
