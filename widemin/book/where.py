"""From a figure's label to the lines of code behind it."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from widemin import paths
from widemin.book import notebooks
from widemin.experiments.columns import COLUMNS, Column
from widemin.names import check_choice

_DRAW = ("figures", "features", "ranks")  # modules below widemin.papers that draw


@cache
def figures() -> dict[str, tuple[str, str]]:
    """Return every figure of the book, label to its chapter and its cell's code."""
    cells = {}
    for chapter in notebooks.chapters():
        for cell in _code(chapter):
            about = cell["metadata"].get("mystnb", {}).get("figure", {})
            if "name" in about:
                cells[about["name"]] = chapter, "".join(cell["source"])
    return cells


def functions(label: str) -> list[Callable[..., Any]]:
    """Return the functions that a figure's cell draws with, in the order of its code.

    Raises:
        ValueError: No figure has this label.
    """
    return [
        thing
        for thing in dict.fromkeys(_things(label))
        if isinstance(thing, FunctionType) and not _shared(thing)
    ]


def columns(label: str) -> dict[str, Column]:
    """Return the columns that a figure's code names, name to record.

    Those drawn and those by which rows are chosen: literals in the figure's cell, in
    its functions and in what these call to draw; an f-string stands for what it is
    with those literals in its places.
    """
    words: list[str] = []
    patterns: list[ast.JoinedStr] = []
    waiting, seen = list(_things(label)), list[Any]()
    trees: list[ast.AST] = [ast.parse(figures()[label][1])]
    while waiting:
        thing = waiting.pop()
        if thing in seen:
            continue
        seen.append(thing)
        if not isinstance(thing, FunctionType):  # a module's table of columns
            words += [str(word) for word in thing]
            continue
        trees.append(ast.parse(inspect.getsource(thing)))
        waiting += _named(trees[-1], thing.__globals__)
    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            patterns.append(node)
    for pattern in patterns:
        words += [
            "".join(
                str(part.value) if isinstance(part, ast.Constant) else word
                for part in pattern.values
            )
            for word in list(words)
        ]
    kinds = {"final", "recipe", "provenance", *words}  # code says which others it draws
    named = {name: COLUMNS[name] for name in dict.fromkeys(words) if name in COLUMNS}
    return {name: column for name, column in named.items() if kinds & {*column.kinds}}


def line(function: Callable[..., Any] | str) -> str:
    """Return file and line of a function, or of one that a dotted name finds.

    >>> line("widemin.papers.figures.spread").split(":")[0]
    'widemin/papers/figures.py'
    """
    found = pkgutil.resolve_name(function) if isinstance(function, str) else function
    found = inspect.unwrap(found)
    file = Path(str(inspect.getsourcefile(found))).relative_to(paths.ROOT)
    return f"{file.as_posix()}:{inspect.getsourcelines(found)[1]}"


def _code(chapter: str) -> list[dict[str, Any]]:
    text = (paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8")
    return [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]


def _things(label: str) -> Iterator[Any]:
    """Yield the functions and tables of columns that a figure's cell names."""
    check_choice("figure", label, figures())
    chapter, source = figures()[label]
    names: dict[str, Any] = {}
    for cell in _code(chapter):
        code = "".join(t for t in cell["source"] if not t.startswith("%"))
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and _draws(f"{node.module}."):
                for alias in node.names:
                    found = pkgutil.resolve_name(f"{node.module}:{alias.name}")
                    names[alias.asname or alias.name] = found
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    if _draws(f"{node.module}.{alias.name}"):
                        module = import_module(f"{node.module}.{alias.name}")
                        names[alias.asname or alias.name] = module
    yield from _named(ast.parse(source), names)


def _named(tree: ast.AST, names: dict[str, Any]) -> Iterator[Any]:
    """Yield what code names of the modules that draw: functions, tables of columns."""
    for node in ast.walk(tree):
        found = None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = getattr(names.get(node.value.id), node.attr, None)
        elif isinstance(node, ast.Name):
            found = names.get(node.id)
        if isinstance(found, dict | list | set | tuple):
            yield _Table(found)
        elif isinstance(found, FunctionType) and _draws(f"{found.__module__}."):
            yield found


class _Table(tuple[Any, ...]):
    """The words of a module's table of columns, hashable."""


def _draws(module: str) -> bool:
    parts = module.rstrip(".").split(".")
    return parts[:2] == ["widemin", "papers"] and parts[-1] in _DRAW


def _shared(function: FunctionType) -> bool:
    return function.__module__ == "widemin.papers.figures"
