"""torch's global generator, from which layers draw: seeded, put back, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Threads share that generator, and more of torch's state: what needs it for itself
# holds this.
ALONE = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generator of the CPU and CUDA; put back the CPU's afterwards.

    Another thread that asks for it waits.

    >>> def drawn():
    ...     with seeded(0):
    ...         return torch.rand(())
    >>> bool(drawn() == drawn())
    True
    """
    with ALONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
