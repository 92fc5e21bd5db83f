"""From rows to a word: each part by its statistic, each claim by its parts.

book/criteria.md is the rule. A statistic takes the rows of a part and returns its
value in an array of draws, the first of which is the value itself and the others
those of seeds (or networks) drawn with replacement.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from widemin.experiments.provenance import block
from widemin.papers.claims.criterion import criteria
from widemin.papers.claims.judging import basis, shortfall
from widemin.papers.claims.parts import EQUAL, SIMULATED, Part, parts
from widemin.statistics import wilson

Array = np.ndarray
DRAWS = 2_000
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
PASSES, FAILS, INCONCLUSIVE = "passes", "fails", "inconclusive"
UNDECIDABLE, NOT_RUN = "not decidable at this scale", "not yet run"
OUTCOMES = (
    *("reproduced", "partly", "not reproduced", INCONCLUSIVE),
    *(UNDECIDABLE, NOT_RUN),
)


@dataclass(frozen=True)
class Runs:
    """Rows of one preset, and which of its recipes they belong to.

    Attributes:
        preset: Its name.
        lists: The chapter's lists of recipes: name to list, or to a mapping of lists.
        table: Rows, with the key of their recipe.
    """

    preset: str
    lists: Mapping[str, Any]
    table: pd.DataFrame

    def named(self, text: str) -> dict[str, list[Any]]:
        """Return the recipes of lists joined by " + ", by the list's name."""
        chosen = {}
        for each in text.split(" + "):
            name, _, entry = each.strip().rstrip("]").partition("[")
            listed = self.lists.get(name, {} if entry else [])
            chosen[entry or name] = list(listed.get(entry, []) if entry else listed)
        return chosen


@dataclass(frozen=True)
class Rows:
    """The rows that a part judges.

    Attributes:
        final: A row a network and list, with every field of its recipe; networks that
            the part leaves out are gone.
        table: All rows of these networks.
    """

    final: pd.DataFrame
    table: pd.DataFrame

    def of(self, measured: str) -> pd.DataFrame:
        """Return the rows of one kind, e.g. "epoch", of the networks that count."""
        chosen = self.table["measured"].eq(measured)
        return self.table[chosen & self.table["key"].isin(self.final["key"])]

    def joined(self, values: pd.Series[Any]) -> pd.DataFrame:
        """Return the final rows with a number of each network, by key, as `value`."""
        return self.final.assign(value=self.final["key"].map(values))


@dataclass(frozen=True)
class Judged:
    """What became of a part on some rows.

    Attributes:
        part: Which.
        word: passes, fails, inconclusive, not decidable at this scale or not yet run.
        value: The statistic, NaN without one.
        interval: Of 95 %, None where there is none.
        seen: The statistic of each of two seeds, where there are no more.
        n: How many seeds, networks or points it rests on, in words.
        chance: Probability of passing by chance; NaN where it is neither a rank nor a
            sign.
        lacks: What the rows lack to decide.
        would_decide: Seeds for 80 % power, with a range; "" unless inconclusive.
        preset: Whose rows.
        basis: What the rows are.
    """

    part: Part
    word: str
    value: float = math.nan
    interval: tuple[float, float] | None = None
    seen: tuple[float, ...] = ()
    n: str = ""
    chance: float = math.nan
    lacks: str = ""
    would_decide: str = ""
    preset: str = ""
    basis: Mapping[str, Any] = field(default_factory=dict)
    other: Judged | None = None  # by rows of another size that disagree


class Missing(ValueError):
    """There are no rows of what a statistic is about."""


Statistic = Callable[[Any, Part], Array]
_STATISTICS: dict[tuple[str, str], Statistic] = {}


def claim(*names: str, statistic: str = "") -> Callable[[Statistic], Statistic]:
    """Register what computes the statistic of claims: one, or all that they have.

    >>> @claim("W0", statistic="accuracy")
    ... def best(rows, part):
    ...     return np.array([0.5])
    """

    def register(function: Statistic) -> Statistic:
        for name in names:
            _STATISTICS[name, statistic] = function
        return function

    return register


def statistic_of(part: Part) -> Statistic:
    """Return what computes a part's statistic."""
    paper = criteria()[part.claim].paper
    import_module(f"widemin.papers.{paper}.claims")  # registers them
    key = part.claim, part.statistic
    return _STATISTICS.get(key) or _STATISTICS[part.claim, ""]


