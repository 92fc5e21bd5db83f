"""Where things are: the checkout, the data, the user's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout the package runs from
NOTEBOOKS = ROOT / "notebooks"
PRESETS = NOTEBOOKS / "presets"
BOOK = ROOT / "book"
PUBLISHED = BOOK / "results"  # the tables that are in git
NETWORKS = BOOK / "networks"  # the few networks that are in git
BUILD = ROOT / "_build"


def cache() -> Path:
    """Return the folder for results and downloads: WIDEMIN_CACHE or the platform's."""
    if folder := os.environ.get("WIDEMIN_CACHE"):
        return Path(folder)
    # Imported here: a machine that names its folders needs no platformdirs.
    import platformdirs

    return Path(platformdirs.user_cache_dir("widemin"))


def results(folder: str = "") -> Path:
    """Return the folder of finished runs: the one named, or a part of the cache.

    "published" is the folder of the committed tables, where no runs are kept.
    """
    if folder == "published":
        return PUBLISHED
    return Path(folder) if folder else cache() / "results"


def data() -> Path:
    """Return the folder of the data sets: WIDEMIN_DATA or a part of the cache."""
    folder = os.environ.get("WIDEMIN_DATA")
    return Path(folder) if folder else cache() / "data"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside another that takes its place once it is written.

    So a file is there whole or not at all, whatever ends the process.

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
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
