"""Where things are: the checkout, the data, the user's cache."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

ROOT = Path(__file__).resolve().parent.parent  # the checkout the package runs from
NOTEBOOKS = ROOT / "notebooks"
PRESETS = NOTEBOOKS / "presets"
BOOK = ROOT / "book"
PUBLISHED = BOOK / "results"  # the tables that are in git
NETWORKS = BOOK / "networks"  # the few networks that are in git
BUILD = ROOT / "_build"


def checkout() -> Path:
    """Return the folder of the checkout.

    Raises:
        ValueError: The package is installed without its notebooks and its book.
    """
    if not (PRESETS.is_dir() and BOOK.is_dir()):
        raise ValueError(
            "widemin must run from a checkout, which has the notebooks and the book "
            f"(README.md, Reproduce it); got the package alone, in {ROOT}"
        )
    return ROOT


def home(text: str, name: str) -> Path:
    """Return a folder as users name it: `~` is home, also where no shell says so.

    Raises:
        ValueError: A home that is not there, of the variable or option named.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{name} must lie in a home that is there; got {text!r}"
        ) from None


def cache() -> Path:
    """Return the folder for results and downloads: WIDEMIN_CACHE or the platform's."""
    if folder := os.environ.get("WIDEMIN_CACHE"):
        return home(folder, "WIDEMIN_CACHE")
    try:
        # Imported here: a machine that names its folders needs no platformdirs.
        import platformdirs
    except ModuleNotFoundError:
        raise ValueError(
            "WIDEMIN_CACHE must name a folder where platformdirs is not installed; "
            "got none"
        ) from None
    return Path(platformdirs.user_cache_dir("widemin")).expanduser()


def results(folder: str = "") -> Path:
    """Return the folder of finished runs: the one named, or a part of the cache.

    "published" is the folder of the committed tables, where no runs are kept.
    """
    if folder == "published":
        return PUBLISHED
    return home(folder, "results_dir") if folder else cache() / "results"


def data() -> Path:
    """Return the folder of the data sets: WIDEMIN_DATA or a part of the cache."""
    folder = os.environ.get("WIDEMIN_DATA")
    return home(folder, "WIDEMIN_DATA") if folder else cache() / "data"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside another that takes its place once it is written.

    So a file is there whole or not at all, whatever ends the process, and may be read
    by whoever may read what this user makes, whatever library wrote it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "made" / "on the way.txt"
    ...     with atomic(target) as part:
    ...         _ = part.write_text("all of it")
    ...     target.read_text()
    'all of it'
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
    """Rename a file that is not what it should be, with one warning; delete nothing.

    Args:
        path: The file; where it cannot be renamed it stays.
        what: What it is not, e.g. "a checkpoint".
        error: What is wrong with it.

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

    What lies there and cannot be locked, a folder say, is set aside.

    Args:
        path: Of the file.
        timeout: Seconds to wait for another process, then Timeout; below 0 without end.
    """
    # Imported here: most commands that read need no lock.
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        set_aside(path, "a lock", "it is no file")
    return FileLock(path, timeout=timeout)
