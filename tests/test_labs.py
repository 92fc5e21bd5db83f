"""The labs grade as they should: nbgrader itself, real submissions."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from widemin import labs

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
        labs.check(version)
    monkeypatch.setenv("WIDEMIN_DATA", str(tmp_path))
    monkeypatch.setattr(labs.data, "_download", refuse)
    with pytest.raises(RuntimeError, match="run `widemin data mnist` once"):
        labs.check("0.1.0", "mnist")


def refuse(*_):
    raise labs.data.DataError("mnist: no network")


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
    monkeypatch.setitem(__import__("sys").modules, "nbgrader.apps", None)
    with pytest.raises(RuntimeError, match="make labs"):
        labs.course(Path(tmp_path))
