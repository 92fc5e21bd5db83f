"""Parameters of a chapter: literals in its notebook's cell, checked wherever set."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import yaml

from widemin import paths
from widemin.experiments import disk
from widemin.names import check, check_choice

Values = dict[str, Any]  # a chapter's parameters, by name
_CONSTANT = (ast.Constant, ast.List, ast.Tuple, ast.UnaryOp, ast.BinOp)


def chapters() -> list[str]:
    """Return the names of all chapters: the notebooks that the book's contents name.

    A copy beside one of them, as JupyterLab and file managers make it, is none; nor is
    the primer, 00, which has no runs.
    """
    disk.checkout()
    contents = (paths.BOOK / "_toc.yml").read_text(encoding="utf-8")
    names = re.findall(r"\bchapters/((?!00)\d\d_\w+)$", contents, re.MULTILINE)
    return sorted(n for n in names if (paths.NOTEBOOKS / f"{n}.ipynb").exists())


def find(text: str) -> list[str]:
    """Return the chapters that "all", a number or a name stands for."""
    known = chapters()
    named = [name for name in known if text in ("all", name, name[:2], name[1:2])]
    if not named:
        check_choice("chapter", text, ["all", *(name[:2] for name in known), *known])
    return named


def parameters(cells: list[dict[str, Any]]) -> Values:
    """Return the values that the parameter cell among a notebook's cells assigns."""
    values: Values = {}
    for cell in cells:
        if "parameters" in cell["metadata"].get("tags", []):
            values |= literals("".join(cell["source"]))
    return values


def drawn(chapter: str, cells: list[dict[str, Any]]) -> Values:
    """Return the values a page was drawn with, as the chapter's parameters now are.

    A page that an older source has drawn may lack some and have others.
    """
    held = parameters(cells)
    return {name: held.get(name, value) for name, value in defaults(chapter).items()}


def defaults(chapter: str) -> Values:
    """Return the values in the parameter cell of a chapter's notebook."""
    path = paths.NOTEBOOKS / f"{chapter}.ipynb"
    return dict(_defaults(path.read_bytes(), str(path)))


@cache
def _defaults(content: bytes, path: str) -> Values:
    try:
        cells = json.loads(content)["cells"]
        tags = [tag for cell in cells for tag in cell["metadata"].get("tags", [])]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must be a notebook; got another file") from error
    wanted = f"{path} must have a cell tagged 'parameters'"
    check("parameters" in tags, wanted, "none")
    return parameters(cells)


def literals(source: str) -> Values:
    """Return the values that a parameter cell assigns, sums like 8 / 255 worked out.

    >>> literals("epsilon = 8 / 255  # pixels")
    {'epsilon': 0.03137254901960784}
    """
    values: Values = {}
    for name, value in _assigned(source):
        nodes = [node for node in ast.walk(value) if isinstance(node, ast.expr)]
        try:
            if not all(isinstance(node, _CONSTANT) for node in nodes):
                raise TypeError("not made of constants")
            values[name] = eval(compile(ast.Expression(value), name, "eval"), {})
        except (TypeError, ArithmeticError) as error:
            raise ValueError(
                f"{name} must be a constant in the parameter cell, like 3, 8/255 or "
                f"[1, 2]; got {ast.unparse(value)} ({error})"
            ) from error
    return values


def _assigned(source: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name of a parameter cell, one a line, and what it is set to."""
    wanted = "a parameter cell must hold lines like epochs = 3"
    for line in filter(None, map(str.strip, source.split("\n"))):
        try:
            body = ast.parse(line).body
        except SyntaxError as error:
            raise ValueError(f"{wanted}; got {line!r} ({error.msg})") from error
        match body:
            case []:  # a comment
                continue
            case [
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ]:
                yield name, value
            case _:
                raise ValueError(f"{wanted}; got {line!r}")


def with_values(source: str, values: Values) -> str:
    """Return a parameter cell with other values; names, types and comments stay.

    >>> with_values("epochs = 1  # passes", {"epochs": 3})
    'epochs = 3  # passes'
    """
    lines = source.removesuffix("\n").split("\n")
    for place, line in enumerate(lines):
        for name, _ in _assigned(line):
            tokens = tokenize.generate_tokens(io.StringIO(line).readline)
            comments = [t.string for t in tokens if t.type == tokenize.COMMENT]
            head = line.partition("=")[0].rstrip()
            lines[place] = "  ".join([f"{head} = {_written(values[name])}", *comments])
    return "\n".join(lines)


def _written(value: Any) -> str:
    """Return a value in Python, its texts in double quotes.

    >>> print(_written(["Anna's", (1, 0.5)]))
    ["Anna's", (1, 0.5)]
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))}{',' * (len(value) == 1)})"
    return repr(value)


def checked(chapter: str, cell: Values) -> Values:
    """Return a chapter's parameters as its notebook's cells have set them, checked.

    `cell` is the notebook's `globals()`: with them what papermill has injected.

    Raises:
        ValueError: A name that is no parameter, or a value of another type.
    """
    known = defaults(chapter)
    for source in cell.get("In", []):
        if source.startswith("# Parameters\n"):  # papermill's own cell
            for name, value in literals(source).items():
                check_choice("parameter", name, known)
                wanted = "preset must be given as --preset"
                check(name != "preset", wanted, f"-p preset {value}")
    return {name: typed(name, cell[name], known[name]) for name in known}


def typed(name: str, value: Any, example: Any) -> Any:
    """Return value if it has the type of the example.

    A text is read as YAML first, for its lists: numbers are as Python writes them, not
    as YAML does (010 is ten, 1:30 none), and texts stay as given.

    Raises:
        ValueError: It is of another type.

    >>> typed("epsilons", "[8/255, 1]", [0.1]), typed("seeds", "010", 3)
    ([0.03137254901960784, 1.0], 10)
    """
    read = value
    try:
        if isinstance(value, str) and not isinstance(example, str):
            read = yaml.load(value, yaml.BaseLoader)  # its numbers are texts still
        return _as(read, example)
    except (ValueError, TypeError, ArithmeticError, IndexError, yaml.YAMLError):
        wanted = _WANTED[type(example)]
        if isinstance(example, list | tuple):
            wanted = wanted.format(json.dumps(example), n=len(example))
        raise ValueError(f"{name} must be {wanted}; got {value!r}") from None


_WANTED = {  # in words, by the type of an example
    str: "a text",
    list: "a list of at least one value, like {}",
    tuple: "{n} values like {}",
    int: "a whole number of at least 0, e.g. 3",
    float: "a number, e.g. 0.1 or 8/255",
}


def _as(value: Any, example: Any, whole: bool = True) -> Any:
    """Return value as the example's type; raise TypeError, or another error, if not.

    A whole list is of any length, all else of just so many items.
    """
    if isinstance(example, list | tuple):
        if not isinstance(value, list | tuple) or not value:
            raise TypeError
        any_length = isinstance(example, list) and whole
        likes = [example[0]] * len(value) if any_length else example
        pairs = zip(value, likes, strict=True)
        return type(example)(_as(item, like, whole=False) for item, like in pairs)
    kinds = str if isinstance(example, str) else int | float | str
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError
    if isinstance(example, str):
        return str(value).encode().decode()  # what a file can hold
    if isinstance(example, int):
        if isinstance(value, float) or int(value) < 0:
            raise TypeError
        return int(value)
    return float(Fraction(value))  # NaN and infinity are none
