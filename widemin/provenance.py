"""What every row says of where, when and with what it was computed."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import widemin
from widemin import paths

# Columns of every row.
PROVENANCE = ("device", "hardware", "precision", "torch", "python", "source", "date")


@cache
def source() -> str:
    """Return the version of the source: package version and, in a checkout, commit."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return widemin.__version__
    return f"{widemin.__version__}+{commit}"


@cache
def last_changed(path: Path) -> dict[int, str]:
    """Return the commit that last changed each line of a file, lines from 1.

    Without git, or without its whole history, there are none.
    """

    def git(*words: str) -> str:
        call = ["git", *words]
        return subprocess.run(
            call, cwd=paths.ROOT, capture_output=True, text=True, check=True
        ).stdout

    try:
        if git("rev-parse", "--is-shallow-repository").strip() == "true":
            return {}
        lines = git("blame", "-s", "--abbrev=7", "--", str(path)).splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {i: line.split()[0].lstrip("^") for i, line in enumerate(lines, start=1)}


@cache
def provenance(device: str) -> dict[str, Any]:
    """Return what every row says of where it was computed."""
    name = _processor()
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    return {
        "device": device,
        "hardware": name,
        "precision": "float32",
        "torch": getattr(sys.modules.get("torch"), "__version__", version("torch")),
        "python": platform.python_version(),
        "source": source(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
