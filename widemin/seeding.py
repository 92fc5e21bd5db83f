"""torch's global generator, from which layers draw: seeded, put back, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Held by what needs the state of torch that threads share for itself.
ALONE = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generator of the CPU and CUDA; put back the CPU's afterwards.

    Another thread that asks for it waits.

    >>> with seeded(0):
    ...     torch.rand(())
    tensor(0.4963)
    """
    with ALONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
