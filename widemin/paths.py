"""Where things are: the checkout, the data, the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout the package runs from
NOTEBOOKS = ROOT / "notebooks"
PRESETS = NOTEBOOKS / "presets"
BOOK = ROOT / "book"
PUBLISHED = BOOK / "results"  # the tables that are in git
NETWORKS = BOOK / "networks"  # the few networks that are in git
BUILD = ROOT / "_build"


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
