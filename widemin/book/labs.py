"""The labs put together as a course, for students and for instructors.

The sources are in notebooks/labs, in nbgrader's format; nbgrader is in the dependency
group `teach`. What the labs themselves import is `widemin.experiments.labs`.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from widemin import paths
from widemin.experiments import disk
from widemin.names import check

SOURCES = paths.NOTEBOOKS / "labs"


def names() -> list[str]:
    """Return the names of the labs, in order; a copy beside a lab is none."""
    stems = (path.stem for path in SOURCES.glob("lab*.ipynb"))
    return sorted(stem for stem in stems if re.fullmatch(r"lab\d_[a-z]+", stem))


def _nbgrader() -> tuple[Any, Any]:
    """Return nbgrader's interface and its configuration, two classes."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    return NbGraderAPI, Config


def course(folder: Path, chosen: Sequence[str] = (), seconds: int = 60) -> Any:
    """Put labs into a folder as a course of nbgrader's; return its interface.

    All labs by default; files that the folder has stay as they are. A cell may take so
    many seconds when it is graded.
    """
    interface, configuration = _nbgrader()
    if shutil.which("alembic") is None:  # which nbgrader calls by name
        here = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    for source, name in _sources(chosen or names()).items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    config = configuration()
    config.CourseDirectory.root = str(folder.absolute())
    config.CourseDirectory.course_id = "widemin"
    # A cell that never ends is interrupted; the cells after it are graded all the same.
    config.ExecutePreprocessor.timeout = seconds
    config.ExecutePreprocessor.interrupt_on_timeout = True
    return interface(config=config)


def _sources(chosen: Sequence[str]) -> dict[Path, str]:
    """Return the files a course is made of, with their places in its folder."""
    own = {SOURCES / f"{name}.ipynb": f"source/{name}/{name}.ipynb" for name in chosen}
    return own | {SOURCES / name: name for name in ("nbgrader_config.py", "README.md")}


# In a folder of labs: the files written there, each with its digest.
MARK = ".widemin-labs.json"


def release(folder: Path) -> list[Path]:
    """Make or renew the students' and the instructor's labs; return what is left.

    Of what the folder holds, only files of an earlier call that are as they were
    written are replaced, and none is removed; what is left is edited since. Another
    folder with files in it is a ValueError, a lab that nbgrader refuses a RuntimeError.
    """
    disk.checkout()
    written, kept = _written(folder), []
    _nbgrader()

    def write(target: Path, content: bytes) -> None:
        with disk.atomic(target) as part:
            part.write_bytes(content)

    def put(content: bytes, place: str) -> None:
        target = folder / place
        there = target.read_bytes() if target.exists() else content
        if there != content and _digest(there) != written.get(place):
            kept.append(target)
        else:
            write(target, content)
            written[place] = _digest(content)
            write(folder / MARK, json.dumps(written, indent=1).encode())

    write(folder / MARK, json.dumps(written).encode())  # what follows may be cut off
    for source, place in _sources(names()).items():
        put(source.read_bytes(), f"instructor/{place}")
    interface = course(folder / "instructor")
    with tempfile.TemporaryDirectory() as made:  # nbgrader empties where it writes
        interface.coursedir.release_directory = made
        for name in names():
            done = interface.generate_assignment(name)
            if not done["success"]:
                why = (done.get("error") or done["log"]).strip().splitlines()[-1]
                raise RuntimeError(f"nbgrader refused {name}: {why}")
            for path in sorted((Path(made) / name).rglob("*")):
                if path.is_file():
                    place = path.relative_to(made).as_posix()
                    put(path.read_bytes(), f"instructor/release/{place}")
            lab = Path(made) / name / f"{name}.ipynb"
            put(lab.read_bytes(), f"student/{name}.ipynb")
    return kept


def _written(folder: Path) -> dict[str, str]:
    """Return the digests of what earlier calls wrote into a folder, by place."""
    mark = folder / MARK
    if mark.is_file():
        try:
            return dict(json.loads(mark.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{mark} must be as it was written; {error}") from error
    wanted = "folder must be new, empty or made by `widemin labs`"
    got = f"one with other files in it, {folder.absolute()}"
    check(not folder.exists() or not any(folder.iterdir()), wanted, got)
    return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
