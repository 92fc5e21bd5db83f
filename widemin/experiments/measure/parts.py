"""A measurement in parts, each kept so that a stop loses one at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from widemin.experiments import pool
from widemin.experiments.measure.revisions import REVISIONS
from widemin.experiments.train import read_checkpoint, spent_seconds, write_checkpoint

T = TypeVar("T")


class Part(Protocol):
    """How a part's result is had: found, or else measured and kept."""

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        """Return a part's result, by its name and what measures it."""


KEPT_SECONDS = 5.0  # of work, before what is measured is written down


class Parts:
    """What has been measured of a network, by the names of the parts.

    A part found in the file is not measured again. It must draw from generators of its
    own: then the numbers are the same, wherever a measurement was left off.

    Args:
        path: Where parts are kept; without it they are not.
        device: cpu or cuda, by whose clock they are timed.

    Attributes:
        seconds: What the parts have taken, those found included.

    >>> parts = Parts()
    >>> parts("one", lambda: 1), parts("one", lambda: 2)
    (1, 1)
    """

    def __init__(self, path: Path | None = None, device: str = "cpu") -> None:
        """Go on from the file, if it is there."""
        kept = (read_checkpoint(path, device) if path else None) or {}
        if kept.get("revisions", dict.fromkeys(REVISIONS, 1)) != REVISIONS:
            kept = {}  # older instruments measured these
        self.path, self.device = path, device
        self.found: dict[str, Any] = kept.get("found", {})
        self.seconds: float = kept.get("seconds", 0.0)
        self.unkept = 0.0  # seconds

    def of(self, test: str) -> Part:
        """Return the parts measured in one test set."""

        def part(name: str, work: Callable[[], T]) -> T:
            return self(f"{test}, {name}", work)

        return part

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        """Return a part's result: floats, texts, tensors, lists and dicts of them.

        Raises:
            Stopped: Asked to stop before a part that is not there; the rest is kept.
        """
        if name not in self.found:
            if pool.stopping.is_set():
                self._keep()
                raise pool.Stopped
            started = spent_seconds(self.device)
            self.found[name] = work()
            took = spent_seconds(self.device) - started
            self.seconds, self.unkept = self.seconds + took, self.unkept + took
            if self.unkept > KEPT_SECONDS:
                self._keep()
        result: T = self.found[name]
        return result

    def _keep(self) -> None:
        if self.path and self.unkept:
            state = {"found": self.found, "seconds": self.seconds}
            write_checkpoint(self.path, state | {"revisions": dict(REVISIONS)})
            self.unkept = 0.0

    def forget(self) -> None:
        """Remove the file: everything is measured."""
        if self.path:
            self.path.unlink(missing_ok=True)
