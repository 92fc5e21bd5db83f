"""Verdicts: what became of a claim, and how a page shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
from widemin.papers.claims.printed import printed
from widemin.papers.claims.rows import Runs
from widemin.papers.claims.wording import (
    asked,
    here,
    lacking_in_words,
    letters,
    measured,
    odds,
    theirs,
    to,
)

_COLOUR = dict(
    zip(OUTCOMES, ("tip", "note", "warning", *["note undecided"] * 3), strict=True)
)
_CALLED = {"claim": "Claim", "argued": "Argued, not measured", "control": "Our check"}


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
        own = self._told()
        return {
            "claim": self.claim,
            "outcome": self.outcome,
            "kind": kind_of(self.claim),
            "paper": theirs(own[0].part),
            "ours": self.ours(),
            "reason": self.reason(),
            "preset": own[0].preset,
            "basis": dict(own[0].basis),
            "parts": [as_data(judged) for judged in self.parts],
        }

    def _told(self) -> list[Judged]:
        """Return the parts by which the claim is told: the first measured kind."""
        there = [j for j in self.parts if not math.isnan(j.value)] or list(self.parts)
        own = [j for j in there if j.part.kind != "control"] or there
        if self.outcome == "not reproduced":
            own = [j for j in own if j.word == FAILS] or own
        first = measured(own[0].part)
        if own[0].part.statistic == "theorem":
            return own
        return [j for j in own if measured(j.part) == first]

    def ours(self) -> str:
        """Return what was measured, and how many parts have which word."""
        own = self._told()
        part, values = own[0].part, [j.value for j in own]
        if math.isnan(values[0]):
            return self.counted()
        text = f"{plain(measured(part))}: {here(own[0])}"
        if part.statistic == "theorem":
            text = f"{values.count(1.0)} of {len(own)} hold as printed"
        elif len(own) > 1:
            ends = to(part, min(values), max(values))
            text = f"{plain(measured(part))}: {ends} in {len(own)} parts"
        return f"{text}; {self.counted()}"

    def counted(self) -> str:
        """Return how many parts have which word, controls apart.

        >>> Verdict("W13", judge_parts("W13", [])).counted()
        '2 parts not yet run; controls: 1 not yet run'
        """
        control = [j.word for j in self.parts if j.part.kind == "control"]
        own = [j.word for j in self.parts if j.part.kind != "control"]
        if not own:
            return _tally(control, " part")
        return _tally(own, " part") + f"; controls: {_tally(control)}" * bool(control)

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
        return " ".join(_because(*key, names) for key, names in of.items())

    def box(self) -> str:
        """Return the verdict as an admonition in MyST markdown."""
        shown = [j for j in self.parts if not math.isnan(j.value)]
        own = kind_of(self.claim) == "control"
        rows = [
            f"| {j.part.part} | {plain(j.part.statement)}"
            f"{' (control)' * (j.part.kind == 'control' and not own)} "
            f"| {theirs(j.part)} | {here(j)} | {asked(j.part)} "
            f"| {j.word.removesuffix(' at this scale')} |"
            for j in shown
        ]
        if rows:
            heads = "| | part | the paper | here | passes if | word |"
            rows = [heads, f"| {' | '.join(['---'] * 6)} |", *rows, ""]
        statement = plain(criteria()[self.claim].statement)
        lines = [
            f":::{{admonition}} {self.claim}: {self.outcome}",
            f":class: {_COLOUR[self.outcome]} verdict cards",
            f":name: {anchor(self.claim)}",
            f"**{_CALLED[kind_of(self.claim)]}.** {statement}.",
            *("", f"{self.counted()[0].upper()}{self.counted()[1:]}.", "", *rows),
        ]
        for title, texts in self._notes(shown).items():
            lines += [f"- **{title}:** {'; '.join(texts)}."] if texts else []
        return "\n".join([*lines, "", "[All verdicts](../verdicts.md)", ":::"])

    def _notes(self, shown: Sequence[Judged]) -> dict[str, list[str]]:
        """Return what stands below a box's table: by title, a text for some parts."""
        unrun = [j for j in self.parts if j.word == NOT_RUN]
        scale = [j for j in self.parts if j.word == UNDECIDABLE]
        chance = [j for j in shown if not math.isnan(j.chance)]
        return {
            "Measured": _by(
                [j for j in shown if j.part.statistic != "theorem"],
                lambda j: plain(measured(j.part)),
            ),
            "Passes by chance": _by(chance, lambda j: odds(j.chance)),
            "Not decidable": _by(scale, _lacking),
            "Not yet run": _by(unrun, lambda j: plain(j.part.statement.split(":")[0])),
            "Rests on": _by(shown, _rests),
            "Criterion": _history([j.part for j in self.parts]),
            "What would decide it": _by(
                [j for j in self.parts if self.outcome == INCONCLUSIVE],
                lambda j: j.would_decide,
            ),
        }


