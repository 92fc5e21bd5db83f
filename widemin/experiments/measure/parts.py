"""A measurement in parts, each kept, and the revisions of what measured them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from widemin.experiments import pool
from widemin.experiments.train import read_checkpoint, spent_seconds, write_checkpoint

# How a part's result is had, by its name and what measures it: found, or else measured.
Part = Callable[[str, Callable[[], Any]], Any]

# The instruments of a final row, and columns of which one shows that each was there.
_TELLTALE: dict[str, tuple[str, ...]] = {
    "answers": ("natural_accuracy",),
    "curvature": ("top_eigenvalue",),
    "widths": ("width_images",),
    "scale free": ("scale_free_images",),
    "implicit": ("implicit_share",),
    "attacks": ("fgsm_accuracy",),
    "restarts": ("restarts_accuracy", "restarts_float64_accuracy"),
    "distance": ("distance_q50",),
    "autoattack": ("autoattack_accuracy",),
    "other statistics": ("all_steps_accuracy",),
    "transfer": ("transfer_accuracy",),
    "white box": ("wang_fgsm_accuracy",),
    "binarization": ("binarized_images",),
    "certificate": ("certificate_survivors",),
}

# Raise an instrument's when it can give another number by more than rounding. Columns
# of an older one are measured again where the network is kept, and no key moves.
REVISIONS = dict.fromkeys(_TELLTALE, 1) | {"distance": 2}


def stated(row: dict[str, Any]) -> dict[str, int]:
    """Return the revisions that a row says, those above 1, by instrument.

    >>> stated({"revisions": "distance 2; widths 3"}), stated({})
    ({'distance': 2, 'widths': 3}, {})
    """
    text = row.get("revisions")
    pairs = (each.rsplit(" ", 1) for each in text.split("; ")) if text else ()
    return {name: int(number) for name, number in pairs}


def state(row: dict[str, Any], measured: Collection[str]) -> dict[str, Any]:
    """Return a row that says the revisions of the instruments that measured it now."""
    known = stated(row) | {n: REVISIONS[n] for n in measured if _made(row, n)}
    text = "; ".join(f"{name} {n}" for name, n in sorted(known.items()) if n > 1)
    return row | {"revisions": text} if text else row


def outdated(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Return the instruments revised since they measured a run's rows."""
    final = [row for row in rows if row.get("measured") == "final"]
    made = [(row, name) for row in final for name in REVISIONS if _made(row, name)]
    old = {name for row, name in made if stated(row).get(name, 1) < REVISIONS[name]}
    if "attacks" in old:  # these say what its PGD leaves of their images
        old |= {name for _, name in made if name in ("restarts", "autoattack")}
    return old


def _made(row: dict[str, Any], name: str) -> bool:
    values = (row.get(column) for column in _TELLTALE[name])
    return any(v is not None and v == v for v in values)  # NaN is no number


KEPT_SECONDS = 5.0  # of work, before what is measured is written down


class Parts:
    """What has been measured of a network, by the names of the parts; kept in a file.

    A part found there is not measured again. It must draw from generators of its own:
    then the numbers are the same, wherever a measurement was left off.

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
        self.results: dict[str, Any] = kept.get("found", {})
        self.seconds: float = kept.get(
            "seconds", 0.0
        )  # of all parts, the kept included
        self.unkept = 0.0  # seconds

    def of(self, test: str) -> Part:
        """Return the parts measured in one test set."""
        return lambda name, work: self(f"{test}, {name}", work)

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Return a part's result: floats, texts, tensors, lists and dicts of them.

        Raises:
            Stopped: Asked to stop before a part that is not there; the rest is kept.
        """
        if name not in self.results:
            if pool.stopping.is_set():
                self._keep()
                raise pool.Stopped
            started = spent_seconds(self.device)
            self.results[name] = work()
            took = spent_seconds(self.device) - started
            self.seconds, self.unkept = self.seconds + took, self.unkept + took
            if self.unkept > KEPT_SECONDS:
                self._keep()
        return self.results[name]

    def _keep(self) -> None:
        if self.path and self.unkept:
            state = {"found": self.results, "seconds": self.seconds}
            write_checkpoint(self.path, state | {"revisions": dict(REVISIONS)})
            self.unkept = 0.0

    def forget(self) -> None:
        """Remove the file: everything is measured."""
        if self.path:
            self.path.unlink(missing_ok=True)
