"""Runs computed on a Dask cluster."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import threading
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from widemin.experiments import pool

T = TypeVar("T")


def on_cluster(
    address: str, todo: Sequence[T], run: pool.Run, *, until: float | None = None
) -> pool.Outcomes[T]:
    """Yield each item with its rows or its failure, as a Dask cluster finishes them.

    A worker that dies is replaced by the scheduler's others. When the scheduler goes,
    what is unfinished is submitted again once one answers at its address.

    Args:
        address: Of the scheduler, e.g. tcp://127.0.0.1:8786.
        todo: What `run` is called with, in this order.
        run: A function that the workers can import.
        until: When to stop waiting, as of time.time().
    """
    from distributed import as_completed

    gone = (OSError, concurrent.futures.CancelledError, asyncio.CancelledError)
    waiting, patience = dict(enumerate(todo)), 10
    while waiting:
        client = _client(address, patience, until)
        patience = 300  # once it has answered, it may be away for minutes
        try:
            left = None if until is None else max(0.0, until - time.time())
            end = None if left is None else _scheduler_time(client) + left
            futures = {
                client.submit(_there, run, item, end, pure=False, priority=-i): i
                for i, item in waiting.items()
            }
            for future in as_completed(futures, timeout=left):
                if future.status in ("cancelled", "lost"):
                    continue  # with its scheduler; submitted again below
                message = future.result() if future.status == "finished" else None
                if isinstance(message, pool.Busy):
                    time.sleep(1)
                    continue  # submitted again, too
                item = waiting.pop(futures[future])
                if message is None:
                    message = pool.Failure(f"{future.exception()}")
                if not isinstance(message, pool.Stopped):
                    yield item, message
        except gone:  # the time is up, or it went while a result was under way
            if until is not None and time.time() >= until:
                return
        finally:
            with contextlib.suppress(TimeoutError):
                client.close(timeout=pool.GRACE)


def _client(address: str, patience: float, until: float | None) -> Any:
    """Return a client of the scheduler at an address, if one answers in time."""
    from distributed import Client

    end = min(time.time() + patience, until or math.inf)
    while True:
        try:
            return Client(address, timeout=max(1.0, end - time.time()))
        except OSError as error:  # at once where it goes while it answers
            if time.time() >= end - 1.0:
                raise RuntimeError(f"no scheduler answers at {address}") from error
            time.sleep(1)


def _scheduler_time(client: Any) -> float:
    """Return seconds by the scheduler's clock: the machines' own need not agree."""
    return float(client.run_on_scheduler(time.monotonic))


def _there(run: pool.Run, item: Any, end: float | None) -> Any:
    """Compute an item in a Dask worker, with one thread, asked to stop in time.

    Args:
        run: What to do with the item.
        item: Of the work.
        end: When the caller stops waiting, by the scheduler's clock.
    """
    import torch
    from distributed import get_client

    torch.set_num_threads(1)
    pool.stopping.clear()
    left = threading.TIMEOUT_MAX
    if end is not None:
        left = end - pool.LEAD - _scheduler_time(get_client())
    alarm = threading.Timer(max(0.0, left), pool.stopping.set)
    alarm.daemon = True
    alarm.start()
    try:
        return pool.attempt(run, item)
    finally:
        alarm.cancel()
