"""Runs computed by other processes, of this machine or of a Dask cluster.

A worker that dies is replaced, one that is asked to stop keeps what it has.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from contextlib import suppress
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]
Rows = list[Row]
Run = Callable[[Any], Rows]

GRACE = 4.0  # seconds a worker that is asked to stop has to keep what it has
LEAD = 2 * GRACE + 1.0  # seconds before a deadline at which it is asked
DEATHS = 4  # of workers on one recipe, before it counts as failed
ON_A_GPU, GPU_MEMORY = 4, 16 * 10**9  # processes at most, and bytes for each of them
UNGUARDED = 97  # exit status of a worker whose script would start workers of its own
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc: keep freed blocks, since every step asks for the same ones again.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}


class Stopped(Exception):
    """Raised by a run that keeps what it has and is to be tried again."""


class _Asked(threading.Event):
    """Set in a worker that is to stop soon, or that computes for a client that left."""

    def is_set(self) -> bool:
        return super().is_set() or getattr(_own, "client", "") in _left


stopping = _Asked()
_own = threading.local()  # in a thread of a Dask worker: the client it computes for
_left: set[str] = set()  # in a Dask worker: clients that wait no longer


def outcomes(
    todo: Sequence[T],
    run: Run,
    *,
    device: str = "cpu",
    workers: int = 0,
    cluster: str = "",
    until: float | None = None,
) -> Generator[tuple[T, Rows | str]]:
    """Yield each item with its rows or, as text, what it raised, as they come.

    Args:
        todo: What `run` is called with, in this order.
        run: A module-level function or a partial of one; where it raises Stopped, its
            item is tried again.
        device: cpu or cuda; on CUDA workers take the GPUs in turn.
        workers: Processes here, of one thread; 0 is one per core, or four per GPU.
        cluster: Address of a Dask scheduler whose workers compute instead.
        until: When to stop, as of time.time(); workers are asked LEAD seconds earlier.

    Raises:
        RuntimeError: The script that calls this does so when it is imported, or no
            scheduler answers.
    """
    if not todo:
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a worker that still imports the script
    places = _Dask(cluster, run) if cluster else _Here(run, device, workers)
    pending = dict(enumerate(todo))
    heard: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def submit(i: int) -> None:
        future = places.submit(pending[i])
        future.add_done_callback(lambda done: heard.put((i, done)))

    end, asked = None if until is None else until - LEAD, False
    try:
        for i in pending:
            submit(i)
        while pending:
            left = None if end is None else max(0.0, end - time.time())
            try:
                i, future = heard.get(timeout=left)
            except queue.Empty:
                if asked:
                    return
                places.ask()
                end, asked = time.time() + GRACE, True
                continue
            if (said := _said(future)) is not None:
                yield pending.pop(i), said
            elif asked:
                del pending[i]
            else:
                submit(i)
    finally:
        places.close()


def _said(future: Any) -> Any:
    """Return a run's rows, what it raised as text, or None for one that is not done."""
    try:
        return future.result(timeout=60)
    except (futures.CancelledError, asyncio.CancelledError):
        return None
    except Exception as error:
        if isinstance(future, futures.Future):
            raise  # no process can be started here
        if isinstance(error, OSError):
            time.sleep(0.1)  # the scheduler is gone, and nothing comes meanwhile
            return None
        return f"{type(error).__name__}: {error}"  # its worker died


def cores() -> int:
    """Return the number of cores this process may use."""
    linux = sys.platform == "linux"
    return len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1


