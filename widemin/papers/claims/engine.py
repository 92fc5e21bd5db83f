"""From rows to a word: each part by its statistic, each claim by its parts.

book/criteria.md is the rule. A statistic takes the rows of a part and returns its
value in an array of draws, the first of which is the value itself and the others
those of seeds (or networks) drawn with replacement.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from widemin.experiments.provenance import EARLIER
from widemin.papers.claims.draws import COMPARE, NONE, Array, Missing, chance_of_rank
from widemin.papers.claims.parts import SEEDS, SIMULATED, Part, criteria, parts
from widemin.papers.claims.rows import CELL, Rows, Runs, rows_of, shortfall
from widemin.statistics import wilson

WORDS = "passes", "fails", "inconclusive", "not decidable at this scale", "not yet run"
PASSES, FAILS, INCONCLUSIVE, UNDECIDABLE, NOT_RUN = WORDS
OUTCOMES = "reproduced", "partly", "not reproduced", INCONCLUSIVE, UNDECIDABLE, NOT_RUN


@dataclass(frozen=True)
class Judged:
    """What became of a part on some rows."""

    part: Part
    word: str  # one of WORDS
    value: float = math.nan  # of the statistic
    interval: tuple[float, float] | None = None  # of 95 %
    seen: tuple[float, ...] = ()  # the statistic of each of two seeds
    n: str = ""  # how many seeds, networks or points it rests on, in words
    chance: float = math.nan  # that the value of a rank or a sign does without effect
    lacks: str = ""  # what the rows lack to decide
    would_decide: str = ""  # seeds for 80 % power; "" unless inconclusive
    preset: str = ""  # whose rows
    basis: Mapping[str, Any] = field(default_factory=dict)  # what the rows are
    other: "Judged | None" = None  # by rows of another size that disagree
    elsewhere: "Judged | None" = None  # by rows of another augmentation

    @property
    def passed(self) -> bool:
        """Whether the statistic itself passes, whatever its interval."""
        return bool(COMPARE[self.part.compare](self.value, self.part.threshold))


Statistic = Callable[[Any, Part], Array]
_STATISTICS: dict[tuple[str, str], Statistic] = {}


def claim(names: str, statistic: str = "") -> Callable[[Statistic], Statistic]:
    """Register what computes the statistic of claims: one, or all that they have."""

    def register(function: Statistic) -> Statistic:
        _STATISTICS.update({(name, statistic): function for name in names.split()})
        return function

    return register


def _drawn(part: Part, rows: Any) -> Array:
    """Return a part's statistic and its draws; NaN where rows of an arm are missing."""
    paper = criteria()[part.claim].paper
    import_module(f"widemin.papers.{paper}.claims")  # registers them
    key = part.claim, part.statistic
    statistic = _STATISTICS.get(key) or _STATISTICS[part.claim, ""]
    with np.errstate(invalid="ignore", divide="ignore"):
        try:
            return np.atleast_1d(statistic(rows, part))
        except Missing:
            return NONE


