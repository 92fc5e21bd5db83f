"""What every row says of where, when and with what it was computed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import widemin
from widemin import paths

# Columns of every row; older rows lack the last two, which say what a processor can do
# and with how many threads it did it.
EARLIER = ("device", "hardware", "precision", "torch", "python", "source", "date")
PROVENANCE = (*EARLIER, "flags", "threads")

# Runs that agree in these, and say them all, round alike: one block.
BLOCK = ("device", "hardware", "flags", "threads", "precision", "torch")

# Instructions that decide how float32 is computed.
_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


@cache
def source() -> str:
    """Return the version of the source: package version and, in a checkout, commit."""
    ours = git("ls-files", "pyproject.toml")  # not notes beside it
    commit = ours and git("describe", "--always", "--dirty", "--exclude=*").strip()
    return f"{widemin.__version__}+{commit}" if commit else widemin.__version__


def git(*words: str) -> str:
    """Return the output of a git command in the project's own repository.

    Nothing without git, where it refuses, and of a repository that the package merely
    lies in or that a hook's environment names.
    """
    root = paths.ROOT
    call = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}", *words]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    with suppress(OSError, subprocess.CalledProcessError):
        if b'name = "widemin"' in (root / "pyproject.toml").read_bytes():
            return subprocess.check_output(
                call, cwd=root, env=env, text=True, stderr=subprocess.DEVNULL
            )
    return ""


@cache
def last_changed(path: Path) -> dict[int, str]:
    """Return the commit that last changed each line of a file, lines from 1.

    Without git, or without its whole history, there are none.
    """
    if git("rev-parse", "--is-shallow-repository").strip() != "false":
        return {}
    lines = git("blame", "-s", "--abbrev=7", "--", str(path)).splitlines()
    return {i: line.split()[0].lstrip("^") for i, line in enumerate(lines, start=1)}


def provenance(device: str) -> dict[str, Any]:
    """Return the values of all PROVENANCE columns for rows computed now."""
    torch: Any = sys.modules.get("torch")
    about = _processor()
    there = (about.get("flags") or about.get("Features", "")).split()
    kinds = {"cpu family": "family", "model": "model", "stepping": "stepping"}
    family = [f"{kinds[name]} {about[name]}" for name in about if name in kinds]
    said = ", ".join([*family, *(flag for flag in _FLAGS if flag in there)])
    name, precision = about.get("model name", ""), "float32"
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if torch is not None:
        threads = str(torch.get_num_threads())
        said = f"{torch.backends.cpu.get_cpu_capability()}, {said}"
    if device == "cuda":
        name = torch.cuda.get_device_name()
        said = "compute capability {}.{}".format(*torch.cuda.get_device_capability())
        where = ["convolutions"] * torch.backends.cudnn.allow_tf32
        where += ["matrix products"] * torch.backends.cuda.matmul.allow_tf32
        precision += f", TF32 in {' and '.join(where)}" if where else ""
    return {
        "device": device,
        "hardware": name or platform.processor() or platform.machine(),
        "precision": precision,
        "torch": getattr(torch, "__version__", version("torch")),
        "python": platform.python_version(),
        "source": source(),
        "date": datetime.now(UTC).date().isoformat(),
        "flags": said or platform.machine(),
        "threads": threads,
    }


@cache
def _processor() -> dict[str, str]:
    """Return the first processor's lines of /proc/cpuinfo; nothing without it."""
    first = ""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def block(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the values of the BLOCK columns of a row; None if one is missing.

    >>> row = dict.fromkeys(BLOCK, "x")
    >>> block(row) == block(row | {"seed": 1}), block(row | {"flags": None})
    (True, None)
    """
    values = [row.get(name) for name in BLOCK]
    if any(value is None or value != value or value == "" for value in values):
        return None
    return tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
