"""Presets, and the runs that chapters plan at them in the order of their worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.experiments.columns import as_column
from widemin.experiments.cost import magnitude
from widemin.experiments.parameters import Values, checked, defaults, typed
from widemin.names import check_choice
from widemin.papers.kamath.plan import plan as kamath
from widemin.papers.khritankov.plan import plan as khritankov
from widemin.papers.wang.plan import plan as wang
from widemin.papers.wei.plan import plan as wei

Plan = dict[str, Any]  # lists of runs, or dictionaries of them, by name
_PLANS: dict[str, Callable[..., Plan]] = {
    "01": khritankov,
    "02": wei,
    "03": wang,
    "04": kamath,
}


@dataclass(frozen=True)
class Stage:
    """Runs that a preset computes before others.

    Attributes:
        chapter: Number of the chapter.
        runs: Its lists of runs, as `named` takes them.
        values: Of fields of a recipe; those listed first are computed first.
    """

    chapter: str
    runs: str
    values: dict[str, list[Any]]

    def place(self, run: Any) -> list[int] | None:
        """Return the indices of a run's values in the lists; None if one is missing."""
        found = {name: as_column(getattr(run, name)) for name in self.values}
        if any(value not in self.values[name] for name, value in found.items()):
            return None
        return [self.values[name].index(value) for name, value in found.items()]


def presets() -> list[str]:
    """Return the names of all presets; what a Mac leaves beside them is none."""
    return sorted(path.stem for path in paths.PRESETS.glob("[!.]*.yml"))


def _preset(name: str) -> dict[str, Any]:
    """Return a preset's file, laid over the one it extends.

    Raises:
        ValueError: There is no such preset.
    """
    check_choice("preset", name, presets())
    path = paths.PRESETS / f"{name}.yml"
    content = dict(_read(path, path.stat().st_mtime_ns))
    base = _preset(content.pop("extends")) if "extends" in content else {}
    laid = {
        key: base.get(key, {}) | content[key]
        for key in content
        if isinstance(content[key], dict)
    }
    return base | content | laid


@cache
def _read(path: Path, changed: int) -> dict[str, Any]:
    """Read a preset once, as long as it is the same file."""
    return dict(yaml.safe_load(path.read_text()))


def preset(name: str, chapter: str) -> Values:
    """Return what a preset changes of a chapter's parameter cell.

    Raises:
        ValueError: There is no such preset.
    """
    values: Values = _preset(name).get(chapter, {})
    return {key: value for key, value in values.items() if key != "further"}


def further(name: str, chapter: str) -> list[Values]:
    """Return a preset's further settings of a chapter: changes to its own values.

    They are computed after the chapter's own runs, for the paper's tables alone; the
    page is drawn from its own.
    """
    found: list[Values] = _preset(name).get(chapter, {}).get("further", [])
    return found


def order(name: str) -> list[str]:
    """Return the numbers of the chapters in which a preset computes them; [] is any."""
    found: list[str] = _preset(name).get("order", [])
    return found


def stages(name: str) -> list[Stage]:
    """Return the stages of a preset, in the order of computing them."""
    listed: list[dict[str, Any]] = _preset(name).get("stages", [])
    return [
        Stage(str(stage.pop("chapter")), str(stage.pop("runs")), stage)
        for stage in map(dict, listed)
    ]


def resolve(chapter: str, preset_name: str, overrides: dict[str, Any]) -> Values:
    """Return all parameters of a chapter: its cell's, the preset's, then overrides.

    Args:
        chapter: Its name.
        preset_name: smoke, lab, paper, ...
        overrides: Name to value; a text is read as YAML, like papermill's -p.

    Raises:
        ValueError: Unknown preset or parameter, or a value of the wrong type.
    """
    values = defaults(chapter)
    changed = preset(preset_name, chapter) | {"preset": preset_name} | overrides
    for name, value in changed.items():
        check_choice("parameter", name, values)
        values[name] = typed(name, value, values[name])
    return values


def departures(values: Values, usual: Values) -> Values:
    """Return the parameters in which a page departs from others, not the machine's."""
    return {
        name: value
        for name, value in values.items()
        if value != usual[name] and name not in ("device", "workers", "results_dir")
    }


def planned(chapter: str, cell: Values) -> tuple[Plan, str]:
    """Return a notebook's lists of runs, and its preset as the page names it.

    Args:
        chapter: Its name.
        cell: The notebook's `globals()` after its parameter cell; a parameter given as
            a text becomes what it says.

    Raises:
        ValueError: What no parameter can be, in the words of `widemin run -p`.
    """
    values = checked(chapter, cell)
    cell.update(values)
    changed = departures(values, resolve(chapter, values["preset"], {}))
    given = ", ".join(f"{name} = {value}" for name, value in changed.items())
    plan = lists(chapter, values)
    if not plan["recipes"]:
        raise ValueError(f"parameters must leave a run to compute; got {given}")
    return plan, values["preset"] + (f", but {given}" if given else "")


