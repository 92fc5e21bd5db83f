"""Verdicts: what became of a claim, judged by the rows there are."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from widemin.claims.criterion import criteria, plain
from widemin.claims.numbers import Spread
from widemin.provenance import PROVENANCE

OUTCOMES = (
    "reproduced",
    "partly",
    "not reproduced",
    "not decidable at this scale",
    "not yet run",
)

# Rows that agree in these differ in their seed alone.
_CELL = ["dataset", "model", "batch_size", "learning_rate", "momentum", "schedule"]
_CELL += ["augment", "epochs", "method", "rho", "attack", "attack_steps"]
_CELL += ["attack_step", "step_schedule"]
_PLURAL = {
    "seed": "seeds",
    "batch_size": "batch sizes",
    "learning_rate": "learning rates",
    "attack": "training sets of perturbations",
    "train_size": "training images",
}

_COLOUR = dict(zip(OUTCOMES, ("tip", "note", "warning", "note", "note"), strict=True))


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: Its id, e.g. "W1".
        outcome: One of OUTCOMES.
        paper: The paper's number.
        ours: Ours.
        evidence: A sentence with the numbers behind it.
        holds_up: Whether it holds under the stronger test: yes, no or not tested.
        seeds: How many seeds would decide it, by the spread seen.
        value: What the criterion is about, in its own unit, mean over seeds.
        interval: Its 95 % interval over seeds.
        basis: The rows behind it: how many runs and seeds, and where they come from.
    """

    claim: str
    outcome: str
    paper: str
    ours: str
    evidence: str
    holds_up: str = "not tested"
    seeds: str = ""
    value: float | None = None
    interval: tuple[float, float] | None = None
    basis: dict[str, Any] = field(default_factory=dict)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        # What is shown, and beside it what the page of verdicts is made of.
        return {"text/markdown": self.box()}, {"widemin": asdict(self)}

    @property
    def scale(self) -> str:
        """What the verdict rests on, in words; "" for mathematics and without rows."""
        if not self.basis.get("train_size"):
            return ""
        counts = {"run": self.basis["runs"], "seed": self.basis["seeds"]}
        counted = (f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())
        images, epochs = (_range(self.basis[n]) for n in ("train_size", "epochs"))
        where = [f"{images} training images", f"{epochs} epochs"]
        where = [*self.basis["dataset"], *where, *self.basis.get("device", [])]
        return f"{', '.join(counted)}: {', '.join(where)}"

    def box(self) -> str:
        """Return the verdict as an admonition in MyST markdown."""
        claim = criteria()[self.claim]
        return "\n".join(
            [
                f":::{{admonition}} {self.claim}: {self.outcome}",
                f":class: {_COLOUR[self.outcome]} verdict",
                f":name: {anchor(self.claim)}",
                f"**Claim.** {_sentence(claim.statement)}",
                "",
                "**Settled by** mathematics."
                if claim.decidable_from == "mathematics"
                else f"**Passes if** {plain(claim.criterion)}.",
                "",
                f"**The paper:** {self.paper}. **Ours:** {self.ours}. {self.evidence}",
                *(["", f"**Rests on** {self.scale}."] if self.scale else []),
                "",
                f"**Under the stronger test:** {self.holds_up}.",
                *(
                    ["", f"**What would decide it:** {self.seeds}."]
                    if self.seeds
                    else []
                ),
                "",
                "[All verdicts](../verdicts.md)",
                ":::",
            ]
        )


def _range(values: list[int]) -> str:
    """Return the least and the largest of some numbers in words."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def anchor(claim: str) -> str:
    """Return where a claim's verdict stands on its page."""
    return f"verdict-{claim.lower()}"


def _sentence(text: str) -> str:
    return plain(text[0].upper() + text[1:]) + "."


def shortfall(table: pd.DataFrame, needs: dict[str, str]) -> str:
    """Return what the rows lack to decide a claim, or "".

    Sizes (train_size, epochs, images) must be reached by every row, `samples` is
    their product; of seeds, cells and sets there must be as many different ones.
    """
    if set(table["dataset"]) == {"digits"}:
        return "it takes larger images than digits"
    for name, wanted in needs.items():
        if name == "dataset":
            if set(table["dataset"]) != {wanted}:
                return f"it takes {wanted}"
            continue
        if name == "samples":
            found = int((table["train_size"] * table["epochs"]).min())
        elif name in ("train_size", "epochs", "images"):
            found = int(table[name].min())
        elif name == "cells":
            found = table.groupby(["batch_size", "learning_rate"]).ngroups
        elif name == "networks":
            found = table["key"].nunique()
        elif name == "seed":  # of the cell that has the fewest
            cell = [name for name in _CELL if name in table]
            found = int(table.groupby(cell)["seed"].nunique().min())
        else:
            found = table.loc[table[name].astype(str) != "", name].nunique()
        if found < int(wanted):
            plural = _PLURAL.get(name, name.replace("_", " "))
            return f"it takes {int(wanted):,} {plural}; there are {found:,}"
    return ""


def judge(
    name: str,
    table: pd.DataFrame,
    passed: bool | str,
    *,
    seeds: str | Spread = "",
    **texts: str,
) -> Verdict:
    """Return the verdict; too small a table decides nothing, whatever it shows.

    Args:
        name: The claim's id.
        table: The rows judged.
        passed: Whether the criterion is met, or "partly".
        seeds: What would decide it, in words or by the spread over seeds.
        texts: paper, ours, evidence and, where there is one, holds_up of the Verdict.
    """
    done, planned = (table.attrs.get(key, 0) for key in ("done", "planned"))
    if done < planned:
        texts["evidence"] += f" Rests on {done} of {planned} planned runs."
    lacking = shortfall(table, criteria()[name].needs)
    outcome = passed if isinstance(passed, str) else "reproduced"
    outcome = outcome if passed else "not reproduced"
    if lacking:
        outcome = "not decidable at this scale"
        shown = "would pass" if passed is True else "would not pass"
        texts["evidence"] += f" At this scale it {shown}; to decide, {lacking}."
        texts["holds_up"] = "not tested"
    facts: dict[str, Any] = {**texts, "basis": basis(table), "seeds": seeds}
    if isinstance(seeds, Spread):
        facts["seeds"] = seeds.words
        if math.isfinite(seeds.mean):
            facts["value"] = seeds.mean
        if math.isfinite(seeds.half):
            facts["interval"] = (seeds.mean - seeds.half, seeds.mean + seeds.half)
    return Verdict(name, outcome, **facts)


def basis(table: pd.DataFrame) -> dict[str, Any]:
    """Return how many runs and seeds rows hold, and where they come from."""
    found: dict[str, Any] = {
        name: int(table[column].nunique())
        for name, column in (("runs", "key"), ("seeds", "seed"))
        if column in table
    }
    for name in ("train_size", "epochs"):
        if name in table:
            found[name] = sorted({int(value) for value in table[name]})
    for name in ("dataset", *PROVENANCE):
        if name in table:
            found[name] = sorted({str(v) for v in table[name].dropna()})
    return found


def absent(name: str) -> Verdict:
    """Return the verdict of a claim for which there are no rows."""
    return Verdict(name, "not yet run", "see the chapter", "none", "No rows yet.")
