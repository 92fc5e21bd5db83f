"""Runs computed by other processes on this machine.

One process per core, one thread each, or one per GPU. A worker that dies is replaced,
one that is asked to stop keeps what it has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[[Any], list[dict[str, Any]]]
Outcomes = Generator[tuple[T, "list[dict[str, Any]] | Failure"]]

GRACE = 5.0  # seconds a worker that is asked to stop has to keep what it has
LEAD = GRACE + 4.0  # seconds before a deadline at which it is asked
DEATHS = 4  # of workers on one recipe, before it counts as failed
UNGUARDED = 97  # exit status of a worker whose script would start workers of its own
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc: keep freed blocks, since every step asks for the same ones again.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
stopping = threading.Event()  # in a worker: set when it is to stop soon


class Stopped(Exception):
    """Raised by a run that was asked to stop and has kept what it had."""


class Busy(Exception):
    """Raised by a run that another process has under way."""


@dataclass(frozen=True)
class Failure:
    """What a run raised, in words."""

    error: str


@dataclass(frozen=True)
class _Gone:
    """A worker that died, with its exit status; below 0 is the signal that ended it."""

    status: int

    def __str__(self) -> str:
        if self.status == -signal.SIGKILL:
            return (
                "the last killed by SIGKILL, as a machine does that has no memory left"
            )
        if self.status < 0:
            return f"the last killed by {signal.Signals(-self.status).name}"
        return f"the last with exit status {self.status}; what it said is on stderr"


def cores() -> int:
    """Return the number of cores this process may use."""
    return (
        len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    )


def local(
    todo: Sequence[T],
    run: Run,
    *,
    device: str = "cpu",
    workers: int = 0,
    until: float | None = None,
) -> Outcomes[T]:
    """Yield each item with its rows or its failure, as processes here finish them.

    Args:
        todo: What `run` is called with, in this order.
        run: A module-level function or a partial of one. It may raise Stopped, which
            yields nothing, and Busy, which puts the item last.
        device: cpu or cuda; on CUDA workers take the GPUs in turn.
        workers: Processes; 0 is one per core, or one per GPU.
        until: When to stop, as of time.time(); workers are asked LEAD seconds earlier.

    Raises:
        RuntimeError: The script that calls this does so when it is imported.
    """
    if todo and getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a worker that still imports the script: see below
    pool = _Pool(run, device, min(workers or _places(device), len(todo)))
    waiting, deaths = deque(todo), Counter[int]()
    try:
        while waiting or pool.busy:
            pool.give(waiting)
            for item, message in pool.finished(until):
                if isinstance(message, _Gone):
                    if message.status == UNGUARDED:
                        raise RuntimeError(
                            "a script that computes runs must do so below "
                            '`if __name__ == "__main__":`, since each of its workers '
                            "imports it first"
                        )
                    deaths[id(item)] += 1
                    if deaths[id(item)] < DEATHS:
                        waiting.appendleft(item)
                        continue
                    message = Failure(f"its worker died {DEATHS} times, {message}")
                if isinstance(message, Busy):
                    time.sleep(0 if waiting else 1)
                    waiting.append(item)
                elif isinstance(message, Stopped):  # by a signal of somebody else's
                    waiting.appendleft(item)
                else:
                    yield item, message
            if until is not None and time.time() >= until - LEAD:
                break
        yield from pool.dismiss()
    finally:
        for _ in pool.dismiss():  # after Ctrl-C: the caller hears no more
            pass


def _places(device: str) -> int:
    if device == "cpu":
        return cores()
    import torch

    return torch.cuda.device_count()


@contextlib.contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Let processes started meanwhile see variables that are not set otherwise."""
    new = {k: v for k, v in settings.items() if k not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


class _Pool:
    """Processes that each compute one item at a time, told apart by their pipes."""

    def __init__(self, run: Run, device: str, size: int) -> None:
        self.run, self.device = run, device
        self.context = multiprocessing.get_context("spawn")
        self.idle: list[int] = list(range(size))  # places without work
        self.hired: dict[int, tuple[Any, Connection]] = {}
        self.busy: dict[int, Any] = {}

    def give(self, waiting: deque[Any]) -> None:
        while waiting and self.idle:
            place = self.idle.pop()
            if place not in self.hired:
                self.hired[place] = self._hire(place)
            self.busy[place] = waiting.popleft()
            with contextlib.suppress(BrokenPipeError):  # it died: heard of below
                self.hired[place][1].send(self.busy[place])

    def _hire(self, place: int) -> tuple[Any, Connection]:
        ours, theirs = self.context.Pipe()
        gpu = place if self.device == "cuda" else None
        process = self.context.Process(
            target=_work, args=(theirs, self.run, gpu), daemon=True
        )
        with environment(SETTINGS):
            process.start()
        theirs.close()  # so that ours ends when the process does
        return process, ours

    def finished(self, until: float | None) -> Iterator[tuple[Any, Any]]:
        """Wait; yield the items that are done with what was sent, _Gone for a death."""
        left = None if until is None else max(0.0, until - LEAD - time.time())
        heard = wait([self.hired[place][1] for place in self.busy], timeout=left)
        for place in [p for p in self.busy if self.hired[p][1] in heard]:
            process, pipe = self.hired[place]
            try:
                message = pipe.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                message = _Gone(process.exitcode)
                del self.hired[place]
            self.idle.append(place)
            yield self.busy.pop(place), message

    def dismiss(self) -> Iterator[tuple[Any, Any]]:
        """Ask every worker to stop; yield the rows that still come; end the rest."""
        for process, _ in self.hired.values():
            process.terminate()
        end = time.time() + GRACE
        while self.busy and time.time() < end:
            for item, message in self.finished(end + LEAD):
                if isinstance(message, list | Failure):
                    yield item, message
        for place, (process, connection) in self.hired.items():
            connection.close()
            if place in self.busy:
                process.kill()
            process.join()
        self.hired.clear()
        self.busy.clear()


def _work(connection: Connection, run: Run, gpu: int | None) -> None:
    """Compute what comes through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and asks us
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_follow_parent, daemon=True).start()
    if gpu is not None:
        import torch

        torch.cuda.set_device(gpu % torch.cuda.device_count())
    with contextlib.suppress(EOFError, BrokenPipeError):
        while not stopping.is_set():
            connection.send(attempt(run, connection.recv()))


def attempt(run: Run, item: Any) -> list[dict[str, Any]] | Failure | Stopped | Busy:
    """Return an item's rows, or what kept it from having any."""
    try:
        return run(item)
    except (Stopped, Busy) as reason:
        return type(reason)()
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")


def _follow_parent() -> None:
    # Else a worker whose parent was killed would go on for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        stopping.set()
        time.sleep(2.0)  # for a step and a checkpoint
        os._exit(1)
