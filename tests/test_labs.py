"""The labs grade as they should: nbgrader itself, real submissions."""

import json
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from traitlets.config import Config

from widemin import paths
from widemin.book import labs
from widemin.cli import main
from widemin.experiments import labs as students

# Plausible mistakes: (what the model solution says, what is handed in, cells lost).
WRONG = {
    "lab1_width": {
        "the direction's own length": (
            "unit = direction / direction.norm()",
            "unit = direction",
            {"width-of-a-bowl"},
        ),
        "a level above 0": (
            "level = loss(0 * unit) + gap",
            "level = gap",
            {"width-of-a-raised-bowl"},
        ),
        "clipping first": (
            "(x + epsilon * gradient.sign()).clamp(0, 1)",
            "x.clamp(0, 1) + epsilon * gradient.sign()",
            {"fgsm-range"},
        ),
        "any pixel": (".all(1)", ".any(1)", {"unmoved"}),
    },
    "lab2_sam": {
        "no norm": (
            "rho * g / norm for",
            "rho * g for",
            {"ascent-length", "sam-step-weights"},
        ),
        "a norm for each layer": (
            "rho * g / norm for",
            "rho * g / g.norm() for",
            {"ascent-length", "ascent-direction", "sam-step-weights"},
        ),
        "not going back": (
            "weight -= part + rate * slope",
            "weight -= rate * slope",
            {"sam-step-weights"},
        ),
        "a radius not squared": ("epsilon**2", "epsilon", {"constant"}),
    },
    "lab3_fosc": {
        "a mean": (".sum(1)", ".mean(1)", {"fosc-clean", "fosc-anywhere"}),
        "no displacement": (
            "return reach - ((x_adv - x) * gradient).flatten(1).sum(1)",
            "return reach",
            {"fosc-corner", "fosc-anywhere"},
        ),
        "a negative threshold": (
            "max(fosc_max * (1 - t / (5 / 6)), 0.0)",
            "fosc_max * (1 - t / (5 / 6))",
            {"threshold-ends"},
        ),
        "the mask of the slides": (
            "x, epsilon) > c)",
            "x, epsilon) <= c)",
            {"dynamic-never-stops", "dynamic-stops-at-once"},
        ),
    },
    "lab4_sgd": {
        "a square root": (
            "rate * batch_size / 64",
            "rate * (batch_size / 64) ** 0.5",
            {"rate-by-batch"},
        ),
        "a length for a value": (
            "value = v @ moved",
            "value = moved.norm()",
            {"eigenvalue-sign"},
        ),
        "no division": (
            "        v = v / v.norm()\n        v = product(v)",
            "        v = product(v)",
            {"eigenvalue-known", "eigenvalue-sign", "eigenvalue-residual"},
        ),
        "not significant": (
            "abs(difference.mean()) + half < margin",
            "abs(difference.mean()) < max(half, margin)",
            {"equivalent-noisy"},
        ),
    },
}
# Handed in beside them, in the last lab: one that never ends, one cut off half-way.
ENDLESS = (
    "return rate * batch_size / 64",
    "while True:\n        pass\n    return rate",
)


def handed_in(source, old, new):
    """Return a notebook in whose solutions alone something else stands."""
    notebook = json.loads(json.dumps(source))
    found = 0
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            text = "".join(cell["source"])
            found += old in text
            cell["source"] = text.replace(old, new)
    assert found, old
    return notebook


def graded(lab, folder):
    """Grade every version of a lab; return by version its cells' scores and errors."""
    source = json.loads((labs.SOURCES / f"{lab}.ipynb").read_text())
    interface = labs.course(folder, [lab], seconds=20)
    assert interface.generate_assignment(lab)["success"]
    release = json.loads((folder / "release" / lab / f"{lab}.ipynb").read_text())
    versions = {"model": source, "untouched": release}
    versions |= {k: handed_in(source, a, b) for k, (a, b, _) in WRONG[lab].items()}
    if lab == "lab4_sgd":
        versions["endless"] = handed_in(source, *ENDLESS)
        half = json.loads(json.dumps(source))
        half["cells"][4]["outputs"] = [
            {"output_type": "stream", "name": "stdout", "text": "half-way"}
        ]
        versions["half-run"] = half | {"cells": half["cells"][:12]}
    found = {}
    for number, (name, notebook) in enumerate(versions.items()):
        student = f"student{number}"
        path = folder / "submitted" / student / lab / f"{lab}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))
        done = interface.autograde(lab, student)
        assert done["success"], (name, done["log"])
        scores = {}
        with interface.gradebook as book:
            for grade in book.find_submission_notebook(lab, lab, student).grades:
                scores[grade.name] = grade.auto_score, grade.max_score
        result = folder / "autograded" / student / lab / f"{lab}.ipynb"
        errors = {}
        for cell in json.loads(result.read_text())["cells"]:
            about = cell["metadata"].get("nbgrader", {})
            for output in cell.get("outputs", []):
                if output["output_type"] == "error":
                    errors[about.get("grade_id")] = output["evalue"]
        found[name] = scores, errors
    assert interface.generate_feedback(lab, "student0")["success"]
    page = folder / "feedback" / "student0" / lab / f"{lab}.html"
    assert page.exists()
    return found


