"""Files that are written whole, set aside, locked; and the checkout they may need."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from widemin import paths

if TYPE_CHECKING:
    from filelock import BaseFileLock


def checkout() -> Path:
    """Return the folder of the checkout.

    Raises:
        ValueError: The package is installed without its notebooks and its book.
    """
    if not (paths.PRESETS.is_dir() and paths.BOOK.is_dir()):
        raise ValueError(
            "widemin must run from a checkout, which has the notebooks and the book "
            f"(README.md, Reproduce it); got the package alone, in {paths.ROOT}"
        )
    return paths.ROOT


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside another that takes its place once it is written.

    So a file is there whole or not at all, whatever ends the process; who may read it
    is this user's choice, whatever library wrote it. Its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.touch()
    mode = part.stat().st_mode
    part.unlink()
    try:
        yield part
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def set_aside(path: Path, what: str, error: Exception | str) -> None:
    """Rename a file that is not `what` it should be, with one warning; delete nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     for _ in range(2):
    ...         _ = (Path(folder) / "a.json").write_text("no JSON")
    ...         set_aside(Path(folder) / "a.json", "a run", "it is text")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['a-2.broken', 'a.broken']
    """
    numbers = (f"-{i}" if i > 1 else "" for i in count(1))
    asides = (path.with_name(f"{path.stem}{number}.broken") for number in numbers)
    aside = next(other for other in asides if not os.path.lexists(other))
    done = "left there"
    with suppress(OSError):  # of another user, or set aside by another process
        path.rename(aside)
        done = f"set aside as {aside}, another takes its place"
    said = str(error).strip().partition("\n")[0]
    warnings.warn(f"{path} is not {what} ({said}); {done}", stacklevel=4)


def lock(path: Path, timeout: float = -1) -> BaseFileLock:
    """Return a lock between processes that a file stands for; its folder is made.

    What lies there and cannot be locked, a folder say, is set aside. After `timeout`
    seconds of waiting comes Timeout; below 0 it waits without end.
    """
    from filelock import FileLock  # here, since most commands that read need no lock

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        set_aside(path, "a lock", "it is no file")
    return FileLock(path, timeout=timeout)
