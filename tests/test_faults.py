"""Sweeps survive what befalls them: kills, a full disk, schedulers that go.

Each fault strikes a sweep of the command itself, on real digits; one more call later
every row is there once, equal to those of an undisturbed sweep. Those marked slow have
a cheaper one beside them, in test_results, test_networks or test_cli.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import psutil
import pytest

from widemin import paths
from widemin.experiments import pool
from widemin.experiments.provenance import PROVENANCE

SWEEP = ["run", "01", "-p", "epochs", "2", "-p", "corner_cells", "[[64, 0.1, 200, 4]]"]
SWEEP += ["-p", "decisive_cells", "[[16, 0.1, 1000, 4], [64, 0.5, 1000, 4]]"]
SWEEP += ["-p", "adam_cells", "[[16, 0.001, 200, 4]]", "-p", "strong_size", "0"]
SWEEP += ["-p", "batch_sizes", "[16]", "-p", "learning_rates", "[0.1, 0.5]"]
SWEEP += ["-p", "test_size", "20", "-p", "hessian_size", "20", "--rows-only"]
RUNS = 8
LONGER = ["-p", "seeds", "400"]  # than any test takes: what is ended has not ended


def command(folder, *more):
    return [sys.executable, "-m", "widemin", *SWEEP, "--results", str(folder), *more]


def sweep(folder, *more, **options):
    """Run the sweep to its end; return what it says."""
    options = {"capture_output": True, "text": True, "timeout": 600} | options
    return subprocess.run(command(folder, *more), cwd=paths.ROOT, **options)


def measured(folder):
    """Every row of every finished run, without seconds and provenance, by key."""
    found = {}
    for path in sorted((folder / "runs").glob("*.json")):
        own = {*PROVENANCE, "train_seconds", "measure_seconds"}
        rows = json.loads(path.read_text())["rows"]
        found[path.stem] = [
            {k: v for k, v in row.items() if k not in own} for row in rows
        ]
    return found


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert sweep(folder, "--workers", "2").returncode == 0
    assert len(measured(folder)) == RUNS
    return measured(folder)


def start(folder, *more):
    quiet = subprocess.DEVNULL  # of what it says, errors show where a test fails
    return subprocess.Popen(command(folder, *more), cwd=paths.ROOT, stdout=quiet)


def wait_for(condition):
    for _ in range(30_000):  # ten minutes: it hangs
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it has not come")


def runs(folder):
    return len(list((folder / "runs").glob("*.json")))


def workers_of(process):
    """The processes that compute; multiprocessing's resource tracker does not."""
    found = []
    with contextlib.suppress(psutil.Error):  # gone meanwhile
        for child in psutil.Process(process.pid).children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_for_workers(process, folder, done):
    """Wait until both workers work and that many runs are done."""
    wait_for(lambda: len(workers_of(process)) == 2 and runs(folder) >= done)


def assert_whole(folder, undisturbed):
    again = sweep(folder, "--workers", "2")
    assert again.returncode == 0, again.stderr
    found = measured(folder)
    assert {key: found[key] for key in undisturbed} == undisturbed
    assert not list(folder.rglob("*.broken"))