@pytest.fixture(scope="module")
def grades(tmp_path_factory):
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: make labs")
    folders = {lab: tmp_path_factory.mktemp(lab) for lab in WRONG}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        jobs = {lab: pool.submit(graded, lab, path) for lab, path in folders.items()}
        return {lab: job.result() for lab, job in jobs.items()}


def lost(scores):
    """Return the graded cells that did not give all of their points."""
    return {
        name
        for name, (score, most) in scores.items()
        if score is not None and score < most
    }


def test_there_is_a_lab_for_each_chapter():
    assert labs.names() == sorted(WRONG)
    for lab in labs.names():
        cells = json.loads((labs.SOURCES / f"{lab}.ipynb").read_text())["cells"]
        about = [cell["metadata"].get("nbgrader", {}) for cell in cells]
        assert sum(each.get("points", 0) for each in about) == 20
        assert "20 points" in "".join(cells[0]["source"])
        names = [each["grade_id"] for each in about if each]
        assert len(names) == len(set(names))
        for cell in (cell for cell in cells if cell["cell_type"] == "code"):
            assert not cell["outputs"]
            assert len("".join(cell["source"]).splitlines()) <= 20, cell["id"]


@pytest.mark.parametrize("version", ["99.0.0"])
def test_a_lab_says_what_is_missing(version, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=f"needs widemin {version} or later"):
        students.check(version)
    monkeypatch.setenv("WIDEMIN_DATA", str(tmp_path))
    monkeypatch.setattr(students.data, "_complete", refuse)
    with pytest.raises(RuntimeError, match="run `widemin data mnist` once"):
        students.check("0.1.0", "mnist")


def refuse(*_):
    raise students.data.DataError("mnist: no network")


@pytest.mark.slow
@pytest.mark.parametrize("lab", WRONG)
def test_the_model_solution_gets_full_marks(lab, grades):
    scores, errors = grades[lab]["model"]
    assert not lost(scores) and not errors
    assert sum(most for _, most in scores.values()) == 20


@pytest.mark.slow
@pytest.mark.parametrize("lab", WRONG)
def test_an_untouched_release_gets_nothing(lab, grades):
    scores, _ = grades[lab]["untouched"]
    assert all(not score for score, _ in scores.values()), scores


@pytest.mark.slow
@pytest.mark.parametrize(("lab", "wrong"), [(a, b) for a in WRONG for b in WRONG[a]])
def test_a_wrong_answer_loses_its_points_with_a_message(lab, wrong, grades):
    scores, errors = grades[lab][wrong]
    assert lost(scores) == WRONG[lab][wrong][2]
    for cell in lost(scores):
        assert len(errors[cell]) > 10, (cell, errors[cell])


@pytest.mark.slow
def test_what_never_ends_or_is_cut_off_is_graded_as_far_as_it_goes(grades):
    scores, errors = grades["lab4_sgd"]["endless"]
    assert lost(scores) == {"rate-by-batch", "rate-by-momentum"}
    assert "figure" not in scores and errors
    scores, _ = grades["lab4_sgd"]["half-run"]
    assert scores["rate-by-batch"] == (2, 2)
    assert scores["equivalent-noisy"][0] in (None, 0)


def test_a_course_without_nbgrader_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader.apps", None)
    found = CliRunner().invoke(main, ["labs", str(tmp_path / "labs")])
    assert found.exit_code == 2 and len(found.stderr.splitlines()) == 1
    assert "nbgrader must be installed" in found.stderr
    assert "`make labs`" in found.stderr and not (tmp_path / "labs").exists()


class Grader:
    """nbgrader as far as a release needs it: what is released is the source."""

    def __init__(self, config):
        self.root = Path(config.CourseDirectory.root)
        self.coursedir = SimpleNamespace(release_directory="release")
        (self.root / "gradebook.db").touch()

    def generate_assignment(self, name):
        released = self.root / self.coursedir.release_directory / name
        shutil.rmtree(released, ignore_errors=True)  # as nbgrader does
        shutil.copytree(self.root / "source" / name, released)
        return {"success": True}


