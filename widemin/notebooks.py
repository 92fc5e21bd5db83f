"""Chapters run with checked parameters.

A chapter is a notebook with two tagged cells: `parameters`, literals only, and
`recipes`, which turns them into the list of runs. Reading these two needs neither
Jupyter nor papermill, so that runs can be planned and computed anywhere.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.data import check_choice

Values = dict[str, Any]


class ChapterFailed(RuntimeError):
    """A chapter that did not run to its end; the message says where to look."""


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
        values[name] = _typed(name, value, values[name])
    return values


def _typed(name: str, value: Any, example: Any) -> Any:
    """Return value if it has the type of the example; read a text as YAML first."""
    given = value
    if isinstance(value, str) and not isinstance(example, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            value = given
    fits, wanted = _fit(value, example)
    if not fits:
        raise ValueError(f"{name} must be {wanted}; got {given!r}")
    return _as(value, example)


def _fit(value: Any, example: Any) -> tuple[bool, str]:
    """Return whether value has the example's type, and how to call that type."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(example, int):
        return number, "a whole number, e.g. 3"
    if isinstance(example, float):
        fits = number or isinstance(value, float) or _is_fraction(value)
        return fits, "a number, e.g. 0.1 or 8/255"
    if isinstance(example, str):
        return isinstance(value, str), "a text"
    wanted = f"a list like {json.dumps(example)}"
    if isinstance(example, tuple):  # of just so many
        wanted = f"{len(example)} values like {json.dumps(example)}"
        if not isinstance(value, list | tuple) or len(value) != len(example):
            return False, wanted
        return all(_fit(a, b)[0] for a, b in zip(value, example, strict=True)), wanted
    if not isinstance(value, list) or not value:
        return False, wanted
    if example and isinstance(example[0], list):  # of lists, each like the first
        fits = all(
            isinstance(item, list)
            and len(item) == len(example[0])
            and all(_fit(a, b)[0] for a, b in zip(item, example[0], strict=True))
            for item in value
        )
        return fits, wanted
    return all(_fit(item, example[0])[0] for item in value), wanted


def _is_fraction(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(Fraction(value) or True)
    except (ValueError, ZeroDivisionError):
        return False


def _as(value: Any, example: Any) -> Any:
    if isinstance(example, float):
        return float(Fraction(value)) if isinstance(value, str) else float(value)
    if isinstance(example, tuple):
        return tuple(_as(a, b) for a, b in zip(value, example, strict=True))
    if isinstance(example, list):
        inner = example[0]
        return [
            [_as(a, b) for a, b in zip(item, inner, strict=True)]
            if isinstance(inner, list)
            else _as(item, inner)
            for item in value
        ]
    return value


def recipes(chapter: str, values: Values) -> list[Any]:
    """Return the runs of a chapter, in its order: what its `recipes` cells list.

    Raises:
        ValueError: A value that no run can have.
    """
    scope = dict(values)
    exec(compile(_cells(chapter)["recipes"], f"{chapter}, recipes", "exec"), scope)
    found: list[Any] = scope["recipes"]
    return found


def digest(chapter: str, values: Values, done: list[str]) -> str:
    """Return what an executed chapter depends on: source, parameters and rows."""
    hashed = hashlib.sha256(json.dumps([values, sorted(done)]).encode())
    sources = sorted((paths.ROOT / "widemin").rglob("*.py"))
    tables = sorted(paths.PUBLISHED.rglob("*.csv"))
    notebook = paths.NOTEBOOKS / f"{chapter}.ipynb"
    for path in [notebook, paths.BOOK / "claims.csv", *sources, *tables]:
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def with_values(source: str, values: Values) -> str:
    """Return a parameter cell whose literals are values; its comments stay.

    >>> with_values("epochs = 1  # passes", {"epochs": 3})
    'epochs = 3  # passes'
    """
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign) or not isinstance(
            node.targets[0], ast.Name
        ):
            continue
        value, row = node.value, node.lineno - 1
        if node.end_lineno != node.lineno:
            raise ValueError(f"a parameter stands on one line; got {lines[row]!r}")
        # ast counts bytes, not characters.
        line = lines[row].encode()
        text = repr(values[node.targets[0].id]).replace("'", '"').encode()
        line = line[: value.col_offset] + text + line[value.end_col_offset :]
        lines[row] = line.decode()
    return "\n".join(lines)


def execute(chapter: str, values: Values, target: Path, stamp: str) -> None:
    """Run a chapter's notebook; put the executed one at target, whole or not at all.

    Args:
        chapter: Its name.
        values: All its parameters.
        target: Where the executed notebook goes. If the chapter fails, target stays
            as it was and the partial notebook stands beside it as *.failed.ipynb.
        stamp: Kept in the notebook's metadata, to tell later whether it is stale.

    Raises:
        ChapterFailed: A cell raised, or the kernel died.
    """
    # Imported here: they take seconds, and planning needs neither.
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillException
    from traitlets.config import Config

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    target.parent.mkdir(parents=True, exist_ok=True)
    running = target.with_suffix(f".{os.getpid()}.running.ipynb")
    failed = target.with_suffix(".failed.ipynb")
    notebook = nbformat.read(paths.NOTEBOOKS / f"{chapter}.ipynb", as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, values)
    nbformat.write(notebook, running)
    try:
        with tempfile.TemporaryDirectory(prefix="widemin-") as sockets:
            # Sockets in a folder of the user's own, not ports that anyone may read.
            where = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            # A kernel told to leave says that it was interrupted; failures come back.
            quiet = {"extra_arguments": ["--log-level=CRITICAL"]}
            papermill.execute_notebook(
                str(running),
                str(running),
                kernel_name="python3",
                progress_bar=False,
                config=Config(KernelManager=where, NotebookClient=quiet),
            )
    except (PapermillException, DeadKernelError) as error:
        _finish(running, failed, {"status": "failed", "digest": ""})
        reason = "the kernel died"
        if isinstance(error, PapermillException):
            reason = f"{getattr(error, 'ename', '')}: {getattr(error, 'evalue', error)}"
        raise ChapterFailed(
            f"chapter {chapter} failed ({reason}); its partial page is {failed}"
        ) from error
    except BaseException:
        running.unlink(missing_ok=True)
        raise
    _finish(running, target, {"status": "completed", "digest": stamp})
    failed.unlink(missing_ok=True)


def _finish(running: Path, target: Path, note: dict[str, str]) -> None:
    """Write our own status into the metadata, then rename.

    papermill's own says "completed" even when the kernel was killed.
    """
    notebook = json.loads(running.read_text())
    notebook["metadata"]["widemin"] = note
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
    running.write_text(json.dumps(notebook, indent=1))
    running.replace(target)


def is_current(target: Path, stamp: str) -> bool:
    """Return whether an executed notebook is there and nothing under it has changed."""
    try:
        note = json.loads(target.read_text())["metadata"]["widemin"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(note == {"status": "completed", "digest": stamp})
