"""Chapters, and what their notebooks hold: parameters and the cells that plan runs."""

from __future__ import annotations

import ast
import json
from functools import cache
from typing import Any

from widemin import paths
from widemin.choices import check_choice
from widemin.notebooks.values import Values


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
def cells_of(chapter: str) -> dict[str, str]:
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
    return _literals(cells_of(chapter)["parameters"])
