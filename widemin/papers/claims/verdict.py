"""Verdicts: what became of a claim, and how a page shows it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from widemin import paths
from widemin.names import written
from widemin.papers.claims import engine, words
from widemin.papers.claims.engine import FAILS, PASSES, Judged
from widemin.papers.claims.parts import KINDS, SIMULATED, criteria, parts
from widemin.papers.claims.rows import Runs
from widemin.papers.claims.words import SAID, letters, measured, plain


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, and of each of its parts.

    >>> show("W12", []).outcome  # takes no rows
    'partly'
    """

    claim: str
    parts: Sequence[Judged]

    @property
    def outcome(self) -> str:
        """One of OUTCOMES, by the words of the parts."""
        return engine.word(self.parts)

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
            "paper": words.theirs(own[0].part),
            "ours": self.ours(),
            "reason": self.reason(),
            "preset": own[0].preset,
            "basis": dict(own[0].basis),
            "parts": [as_data(judged) for judged in self.parts],
        }

    def _told(self) -> list[Judged]:
        """Return the parts by which the claim is told: the first measured kind."""
        there = [j for j in self.parts if not math.isnan(j.value)] or list(self.parts)
        own = engine.counted(there)
        if self.outcome == "not reproduced":
            own = [j for j in own if j.word == FAILS] or own
        first = own[0].part
        if first.statistic == "theorem":
            return own
        return [j for j in own if measured(j.part) == measured(first)]

    def ours(self) -> str:
        """Return the measurement and the counts of the parts' words."""
        own = self._told()
        part, values = own[0].part, [j.value for j in own]
        if math.isnan(values[0]):
            return self.counted()
        text = f"{measured(part)}: {words.here(own[0])}"
        if part.statistic == "theorem":
            text = f"{values.count(1.0)} of {len(own)} hold as printed"
        elif len(own) > 1:
            ends = words.to(part, min(values), max(values))
            text = f"{measured(part)}: {ends} in {len(own)} parts{words.over(own)}"
        return f"{text}; {self.counted()}"

    def counted(self) -> str:
        """Return the counts of the parts' words, controls apart.

        >>> show("W13", []).counted()
        '2 parts not yet run; controls: 1 not yet run'
        """
        control = [j.word for j in self.parts if j.part.kind == "control"]
        own = [j.word for j in self.parts if j.part.kind != "control"]
        if not own:
            return _tally(control, " part")
        return _tally(own, " part") + f"; controls: {_tally(control)}" * bool(control)

    def reason(self) -> str:
        """Return in a sentence which parts make the word, and why.

        >>> show("W13", []).reason()
        'Parts a and b have no rows.'
        """
        made = {"partly": [PASSES, FAILS], "reproduced": [PASSES]}
        made["not reproduced"] = [FAILS]
        of: dict[tuple[str, str], list[str]] = {}
        for judged in engine.counted(self.parts):
            if judged.word in made.get(self.outcome, [self.outcome]):
                of.setdefault((judged.word, judged.lacks), []).append(judged.part.part)
        return " ".join(_because(*key, names) for key, names in of.items())

    def box(self) -> str:
        """Return the verdict as an admonition in MyST markdown."""
        kind, texts = kind_of(self.claim), [(j, self._texts(j)) for j in self.parts]
        titled = ((title, words.by_letter(texts, title)) for title in texts[0][1])
        notes = [f"- **{title}:** {'; '.join(of)}.\n" for title, of in titled if of]
        rows = [
            f"| {j.part.part} | {plain(j.part.statement)}"
            f"{' (control)' * (j.part.kind == 'control' != kind)} "
            f"| {words.theirs(j.part)} | {words.here(j)} | {words.asked(j.part)} "
            f"| {j.word.removesuffix(' at this scale')} |"
            for j in self.parts
            if not math.isnan(j.value)
        ]
        expected = criteria()[self.claim].expected
        table = SAID["table"].replace(
            "the paper", "expected" if expected else "the paper"
        )
        told, counted = (j.word for j in engine.counted(self.parts)), self.counted()
        why = SAID["explained"].get(f"{self.claim}: {', '.join(told)}", "")
        why = why.format(**{j.part.part: words.here(j) for j in self.parts})
        return str(SAID["box"]).format(
            claim=self.claim,
            outcome=self.outcome,
            colour=SAID["colour"][self.outcome],
            anchor=anchor(self.claim),
            called=SAID["called"][kind],
            statement=plain(criteria()[self.claim].statement),
            expected=expected and f" *Expected:* {plain(expected)}.",
            counted=f"{counted[0].upper()}{counted[1:]}.{why}",
            table="\n".join([table, *rows, "", ""]) if rows else "",
            notes="".join(notes),
        )

    def _texts(self, judged: Judged) -> dict[str, str]:
        """Return the notes on a part below a box's table, by title."""
        part, unseen = judged.part, math.isnan(judged.value)
        name = plain(part.statement.split(":")[0])
        there = judged.elsewhere
        flips = f"{words.number(part, there.value)}, {there.word}" if there else ""
        lacks = f"{name}: " * unseen + words.lacking_in_words(judged.lacks)
        return {
            "Measured": measured(part) * (part.statistic != "theorem" and not unseen),
            "Its value passes by chance": words.odds(judged.chance),
            "Not decidable": lacks * (judged.word == engine.UNDECIDABLE),
            "Not yet run": name * (judged.word == engine.NOT_RUN),
            "Rests on": _rests(judged),
            "Criterion": self._history(),
            "What would decide it": judged.would_decide,
            "With flips alone": flips,
        }

    def _history(self) -> str:
        """Return when criteria were fixed, and whether rows were known then."""
        known = [j.part.part for j in self.parts if j.part.rows_known]
        fixed = pd.Timestamp(max(j.part.fixed for j in self.parts))
        day = f"fixed on {fixed.day} {fixed:%B %Y}"
        if self.parts[0].part.runs in SIMULATED:
            return f"{day}, when the outcome was known"
        if not known:
            return f"{day}, before there were rows"
        which = "" if len(known) == len(self.parts) else f" of {letters(known)}"
        return f"{day}, when rows{which} were known"


