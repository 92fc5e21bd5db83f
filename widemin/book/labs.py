"""The labs put together as a course, for students and for instructors.

Sources are in notebooks/labs, for nbgrader; labs import `widemin.experiments.labs`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from widemin import paths
from widemin.experiments import disk
from widemin.names import check

SOURCES = paths.NOTEBOOKS / "labs"


def names() -> list[str]:
    """Return the names of the labs, in order; a copy beside a lab is none."""
    return sorted(path.stem for path in SOURCES.glob("lab[0-9]_*[a-z].ipynb"))


def course(folder: Path) -> Any:
    """Return nbgrader's interface to a course, with the settings in its folder."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config.loader import PyFileConfigLoader

    if shutil.which("alembic") is None:  # which nbgrader calls by name
        here = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    config = PyFileConfigLoader("nbgrader_config.py", str(folder)).load_config()
    config.CourseDirectory.root = str(folder.absolute())
    return NbGraderAPI(config=config)


def _sources() -> dict[Path, str]:
    """Return the files of a course, by their places in its folders."""
    beside = [f for kind in ("*.md", "*.py", "slides/lab*") for f in SOURCES.glob(kind)]
    found = {path: f"instructor/{path.relative_to(SOURCES)}" for path in beside}
    for name in names():
        found[SOURCES / f"{name}.ipynb"] = f"instructor/source/{name}/{name}.ipynb"
    return found | {SOURCES / "students.md": "student/README.md"}


def _wheel(folder: Path) -> Path:
    """Build the wheel that students install, into a folder."""
    call = [sys.executable, "-m", "uv", "build", "-q", "--wheel", "-o", str(folder)]
    done = subprocess.run([*call, str(paths.ROOT)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"uv built no wheel: {done.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("*.whl"))


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
    import nbgrader.apps  # noqa: F401  # or say so before anything is written

    def write(target: Path, content: bytes) -> None:
        with disk.atomic(target) as part:
            part.write_bytes(content)

    def put(content: bytes, place: str) -> None:
        target = folder / place
        there = target.read_bytes() if target.exists() else content
        if there != content and sha256(there).hexdigest() != written.get(place):
            kept.append(target)
        else:
            write(target, content)
            written[place] = sha256(content).hexdigest()
            write(folder / MARK, json.dumps(written, indent=1).encode())

    write(folder / MARK, json.dumps(written).encode())  # what follows may be cut off
    for source, place in _sources().items():
        put(source.read_bytes(), place)
    interface = course(folder / "instructor")
    with tempfile.TemporaryDirectory() as made:  # nbgrader empties where it writes
        wheel = _wheel(Path(made))
        put(wheel.read_bytes(), f"student/{wheel.name}")
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
