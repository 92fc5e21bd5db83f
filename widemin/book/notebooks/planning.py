"""The runs that a chapter's parameters stand for, and the order of their worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from widemin.book.notebooks.presets import Stage, further, order, preset, stages
from widemin.book.notebooks.reading import cells_of, defaults
from widemin.book.notebooks.values import Values, typed
from widemin.experiments.cost import magnitude
from widemin.names import check_choice


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


def _lists(chapter: str, values: Values) -> Values:
    """Return what a chapter's `recipes` cells define.

    Raises:
        ValueError: A value that no run can have.
    """
    scope = dict(values)
    exec(compile(cells_of(chapter)["recipes"], f"{chapter}, recipes", "exec"), scope)
    return scope


def recipes(chapter: str, values: Values) -> list[Any]:
    """Return the runs of a chapter, in its order: what its `recipes` cells list.

    Raises:
        ValueError: A value that no run can have.
    """
    found: list[Any] = _lists(chapter, values)["recipes"]
    return found


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


def named(lists: Values, text: str) -> list[Any]:
    """Return the runs of a chapter's lists by name, each once, in order.

    Args:
        lists: What the chapter's `recipes` cells define.
        text: Names joined by " + "; an entry of a dictionary in brackets, as in
            "settings[LR] + settings[LR/BS]". An entry that is not there has no runs.

    Raises:
        ValueError: There is no such list.
    """
    runs: dict[str, Any] = {}
    for part in text.split(" + "):
        name, _, entry = part.strip().rstrip("]").partition("[")
        check_choice("runs", name, lists)
        listed = lists[name].get(entry, []) if entry else lists[name]
        runs |= {run.key: run for run in listed}
    return list(runs.values())


def lists_of(chapter: str, preset_name: str) -> list[Values]:
    """Return the variables of a chapter's `recipes` cells, a dictionary a setting."""
    return [_lists(chapter, v) for v in settings([chapter], preset_name)[chapter]]


def printed(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a preset that stand in the paper's tables, all settings.

    Raises:
        ValueError: Unknown preset.
    """
    return [run for lists in lists_of(chapter, preset_name) for run in lists["printed"]]


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
        lists, *further = (_lists(chapter, values) for values in (own, *others))
        tables = lists["printed"] + [run for each in further for run in each["printed"]]
        ahead.update(run.key for run in lists["first"])
        shown.update(run.key for run in tables)
        runs += lists["recipes"] + tables
        for place, stage in enumerate(stages):
            if stage.chapter == chapter[:2]:
                for each in (lists, *further):
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
