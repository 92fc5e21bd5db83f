"""Verdicts: what became of a claim, and how a page shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from widemin import paths
from widemin.names import written
from widemin.papers.claims.criterion import criteria, plain
from widemin.papers.claims.engine import (
    FAILS,
    INCONCLUSIVE,
    NOT_RUN,
    OUTCOMES,
    PASSES,
    UNDECIDABLE,
    Judged,
    counted,
    judge_parts,
    word,
)
from widemin.papers.claims.parts import Part, parts
from widemin.papers.claims.printed import printed, said
from widemin.papers.claims.rows import Runs

_COLOUR = dict(zip(OUTCOMES, ("tip", "note", "warning", *["note"] * 3), strict=True))
_PERCENT = ("accuracy", "share", "epoch_share")
_POINTS = ("difference", "range", "distance", "deviation")
_NO_NUMBER = {"printed": "no number", "argued": "argued", "control": "says nothing"}


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, and of each of its parts.

    >>> Verdict("W12", judge_parts("W12", [])).outcome  # mathematics takes no rows
    'partly'
    """

    claim: str
    parts: Sequence[Judged]

    @property
    def outcome(self) -> str:
        """One of OUTCOMES, by the words of the parts."""
        return word(self.parts)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        # What is shown, and beside it what the page of verdicts is made of.
        return {"text/markdown": self.box()}, {"widemin": self.data()}

    def data(self) -> dict[str, Any]:
        """Return the verdict as numbers, texts, lists and dictionaries."""
        there = [j for j in self.parts if j.n] or list(self.parts)
        told = next((j for j in there if j.part.kind != "control"), there[0])
        return {
            "claim": self.claim,
            "outcome": self.outcome,
            "kind": kind_of(self.claim),
            "paper": theirs(told.part),
            "ours": f"{told.part.name} {here(told)}; {self.counted()}",
            "reason": self.reason(),
            "preset": told.preset,
            "basis": dict(told.basis),
            "parts": [as_data(judged) for judged in self.parts],
        }

    def counted(self) -> str:
        """Return how many parts have which word, controls apart.

        >>> Verdict("W13", judge_parts("W13", [])).counted()
        '2 not yet run; controls: 1 not yet run'
        """
        control = [j.word for j in self.parts if j.part.kind == "control"]
        own = [j.word for j in self.parts if j.part.kind != "control"]
        texts = [_tally(own)] if own else []
        return "; ".join(texts + ([f"controls: {_tally(control)}"] if control else []))

    def reason(self) -> str:
        """Return in a sentence which parts make the word, and why.

        >>> Verdict("W13", judge_parts("W13", [])).reason()
        'Parts a and b have no rows.'
        """
        made = {PASSES, FAILS}
        if self.outcome != "partly":
            made = {word for word, makes in _MAKES.items() if makes == self.outcome}
        of: dict[tuple[str, str], list[str]] = {}
        for judged in counted(self.parts):
            if judged.word in made:
                of.setdefault((judged.word, judged.lacks), []).append(judged.part.part)
        return " ".join(_because(*key, letters) for key, letters in of.items())

    def box(self) -> str:
        """Return the verdict as an admonition in MyST markdown."""
        claim = criteria()[self.claim]
        rows = [
            f"| {j.part.part}{' (control)' * (j.part.kind == 'control')} "
            f"| {plain(j.part.statement)}: passes if {plain(j.part.criterion)} "
            f"| {theirs(j.part)} | {here(j)} | {j.word} |"
            for j in self.parts
        ]
        would = [f"{j.part.part}: {j.would_decide}" for j in self.parts]
        would = [text for text in would if not text.endswith(": ")]
        own = kind_of(self.claim) == "control"
        lines = [
            f":::{{admonition}} {self.claim}: {self.outcome}",
            f":class: {_COLOUR[self.outcome]} verdict",
            f":name: {anchor(self.claim)}",
            f"**{'Our own check' if own else 'Claim'}.** "
            f"{plain(claim.statement[0].upper() + claim.statement[1:])}.",
            *("", "| | part | the paper | here | |", "| --- | --- | --- | --- | --- |"),
            *rows,
            *("", self.reason()),
            *("", f"{_history([j.part for j in self.parts])} {_rests(self.parts)}"),
        ]
        if self.outcome == INCONCLUSIVE and would:
            lines += ["", f"**What would decide it:** {'; '.join(would)}."]
        return "\n".join([*lines, "", "[All verdicts](../verdicts.md)", ":::"])


# The outcome that a part's word makes, where another does not go before it.
_MAKES = {PASSES: "reproduced", FAILS: "not reproduced"}
_MAKES |= {name: name for name in (INCONCLUSIVE, UNDECIDABLE, NOT_RUN)}


def _because(word: str, lacks: str, letters: Sequence[str]) -> str:
    """Return in a sentence why parts have a word."""
    *most, last = letters
    s = "" if most else "s"
    who = f"Part{'s' * bool(most)} {', '.join(most)}{' and ' * bool(most)}{last}"
    why = {
        PASSES: f"pass{'es' * bool(s)}",
        FAILS: f"fail{s}",
        INCONCLUSIVE: f"ha{s or 've'} an interval that contains the threshold",
        NOT_RUN: f"ha{s or 've'} no rows",
    }.get(word, f"cannot be decided yet: {lacks}")
    return f"{who} {why}."


