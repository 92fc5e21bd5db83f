"""Revisions of instruments: a column carries that of the instrument that made it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

# Raise an instrument's when it can give another number by more than rounding. Rows say
# the revisions above 1 that made them; columns of an older one are measured again where
# the network is kept, and no key moves.
REVISIONS = {
    "answers": 1,
    "curvature": 1,
    "widths": 1,
    "implicit": 1,
    "attacks": 1,
    "restarts": 1,
    "distance": 1,
    "autoattack": 1,
    "other statistics": 1,
    "transfer": 1,
    "white box": 1,
}

# Columns of each, of which one shows that a row was measured so. Rows of other kinds
# than "final" have no revisions.
_TELLTALE: dict[str, tuple[str, ...]] = {
    "answers": ("natural_accuracy",),
    "curvature": ("top_eigenvalue",),
    "widths": ("width_images",),
    "implicit": ("implicit_share",),
    "attacks": ("fgsm_accuracy",),
    "restarts": ("restarts_accuracy", "restarts_float64_accuracy"),
    "distance": ("distance_q50",),
    "autoattack": ("autoattack_accuracy",),
    "other statistics": ("all_steps_accuracy",),
    "transfer": ("transfer_accuracy",),
    "white box": ("wang_fgsm_accuracy",),
}


def stated(row: dict[str, Any]) -> dict[str, int]:
    """Return the revisions that a row says, by instrument.

    >>> stated({"revisions": "distance 2; widths 3"}), stated({})
    ({'distance': 2, 'widths': 3}, {})
    """
    text = row.get("revisions")
    pairs = (each.rsplit(" ", 1) for each in text.split("; ")) if text else ()
    return {name: int(number) for name, number in pairs}


def state(row: dict[str, Any], measured: Collection[str]) -> dict[str, Any]:
    """Return a row that says the revisions of the instruments that measured it now."""
    known = stated(row) | {
        name: REVISIONS[name] for name in measured if _made(row, name)
    }
    text = "; ".join(f"{name} {n}" for name, n in sorted(known.items()) if n > 1)
    return row | {"revisions": text} if text else row


def outdated(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Return the instruments revised since they measured a run's rows."""
    final = [row for row in rows if row.get("measured") == "final"]
    old = {
        name
        for row in final
        for name, revision in REVISIONS.items()
        if _made(row, name) and stated(row).get(name, 1) < revision
    }
    if "attacks" in old:  # these say what its PGD leaves of their images
        beside = ("restarts", "autoattack")
        old |= {name for name in beside if any(_made(row, name) for row in final)}
    return old


def _made(row: dict[str, Any], name: str) -> bool:
    values = (row.get(column) for column in _TELLTALE[name])
    return any(v is not None and v == v for v in values)  # NaN is no number