def _gpus() -> list[int]:
    """Return the GPUs' numbers, each as often as processes share it.

    While one trains networks side by side, others measure.
    """
    import torch

    devices = range(torch.cuda.device_count())
    sizes = [torch.cuda.get_device_properties(i).total_memory for i in devices]
    shares = [min(ON_A_GPU, max(1, size // GPU_MEMORY)) for size in sizes]
    return [i for turn in range(ON_A_GPU) for i in devices if turn < shares[i]]


class _Here:
    """Processes on this machine, each served by a thread of its own."""

    def __init__(self, run: Run, device: str, workers: int) -> None:
        self.run, self.stopped = run, False
        self.gpus = _gpus() if device == "cuda" else []
        self.own, self.lock = threading.local(), threading.Lock()
        self.processes: list[Any] = []
        self.threads = futures.ThreadPoolExecutor(workers or len(self.gpus) or cores())

    def submit(self, item: Any) -> futures.Future[Any]:
        return self.threads.submit(self._compute, item)

    def _compute(self, item: Any) -> Any:
        """Return a process's answer; start one, or another where it died."""
        status = 0
        for _ in range(DEATHS):
            with self.lock:
                if self.stopped:
                    return None
                if not hasattr(self.own, "pipe"):
                    self._start()
            with suppress(EOFError, OSError):
                self.own.pipe.send(item)
                return self.own.pipe.recv()
            del self.own.pipe
            self.own.process.join()
            status = self.own.process.exitcode
            if status == UNGUARDED:
                raise RuntimeError(
                    "a script that computes runs must do so below "
                    '`if __name__ == "__main__":`, since each of its workers '
                    "imports it first"
                )
        return (
            f"its worker died {DEATHS} times, the last with exit status {status} "
            "(-9 is SIGKILL, as where memory runs out; others speak on stderr)"
        )

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        count = len(self.processes)
        gpu = self.gpus[count % len(self.gpus)] if self.gpus else None
        call = (theirs, self.run, gpu)
        process = context.Process(target=_work, args=call, daemon=True)
        new = SETTINGS.keys() - os.environ.keys()
        os.environ.update({name: SETTINGS[name] for name in new})
        try:
            process.start()
        finally:
            for name in new:
                del os.environ[name]
        self.processes.append(process)
        theirs.close()  # so that ours ends when the process does
        self.own.process, self.own.pipe = process, ours

    def ask(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.terminate()

    def close(self) -> None:
        self.ask()
        end = time.time() + GRACE
        for process in self.processes:
            process.join(max(0.0, end - time.time()))
            process.kill()
        self.threads.shutdown()


def _work(pipe: Any, run: Run, gpu: int | None) -> None:
    """Compute what comes through the pipe, until it closes or is told to stop."""
    signal(SIGINT, SIG_IGN)  # the parent hears it and asks us
    signal(SIGTERM, lambda *_: stopping.set())
    parent = multiprocessing.parent_process()
    threading.Thread(target=_follow, args=[parent], daemon=True).start()
    if gpu is not None:
        import torch

        torch.cuda.set_device(gpu)
    with suppress(EOFError, OSError):
        while not stopping.is_set():
            if pipe.poll(0.2):
                pipe.send(_attempt(run, pipe.recv()))


def _attempt(run: Run, item: Any) -> Rows | str | None:
    try:
        return run(item)
    except Stopped:
        stopping.wait(0.1)  # another process may have it for long
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _follow(parent: Any) -> None:
    """End soon after a parent that was killed, instead of never."""
    parent.join()
    stopping.set()
    time.sleep(2.0)  # for a step and a checkpoint
    os._exit(1)


class _Dask:
    """Workers of a Dask cluster, whose scheduler may go and come back in minutes."""

    def __init__(self, address: str, run: Run) -> None:
        from distributed import Client

        self.run, self.order = run, itertools.count()
        try:
            Client(address, timeout=10).close()
            self.client = Client(address, timeout=300)  # as long it connects again
        except OSError as error:
            raise RuntimeError(f"no scheduler answers at {address}") from error

    def submit(self, item: Any) -> Any:
        call = (_there, self.run, item, self.client.id)
        return self.client.submit(*call, pure=False, priority=-next(self.order))

    def ask(self) -> None:
        with suppress(OSError):
            ways: dict[str, Any] = {"on_error": "ignore", "callback_timeout": GRACE}
            self.client.run(_leave, self.client.id, **ways)

    def close(self) -> None:
        self.ask()
        with suppress(OSError):
            self.client.close(timeout=GRACE)


def _there(run: Run, item: Any, client: str) -> Rows | str | None:
    import torch

    torch.set_num_threads(1)
    _own.client = client
    return None if stopping.is_set() else _attempt(run, item)


def _leave(client: str) -> None:
    _left.add(client)