def judge_part(part: Part, runs: Runs) -> Judged:
    """Return a part judged on the rows of one preset."""
    rows, lacks = rows_of(part, runs)
    if rows.final.empty:
        return Judged(part, NOT_RUN if lacks == "no rows" else UNDECIDABLE, lacks=lacks)
    about: dict[str, Any] = {"preset": runs.preset, "lacks": lacks}
    drawn = _drawn(part, rows)
    if not math.isfinite(drawn[0]):
        alike = part.statistic == "spearman" and len(drawn) > 1
        none = "all values are alike" if alike else "an arm has no runs"
        about["lacks"] = lacks or none
        return Judged(part, UNDECIDABLE, **about)
    if rows.used:  # networks without the column count nowhere
        rows = Rows(rows.final[rows.final["key"].isin(rows.used)], runs)
        counted = "networks", "batch_size"
        few = {name: part.needs[name] for name in counted if name in part.needs}
        about["lacks"] = lacks or shortfall(rows.final, few)
    about["basis"] = basis(rows.final)
    seeds, networks = (rows.final[name].nunique() for name in ("seed", "key"))
    about["n"] = f"{seeds} seed{'s' * (seeds != 1)}, "
    about["n"] += f"{networks} network{'s' * (networks != 1)}"
    if part.statistic == "spearman":
        about["n"] += f", {points(part, rows)} points"
    if "seed" in part.needs and shortfall(rows.final, {"seed": str(SEEDS)}):
        drawn = drawn[:1]
        if seeds == 2:
            each = [Rows(of, runs) for _, of in rows.final.groupby("seed")]
            cells = [{tuple(c) for c in of.final[CELL].to_numpy()} for of in each]
            each = each if cells[0] == cells[1] else []  # of the same cells alone
            seen = tuple(float(_drawn(part, one)[0]) for one in each)
            about["seen"] = seen if all(map(math.isfinite, seen)) else ()
    judged, ends = Judged(part, "", float(drawn[0]), **about), None
    images = part.statistic == "accuracy" or "share of test images" in part.criterion
    if images and (networks == 1 or (len(drawn) > 1 and not np.ptp(drawn))):
        ends = wilson(judged.value, int(rows.final["images"].min()))
    return _worded(judged, drawn, rows, ends)


