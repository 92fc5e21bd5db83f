"""The array job of book/cluster, its tasks as processes of this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from widemin import paths

SCRIPT = paths.BOOK / "cluster" / "slurm.sh"
WORKERS = 2
pytestmark = pytest.mark.slow


@pytest.fixture
def submit(tmp_path):
    """Start the tasks of one array job; whatever is left of them ends with the test."""
    tasks = []

    def start(job):
        for task in range(WORKERS + 1):
            names = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            names |= {"PATH": path, "WIDEMIN_CACHE": str(tmp_path / "cache")}
            call = [SCRIPT, "03", "--preset", "smoke"]
            with (tmp_path / f"{job}-{task}.log").open("w") as said:
                heard = {"stdout": said, "stderr": said, "start_new_session": True}
                environment = os.environ | names
                tasks.append(
                    subprocess.Popen(call, cwd=tmp_path, env=environment, **heard)
                )
        return tasks[-WORKERS - 1 :]

    yield start
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(task.pid, signal.SIGKILL)
        task.wait()


def test_an_array_job_computes_stops_when_asked_and_goes_on(submit, tmp_path):
    rows = tmp_path / "rows" / "runs"
    first, *others = submit("1")
    end = time.monotonic() + 300
    while not list(rows.glob("*.json")):  # one run is there, more are under way
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    first.terminate()
    assert first.wait(timeout=120) == 143
    for worker in others:
        worker.wait(timeout=120)
    kept = {path: path.stat().st_mtime_ns for path in rows.glob("*.json")}
    said = (tmp_path / "1-0.log").read_text()
    assert "Stopped; what is finished or begun is kept." in said

    first, *others = submit("2")
    assert first.wait(timeout=540) == 0, (tmp_path / "2-0.log").read_text()
    for worker in others:
        worker.wait(timeout=120)
    there = {path: path.stat().st_mtime_ns for path in rows.glob("*.json")}
    assert kept.items() < there.items()  # none was computed again
    assert not list(tmp_path.glob("*.json"))
