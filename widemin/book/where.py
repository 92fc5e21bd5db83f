"""From a figure's label to the lines of code behind it."""

import ast
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from widemin import paths
from widemin.book import notebooks
from widemin.experiments.columns import COLUMNS, Column
from widemin.names import check_choice

# Modules that draw.
_DRAWS = re.compile(r"widemin\.papers\.(\w+\.)*(figures|ranks)")


@cache
def figures() -> dict[str, tuple[ast.AST, ast.Module]]:
    """Return each figure's cell by label, with the chapter's imports of papers."""
    cells: dict[str, tuple[ast.AST, ast.Module]] = {}
    for chapter in notebooks.chapters():
        imports = ast.Module([], [])
        text = (paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8")
        for cell in json.loads(text)["cells"]:
            if cell["cell_type"] != "code":
                continue
            tree = ast.parse("".join(t for t in cell["source"] if t[:1] != "%"))
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and "papers" in str(node.module):
                    imports.body.append(node)
            about = cell["metadata"].get("mystnb", {}).get("figure", {})
            if "name" in about:
                cells[about["name"]] = tree, imports
    return cells


def functions(label: str) -> list[Callable[..., Any]]:
    """Return the functions that a figure's cell draws with, in their order there."""
    shared = "widemin.papers.figures"
    drawing = [thing for thing in _things(label) if isinstance(thing, FunctionType)]
    return list(dict.fromkeys(f for f in drawing if f.__module__ != shared))


def columns(label: str) -> dict[str, Column]:
    """Return the columns that a figure's code names, name to record.

    Those drawn and those by which rows are chosen: literals in the figure's cell, in
    its functions and in what these call to draw; an f-string stands for what it is
    with those literals in its places.
    """
    waiting, seen = list(_things(label)), set[int]()
    words: list[str] = []
    nodes = list(ast.walk(figures()[label][0]))
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, FunctionType):
            tree = ast.parse(inspect.getsource(thing))
            nodes += ast.walk(tree)
            waiting += _named(tree, thing.__globals__)
        else:  # a module's table of columns
            words += map(str, thing)
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    words += (value for value in constants if isinstance(value, str))
    patterns = [ast.unparse(n)[2:-1] for n in nodes if isinstance(n, ast.JoinedStr)]
    pieces = [re.split(r"{[^{}]*}", pattern) for pattern in patterns]
    words += [word.join(parts) for parts in pieces for word in words]
    kinds = {"final", "recipe", "provenance", *words}  # code says which others it draws
    named = {name: COLUMNS[name] for name in dict.fromkeys(words) if name in COLUMNS}
    return {name: column for name, column in named.items() if kinds & {*column.kinds}}


def line(function: Callable[..., Any] | str) -> str:
    """Return file and line of a function, or of one that a dotted name finds.

    >>> line("widemin.papers.figures.spread").split(":")[0]
    'widemin/papers/figures.py'
    >>> line("widemin.evaluation.report").split(":")[0]
    'widemin/evaluation/report.py'
    """
    code: Any = function
    if isinstance(function, str):  # a module may have its name, too
        code = pkgutil.resolve_name(":".join(function.rpartition(".")[::2]))
    code = inspect.unwrap(code)
    file = Path(str(inspect.getsourcefile(code))).relative_to(paths.ROOT)
    return f"{file.as_posix()}:{inspect.getsourcelines(code)[1]}"


def _things(label: str) -> Iterator[Any]:
    """Yield the functions and tables of columns that a figure's cell names."""
    check_choice("figure", label, figures())
    tree, imports = figures()[label]
    names: dict[str, Any] = {}
    exec(compile(imports, label, "exec"), names)
    yield from _named(tree, names)


def _named(tree: ast.AST, names: dict[str, Any]) -> Iterator[Any]:
    """Yield what code names of the modules that draw: functions, tables of columns."""
    for node in ast.walk(tree):
        thing = None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            thing = getattr(names.get(node.value.id), node.attr, None)
        elif isinstance(node, ast.Name):
            thing = names.get(node.id)
        if isinstance(thing, dict | list | set | tuple):
            yield thing
        elif isinstance(thing, FunctionType) and _DRAWS.fullmatch(thing.__module__):
            yield thing