class Cells:
    """Means of columns over the seeds of each cell, once as they are and once a draw.

    Args:
        rows: A row a network.
        by: What tells cells apart.
        columns: What is averaged; rows without are left out.
        networks: Draw cells, each a network, instead of seeds.

    Attributes:
        labels: The cells, a row each.
        weight: How often a draw has a cell, shape (draws, cells).
        used: The networks of all cells since it was emptied.
    """

    used: ClassVar[set[str]] = set()

    def __init__(  # noqa: D107 - the class says it
        self,
        rows: pd.DataFrame,
        by: Sequence[str],
        columns: Sequence[str],
        networks: bool = False,
    ) -> None:
        rows = rows.reindex(columns=rows.columns.union(list(columns), sort=False))
        rows = rows.dropna(subset=list(columns))
        draws = np.random.default_rng(0)
        if rows.empty:
            raise Missing(f"no rows with {', '.join(columns)}")
        Cells.used.update(rows.get("key", ()))
        grouped = list(rows.groupby(list(by), sort=True))
        self.labels = pd.DataFrame([key for key, _ in grouped], columns=list(by))
        cells, self._means = len(grouped), {}
        seeds = np.sort(rows["seed"].unique())
        joint = draws.integers(max(1, len(seeds)), size=(DRAWS, len(seeds)))
        paired = one_block(rows)
        shape = (DRAWS + 1, cells)
        found = {column: np.full(shape, np.nan) for column in columns}
        for i, (_, cell) in enumerate(grouped):
            place = draws.integers(len(cell), size=(DRAWS, len(cell)))
            for column in columns:
                values = cell[column].to_numpy(float)
                found[column][0, i] = values.mean()
                if networks:
                    found[column][1:, i] = values.mean()
                elif paired:
                    of = cell.groupby("seed")[column].mean().reindex(seeds).to_numpy()
                    known = np.isfinite(of[joint])
                    total = np.where(known, of[joint], 0).sum(1)
                    with np.errstate(invalid="ignore"):
                        found[column][1:, i] = total / known.sum(1)
                else:
                    found[column][1:, i] = values[place].mean(1)
        self._means = found
        self.weight = np.ones(shape)
        if networks:
            drawn = draws.integers(cells, size=(DRAWS, cells))
            self.weight[1:] = (drawn[:, :, None] == np.arange(cells)).sum(1)

    def __getitem__(self, column: str) -> Array:
        """Return the means of a column, shape (draws, cells)."""
        return self._means[column]

    def of(self, column: str, **equal: Any) -> Array:
        """Return the mean of a column over the cells with these labels, per draw.

        NaN where there are none.
        """
        chosen = self.where(**equal)
        if not chosen.any():
            return np.full(DRAWS + 1, np.nan)
        return self._means[column][:, chosen].mean(1)

    def where(self, **equal: Any) -> Array:
        """Return which cells have these labels, shape (cells,)."""
        chosen = np.ones(len(self.labels), bool)
        for name, value in equal.items():
            chosen &= (self.labels[name] == value).to_numpy()
        return chosen

    def rank(self, one: Array, other: Array) -> Array:
        """Return Spearman's correlation over the cells of each draw; NaN if constant.

        >>> rows = pd.DataFrame({"seed": 0, "b": [1, 2, 3], "a": [0.1, 0.2, 0.4]})
        >>> cells = Cells(rows, ["b"], ["a"])
        >>> float(cells.rank(cells.labels["b"].to_numpy(), cells["a"])[0])
        1.0
        """
        shape = self.weight.shape
        one, other = (np.broadcast_to(side, shape) for side in (one, other))
        weight = self.weight * (np.isfinite(one) & np.isfinite(other))
        ranks = []
        for side in (one, other):
            below = (side[:, None, :] < side[:, :, None]).astype(float)
            same = (side[:, None, :] == side[:, :, None]).astype(float)
            ranks.append(np.einsum("dj,dij->di", weight, below + same / 2))
        total = weight.sum(1, keepdims=True)
        a, b = (r - (weight * r).sum(1, keepdims=True) / total for r in ranks)
        up = (weight * a * b).sum(1)
        down = np.sqrt((weight * a * a).sum(1) * (weight * b * b).sum(1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(down > 1e-12, np.clip(up / down, -1, 1), np.nan)


def one_block(rows: pd.DataFrame) -> bool:
    """Return True if, of each seed, one block computed every network."""
    if rows.empty or "flags" not in rows:
        return False
    said = pd.Series([block(row) for row in rows.to_dict("records")], rows.index)
    return bool(
        said.notna().all() and (said.groupby(rows["seed"]).nunique() == 1).all()
    )


def rows_of(part: Part, runs: Runs) -> tuple[Rows, str]:
    """Return the rows that a part judges, and what they lack to decide it, or ""."""
    named = runs.named(part.runs)
    recipes = {r.key: r for listed in named.values() for r in listed}
    table = runs.table[runs.table["key"].isin(recipes)]
    if table.empty:
        return Rows(table, table), "no rows"
    fields = pd.DataFrame([asdict(r) | {"method": r.method} for r in recipes.values()])
    fields.index = pd.Index(recipes, name="key")
    kept = [name for name in table if name not in fields or name == "key"]
    table = table[kept].join(fields, on="key")
    lacks = ""
    for name in (n for n in EQUAL if n in part.needs):
        wanted = part.needs[name]
        chosen = table[name].astype(str).isin([wanted, f"{wanted}.0"])
        if name in ("ramp", "fosc_bins"):  # of networks trained adversarially
            plain = table["attack"].eq("")
            chosen = chosen & ~plain | (plain if (chosen & ~plain).any() else False)
        if chosen.any() or name in ("dataset", "model"):
            table = table[chosen]
        else:
            lacks = f"it takes {name.replace('_', ' ')} {wanted}"
    for name, none in (("rho", 0), ("attack", "")):
        value = part.given.get(name)
        if value is not None and "," not in value:
            of = type(none)(value) if isinstance(none, str) else float(value)
            table = table[table[name].isin([none, of])]
    final = table[table["measured"] == "final"]
    if "test" in part.given:
        final = final[final["test"] == part.given["test"]]
    final = final.drop_duplicates("key") if part.claim not in _EVERY_TEST else final
    lists = [
        final[final["key"].isin([r.key for r in listed])].assign(list=name)
        for name, listed in named.items()
    ]
    final = pd.concat(lists) if part.claim in _BY_LIST else final.assign(list="")
    rows, short = left_out(part, final, table)
    return rows, short if rows.final.empty else lacks or short


_BY_LIST = ("H9", "H10", "H11", "H13", "H14", "H15")
_EVERY_TEST = ("S4", "S10")
_CELL = ["list", "batch_size", "learning_rate", "momentum", "rho", "attack"]
_LIMIT = re.compile(r"(natural|training|PGD-20) accuracy below ([\d.]+)")
_LIMITED = {"natural": "natural_accuracy", "training": "train_accuracy"}
_LIMITED |= {"PGD-20": "pgd_accuracy"}


def left_out(part: Part, final: pd.DataFrame, table: pd.DataFrame) -> tuple[Rows, str]:
    """Return the rows without networks that did not train, and what they lack."""
    if final.empty:
        return Rows(final, table), "no rows"
    if part.untrained.startswith("excluded"):
        lost = final["constant"].eq(True) | final["diverged"].eq(True)
        if limit := _LIMIT.search(part.untrained):
            lost |= ~(final[_LIMITED[limit[1]]] >= float(limit[2]))
        if "seed" in part.needs:  # means of a cell are of all its seeds, or of none
            lost = lost.groupby([final[name] for name in _CELL]).transform("any")
        final = final[~lost]
        if final.empty:
            return Rows(final, table), "no network is trained"
    elif part.claim != "W5":
        final = final[~final["diverged"].eq(True)]
    needs = {k: v for k, v in part.needs.items() if k not in EQUAL}
    return Rows(final, table), shortfall(final, needs) if needs else ""


def judge_part(part: Part, runs: Runs, simulated: Any = None) -> Judged:
    """Return what becomes of a part on the rows of one preset."""
    about: dict[str, Any] = {"preset": runs.preset}
    if part.runs in SIMULATED:
        drawn = np.atleast_1d(statistic_of(part)(simulated, part))
        return _worded(part, drawn, "", "", len(drawn) > 1, {})
    rows, lacks = rows_of(part, runs)
    if rows.final.empty:
        return Judged(part, NOT_RUN if lacks == "no rows" else UNDECIDABLE, lacks=lacks)
    Cells.used.clear()
    drawn = _drawn(part, rows)
    if not math.isfinite(drawn[0]):
        return Judged(part, UNDECIDABLE, lacks=lacks or "an arm has no runs", **about)
    if Cells.used:  # networks without the column count nowhere
        rows = Rows(rows.final[rows.final["key"].isin(Cells.used)], rows.table)
        few = {k: v for k, v in part.needs.items() if k == "networks"}
        lacks = lacks or shortfall(rows.final, few)
    about["basis"] = basis(rows.final)
    seeds = int(rows.final["seed"].nunique())
    networks = int(rows.final["key"].nunique())
    n = f"{seeds} seed{'s' * (seeds != 1)}, {networks} network{'s' * (networks != 1)}"
    if part.statistic == "spearman":
        n += f", {points(part, rows)} points"
    many = "seed" not in part.needs or not shortfall(rows.final, {"seed": "3"})
    if part.statistic == "accuracy" and networks == 1:
        drawn = np.array([drawn[0], *wilson(drawn[0], int(rows.final["images"].min()))])
        return _worded(part, drawn, lacks, n, True, about)
    seen: tuple[float, ...] = ()
    if seeds == 2 and "seed" in part.needs:
        each = [Rows(r, rows.table) for _, r in rows.final.groupby("seed")]
        cells = [{tuple(c) for c in r.final[_CELL].to_numpy()} for r in each]
        each = each if cells[0] == cells[1] else []  # of the same cells alone
        seen = tuple(float(_drawn(part, one)[0]) for one in each)
        seen = seen if all(map(math.isfinite, seen)) else ()
    return _worded(part, drawn, lacks, n, many, about | {"seen": seen}, rows)


def _drawn(part: Part, rows: Rows) -> Array:
    """Return a part's statistic and its draws; NaN where rows of an arm are missing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        try:
            return np.atleast_1d(statistic_of(part)(rows, part))
        except Missing:
            return np.array([np.nan])


def _worded(
    part: Part,
    drawn: Array,
    lacks: str,
    n: str,
    many: bool,
    about: dict[str, Any],
    rows: Rows | None = None,
) -> Judged:
    """Return a part's word by its draws."""
    value, others = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    passed = bool(COMPARE[part.compare](value, part.threshold))
    interval, would = None, ""
    if len(others) and many:
        ends = np.quantile(others, [0.025, 0.975])
        interval = (float(min(ends[0], value)), float(max(ends[1], value)))
    word = PASSES if passed else FAILS
    if interval and interval[0] != interval[1]:
        sides = [bool(COMPARE[part.compare](end, part.threshold)) for end in interval]
        if any(side != passed for side in sides):
            word = INCONCLUSIVE
            would = would_decide(part, value, others, rows)
    chance = by_chance(part, rows, value)
    if interval and interval[0] == interval[1] and not math.isnan(chance):
        interval = None
    if lacks:
        word, would = UNDECIDABLE, ""
    facts = dict(lacks=lacks, would_decide=would, n=n, chance=chance, **about)
    return Judged(part, word, value, interval, **facts)


def would_decide(part: Part, value: float, others: Array, rows: Rows | None) -> str:
    """Return how many seeds give 80 % power to see the difference that was seen."""
    from scipy import stats

    if rows is None:
        return ""
    networks = "seed" not in part.needs
    count = rows.final["key" if networks else "seed"].nunique()
    away = abs(value - part.threshold)
    if not away or count < 2:
        return ""
    needed = count * ((1.96 + 0.84) * float(np.std(others)) / away) ** 2
    free = count - 1
    low, high = (needed * free / stats.chi2.ppf(q, free) for q in (0.975, 0.025))
    what = "networks" if networks else "seeds"
    ends = [max(3, math.ceil(number)) for number in (needed, low, high)]
    if ends[0] > 10_000:
        return f"more than 10,000 {what}"
    return f"{ends[0]:,} {what} for 80 % power ({ends[1]:,} to {ends[2]:,})"


def by_chance(part: Part, rows: Rows | None, value: float) -> float:
    """Return the probability that a rank or a sign passes where there is no effect."""
    passes = COMPARE[part.compare]
    if (part.statistic == "difference" and part.threshold == 0) or part.statistic in (
        *("epoch_lead", "log_ratio"),
    ):
        return 0.5
    if rows is None:
        return math.nan
    sizes = rows.final["batch_size"].nunique()
    if part.statistic == "share" and part.claim in ("H9", "H10"):
        orders = [math.comb(sizes, k) for k in range(sizes + 1)]
        held = (n for k, n in enumerate(orders) if passes(k / sizes, part.threshold))
        return sum(held) / 2**sizes
    if part.statistic != "spearman":
        return math.nan
    return chance_of_rank(points(part, rows), part.compare, part.threshold)


def points(part: Part, rows: Rows) -> int:
    """Return over how many points a part's rank correlation runs."""
    counted = {"H": ["batch_size"], "S": ["attack"] if part.claim == "S5" else ["rho"]}
    if part.claim in ("D2", "D4"):
        return int(part.needs["fosc_bins" if part.claim == "D2" else "attack_step"])
    if part.claim == "W5":
        return int(rows.final["batch_size"].nunique())
    by = counted.get(part.claim[0], ["batch_size", "learning_rate"])
    final = rows.final
    if part.claim == "S5":
        final = final[final["attack"].str.startswith(part.given["norm"])]
    return int(final.groupby(by).ngroups)


@cache
def chance_of_rank(n: int, compare: str, threshold: float) -> float:
    """Return the share of all orders of n that pass a rank criterion.

    >>> round(chance_of_rank(4, ">=", 0.8), 3)
    0.167
    """
    if n < 3:
        return math.nan
    if n <= 7:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        draws = np.random.default_rng(0)
        orders = draws.permuted(np.tile(np.arange(n), (20_000, 1)), axis=1)
    squares = ((orders - np.arange(n)) ** 2).sum(1)
    rho = np.round(1 - 6 * squares / (n * (n * n - 1)), 12)
    return float(COMPARE[compare](rho, threshold).mean())


def judge_parts(
    name: str, evidence: Sequence[Runs], simulated: Any = None
) -> list[Judged]:
    """Return what becomes of each part of a claim.

    Args:
        name: The claim's id.
        evidence: Rows by preset, the largest runs first.
        simulated: What a part of linear models judges.
    """
    return [_of_all(part, evidence, simulated) for part in parts()[name]]


def _of_all(part: Part, evidence: Sequence[Runs], simulated: Any) -> Judged:
    """Judge a part by the largest runs that meet its needs."""
    each = [judge_part(part, runs, simulated) for runs in evidence]
    there = [judged for judged in each if judged.word != NOT_RUN]
    if not there:
        return each[0] if each else Judged(part, NOT_RUN, lacks="no rows")
    decided = [judged for judged in there if judged.word != UNDECIDABLE]
    chosen = decided[0] if decided else there[0]
    larger = [judged for judged in there[: there.index(chosen)] if judged.n]
    for other in larger:
        sides = {
            COMPARE[part.compare](j.value, part.threshold) for j in (other, chosen)
        }
        if len(sides) > 1:  # a smaller run never overrules a larger one
            word = UNDECIDABLE if chosen.word in (PASSES, FAILS) else chosen.word
            lacks = "larger runs with fewer seeds point the other way"
            facts = {**chosen.__dict__, "word": word, "other": other}
            return Judged(**facts | ({"lacks": lacks} if word == UNDECIDABLE else {}))
    for other in there[there.index(chosen) + 1 :]:  # smaller: shown where it disagrees
        if other.n and {
            COMPARE[part.compare](j.value, part.threshold) for j in (other, chosen)
        } == {True, False}:
            return replace(chosen, other=other)
    return chosen


def word(judged: Sequence[Judged]) -> str:
    """Return a claim's word by the words of its parts.

    >>> [part] = parts()["S12"]
    >>> word([Judged(part, "passes")]), word([Judged(part, "inconclusive")])
    ('reproduced', 'inconclusive')
    """
    counted = [j for j in judged if j.part.kind != "control"] or list(judged)
    words = {j.word for j in counted}
    if {PASSES, FAILS} <= words:
        return "partly"
    for weakest in (FAILS, NOT_RUN, UNDECIDABLE, INCONCLUSIVE):
        if weakest in words:
            return "not reproduced" if weakest == FAILS else weakest
    return "reproduced"
