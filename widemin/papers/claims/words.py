"""What was measured, and what it is measured against, in words."""

import math
import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby

import pandas as pd

from widemin import paths
from widemin.names import norm_and_radius
from widemin.papers.claims.engine import Judged
from widemin.papers.claims.parts import SAID, STATISTICS, Part, parts
from widemin.statistics import over_seeds

BALLS = {"linf": "L∞", "l2": "L2"}


def ball_name(test: str) -> str:
    """Return a set as axes and sentences name it, e.g. "L∞ 8/255"."""
    norm, _ = norm_and_radius(test)
    return test.replace(norm, BALLS[norm])


def mean_in_words(values: Sequence[float], form: str) -> str:
    """Return a mean and its 95 % interval, "49.1 ± 5.2"; of two values both."""
    if len(values) == 2:
        return " and ".join(f"{value:{form}}" for value in values)
    mean, half = over_seeds(values)
    interval = "" if math.isnan(half) else f" ±\u00a0{half:{form.removeprefix('+')}}"
    return f"{mean:{form}}{interval}"


def plain(text: str) -> str:
    """Return a text of claims.csv so that markdown shows it as it stands.

    >>> plain("Pass for rho = .4, natural below ST by 1-2 points.")
    'Pass for ρ = 0.4, natural below standard by 1–2 points'
    """
    for typed, meant in SAID["meant"].items():
        text = re.sub(typed, meant, text)
    for mark, shown in SAID["marks"].items():
        text = text.replace(mark, shown)
    return text.rstrip(".")


def measured(part: Part) -> str:
    """Return a part's criterion without the threshold."""
    ends = r",? is (?:at least|at most|above|below) [-\d]"
    return plain(re.split(ends, part.criterion)[0])


def sentence(criterion: str) -> str:
    """Return a criterion as a sentence.

    >>> sentence("PGD-10 accuracy of SAM less that of standard training is above 0")
    'PGD-10 accuracy of SAM is higher than that of standard training.'
    """
    text = plain(criterion)
    for typed, read in SAID["sentences"].items():
        text = re.sub(typed, read, text)
    return f"{text[0].upper()}{text[1:]}."


def lacking_in_words(lacks: str) -> str:
    """Return the words of a page for a lack of rows.

    >>> lacking_in_words("it takes 3 seeds of every cell; there are 1")
    'it takes 3 seeds of every cell; of some there is 1'
    """
    lacks = re.sub(r"there are 1\b(?!,)", "there is 1", lacks)
    lacks = lacks.replace("of every cell; there", "of every cell; of some there")
    return str(SAID["lacks"].get(lacks, lacks.replace("momentum;", "momenta;")))


def letters(names: Sequence[str]) -> str:
    """Return letters of parts, three or more in a row as a range.

    >>> letters(["a", "c", "d", "e"])
    'a, c to e'
    """
    runs = groupby(enumerate(names), lambda at: ord(at[1]) - at[0])
    each = [[name for _, name in run] for _, run in runs]
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(r) for r in each)


def by_letter(judged: Sequence[Judged], texts: Sequence[str]) -> list[str]:
    """Return notes on a claim's parts, each once, with the letters of its parts."""
    of: dict[str, list[str]] = {}
    for each, said in zip(judged, texts, strict=True):
        if said:
            of.setdefault(said, []).append(each.part.part)
    if len(of) == 1 and len(*of.values()) == len(parts()[judged[0].part.claim]):
        return list(of)
    return [f"{text} ({letters(names)})" for text, names in of.items()]


def odds(chance: float) -> str:
    """Return a probability in percent; "" without one."""
    if math.isnan(chance):
        return ""
    return f"{100 * chance:.0f} %" if chance >= 0.01 else "under 1 %"


def number(part: Part, value: float, more: int = 0) -> str:
    """Return a part's statistic in its unit, with more decimals than usual if asked.

    >>> [part] = parts()["S12"]
    >>> number(part, 0.031)
    '3.1 %'
    """
    unit = STATISTICS[part.statistic]["unit"]
    if math.isnan(value):
        return "none"
    if part.statistic == "theorem":
        return "holds" if value >= 1 else "does not hold as printed"
    if unit.startswith((" %", " points")):
        return f"{100 * value:.{(1 if '%' in unit else 2) + more}f}{unit}"
    if 0 < abs(value) <= 1e-9:
        return "10⁻⁹" if value == part.threshold else "under 10⁻⁹"
    if abs(value) >= 10 or part.statistic == "error":
        return f"{value:.{3 + more}g}"
    return f"{value:.{2 + more}f}{unit}"


@cache
def _printed() -> dict[str, dict[str, str]]:
    path = paths.PUBLISHED / "papers" / "printed.csv"
    table = pd.read_csv(path, index_col="part", dtype=str, keep_default_na=False)
    return table.to_dict("index")


def printed(part: Part) -> float | None:
    """Return a part's statistic in the paper's own table, a fraction; None without."""
    value = _printed().get(part.name, {}).get("value")
    return float(value) if value else None


def theirs(*of: Part) -> str:
    """Return the paper's own words or number for a part, or the range of several."""
    if said := _printed().get(of[0].name, {}).get("said"):
        return said
    values = [value for part in of if (value := printed(part)) is not None]
    if not values:
        return str(SAID["no number"][of[0].kind])
    return to(of[0], min(values), max(values))


def here(judged: Judged) -> str:
    """Return a part's statistic here: value, interval, n of a rank correlation."""
    part = judged.part
    if math.isnan(judged.value):
        return judged.word
    text, unit = number(part, judged.value), STATISTICS[part.statistic]["unit"]
    if judged.seen:
        one, other = judged.seen
        text = to(part, one, other, " and ")
    elif judged.interval:
        unit = unit if text.endswith(unit) else ""
        ends = to(part, *judged.interval).removesuffix(unit)
        text = f"{text.removesuffix(unit)} ({ends}){unit}"
    text += over([judged])
    if judged.other:
        text += f" (`{judged.other.preset}`: {number(part, judged.other.value)})"
    return text


def over(judged: Sequence[Judged]) -> str:
    """Return the number of points that rank correlations order, ", n = 5 to 8"."""
    counts = [int(n[1]) for j in judged if (n := re.search(r", (\d+) points$", j.n))]
    ends = sorted({min(counts), max(counts)}) if counts else []
    return f", n = {' to '.join(map(str, ends))}" if ends else ""


def to(part: Part, low: float, high: float, between: str = " to ") -> str:
    """Return two values of a part, their unit once, with decimals that differ.

    >>> to(parts()["S12"][0], 0.0201, 0.0203)
    '2.01 to 2.03 %'
    """
    unit = STATISTICS[part.statistic]["unit"]
    pairs = [(number(part, low, more), number(part, high, more)) for more in range(4)]
    one, other = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
    if one == other and between == " to ":
        return one
    return f"{one.removesuffix(unit)}{between}{other}"
