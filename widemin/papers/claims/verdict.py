"""Verdicts: what became of a claim, and how a page shows it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from widemin import paths
from widemin.names import written
from widemin.papers.claims import engine, words
from widemin.papers.claims.engine import FAILS, PASSES, Judged
from widemin.papers.claims.parts import KINDS, criteria, parts
from widemin.papers.claims.rows import Runs
from widemin.papers.claims.words import SAID, letters, measured

_CARD = Path(__file__).with_name("card.md.jinja").read_text("utf-8")


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, and of each of its parts.

    >>> show("W12", []).outcome  # takes no rows
    'partly'
    """

    claim: str
    parts: Sequence[Judged]
    takes: Mapping[str, Any] = field(default_factory=dict)  # where nothing was run

    @property
    def outcome(self) -> str:
        """One of OUTCOMES, by the words of the parts."""
        return engine.word(self.parts)

    @property
    def unrun(self) -> bool:
        """Whether no part has any rows."""
        return all(judged.word == engine.NOT_RUN for judged in self.parts)

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
            "paper": words.theirs(*(j.part for j in own)),
            "here": self.here(),
            "ours": self.ours(),
            "reason": self.reason(),
            "preset": own[0].preset,
            "takes": self.takes,
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

    def here(self) -> str:
        """Return the statistic of the parts that tell the claim, or its range."""
        own = self._told()
        part, values = own[0].part, [j.value for j in own]
        if math.isnan(values[0]):
            return "no number yet"
        if part.statistic == "theorem":
            true = values.count(1.0)
            return f"{true} of {len(own)} hold{'s' * (true == 1)} as printed"
        if len(own) == 1:
            return words.here(own[0])
        ends = words.to(part, min(values), max(values))
        return f"{ends} in {len(own)} parts{words.over(own)}"

    def ours(self) -> str:
        """Return the measurement and the counts of the parts' words."""
        first = self._told()[0]
        if math.isnan(first.value):
            return self.counted()
        what = f"{measured(first.part)}: " * (first.part.statistic != "theorem")
        return f"{what}{self.here()}; {self.counted()}"

    def counted(self) -> str:
        """Return the counts of the parts' words, controls apart.

        >>> show("W13", []).counted()
        '2 parts not yet run; controls: 1 not yet run'
        """
        own = engine.counted(self.parts)
        beside = [judged for judged in self.parts if judged not in own]
        return tally(own, " part") + f"; controls: {tally(beside)}" * bool(beside)

    def named(self) -> list[Judged]:
        """Return the parts that make the outcome what it is."""
        made = {"partly": [PASSES, FAILS], "reproduced": [PASSES]}
        asked = (made | {"not reproduced": [FAILS]}).get(self.outcome, [self.outcome])
        return [j for j in engine.counted(self.parts) if j.word in asked]

    def reason(self) -> str:
        """Return in a sentence which parts make the word, and why.

        >>> show("W13", []).reason()
        'Parts a and b have not been run.'
        """
        of: dict[tuple[str, str], list[str]] = {}
        for judged in self.named():
            of.setdefault((judged.word, judged.lacks), []).append(judged.part.part)
        return " ".join(_because(*key, names) for key, names in of.items())

    def box(self) -> str:
        """Return the verdict in MyST: a card, or a line where nothing has been run."""
        about = {"claim": criteria()[self.claim], "kind": kind_of(self.claim)}
        about |= {"told": self._told(), "anchor": anchor(self.claim), "v": self}
        about |= {"own": engine.counted(self.parts), "tally": tally, "words": words}
        about["fixed"] = pd.Timestamp(max(j.part.fixed for j in self.parts))
        return rendered(_CARD, written=written, **about)


def rendered(template: str, **about: Any) -> str:
    """Return a template in Jinja filled; `said` is what words.yml says."""
    from jinja2 import Environment

    here = Environment(trim_blocks=True, lstrip_blocks=True)
    return here.from_string(template).render(about, said=SAID).strip()


def _because(word: str, lacks: str, names: Sequence[str]) -> str:
    """Return in a sentence why parts have a word."""
    many = len(names) > 1
    who = " and ".join(letters(names).rsplit(", ", 1))
    undecided = f"cannot be decided yet: {words.lacking_in_words(lacks)}"
    why = SAID["because"].get(word, [undecided] * 2)[many]
    return f"Part{'s' * many} {who} {why}."


def tally(judged: Sequence[Judged], what: str = "") -> str:
    """Return the counts of the words of parts."""
    texts: list[str] = []
    for each in engine.WORDS:
        if count := sum(j.word == each for j in judged):
            said = SAID["because"][each][count > 1] if each in (PASSES, FAILS) else each
            noun = f"{what}{'s' * (count > 1)}" if what and not texts else ""
            texts.append(f"{count}{noun} {said}")
    return ", ".join(texts)


def show(name: str, evidence: Sequence[Runs], simulated: Any = None) -> Verdict:
    """Return the verdict on a claim by rows of several presets, the largest first."""
    verdict = Verdict(name, engine.judge_parts(name, evidence, simulated))
    return replace(verdict, takes=_takes(name, evidence)) if verdict.unrun else verdict


def _takes(name: str, evidence: Sequence[Runs]) -> dict[str, Any]:
    """Return the runs of a claim at the smallest preset that is enough, and hours."""
    from widemin.experiments import progress  # and torch, which takes long

    for runs in reversed(evidence):
        of = [(r, p.needs) for p in parts()[name] for r in runs.listed(p.runs)]
        of = [(r, needs) for r, needs in of if r.dataset == needs.get("dataset")]
        least = (
            getattr(r, size) >= int(needs.get(size, 0))
            for r, needs in of
            for size in ("train_size", "epochs")
        )
        if of and all(least):
            recipes = list({r.key: r for r, _ in of}.values())
            hours = progress.core_hours(recipes, paths.PUBLISHED)
            about = {"core": hours, "gpu": max(1.0, 60 * progress.gpu_hours(recipes))}
            return about | {"runs": len(recipes), "preset": runs.preset}
    return {}


def kind_of(name: str) -> str:
    """Return "claim" for one that the paper measures, "argued", or "control"."""
    kind = min((part.kind for part in parts()[name]), key=KINDS.index)
    return "claim" if kind == "printed" else kind


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
