"""Labs for a course: what their first cells ask, and how they are put together.

The sources are in notebooks/labs, in nbgrader's format; nbgrader is in the dependency
group `teach`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import nn

import widemin
from widemin import data, fitting, paths
from widemin.recipes import Recipe

SOURCES = paths.NOTEBOOKS / "labs"


def check(version: str, dataset: str = "digits") -> str:
    """Return a line saying that a lab can begin; its first cell shows it.

    Args:
        version: The oldest widemin that the lab was written for.
        dataset: A name of `data.LOADERS`.

    Raises:
        RuntimeError: An older package, or data that cannot be had; the message says
            what to do.

    >>> check("0.1.0")
    'Ready: widemin 0.1.0, digits.'
    """
    if Version(widemin.__version__) < Version(version):
        raise RuntimeError(
            f"this lab needs widemin {version} or later and found "
            f"{widemin.__version__}: update your checkout (git pull; make labs)"
        )
    try:
        data.load(dataset, "train", size=1)
    except data.DataError as error:
        raise RuntimeError(
            f"the data set {dataset} is not there ({error}): run "
            f"`widemin data {dataset}` once, with a network"
        ) from error
    torch.set_num_threads(1)  # networks this small lose time to a second one
    return f"Ready: widemin {widemin.__version__}, {dataset}."


def network(**choices: Any) -> nn.Module:
    """Return a network trained as a `Recipe` of these choices says, for inference.

    >>> tiny = network(model="linear", epochs=1, train_size=100)
    >>> tiny.training
    False
    """
    recipe = Recipe(**choices)
    model = fitting.build(recipe)
    fitting.train(model, recipe, "cpu")
    return model.eval()


def names() -> list[str]:
    """Return the names of the labs, in order."""
    return sorted(path.stem for path in SOURCES.glob("*.ipynb"))


def course(folder: Path, chosen: Sequence[str] = (), seconds: int = 60) -> Any:
    """Put the labs into a folder as a course of nbgrader's; return its interface.

    Args:
        folder: Made if it is not there; what it has of a lab's source is replaced.
        chosen: Labs by name; all by default.
        seconds: That a cell may take when it is graded.

    Raises:
        RuntimeError: nbgrader is not installed.
    """
    try:
        from nbgrader.apps import NbGraderAPI
        from traitlets.config import Config
    except ImportError as error:
        raise RuntimeError(
            "nbgrader is not installed: `make labs` does it, or "
            "`pip install --group teach`"
        ) from error
    if shutil.which("alembic") is None:  # which nbgrader calls by name
        here = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
    for name in chosen or names():
        source = folder / "source" / name
        source.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / f"{name}.ipynb", source)
    shutil.copy(SOURCES / "nbgrader_config.py", folder)
    config = Config()
    config.CourseDirectory.root = str(folder.absolute())
    config.CourseDirectory.course_id = "widemin"
    # A cell that never ends is interrupted; the cells after it are graded all the same.
    config.ExecutePreprocessor.timeout = seconds
    config.ExecutePreprocessor.interrupt_on_timeout = True
    return NbGraderAPI(config=config)


def release(folder: Path) -> None:
    """Make the students' and the instructors' folders of all labs.

    Raises:
        RuntimeError: nbgrader is not installed, or refused a lab.
    """
    shutil.rmtree(folder, ignore_errors=True)
    instructor, student = folder / "instructor", folder / "student"
    interface = course(instructor)
    student.mkdir(parents=True)
    for name in names():
        done = interface.generate_assignment(name)
        if not done["success"]:
            why = done["error"] or done["log"]
            raise RuntimeError(f"nbgrader refused {name}: {why}")
        shutil.copy(instructor / "release" / name / f"{name}.ipynb", student)
    shutil.copy(SOURCES / "README.md", instructor)