def _lacking(judged: Judged) -> str:
    """Return what a part lacks, and what the part is where the table has it not."""
    text = lacking_in_words(judged.lacks)
    if not math.isnan(judged.value):
        return text
    return f"{plain(judged.part.statement.split(':')[0])}: {text}"


def _by(listed: Sequence[Judged], told: Callable[[Judged], str]) -> list[str]:
    """Return the texts said of parts, each once, with the letters of its parts."""
    of: dict[str, list[str]] = {}
    every = [part.part for part in parts()[listed[0].part.claim]] if listed else []
    for judged in listed:
        if text := told(judged):
            of.setdefault(text, []).append(judged.part.part)
    if len(of) == 1 and every == [name for names in of.values() for name in names]:
        return list(of)
    return [f"{text} ({letters(names)})" for text, names in of.items()]


# The outcome that a part's word makes, where another does not go before it.
_MAKES = {PASSES: "reproduced", FAILS: "not reproduced"}
_MAKES |= {name: name for name in (INCONCLUSIVE, UNDECIDABLE, NOT_RUN)}


def _because(word: str, lacks: str, names: Sequence[str]) -> str:
    """Return in a sentence why parts have a word."""
    s = "" if len(names) > 1 else "s"
    who = f"Part{'s' * (not s)} {' and '.join(letters(names).rsplit(', ', 1))}"
    why = {
        PASSES: f"pass{'es' * bool(s)}",
        FAILS: f"fail{s}",
        INCONCLUSIVE: f"ha{s or 've'} an interval that contains the threshold",
        NOT_RUN: f"ha{s or 've'} no rows",
    }.get(word, f"cannot be decided yet: {lacking_in_words(lacks)}")
    return f"{who} {why}."


def _tally(words: Sequence[str], what: str = "") -> str:
    """Return how often each word stands in a list."""
    order = (PASSES, FAILS, INCONCLUSIVE, UNDECIDABLE, NOT_RUN)
    verbs = {PASSES: ("passes", "pass"), FAILS: ("fails", "fail")}
    texts: list[str] = []
    for each in (each for each in order if each in words):
        count = words.count(each)
        one, many = verbs.get(each, (each, each))
        noun = f"{what}{'s' * (count > 1)}" if what and not texts else ""
        texts.append(f"{count}{noun} {one if count == 1 else many}")
    return ", ".join(texts)


def show(name: str, evidence: Sequence[Runs], simulated: Any = None) -> Verdict:
    """Return the verdict on a claim by rows of several presets, the largest first."""
    return Verdict(name, judge_parts(name, evidence, simulated))


def kind_of(name: str) -> str:
    """Return "claim" for one that the paper measures, "argued", or "control"."""
    kinds = {part.kind for part in parts()[name]}
    return (
        "claim" if "printed" in kinds else "argued" if "argued" in kinds else "control"
    )


def _history(listed: Sequence[Part]) -> list[str]:
    """Return when criteria were fixed, and whether rows were known then."""
    known = [part.part for part in listed if part.rows_known]
    fixed = pd.Timestamp(max(part.fixed for part in listed))
    day = f"fixed on {fixed.day} {fixed:%B %Y}"
    if not known:
        return [f"{day}, before there were rows"]
    which = "" if len(known) == len(listed) else f" of {letters(known)}"
    return [f"{day}, when rows{which} were known"]


def _rests(judged: Judged) -> str:
    """Return what a part rests on; "" for mathematics."""
    basis = judged.basis
    if not basis.get("train_size"):
        return ""
    images, epochs = (_range(basis[name]) for name in ("train_size", "epochs"))
    where = judged.n.split(", ")[:2]
    where += [*map(written, basis.get("dataset", []))]
    where += [f"{images} training images", f"{epochs} epochs"]
    where += [*map(written, basis.get("device", []))]
    return f"{', '.join(where)}, preset `{judged.preset}`"


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
