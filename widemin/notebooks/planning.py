"""Chapters, presets and the runs that a chapter's parameters stand for."""

from __future__ import annotations

import ast
import json
from functools import cache
from typing import Any

import yaml

from widemin import paths
from widemin.data import check_choice
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


def presets() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in paths.PRESETS.glob("*.yml"))


def preset(name: str) -> dict[str, Values]:
    """Return a preset: chapter to the values that differ from the parameter cell's.

    Raises:
        ValueError: There is no such preset.
    """
    check_choice("preset", name, presets())
    content = yaml.safe_load((paths.PRESETS / f"{name}.yml").read_text())
    base = preset(content.pop("extends")) if "extends" in content else {}
    return {
        chapter: base.get(chapter, {}) | content.get(chapter, {})
        for chapter in base | content
    }


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
    changed = preset(preset_name).get(chapter, {}) | {"preset": preset_name} | overrides
    for name, value in changed.items():
        check_choice("parameter", name, values)
        values[name] = typed(name, value, values[name])
    return values


def recipes(chapter: str, values: Values) -> list[Any]:
    """Return the runs of a chapter, in its order: what its `recipes` cells list.

    Raises:
        ValueError: A value that no run can have.
    """
    scope = dict(values)
    exec(compile(_cells(chapter)["recipes"], f"{chapter}, recipes", "exec"), scope)
    found: list[Any] = scope["recipes"]
    return found


def plan(chapter: str, preset_name: str) -> list[Any]:
    """Return the runs of a chapter at a preset.

    Raises:
        ValueError: Unknown preset.
    """
    return recipes(chapter, resolve(chapter, preset_name, {}))