def lists(chapter: str, values: Values) -> Plan:
    """Return a chapter's lists of runs by name, from its parameters.

    Raises:
        ValueError: A value that no run can have.
    """
    return _PLANS[chapter[:2]](**values)


def recipes(chapter: str, values: Values) -> list[Any]:
    """Return the runs of a chapter, in its order.

    Raises:
        ValueError: A value that no run can have.
    """
    return list(lists(chapter, values)["recipes"])


def settings(
    names: list[str],
    preset_name: str,
    given: dict[str, Any] | None = None,
    **machine: Any,
) -> dict[str, list[Values]]:
    """Return chapters' parameters at a preset, then those of its further settings.

    The chapters come in the preset's order of computing them.

    Args:
        names: Of the chapters.
        preset_name: smoke, lab, paper, ...
        given: Parameters changed, each in the chapters that have it. They are for the
            page: a chapter with any has no further settings.
        machine: Parameters of every chapter, over all others: device, results_dir.

    Raises:
        ValueError: Unknown preset or parameter, or a value of the wrong type.
    """
    given = given or {}
    every = dict.fromkeys(key for name in names for key in defaults(name))
    for key in given:
        check_choice("parameter", key, every)
    numbers = order(preset_name)
    names = sorted(names, key=lambda n: numbers.index(n[:2]) if n[:2] in numbers else 9)
    found = {}
    for name in names:
        own = {key: value for key, value in given.items() if key in defaults(name)}
        changes = [own] if own else [{}, *further(preset_name, name)]
        found[name] = [resolve(name, preset_name, c | machine) for c in changes]
    return found


def plan(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a chapter at a preset, its further settings too, by worth.

    Raises:
        ValueError: Unknown preset.
    """
    return by_worth(settings([chapter], preset_name), stages(preset_name))


def named(planned: Plan, text: str) -> list[Any]:
    """Return the runs of a chapter's lists by name, each once, in order.

    Args:
        planned: What its plan returns.
        text: Names joined by " + "; an entry of a dictionary in brackets, as in
            "settings[LR] + settings[LR/BS]". An entry that is not there has no runs.

    Raises:
        ValueError: There is no such list.
    """
    runs: dict[str, Any] = {}
    for part in text.split(" + "):
        name, _, entry = part.strip().rstrip("]").partition("[")
        check_choice("runs", name, planned)
        listed = planned[name].get(entry, []) if entry else planned[name]
        runs |= {run.key: run for run in listed}
    return list(runs.values())


def lists_of(chapter: str, preset_name: str) -> list[Plan]:
    """Return the lists of a chapter at a preset, a dictionary a setting."""
    return [lists(chapter, v) for v in settings([chapter], preset_name)[chapter]]


def printed(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a preset that stand in the paper's tables, all settings.

    Raises:
        ValueError: Unknown preset.
    """
    return [run for own in lists_of(chapter, preset_name) for run in own["printed"]]


def by_worth(
    planned: dict[str, list[Values]], stages: Sequence[Stage] = ()
) -> list[Any]:
    """Return the runs of chapters in the order of their worth.

    Stages first, in their order. Then what each chapter lists to be computed `first`;
    then one seed of all that stands in the papers' tables; then the rest, seed by
    seed. In each of these, runs that cost ten times as much come later: an hour ends
    more of the others.

    Args:
        planned: Chapter to its parameters, then those of further settings, of which
            only what stands in the paper's tables is computed. Of equal worth and
            about equal cost, what comes first here is computed first.
        stages: A preset's, as `presets.stages` reads them.
    """
    ahead: set[str] = set()
    shown: set[str] = set()
    staged: dict[str, tuple[int, ...]] = {}
    runs: list[Any] = []
    for chapter, (own, *others) in planned.items():
        page, *further = (lists(chapter, values) for values in (own, *others))
        tables = page["printed"] + [run for each in further for run in each["printed"]]
        ahead.update(run.key for run in page["first"])
        shown.update(run.key for run in tables)
        runs += page["recipes"] + tables
        for place, stage in enumerate(stages):
            if stage.chapter == chapter[:2]:
                for each in (page, *further):
                    for run in named(each, stage.runs):
                        if (order := stage.place(run)) is not None:
                            staged.setdefault(run.key, (place, *order))

    def rank(run: Any) -> tuple[int, ...]:
        cost = magnitude(run)
        if run.key in staged:
            return 0, *staged[run.key]
        if run.key in ahead:
            return 1, cost, run.seed
        if run.key in shown and run.seed == 0:
            return 2, cost, 0
        return 3, run.seed, cost

    return sorted({run.key: run for run in runs}.values(), key=rank)