def basis(table: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of runs and seeds in rows, and their sources."""
    counts: dict[str, Any] = {"runs": table["key"].nunique()}
    counts["seeds"] = table["seed"].nunique()
    kinds = {"train_size": int, "epochs": int, "dataset": str, "augment": str}
    for name, kind in (kinds | dict.fromkeys(EARLIER, str)).items():
        if name in table:
            counts[name] = sorted(map(kind, set(table[name].dropna())))
    return counts


def _worded(
    judged: Judged,
    drawn: Array,
    rows: Rows | None = None,
    ends: tuple[float, float] | None = None,
) -> Judged:
    """Return a judged part with its word by its interval, and what would decide it.

    The interval is of percentiles of the statistic as drawn, unless its ends are given.
    """
    part, value, word = judged.part, judged.value, PASSES if judged.passed else FAILS
    chance, would, others = by_chance(part, rows), "", drawn[1:]
    if ends is None and np.isfinite(others).any():
        low, high = np.quantile(others[np.isfinite(others)], [0.025, 0.975])
        ends = min(float(low), value), max(float(high), value)
    if ends and ends[0] == ends[1]:
        ends = None  # one value in every draw shows no doubt, and is not certain
    if ends and len({COMPARE[part.compare](end, part.threshold) for end in ends}) > 1:
        word, would = INCONCLUSIVE, would_decide(judged, others, rows)
    if judged.lacks:
        word, would = UNDECIDABLE, ""
    return replace(judged, word=word, interval=ends, would_decide=would, chance=chance)


def would_decide(judged: Judged, others: Array, rows: Rows | None) -> str:
    """Return the number of seeds for 80 % power to see the difference that was seen."""
    from scipy import stats

    what = "seed" if "seed" in judged.part.needs else "key"
    count = rows.final[what].nunique() if rows else 0
    away = abs(judged.value - judged.part.threshold)
    if not away or count < 2:
        return ""
    what = "seeds" if what == "seed" else "networks"
    free = count - 1  # drawn means spread by the deviation that divides by n
    needed = count**2 / free * ((1.96 + 0.84) * float(np.nanstd(others)) / away) ** 2
    low, high = (needed * free / stats.chi2.ppf(q, free) for q in (0.975, 0.025))
    ends = [max(SEEDS, math.ceil(number)) for number in (needed, low, high)]
    if ends[0] > 10_000:
        return f"more than 10,000 {what}"
    return f"{ends[0]:,} {what} for 80 % power ({ends[1]:,} to {ends[2]:,})"


def by_chance(part: Part, rows: Rows | None) -> float:
    """Return the probability that a rank or a sign passes where there is no effect."""
    passes = COMPARE[part.compare]
    sign = part.statistic == "difference" and part.threshold == 0
    if sign or part.statistic in ("epoch_lead", "log_ratio"):
        return 0.5
    if rows and part.claim in ("H9", "H10"):
        sizes = rows.final["batch_size"].nunique()
        passing = (k for k in range(sizes + 1) if passes(k / sizes, part.threshold))
        return sum(math.comb(sizes, k) for k in passing) / 2**sizes
    if rows and part.statistic == "spearman":
        return chance_of_rank(points(part, rows), part.compare, part.threshold)
    return math.nan


# What rank correlations of a claim, or of a paper's claims, run over.
_POINTS = {"W": ["batch_size", "learning_rate"], "W5": ["batch_size"]}
_POINTS |= {"H": ["batch_size"], "S": ["rho"], "S5": ["attack"], "N": ["key"]}


def points(part: Part, rows: Rows) -> int:
    """Return over how many points a part's rank correlation runs."""
    if part.claim in ("D2", "D4"):
        return int(part.needs["fosc_bins" if part.claim == "D2" else "attack_step"])
    final = rows.final
    if "norm" in part.given:
        final = final[final["attack"].str.startswith(part.given["norm"])]
    by = _POINTS.get(part.claim) or _POINTS[part.claim[0]]
    return len(final.drop_duplicates(by))


def judge_parts(
    name: str, evidence: Sequence[Runs], simulated: Any = None
) -> list[Judged]:
    """Return each part of a claim judged, on the largest runs first."""
    each = [_of_all(part, evidence, simulated) for part in parts()[name]]
    return [_with_flips(judged, evidence) for judged in each]


def _with_flips(judged: Judged, evidence: Sequence[Runs]) -> Judged:
    """Return a judged part that needs crops with what rows of flips alone would say."""
    needs = {**judged.part.needs, "augment": "flip"}
    if "augment" not in judged.part.needs or "augment" in judged.lacks:
        return judged
    flipped = _of_all(replace(judged.part, needs=needs), evidence, None)
    there = flipped.n and "augment" not in flipped.lacks
    return replace(judged, elsewhere=flipped if there else None)


def _of_all(part: Part, evidence: Sequence[Runs], simulated: Any) -> Judged:
    """Judge a part by the largest runs that meet its needs."""
    unrun = Judged(part, NOT_RUN, lacks="no rows")
    if part.runs in SIMULATED:
        if part.runs and simulated is None:
            return unrun
        drawn = _drawn(part, simulated)
        return _worded(Judged(part, "", float(drawn[0])), drawn)
    each = [judge_part(part, runs) for runs in evidence]
    there = [judged for judged in each if judged.word != NOT_RUN]
    if not there:
        return unrun
    enough = (judged for judged in there if judged.word != UNDECIDABLE)
    chosen = next(enough, there[0])
    larger = there[: there.index(chosen)]
    others = [j for j in there if j.n and chosen.n and j.passed != chosen.passed]
    if not others:
        return chosen
    chosen = replace(chosen, other=others[0])
    if others[0] in larger and chosen.word != INCONCLUSIVE:
        # A smaller run never overrules a larger one.
        lacks = "larger runs with fewer seeds point the other way"
        chosen = replace(chosen, word=UNDECIDABLE, lacks=lacks)
    return chosen


def word(judged: Sequence[Judged]) -> str:
    """Return a claim's word by the words of its parts.

    >>> [part] = parts()["S12"]
    >>> word([Judged(part, "passes")]), word([Judged(part, "inconclusive")])
    ('reproduced', 'inconclusive')
    """
    words = {j.word for j in counted(judged)}
    if {PASSES, FAILS} <= words:
        return "partly"
    order = (FAILS, NOT_RUN, UNDECIDABLE, INCONCLUSIVE)
    weakest = next((each for each in order if each in words), PASSES)
    return {FAILS: "not reproduced", PASSES: "reproduced"}.get(weakest, weakest)


def counted(judged: Sequence[Judged]) -> list[Judged]:
    """Return the parts that make a claim's word: the paper's, or our own if all are."""
    return [j for j in judged if j.part.kind != "control"] or list(judged)