def _because(word: str, lacks: str, names: Sequence[str]) -> str:
    """Return in a sentence why parts have a word."""
    many = len(names) > 1
    who = " and ".join(letters(names).rsplit(", ", 1))
    undecided = f"cannot be decided yet: {words.lacking_in_words(lacks)}"
    why = SAID["because"].get(word, [undecided] * 2)[many]
    return f"Part{'s' * many} {who} {why}."


def _tally(listed: Sequence[str], what: str = "") -> str:
    """Return the counts of words in a list."""
    texts: list[str] = []
    for each in (each for each in engine.WORDS if each in listed):
        count = listed.count(each)
        said = SAID["because"][each][count > 1] if each in (PASSES, FAILS) else each
        noun = f"{what}{'s' * (count > 1)}" if what and not texts else ""
        texts.append(f"{count}{noun} {said}")
    return ", ".join(texts)


def show(name: str, evidence: Sequence[Runs], simulated: Any = None) -> Verdict:
    """Return the verdict on a claim by rows of several presets, the largest first."""
    return Verdict(name, engine.judge_parts(name, evidence, simulated))


def kind_of(name: str) -> str:
    """Return "claim" for one that the paper measures, "argued", or "control"."""
    kind = min((part.kind for part in parts()[name]), key=KINDS.index)
    return "claim" if kind == "printed" else kind


def _rests(judged: Judged) -> str:
    """Return the rows behind a part, in words; "" for mathematics."""
    basis = judged.basis
    if not basis.get("train_size"):
        return ""
    images, epochs = (
        " to ".join(f"{n:,}" for n in sorted({min(basis[name]), max(basis[name])}))
        for name in ("train_size", "epochs")
    )
    where = judged.n.split(", ")[:2]
    where += [*map(written, basis.get("dataset", []))]
    where += [SAID["augment"][how] for how in basis.get("augment", []) if how]
    where += [f"{images} training images", f"{epochs} epochs"]
    where += [*map(written, basis.get("device", []))]
    return f"{', '.join(where)}, preset `{judged.preset}`"


_TOLD = "part kind statement criterion statistic compare threshold fixed rows_known"


def as_data(judged: Judged) -> dict[str, Any]:
    """Return a judged part for verdicts.json; what there is not is left out."""
    names = "word value interval chance n lacks preset would_decide"
    data = {name: getattr(judged.part, name) for name in _TOLD.split()}
    data |= {name: getattr(judged, name) for name in names.split()}
    data |= {"paper": words.printed(judged.part), "here": words.here(judged)}
    return {k: v for k, v in data.items() if v == v and v not in (None, "")}  # no NaN


def revision_1() -> dict[str, dict[str, str]]:
    """Return the outcomes by the first revision of the criteria, by claim."""
    path = paths.PUBLISHED / "verdicts_revision_1.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.set_index("claim").to_dict("index")


def anchor(claim: str) -> str:
    """Return the anchor of a claim's verdict on its page."""
    return f"verdict-{claim.lower()}"
