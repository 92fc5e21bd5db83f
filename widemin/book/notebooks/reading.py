"""Chapters, and what their notebooks hold: parameters and the cells that plan runs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from widemin import paths
from widemin.book.notebooks.values import Values
from widemin.names import check_choice


def chapters() -> list[str]:
    """Return the names of all chapters: the notebooks that the book's contents name.

    A copy beside one of them, as JupyterLab and file managers make it, is none.

    Raises:
        ValueError: There is no checkout to find them in.
    """
    paths.checkout()
    contents = (paths.BOOK / "_toc.yml").read_text(encoding="utf-8")
    found = re.findall(r"\bchapters/(\d\d_\w+)$", contents, re.MULTILINE)
    return sorted(n for n in found if (paths.NOTEBOOKS / f"{n}.ipynb").exists())


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


def assigned(source: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name of a parameter cell and the expression that is its value.

    Raises:
        ValueError: A line that is no assignment to one name.
    """
    wanted = "a parameter cell must hold lines like epochs = 3"
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{wanted}; got {error.text!r} ({error.msg})") from error
    for node in body:
        target: ast.expr | None = None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        value = getattr(node, "value", None)
        if not isinstance(target, ast.Name) or value is None:
            raise ValueError(f"{wanted}; got {ast.unparse(node)!r}")
        yield target.id, value


_CONSTANT = (ast.Constant, ast.List, ast.Tuple, ast.UnaryOp, ast.BinOp)


def _literals(source: str) -> Values:
    """Return the values that a parameter cell assigns, sums like 8 / 255 worked out."""
    found: Values = {}
    for name, value in assigned(source):
        inner = [node for node in ast.walk(value) if isinstance(node, ast.expr)]
        try:
            if not all(isinstance(node, _CONSTANT) for node in inner):
                raise TypeError("not made of constants")
            found[name] = eval(compile(ast.Expression(value), name, "eval"), {})
        except (TypeError, ArithmeticError) as error:
            raise ValueError(
                f"{name} must be a constant in the parameter cell, like 3, 8/255 or "
                f"[1, 2]; got {ast.unparse(value)} ({error})"
            ) from error
    return found


@cache
def cells_of(chapter: str) -> dict[str, str]:
    """Return the source of the cells that carry a tag, by tag, in their order.

    Raises:
        ValueError: The file is not the notebook of a chapter.
    """
    path = paths.NOTEBOOKS / f"{chapter}.ipynb"
    found = {"parameters": "", "recipes": ""}
    try:
        for cell in json.loads(path.read_bytes())["cells"]:
            for tag in found.keys() & set(cell["metadata"].get("tags", [])):
                found[tag] += "".join(cell["source"]) + "\n"
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must be a notebook; got another file") from error
    for tag, source in found.items():
        if not source:
            raise ValueError(f"{path} must have a cell tagged {tag!r}; got none")
    return found


def defaults(chapter: str) -> Values:
    """Return the values in the chapter's parameter cell.

    Raises:
        ValueError: A line of the cell is not a name and its constant.
    """
    return _literals(cells_of(chapter)["parameters"])
