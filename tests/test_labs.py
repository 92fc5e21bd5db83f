"""Labs are handed out, collected and graded, and no work is lost."""

import csv
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import pytest
from click.testing import CliRunner

from tests.lab_answers import WRONG
from widemin import paths
from widemin.book import labs
from widemin.cli import main
from widemin.experiments import labs as students


def test_a_lab_has_twenty_points_and_short_cells_for_students():
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
            text, _, _ = "".join(cell["source"]).partition("### BEGIN HIDDEN")
            assert len(text.splitlines()) <= 24, cell["id"]


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


def test_a_course_without_nbgrader_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader.apps", None)
    found = CliRunner().invoke(main, ["labs", str(tmp_path / "labs")])
    assert found.exit_code == 2 and len(found.stderr.splitlines()) == 1
    assert "nbgrader must be installed" in found.stderr
    assert "`make labs`" in found.stderr and not (tmp_path / "labs").exists()


class Grader:
    """nbgrader as far as a release needs it: what is released is the source."""

    def __init__(self, root):
        self.root = root
        self.coursedir = SimpleNamespace(release_directory="release")
        (self.root / "gradebook.db").touch()

    def generate_assignment(self, name):
        released = self.root / self.coursedir.release_directory / name
        shutil.rmtree(released, ignore_errors=True)  # as nbgrader does
        shutil.copytree(self.root / "source" / name, released)
        return {"success": True}


def wheel(folder):
    made = folder / "widemin-0.1.0-py3-none-any.whl"
    made.write_bytes(b"a wheel")
    return made


MAGIC = '%config InlineBackend.figure_formats = ["svg"]'

# What students get: nothing else, and nothing of the instructor's.
STUDENTS = {f"{name}.ipynb" for name in WRONG}
STUDENTS |= {"README.md", "widemin-0.1.0-py3-none-any.whl"}


def handed_out(folder):
    return {path.name for path in (folder / "student").iterdir()}


@pytest.fixture
def release(monkeypatch):
    """The command, with nbgrader's and uv's places taken."""
    monkeypatch.setitem(sys.modules, "nbgrader", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "nbgrader.apps", SimpleNamespace())
    monkeypatch.setattr(labs, "course", Grader)
    monkeypatch.setattr(labs, "_wheel", wheel)
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
    assert handed_out(folder) == STUDENTS
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
        assert found.stderr == "Error: nbgrader refused lab0_primer: Why: because\n"
    assert release(folder).exit_code == 0
    assert handed_out(folder) == STUDENTS


def test_students_are_sent_to_no_checkout():
    texts = [(labs.SOURCES / "students.md").read_text()]
    for lab in labs.names():
        cells = json.loads((labs.SOURCES / f"{lab}.ipynb").read_text())["cells"]
        texts += ["".join(cell["source"]) for cell in cells]
    for text in texts:
        assert not any(word in text for word in ("make labs", "checkout", "git clone"))


# Handed in as platforms name it: a file, a piece of the model's solution, what stands
# there instead; and the points by nbgrader.
HANDED_IN = {
    "Ann": ("Ann_12_assignsubmission_file/lab1_width.ipynb", "", "", 16),
    "bob": ("bob_LATE_1_2_lab1_width-1.ipynb", ".clamp(0, 1)", "", 13),
    "cyd": (
        "cyd_lab1_width.ipynb",
        "level = loss",
        "while True: pass\n    level =",
        10,
    ),
    "dan": ("dan_lab1_width.ipynb", None, None, 0),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nbgrader's own
def test_the_commands_of_the_readme_grade(tmp_path):
    """From the release to feedback; a second release keeps it all."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: make labs")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    folder, lab = tmp_path / "_build" / "labs", "lab1_width"
    course = folder / "instructor"
    assert labs.release(folder) == []
    assert handed_out(folder) == STUDENTS
    for path in (folder / "student").glob("*.ipynb"):
        text = path.read_text()
        assert "BEGIN" not in text and "Rubric" not in text and "NotImpl" in text
    settings = course / "nbgrader_config.py"
    text = settings.read_text().replace("timeout = 60", "timeout = 20")
    settings.write_text(text)
    source = json.loads((course / "source" / lab / f"{lab}.ipynb").read_text())
    for name, old, new, _ in HANDED_IN.values():
        path = course / "downloaded" / lab / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook = json.loads(json.dumps(source))
        for cell in notebook["cells"] if old else []:
            if cell["metadata"].get("nbgrader", {}).get("solution"):
                cell["source"] = "".join(cell["source"]).replace(old, new)
        path.write_text(json.dumps(notebook))
        if old is None:
            shutil.copy(folder / "student" / f"{lab}.ipynb", path)
    readme = (course / "README.md").read_text()
    commands = readme.partition("## Grade")[2].split("```")[1]
    call = ["bash", "-ec", commands]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with (course / "grades.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["assignment"] == lab]
    assert {row["student_id"]: float(row["score"]) for row in rows} == {
        name: points for name, (*_, points) in HANDED_IN.items()
    }
    assert {row["duedate"] for row in rows} == {"2027-02-05 18:00:00"}
    page = (course / "feedback" / "bob" / lab / f"{lab}.html").read_text()
    assert "clip last" in page and "(most recent call" not in page
    assert "exact, start" not in page and "exact, start" in json.dumps(source)
    before = {name: at for name, at in files(folder).items() if "gradebook" not in name}
    assert labs.release(folder) == [settings]
    after = files(folder)
    assert {name: after[name] for name in before} == before
    interface = labs.course(course)
    with interface.gradebook as book:
        assert book.find_submission(lab, "Ann").score == 16
    for other in sorted({*labs.names()} - {lab}):  # by the real kernel, full marks
        path = course / "submitted" / "eve" / other / f"{other}.ipynb"
        path.parent.mkdir(parents=True)
        shutil.copy(course / "source" / other / f"{other}.ipynb", path)
        assert interface.autograde(other, "eve")["success"]
        with interface.gradebook as book:
            assert book.find_submission(other, "eve").score == 16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lab", labs.names())
def test_slides_draw_figures_of_the_book(lab):
    """Each deck's cells run; a lab has a walkthrough with minutes and a rubric."""
    deck = json.loads((labs.SOURCES / "slides" / f"{lab}.ipynb").read_text())
    names, drawn = {}, []
    matplotlib.use("agg")
    for cell in deck["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]).removeprefix(MAGIC), names)
            drawn += [names.get("canvas")]
    assert any(drawn) and all(ax.has_data() for ax in drawn[-1].axes)
    plt.close("all")
    text = (labs.SOURCES / f"{lab}.md").read_text()
    for words in ("**Shows.**", "**Minutes.**", "stumble", "**Answers.**", "4 points"):
        assert words in text, words