@pytest.mark.slow
def test_the_runner_killed_at_three_points(tmp_path, undisturbed):
    """Before the first run ends, after it, near the end; its workers go with it."""
    for done in (0, 1, 4):
        process = start(tmp_path, *LONGER, "--workers", "2")
        wait_for_workers(process, tmp_path, done)
        children = workers_of(process)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=600)
        assert not alive
    assert_whole(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_worker_killed_at_three_points(tmp_path, undisturbed):
    """The same call replaces it each time and ends well."""
    process = start(tmp_path, "--workers", "2")
    for done in (0, 1, 3):
        wait_for_workers(process, tmp_path, done)
        workers_of(process)[-1].kill()
    assert process.wait(timeout=600) == 0
    assert measured(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_kernel_killed(tmp_path):
    """A chapter that computes its own rows, run by papermill."""
    output = tmp_path / "out.ipynb"
    source = paths.NOTEBOOKS / "01_width_of_minima.ipynb"
    call = [sys.executable, "-m", "papermill", str(source), str(output)]
    for name, value in zip(SWEEP[3:-1:3], SWEEP[4:-1:3], strict=True):
        call += ["-y", f"{name}: {value}"]
    call += ["-p", "results_dir", str(tmp_path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(call, cwd=paths.NOTEBOOKS, **quiet)

    def kernels():
        children = psutil.Process(process.pid).children(recursive=True)
        return [c for c in children if "ipykernel" in " ".join(c.cmdline())]

    wait_for(lambda: runs(tmp_path) >= 1)
    for kernel in kernels():
        kernel.kill()
    assert process.wait(timeout=600) != 0
    before = measured(tmp_path)
    assert 1 <= len(before) < RUNS
    again = subprocess.run(call, cwd=paths.NOTEBOOKS, timeout=600, **quiet)
    assert again.returncode == 0
    after = measured(tmp_path)
    assert len(after) == RUNS
    assert {key: after[key] for key in before} == before


@pytest.mark.slow
def test_twenty_kills_at_random(tmp_path, undisturbed):
    """Of the runner or a worker, whatever it is doing."""
    draw = random.Random(0)
    for _ in range(20):
        process = start(tmp_path, "--workers", "2")
        time.sleep(draw.uniform(1.0, 8.0))
        victims = [psutil.Process(process.pid), *workers_of(process)]
        if process.poll() is None:
            draw.choice(victims).kill()
        time.sleep(draw.uniform(0, 1))
        process.kill()
        process.wait()
        if runs(tmp_path) == RUNS:
            for path in list((tmp_path / "runs").glob("*.json"))[:4]:
                path.unlink()
    assert_whole(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("signalled", "status"),
    [
        (signal.SIGINT, 130),
        # As batch systems end a job; test_cli.py has a cheaper test of the command.
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_keeps_what_is_done_and_begun(signalled, status, tmp_path, undisturbed):
    process = subprocess.Popen(
        command(tmp_path, *LONGER, "--workers", "2"),
        cwd=paths.ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts tests in the background has them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: runs(tmp_path) >= 1)
    children = workers_of(process)
    process.send_signal(signalled)
    _, said = process.communicate(timeout=600)
    assert process.returncode == status
    assert not psutil.wait_procs(children, timeout=600)[1]
    assert "Stopped; what is finished or begun is kept." in said
    assert "Traceback" not in said
    assert_whole(tmp_path, undisturbed)


def asked_to_stop(mark):
    """Be asked to stop by somebody else, the first time."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        while not pool.stopping.is_set():
            time.sleep(0.01)
        raise pool.Stopped
    return [{"mark": mark.name}]


@pytest.mark.slow
def test_a_worker_that_somebody_asks_to_stop_is_replaced(tmp_path):
    marks = [tmp_path / name for name in "abc"]
    found = [item for item, _ in pool.outcomes(marks, asked_to_stop, workers=1)]
    assert sorted(found) == marks


@pytest.mark.slow
def test_minutes_end_in_time_and_the_next_call_goes_on(tmp_path, undisturbed):
    first = sweep(tmp_path, *LONGER, "--workers", "2", "--minutes", "0.4")
    assert first.returncode == 0, first.stderr
    assert "left, about" in first.stderr and "--pages-only" in first.stderr
    assert runs(tmp_path) < 1000
    assert_whole(tmp_path, undisturbed)


FULL = """
import sys
from pathlib import Path
from widemin.experiments import results
from widemin.cli import main

def full(folder, key, rows):
    if len(list((folder / "runs").glob("*.json"))) == 2:
        raise OSError(28, "No space left on device", str(folder))
    write(folder, key, rows)

write, results.write = results.write, full  # in the workers as well
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line(tmp_path, undisturbed):
    script = tmp_path / "full.py"
    script.write_text(FULL)
    folder = tmp_path / "results"
    call = [sys.executable, script, *command(folder, "--workers", "2")[3:]]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    found = subprocess.run(
        call, cwd=paths.ROOT, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 1
    assert f"Error: {folder}: No space left on device" in found.stderr
    assert "Traceback" not in found.stderr
    assert runs(folder) == 2
    assert not list(folder.rglob("*.part"))
    assert_whole(folder, undisturbed)


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Cluster:
    """A real scheduler and real workers, started as a user starts them."""

    def __init__(self, port, folder):
        self.address = f"tcp://127.0.0.1:{port}"
        self.port, self.folder = str(port), folder
        self.processes = []

    def start(self, *call):
        dask = [sys.executable, "-m", "dask", *call]
        environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
        with (self.folder / "dask.log").open("a") as log:
            process = subprocess.Popen(
                dask, cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def scheduler(self):
        options = ["--host", "127.0.0.1", "--port", self.port, "--no-dashboard"]
        return self.start("scheduler", *options)

    def worker(self, *more):
        options = ["--nthreads", "1", "--no-dashboard", *more]
        return self.start("worker", self.address, *options)

    def close(self):
        for process in self.processes:
            children = []
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in children:
                child.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path, port):
    pytest.importorskip("distributed")
    folder = tmp_path / "dask"
    folder.mkdir()
    running = Cluster(port, folder)
    yield running
    running.close()


def test_a_cluster_computes_the_same_rows_and_loses_none_with_a_worker(
    tmp_path, cluster, undisturbed
):
    cluster.scheduler()
    first, _ = cluster.worker(), cluster.worker()
    folder = tmp_path / "results"
    process = start(folder, "--cluster", cluster.address)
    wait_for(lambda: process.poll() is not None or runs(folder) >= 1)
    for child in psutil.Process(first.pid).children(recursive=True):
        child.kill()
    first.kill()
    assert process.wait(timeout=600) == 0
    assert measured(folder) == undisturbed


@pytest.mark.slow
def test_a_scheduler_that_comes_back_is_given_what_is_left(
    tmp_path, cluster, undisturbed
):
    scheduler = cluster.scheduler()
    cluster.worker()
    folder = tmp_path / "results"
    process = start(folder, "--cluster", cluster.address)
    wait_for(lambda: process.poll() is not None or runs(folder) >= 1)
    scheduler.kill()
    scheduler.wait()
    time.sleep(1)
    cluster.scheduler()
    cluster.worker()
    assert process.wait(timeout=600) == 0
    assert measured(folder) == undisturbed


def waits_for_a_call(seconds):
    for _ in range(10 * seconds):
        if pool.stopping.is_set():
            return [{"asked": True}]
        time.sleep(0.1)
    return [{"asked": False}]


def test_what_a_client_waits_for_no_longer_ends_and_is_not_begun(monkeypatch):
    """Another's runs in the same worker go on, those under way too."""
    monkeypatch.setattr(pool, "_left", set())
    began = threading.Barrier(3)

    def run(seconds):
        if seconds:
            began.wait(60)
        return waits_for_a_call(seconds)

    with ThreadPoolExecutor(2) as worker:
        ours = worker.submit(pool._there, run, 60, "ours")
        theirs = worker.submit(pool._there, run, 60, "theirs")
        began.wait(60)
        pool._leave("ours")
        assert ours.result(60) == [{"asked": True}]
        assert worker.submit(pool._there, run, 60, "ours").result(60) is None
        assert not theirs.done()
        pool._leave("theirs")
        assert theirs.result(60) == [{"asked": True}]
        again = worker.submit(pool._there, run, 0, "others")
        assert again.result(60) == [{"asked": False}]


def goes_on_elsewhere(seconds):
    if seconds == 0:
        raise pool.Stopped
    return [{"seconds": seconds}]


def test_what_another_process_has_does_not_hold_up_the_rest(monkeypatch):
    """The loop that hands out runs and hears of them never sleeps."""
    clock = SimpleNamespace(time=time.time, sleep=lambda _: pytest.fail("sleeps"))
    monkeypatch.setattr(pool, "time", clock)
    found = pool.outcomes([0, 0, 0, 1, 2], goes_on_elsewhere, workers=2)
    assert sorted(item for item, _ in itertools.islice(found, 2)) == [1, 2]
    found.close()


AHEAD = """
import time
if not hasattr(time, "own"):  # dask imports it twice
    time.own = time.time
    time.time = lambda: time.own() + 3600
"""


@pytest.mark.slow
def test_a_worker_with_another_clock_does_its_work(cluster):
    skewed = cluster.folder / "skewed.py"
    skewed.write_text(AHEAD)
    cluster.scheduler()
    cluster.worker("--no-nanny", "--preload", str(skewed))
    found = list(
        pool.outcomes([3, 4], double, cluster=cluster.address, until=time.time() + 120)
    )
    assert sorted(found) == [(i, [{"double": 2 * i}]) for i in (3, 4)]
    soon = time.time() + pool.LEAD + 1
    [(_, rows)] = pool.outcomes(
        [60], waits_for_a_call, cluster=cluster.address, until=soon
    )
    assert rows == [{"asked": True}]  # in time, and the answer still came


def double(number):
    return [{"double": 2 * number}]


@pytest.mark.slow
@pytest.mark.parametrize("noticed", [False, True])
def test_a_scheduler_may_go_while_a_result_is_fetched(cluster, monkeypatch, noticed):
    """Whether the client has noticed by then or not."""
    distributed = pytest.importorskip("distributed")
    scheduler, fetch = cluster.scheduler(), distributed.Future.result
    cluster.worker()

    def result(future, **ways):
        if scheduler.poll() is None:
            scheduler.kill()
            scheduler.wait()
            if noticed:
                wait_for(future.cancelled)
            cluster.scheduler()
            cluster.worker()
        return fetch(future, **ways)

    monkeypatch.setattr(distributed.Future, "result", result)
    found = list(pool.outcomes([3, 4, 5], double, cluster=cluster.address))
    assert sorted(found) == [(i, [{"double": 2 * i}]) for i in (3, 4, 5)]
    assert len(cluster.processes) == 4


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path, port):
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{port}"
    found = sweep(tmp_path, "--cluster", address, "--minutes", "0.1")
    assert found.returncode == 1
    assert f"no scheduler answers at {address}" in found.stderr
    assert "Traceback" not in found.stderr
