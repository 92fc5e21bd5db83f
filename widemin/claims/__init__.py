"""The papers' claims: a function each, from a tidy table to a verdict.

Statements, criteria, thresholds and what it takes to decide stand in
book/claims.csv, committed before the runs. Accuracies are fractions in tables and
percent in sentences. The functions stand in a module per paper; each is named after
its claim and judges the rows it is given; which rows those are, the chapter says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import pandas as pd

from widemin import paths
from widemin.provenance import PROVENANCE
from widemin.statistics import over_seeds, seeds_to_decide, wilson

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
BALLS = {"linf": "L∞", "l2": "L2"}
_PLURAL = {
    "seed": "seeds",
    "batch_size": "batch sizes",
    "learning_rate": "learning rates",
    "attack": "training sets of perturbations",
    "train_size": "training images",
}
_COLOUR = dict(zip(OUTCOMES, ("tip", "note", "warning", "note", "note"), strict=True))


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in book/claims.csv, with its criterion."""

    id: str
    paper: str
    statement: str
    criterion: str
    thresholds: dict[str, float]
    needs: dict[str, str]
    decidable_from: str
    stronger_test: str
    line: int  # of claims.csv


@cache
def criteria() -> dict[str, Claim]:
    """Return every claim by its id."""

    def pairs(text: str) -> dict[str, str]:
        parts = (part.split("=") for part in text.split(";") if part.strip())
        return {name.strip(): value.strip() for name, value in parts}

    table = pd.read_csv(paths.BOOK / "claims.csv", dtype=str, keep_default_na=False)
    return {
        row["id"]: Claim(
            id=row["id"],
            paper=row["paper"],
            statement=row["statement"],
            criterion=row["criterion"],
            thresholds={k: float(v) for k, v in pairs(row["thresholds"]).items()},
            needs=pairs(row["needs"]),
            decidable_from=row["decidable_from"],
            stronger_test=row["stronger_test"],
            line=line,
        )
        for line, row in enumerate(table.to_dict("records"), start=2)
    }


def paper_table(name: str) -> pd.DataFrame:
    """Return one of the papers' own tables, as printed, in percent."""
    return pd.read_csv(paths.PUBLISHED / "papers" / f"{name}.csv")


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


def anchor(claim: str) -> str:
    """Return where a claim's verdict stands on its page."""
    return f"verdict-{claim.lower()}"


def plain(text: str) -> str:
    """Return a text of claims.csv so that markdown shows it as it stands."""
    for symbol, entity in (("<", "&lt;"), (">", "&gt;"), ("*", "\\*"), ("$", "\\$")):
        text = text.replace(symbol, entity)
    return text.rstrip(".")


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


@dataclass(frozen=True)
class Spread:
    """What a criterion is about, one value a seed.

    Attributes:
        mean: Over seeds.
        half: Half the width of its 95 % interval; NaN for one seed.
        words: How many seeds would decide.
    """

    mean: float
    half: float
    words: str


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
    for name in ("dataset", *PROVENANCE):
        if name in table:
            found[name] = sorted({str(v) for v in table[name].dropna()})
    return found


def final(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of networks that did not diverge."""
    if table.empty:
        return table
    rows = table[table["measured"] == "final"]
    return rows[~rows["diverged"].astype(bool)]


def absent(name: str) -> Verdict:
    """Return the verdict of a claim for which there are no rows."""
    return Verdict(name, "not yet run", "see the chapter", "none", "No rows yet.")


def ball_name(test: str) -> str:
    """Return a set as axes and sentences name it, e.g. "L∞ 8/255"."""
    norm, _, radius = test.partition(" ")
    return f"{BALLS[norm]} {radius}"


def percent(value: float) -> str:
    """Return a fraction as percent, one decimal."""
    return f"{100 * value:.1f} %"


def summary(values: pd.Series[Any], images: int) -> str:
    """Return mean and 95 % interval in percent: over seeds, or over images for one.

    >>> summary(pd.Series([0.5, 0.6, 0.7]), 1000)
    '60.0 ± 24.8 % (3 seeds)'
    >>> summary(pd.Series([0.5]), 100)
    '50.0 % (1 seed; 40.4 to 59.6 % over images)'
    """
    mean, half = over_seeds(list(values))
    if math.isnan(half):
        low, high = (100 * bound for bound in wilson(mean, images))
        return f"{percent(mean)} (1 seed; {low:.1f} to {high:.1f} % over images)"
    return f"{100 * mean:.1f} ± {100 * half:.1f} % ({len(values)} seeds)"


def deciding(values: Sequence[float], threshold: float, about: str = "") -> Spread:
    """Return how many seeds would decide, by one value of each seed.

    >>> deciding([0.5, 0.6, 0.7], 0.8).words
    '4 seeds, by the spread over the 3 seen'
    >>> deciding([0.5], 0.8).words
    'one seed tells no spread: at least 2'
    """
    known = [value for value in values if not math.isnan(value)]
    mean, half = over_seeds(known) if known else (math.nan, math.nan)
    if len(known) < 2:
        return Spread(mean, half, "one seed tells no spread: at least 2" + about)
    needed = seeds_to_decide(known, threshold)
    number = "more than 1,000" if needed is None else str(needed)
    words = f"{number} seeds, by the spread over the {len(known)} seen{about}"
    return Spread(mean, half, words)


def of_each_seed(
    rows: pd.DataFrame, number: Callable[[pd.DataFrame], float]
) -> list[float]:
    """Return a claim's number for every seed's runs alone, where they give one."""
    found = [float(number(part)) for _, part in rows.groupby("seed")]
    return [value for value in found if not math.isnan(value)]
