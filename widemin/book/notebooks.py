"""Chapters: executed with papermill, whole or not at all; what is known of them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from widemin import paths
from widemin.book.presets import (
    by_worth,
    departures,
    lists_of,
    named,
    plan,
    planned,
    presets,
    printed,
    recipes,
    resolve,
    settings,
    stages,
)
from widemin.experiments.parameters import (
    Values,
    chapters,
    defaults,
    drawn,
    find,
    parameters,
    with_values,
)

__all__ = [
    "ChapterFailed",
    "by_worth",
    "chapters",
    "defaults",
    "departures",
    "digest",
    "drawn",
    "execute",
    "find",
    "is_current",
    "lists_of",
    "named",
    "parameters",
    "plan",
    "planned",
    "presets",
    "printed",
    "recipes",
    "resolve",
    "settings",
    "stages",
    "with_values",
]


class ChapterFailed(RuntimeError):
    """A chapter that did not run to its end; the message says where to look."""


def digest(chapter: str, values: Values, done: list[str]) -> str:
    """Return what an executed chapter depends on: source, parameters and rows."""
    hashed = hashlib.sha256(json.dumps([values, sorted(done)]).encode())
    sources = sorted((paths.ROOT / "widemin").rglob("*.py"))
    tables = sorted(p for p in paths.PUBLISHED.rglob("*.csv") if p.is_file())
    notebook = paths.NOTEBOOKS / f"{chapter}.ipynb"
    said = [paths.BOOK / name for name in ("claims.csv", "statements.csv")]
    for path in [notebook, *said, *sources, *tables]:
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


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
        with made as sockets:
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