def _tally(words: Sequence[str]) -> str:
    """Return how often each word stands in a list."""
    order = (PASSES, FAILS, INCONCLUSIVE, UNDECIDABLE, NOT_RUN)
    verbs = {PASSES: "pass", FAILS: "fail"}
    return ", ".join(
        f"{words.count(w)} {verbs.get(w, w)}" for w in order if w in words
    ).replace("1 pass,", "1 passes,")


def show(name: str, evidence: Sequence[Runs], simulated: Any = None) -> Verdict:
    """Return the verdict on a claim by rows of several presets, the largest first."""
    return Verdict(name, judge_parts(name, evidence, simulated))


def kind_of(name: str) -> str:
    """Return "claim" for a paper's, "control" for a check of our own."""
    own = {part.kind for part in parts()[name]} == {"control"}
    return "control" if own else "claim"


def number(part: Part, value: float) -> str:
    """Return a part's statistic in its unit.

    >>> [part] = parts()["S12"]
    >>> number(part, 0.031)
    '3.1 %'
    """
    if math.isnan(value):
        return "none"
    if part.statistic == "theorem":
        return "holds" if value >= 1 else "does not hold as printed"
    if part.statistic == "count":
        return f"{value:.2f} off"
    if part.statistic in _PERCENT:
        return f"{100 * value:.1f} %"
    if part.statistic in _POINTS:
        return f"{100 * value:.2f} points"
    return f"{value:.3g}" if abs(value) >= 10 or part.threshold == 0 else f"{value:.2f}"


def theirs(part: Part) -> str:
    """Return a part's statistic in the paper's own table, where it prints numbers."""
    value = printed(part)
    none = _NO_NUMBER[part.kind] if value is None else number(part, value)
    return said(part) or none


def here(judged: Judged) -> str:
    """Return a part's statistic here: value, interval, n, chance, what it lacks."""
    if not judged.n and math.isnan(judged.value):
        return judged.lacks or judged.word
    text = number(judged.part, judged.value)
    if judged.seen:
        text = " and ".join(number(judged.part, value) for value in judged.seen)
    elif judged.interval:
        low, high = (number(judged.part, end) for end in judged.interval)
        text += f" ({low} to {high})"
    if not math.isnan(judged.chance):
        text += f"; passes by chance: {100 * judged.chance:.0f} %"
    if judged.n:
        text += f"; {judged.n}"
    if judged.preset:
        text += f" (`{judged.preset}`)"
    if judged.lacks:
        text += f"; {judged.lacks}"
    if judged.other:
        text += f"; {judged.other.preset}: {number(judged.part, judged.other.value)}"
    return text


def _history(listed: Sequence[Part]) -> str:
    """Return when criteria were fixed, and whether rows were known then."""
    known = [part.part for part in listed if part.rows_known]
    fixed = max(part.fixed for part in listed)
    if not known:
        return f"Fixed on {fixed}, before there were rows."
    if len(known) == len(listed):
        return f"Fixed on {fixed}, when rows were known."
    return f"Fixed on {fixed}; rows of {', '.join(known)} were known."


def _rests(listed: Sequence[Judged]) -> str:
    """Return what the parts rest on; "" for mathematics and without rows."""
    bases = [j.basis for j in listed if j.basis.get("train_size")]
    if not bases:
        return ""

    def joined(name: str) -> list[Any]:
        return sorted({value for basis in bases for value in basis.get(name, [])})

    images, epochs = (_range(joined(name)) for name in ("train_size", "epochs"))
    where = [f"{images} training images", f"{epochs} epochs"]
    where = [*joined("dataset"), *where, *joined("device")]
    return f"Rests on {', '.join(map(written, where))}."


def _range(values: Sequence[int]) -> str:
    """Return the least and the largest of some numbers in words."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def as_data(judged: Judged) -> dict[str, Any]:
    """Return a judged part for verdicts.json; what there is not is left out."""
    part = judged.part
    found: dict[str, Any] = {
        "part": part.part,
        "kind": part.kind,
        "statement": part.statement,
        "criterion": part.criterion,
        "statistic": part.statistic,
        "compare": part.compare,
        "threshold": part.threshold,
        "word": judged.word,
        "fixed": part.fixed,
        "rows_known": part.rows_known,
    }
    facts = {"value": judged.value, "paper": printed(part), "chance": judged.chance}
    found |= {k: v for k, v in facts.items() if v is not None and math.isfinite(v)}
    if judged.interval and all(map(math.isfinite, judged.interval)):
        found["interval"] = list(judged.interval)
    texts = {"n": judged.n, "lacks": judged.lacks, "preset": judged.preset}
    texts["would_decide"] = judged.would_decide
    return found | {name: text for name, text in texts.items() if text}


def revision_1() -> dict[str, dict[str, str]]:
    """Return the outcomes by the first revision of the criteria, by claim."""
    path = paths.PUBLISHED / "verdicts_revision_1.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {row[table.columns[0]]: row for row in table.to_dict("records")}


def anchor(claim: str) -> str:
    """Return where a claim's verdict stands on its page."""
    return f"verdict-{claim.lower()}"
