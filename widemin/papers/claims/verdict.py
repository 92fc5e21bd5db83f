"""Verdicts: what became of a claim, and how a page shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from widemin.names import written
from widemin.papers.claims.criterion import criteria, plain

OUTCOMES = (
    "reproduced",
    "partly",
    "not reproduced",
    "not decidable at this scale",
    "not yet run",
)

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
        preset: Whose rows they are, where not the page's.
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
    preset: str = ""

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
        return f"{', '.join(counted)}: {', '.join(map(written, where))}"

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
