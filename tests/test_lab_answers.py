"""Right answers get their points, wrong ones lose them with a message."""

import functools
import json

import matplotlib
import pytest

from tests.lab_answers import RIGHT, WRONG
from widemin.book import labs

LABS = list(WRONG)
pytestmark = pytest.mark.filterwarnings("ignore")  # students may have some


def about(cell):
    return cell["metadata"].get("nbgrader", {})


@functools.cache
def cells(lab):
    found = json.loads((labs.SOURCES / f"{lab}.ipynb").read_text())["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found]


@functools.cache
def tasks(lab):
    """Return by task its model solution and the graded cells behind it."""
    found = {}
    for cell in (cell for cell in cells(lab) if cell["cell_type"] == "code"):
        if about(cell).get("solution"):
            name = cell["source"].partition("def ")[2].partition("(")[0]
            found[name] = cell["source"], []
        elif about(cell).get("points"):
            found[name][1].append(cell)
    return found


@functools.cache
def solved(lab):
    """Return the names that are there when a lab's model solution has run."""
    matplotlib.use("agg")
    names = {}
    for cell in (cell for cell in cells(lab) if cell["cell_type"] == "code"):
        if cell["id"] != "figure":
            exec(compile(cell["source"], f"<{cell['id']}>", "exec"), names)
    return names


def grade(lab, task, answer):
    """Return by graded cell of a task the message with which it failed, or None."""
    model, graded = tasks(lab)[task]
    if isinstance(answer, tuple):
        assert model.count(answer[0]), answer[0]
        answer = model.replace(*answer)
    names = dict(solved(lab))
    del names[task]
    exec(compile(answer, f"<{task}>", "exec"), names)
    found = {}
    for cell in graded:
        try:
            exec(compile(cell["source"], f"<{cell['id']}>", "exec"), names)
            found[cell["id"]] = None
        except Exception as error:
            found[cell["id"]] = f"{type(error).__name__}: {error}"
    return found


def cases(table):
    return [
        pytest.param(lab, task, table[lab][task][name], id=f"{lab[:4]}-{task}: {name}")
        for lab in table
        for task in table[lab]
        for name in table[lab][task]
    ]


@pytest.mark.parametrize(("lab", "task", "answer"), cases(RIGHT))
def test_a_right_answer_gets_its_points_by_whatever_way(lab, task, answer):
    assert not any(grade(lab, task, answer).values()), grade(lab, task, answer)


@pytest.mark.parametrize(("lab", "task", "answer"), cases(WRONG))
def test_a_wrong_answer_loses_its_points_with_a_message(lab, task, answer):
    answer, expected = answer
    found = {cell: said for cell, said in grade(lab, task, answer).items() if said}
    assert found.keys() == expected.keys(), found
    for cell, words in expected.items():
        assert words in found[cell] and len(found[cell]) > 30, found[cell]


@pytest.mark.parametrize("lab", LABS)
def test_each_task_has_answers_of_both_kinds(lab):
    assert list(RIGHT[lab]) == list(WRONG[lab]) == list(tasks(lab))
    for task, (model, _) in tasks(lab).items():
        assert not any(grade(lab, task, model).values())
        untouched = f"def {task}(*_, **__):\n    raise NotImplementedError"
        assert all(grade(lab, task, untouched).values())
