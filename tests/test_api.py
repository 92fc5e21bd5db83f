"""Pages of the Python interface: all that is public, and what they say in words."""

import re

import pytest
import torch

from tests.test_tree import public
from widemin import attacks, data, evaluation, models, paths, training
from widemin.book import sphinx_ext

PAGES = "attacks training evaluation hessian landscape models data statistics".split()


def page(name):
    return (paths.BOOK / "api" / f"{name}.md").read_text(encoding="utf-8")


def ticked(text):
    """Return the words that stand in backticks."""
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_every_public_function_once(name):
    shown = re.findall(r"^\.\. auto(\w+):: ([\w.]+)", page(name), re.MULTILINE)
    names = [one for _, one in shown if not one.startswith("widemin.")]
    assert len(names) == len(set(names))
    kinds = dict((one, kind) for kind, one in shown)
    for one in public(name):
        kind = "function" if not isinstance(one, type) else "class"
        kind = "exception" if kind == "class" and issubclass(one, Exception) else kind
        assert kinds.pop(one.__name__) == kind, one.__name__
    # What is left comes from elsewhere in the package and is named in full.
    left = {one for one in kinds if not one.startswith("widemin.")}
    assert left <= {"NonFiniteError"}


def test_the_contents_name_every_page():
    index = page("index")
    assert re.findall(r"#api-(\w+)\)", index) == PAGES
    contents = (paths.BOOK / "_toc.yml").read_text()
    assert re.findall(r"file: api/(\w+)", contents) == ["index", *PAGES]


def test_the_page_of_models_has_every_name_with_its_weights():
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page("models"), re.MULTILINE)
    assert [name for name, _ in rows] == list(models.BUILDERS)
    said = 0
    for name, text in rows:
        found = re.search(r"([\d,]+) weights, (28|32) ", text)
        if found is None:
            assert text.startswith("the same")
        else:
            said = int(found[1].replace(",", ""))
            shape = (1, 28, 28) if found[2] == "28" else (3, 32, 32)
        with torch.device("meta"):
            network = models.BUILDERS[name](shape, 10)
        assert sum(p.numel() for p in network.parameters()) == said, name


def test_pages_name_every_schedule_loss_and_data_set():
    schedules = re.search(r"names of schedules are (.*?)\.", page("training"))[1]
    assert ticked(schedules) == set(training.SCHEDULES)
    losses = re.search(r"has them by name: (.*?)\.", page("attacks"), re.DOTALL)[1]
    assert ticked(losses) == set(attacks.TRAINED)
    assert ticked(page("data").partition("##")[0]) == set(data.DATASETS)
    in_full = re.findall(r":: widemin\.attacks\.losses\.(\w+)", page("attacks"))
    everywhere = {loss.__name__ for loss in attacks.TRAINED.values()}
    assert everywhere <= {*in_full, *(one.__name__ for one in public("attacks"))}


def test_prose_of_docstrings_is_no_markup_and_examples_stay():
    lines = ["max of |w| v_2 from x* to H_st, v_ left", "", ">>> f(*x) | y_", "*", ""]
    for kind, one in (("method", attacks.Linf.size), ("function", evaluation.report)):
        after = [*lines, "a|b"]
        sphinx_ext._as_it_reads(None, kind, "", one, None, after)
        assert after[0] == r"max of \|w\| v_2 from x\* to H_st, v\_ left"
        assert after[1:5] == lines[1:]
        assert after[5] == r"a\|b"
        linked = ["", "Source: :source:`widemin.evaluation.report.report`"]
        assert after[6:] == (linked if kind == "function" else [])
