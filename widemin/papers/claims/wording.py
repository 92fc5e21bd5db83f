"""What was measured, and what it is measured against, in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from widemin.papers.claims.engine import Judged
from widemin.papers.claims.parts import Part
from widemin.papers.claims.printed import printed, said

_PERCENT = ("accuracy", "share", "epoch_share")
_POINTS = ("difference", "range", "distance", "deviation")
_UNITS = (" points", " %")
_NO_NUMBER = {"printed": "no number", "argued": "argued", "control": "does not say"}
_SIGN = {">=": "≥", "<=": "≤", ">": "&gt;", "<": "&lt;"}
# What rows lack, where the engine's words say it by a parameter's name.
_LACKS = {
    "it takes augment crop+flip": "no training with random crops, as in the paper",
    "it takes ramp 0": "ε grows over the first quarter of training, in both arms",
    "an arm has no runs": "one of the two sides compared has no runs",
}


def measured(part: Part) -> str:
    """Return what a part measures, its criterion without the threshold."""
    ends = r",? is (?:at least|at most|above|below) [-\d]"
    return re.split(ends, part.criterion)[0]


def asked(part: Part) -> str:
    """Return the threshold of a part with its sign, e.g. "≥ 80.0 %"."""
    if part.statistic == "theorem":
        return "it holds"
    return f"{_SIGN[part.compare]} {number(part, part.threshold)}"


def lacking_in_words(lacks: str) -> str:
    """Return what rows lack as a page says it.

    >>> lacking_in_words("it takes 3 seeds; there are 1")
    'it takes 3 seeds; there is 1'
    """
    lacks = re.sub(r"there are 1\b(?!,)", "there is 1", lacks)
    return _LACKS.get(lacks, lacks.replace("momentum;", "momenta;"))


def letters(names: Sequence[str]) -> str:
    """Return letters of parts, three or more in a row as a range.

    >>> letters(["a", "c", "d", "e"])
    'a, c to e'
    """
    runs: list[list[str]] = []
    for name in names:
        if runs and ord(name) == ord(runs[-1][-1]) + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    texts = [f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(r) for r in runs]
    return ", ".join(texts)


def odds(chance: float) -> str:
    """Return a probability in percent."""
    return f"{100 * chance:.0f} %" if chance >= 0.01 else "under 1 %"


def number(part: Part, value: float) -> str:
    """Return a part's statistic in its unit.

    >>> from widemin.papers.claims import parts
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
    if 0 < abs(value) <= 1e-9:
        return "10⁻⁹" if value == part.threshold else "under 10⁻⁹"
    if part.statistic in _POINTS:
        return f"{100 * value:.2f} points"
    digits = ".3g" if abs(value) >= 10 or part.statistic == "error" else ".2f"
    return f"{value:{digits}}"


def theirs(part: Part) -> str:
    """Return a part's statistic in the paper's own table, where it prints numbers."""
    value = printed(part)
    none = _NO_NUMBER[part.kind] if value is None else number(part, value)
    return said(part) or none


def here(judged: Judged) -> str:
    """Return a part's statistic here: value, interval, n of a rank correlation."""
    part = judged.part
    if math.isnan(judged.value):
        return judged.word
    text = number(part, judged.value)
    if judged.seen:
        one, other = judged.seen
        text = to(part, one, other, " and ")
    elif judged.interval:
        unit = next((u for u in _UNITS if text.endswith(u)), "")
        ends = to(part, *judged.interval).removesuffix(unit)
        text = f"{text.removesuffix(unit)} ({ends}){unit}"
    if over := re.search(r", (\d+) points$", judged.n):
        text += f", n = {over[1]}"
    if judged.other:
        text += f" (`{judged.other.preset}`: {number(part, judged.other.value)})"
    return text


def to(part: Part, low: float, high: float, between: str = " to ") -> str:
    """Return two values of a part, their unit once.

    >>> from widemin.papers.claims import parts
    >>> to(parts()["S12"][0], 0.02, 0.04)
    '2.0 to 4.0 %'
    """
    texts = number(part, low), number(part, high)
    unit = next((u for u in _UNITS if texts[0].endswith(u)), "")
    return f"{texts[0].removesuffix(unit)}{between}{texts[1]}"