@pytest.fixture
def release(monkeypatch):
    """The command, with nbgrader's place taken."""
    monkeypatch.setattr(labs, "_nbgrader", lambda: (Grader, Config))
    return lambda folder: CliRunner().invoke(main, ["labs", str(folder)])


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["grades.csv", ".hidden", "labs/student/lab1.ipynb"])
def test_a_folder_of_other_files_is_refused_and_stays(name, tmp_path, release):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    found = release(tmp_path)
    assert found.exit_code == 2 and len(found.stderr.splitlines()) == 1
    assert str(tmp_path) in found.stderr
    assert files(tmp_path) == {name: b"mine"}


def test_a_second_release_keeps_the_course_and_what_was_edited(tmp_path, release):
    folder = tmp_path / "labs"
    folder.mkdir()  # empty: it may be there
    assert release(folder).exit_code == 0
    assert len(list((folder / "student").iterdir())) == len(labs.names())
    fresh = files(folder)
    own = {
        "instructor/submitted/ann/lab1_width/lab1_width.ipynb": b"answers",
        "instructor/feedback/ann/lab1_width/lab1_width.html": b"well done",
        "instructor/release/lab1_width/data.csv": b"1,2",
        "instructor/gradebook.db": b"grades",
        "instructor/grades.csv": b"ann,16",
        "instructor/source/lab2_sam/lab2_sam.ipynb": b"other points",
        "student/lab3_fosc.ipynb": b"half done",
    }
    for name, content in own.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "student/lab4_sgd.ipynb").unlink()
    for _ in range(2):
        found = release(folder)
        assert found.exit_code == 0, found.stderr
        edited, _ = found.stderr.splitlines()
        assert "lab2_sam" in edited and "lab3_fosc" in edited
        assert "lab1_width" not in edited
    after = files(folder)
    assert {name: after[name] for name in own} == own
    # What follows from an edited source is renewed, as is what is gone.
    assert after["student/lab2_sam.ipynb"] == b"other points"
    assert after["student/lab4_sgd.ipynb"] == fresh["student/lab4_sgd.ipynb"]
    assert after.keys() == fresh.keys() | own.keys()


def test_make_clean_spares_courses(tmp_path):
    for name in ("labs/grades.csv", f"course/{labs.MARK}", "book/html/index.html"):
        (tmp_path / "_build" / name).parent.mkdir(parents=True)
        (tmp_path / "_build" / name).touch()
    call = ["make", "-s", "-f", paths.ROOT / "Makefile", "clean"]
    said = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True).stdout
    assert len(said.splitlines()) == 2
    assert files(tmp_path).keys() == {
        "_build/labs/grades.csv",
        f"_build/course/{labs.MARK}",
    }


def test_a_newer_lab_takes_the_place_of_the_old_one(tmp_path, release, monkeypatch):
    newer, folder = tmp_path / "newer", tmp_path / "labs"
    assert release(folder).exit_code == 0
    shutil.copytree(labs.SOURCES, newer)
    (newer / "lab1_width.ipynb").write_text("newer")
    (newer / "lab1_width-Copy1.ipynb").write_text("a copy is no lab")
    monkeypatch.setattr(labs, "SOURCES", newer)
    found = release(folder)
    assert found.exit_code == 0 and "Edited" not in found.stderr
    assert (folder / "student/lab1_width.ipynb").read_text() == "newer"
    assert not [name for name in files(folder) if "Copy" in name]


def test_a_release_cut_off_goes_on(tmp_path, release, monkeypatch):
    folder = tmp_path / "labs"
    with monkeypatch.context() as patch:
        refused = {"success": False, "error": "Traceback\nWhy: because"}
        patch.setattr(Grader, "generate_assignment", lambda *_: refused)
        found = release(folder)
        assert found.exit_code == 1
        assert found.stderr == "Error: nbgrader refused lab1_width: Why: because\n"
    assert release(folder).exit_code == 0
    assert len(list((folder / "student").iterdir())) == len(labs.names())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nbgrader's own
def test_submissions_and_grades_survive_a_second_release(tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: make labs")
    folder, lab = tmp_path / "labs", "lab1_width"
    assert labs.release(folder) == []
    course = folder / "instructor"
    handed = course / "submitted" / "ann" / lab / f"{lab}.ipynb"
    handed.parent.mkdir(parents=True)
    shutil.copy(folder / "student" / f"{lab}.ipynb", handed)
    interface = labs.course(course)
    assert interface.autograde(lab, "ann")["success"]
    with interface.gradebook as book:
        grade = book.find_submission_notebook(lab, lab, "ann").grades[0]
        grade.manual_score = 0.25
        book.db.commit()
    before = {name: at for name, at in files(folder).items() if "gradebook" not in name}
    assert labs.release(folder) == []
    after = files(folder)
    assert {name: after[name] for name in before} == before
    with labs.course(course).gradebook as book:
        grade = book.find_submission_notebook(lab, lab, "ann").grades[0]
        assert grade.manual_score == 0.25
