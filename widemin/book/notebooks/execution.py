"""Chapters executed with papermill, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from widemin import paths
from widemin.book.notebooks.reading import assigned
from widemin.book.notebooks.values import Values


class ChapterFailed(RuntimeError):
    """A chapter that did not run to its end; the message says where to look."""


def digest(chapter: str, values: Values, done: list[str]) -> str:
    """Return what an executed chapter depends on: source, parameters and rows."""
    hashed = hashlib.sha256(json.dumps([values, sorted(done)]).encode())
    sources = sorted((paths.ROOT / "widemin").rglob("*.py"))
    tables = sorted(p for p in paths.PUBLISHED.rglob("*.csv") if p.is_file())
    notebook = paths.NOTEBOOKS / f"{chapter}.ipynb"
    for path in [notebook, paths.BOOK / "claims.csv", *sources, *tables]:
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def with_values(source: str, values: Values) -> str:
    """Return a parameter cell whose constants are values; its comments stay.

    >>> with_values("epochs = 1  # passes", {"epochs": 3})
    'epochs = 3  # passes'
    """
    lines = source.encode().splitlines(keepends=True)  # ast counts bytes
    for name, node in reversed(list(assigned(source))):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before, after = lines[first][: node.col_offset], lines[last]
        after = after[node.end_col_offset :]
        lines[first : last + 1] = [before + _written(values[name]).encode() + after]
    return b"".join(lines).decode().removesuffix("\n")


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
        made = tempfile.TemporaryDirectory(prefix="widemin-", dir=_short_folder())
        with _drawing_inline(), made as sockets:
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


def _short_folder() -> str:
    """Return a folder for sockets: what leads to one has 103 bytes at most."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= 75 else "/tmp"


@contextmanager
def _drawing_inline() -> Iterator[None]:
    """Have a kernel started meanwhile draw into its notebook, as no MPLBACKEND asks."""
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked


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
