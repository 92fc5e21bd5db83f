"""Chapters, presets and the runs that a chapter's parameters stand for."""

from __future__ import annotations

import ast
import json
from functools import cache
from typing import Any

from widemin import paths
from widemin.choices import check_choice
from widemin.notebooks.presets import further, order, preset
from widemin.notebooks.values import typed

Values = dict[str, Any]


def chapters() -> list[str]:
    """Return the names of all chapters, in order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def find(text: str) -> list[str]:
    """Return the chapters that "all", a number or a name stands for.

    Raises:
        ValueError: There is no such chapter.
    """
    known = chapters()
    if text == "all":
        return known
    found = [name for name in known if text in (name, name[:2], name[1:2])]
    if not found:
        numbers = [name[:2] for name in known]
        check_choice("chapter", text, ["all", *numbers, *known])
    return found


def parameters(cells: list[dict[str, Any]]) -> Values:
    """Return the values that the parameter cell among a notebook's cells assigns."""
    found: Values = {}
    for cell in cells:
        if "parameters" in cell["metadata"].get("tags", []):
            found |= _literals("".join(cell["source"]))
    return found


def drawn(chapter: str, cells: list[dict[str, Any]]) -> Values:
    """Return the values a page was drawn with, as the chapter's parameters now are.

    A page that an older source has drawn may lack some and have others.
    """
    held = parameters(cells)
    return {name: held.get(name, value) for name, value in defaults(chapter).items()}


def _literals(source: str) -> Values:
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


@cache
def _cells(chapter: str) -> dict[str, str]:
    """Return the source of the cells that carry a tag, by tag, in their order."""
    notebook = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())
    found: dict[str, str] = {}
    for cell in notebook["cells"]:
        for tag in cell["metadata"].get("tags", []):
            if tag in ("parameters", "recipes"):
                found[tag] = found.get(tag, "") + "".join(cell["source"]) + "\n"
    return found


def defaults(chapter: str) -> Values:
    """Return the values in the chapter's parameter cell."""
    return _literals(_cells(chapter)["parameters"])


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
    exec(compile(_cells(chapter)["recipes"], f"{chapter}, recipes", "exec"), scope)
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
    return by_worth(settings([chapter], preset_name))


def printed(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a preset that stand in the paper's tables, all settings.

    Raises:
        ValueError: Unknown preset.
    """
    found = []
    for values in settings([chapter], preset_name)[chapter]:
        found += _lists(chapter, values)["printed"]
    return found


def by_worth(planned: dict[str, list[Values]]) -> list[Any]:
    """Return the runs of chapters in the order of their worth.

    What each chapter lists to be computed `first`; then one seed of all that stands in
    the papers' tables; then the rest, seed by seed.

    Args:
        planned: Chapter to its parameters, then those of further settings, of which
            only what stands in the paper's tables is computed. Of equal worth, what
            comes first here is computed first.
    """
    ahead: set[str] = set()
    shown: set[str] = set()
    runs: list[Any] = []
    for chapter, (own, *others) in planned.items():
        lists = _lists(chapter, own)
        tables = lists["printed"] + [
            run for values in others for run in _lists(chapter, values)["printed"]
        ]
        ahead.update(run.key for run in lists["first"])
        shown.update(run.key for run in tables)
        runs += lists["recipes"] + tables

    def rank(run: Any) -> tuple[int, int]:
        if run.key in ahead:
            return 0, run.seed
        return (1, 0) if run.key in shown and run.seed == 0 else (2, run.seed)

    return sorted({run.key: run for run in runs}.values(), key=rank)
