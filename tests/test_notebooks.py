"""Chapters keep the conventions; parameters are checked before anything runs."""

import ast
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import types

import pytest
import yaml

from widemin import paths
from widemin.book import notebooks
from widemin.book.notebooks import (
    chapters,
    defaults,
    find,
    recipes,
    resolve,
    with_values,
)
from widemin.experiments import frame, results

CHAPTERS = chapters()
PRESETS = notebooks.presets()
SAID_FIRST = ["Question.", "Answer.", "How sure."]


def cells(chapter):
    return json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"]


def code(chapter):
    return [cell for cell in cells(chapter) if cell["cell_type"] == "code"]


def test_there_are_five_chapters():
    assert CHAPTERS == [
        "01_width_of_minima",
        "02_sam_and_adversarial_training",
        "03_dynamic_adversarial_training",
        "04_sgd_hyperparameters",
        "05_flat_or_sure",
    ]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_sources_hold_no_outputs(chapter):
    for cell in code(chapter):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_first_cell_fetches_the_package_where_there_is_none(chapter, monkeypatch):
    first = "".join(code(chapter)[0]["source"])
    assert first == "".join(code(CHAPTERS[0])[0]["source"])
    address = yaml.safe_load((paths.ROOT / "_config.yml").read_text())["repository"]
    assert f'repository = "{address["url"]}"' in first
    absent = first.replace('find_spec("widemin")', 'find_spec("not_there")')
    with pytest.raises(ImportError, match="README"):
        exec(re.sub('repository = ".*"', 'repository = ""', absent), {})
    called = []
    monkeypatch.setattr(subprocess, "run", lambda call, check: called.append(call))
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(re.sub('repository = ".*"', 'repository = "https://a.b/c"', absent), {})
    clone, install = called
    assert clone[:2] == ["git", "clone"] and "https://a.b/c" in clone
    # pip leaves a torch that is new enough as it is; the core alone draws no chapter.
    assert install[-2:] == ["-e", "widemin[experiments]"]
    assert not {"--upgrade", "-U", "--force-reinstall"} & {*install}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_second_code_cell_holds_literals_each_with_its_meaning(chapter):
    first = code(chapter)[1]
    assert first["metadata"]["tags"] == ["parameters"]
    source = "".join(first["source"])
    body = ast.parse(source).body
    assert all(isinstance(node, ast.Assign) for node in body)
    assert len(defaults(chapter)) == len(body)
    described = sum("#" in line for line in source.splitlines())
    assert described >= len(body) * 0.6


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_cells_are_short(chapter):
    """What does not fit belongs in a tested function."""
    for cell in code(chapter):
        source = "".join(cell["source"])
        tags = cell["metadata"].get("tags", [])
        assert len(source.splitlines()) <= 21, source
        if not {"parameters", "recipes"} & set(tags):
            assert len([line for line in source.splitlines() if line]) <= 12, source


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_cell_takes_from_the_package_is_there(chapter):
    source = "\n".join("".join(cell["source"]) for cell in code(chapter))
    nodes = list(ast.walk(ast.parse(re.sub("^%", "# ", source, flags=re.M))))
    modules = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("widemin"):
            package = importlib.import_module(node.module)
            for alias in node.names:
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(f"{node.module}.{alias.name}")
                modules[alias.asname or alias.name] = getattr(package, alias.name)
    taken = 0
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if isinstance(modules.get(node.value.id), types.ModuleType):
                assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)
                taken += 1
    assert taken > 30


def markdown(page):
    texts = [c for c in cells(page) if c["cell_type"] == "markdown"]
    return ["".join(cell["source"]) for cell in texts]


def reading(caption):
    """Return the sentence of a caption that reads its figure: in bold, and first."""
    bold = re.match(r"\*\*(.+?)\*\*(?: |$)", caption)
    return bold[1] if bold else ""


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_opens_with_question_answer_and_how_sure(chapter):
    title, answer = ("".join(cell["source"]) for cell in cells(chapter)[:2])
    assert re.search(rf"^# {int(chapter[:2])}\. \S", title, re.MULTILINE)
    assert not re.search("glue|numref|<!--", title)  # also opens what has not run
    assert re.findall(r"^\*\*(.+?)\*\*", answer, re.MULTILINE) == SAID_FIRST
    assert "<!-- tally -->" in answer
    _, computed, _ = re.split(r"\*\*(?:Answer|How sure)\.\*\*", answer)
    assert len(re.findall("{glue:text}", computed)) >= 2
    assert not re.search(r"\d\.\d|\d %", re.sub("`.*?`", "", computed))
    tags = [cell["metadata"].get("tags", []) for cell in cells(chapter)]
    assert [i for i, own in enumerate(tags) if "answer" in own] == [1]
    [opening] = [c for c in code(chapter) if "opening" in c["metadata"].get("tags", [])]
    assert "figure" in opening["metadata"]["mystnb"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_figure_is_read_by_a_sentence_and_told_without_eyes(chapter):
    drawn = [c for c in code(chapter) if "figures.panels" in "".join(c["source"])]
    assert drawn
    for cell in drawn:
        about = cell["metadata"]["mystnb"]
        said = reading(about["figure"]["caption"])
        assert len(said.split()) > 4 and said.endswith("."), about
        assert "?" not in said, about
        assert len(about["image"]["alt"].split()) > 8, about
        # A figure that waits for its rows has no number before they are there.
        waits = re.search("^if ", "".join(cell["source"]), re.MULTILINE)
        named = f"{{numref}}`{about['figure']['name']}`" in "".join(markdown(chapter))
        assert named or waits, about


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("**Orange rises.** A mark is a run.", "Orange rises."),
        ("**Does orange rise?** It does.", "Does orange rise?"),
        ("**Orange rises**. A mark is a run.", ""),
        ("A mark is a **run.** Orange rises.", ""),
    ],
)
def test_the_reading_of_a_caption_is_what_is_bold_and_first(caption, said):
    assert reading(caption) == said


@pytest.mark.parametrize("page", [notebooks.PRIMER, *CHAPTERS])
def test_headings_are_whole_questions_or_names(page):
    heads = re.findall(r"^#+ (.+)", "\n".join(markdown(page)), re.MULTILINE)
    assert len(heads) > 5
    for head in heads:
        assert not re.match("(And|But|Or|So) ", head), head
        assert not head.endswith("?") or len(head.split()) > 2, head


def test_the_parameter_cells_are_the_smoke_preset():
    smoke = yaml.safe_load((paths.PRESETS / "smoke.yml").read_text())
    assert set(smoke) == set(CHAPTERS)
    for chapter in CHAPTERS:
        assert resolve(chapter, "smoke", {}) == defaults(chapter)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_preset_plans_valid_runs(preset, chapter):
    values = resolve(chapter, preset, {})
    planned = recipes(chapter, values)
    assert len(planned) >= 3
    assert values["preset"] == preset


def test_a_preset_changes_how_much_never_what():
    """Lists that say what is compared stay; the published edition is only longer."""
    for chapter in CHAPTERS[:4]:  # our own lab is a smaller one
        lab, site = (resolve(chapter, name, {}) for name in ("lab", "site"))
        changed = {k for k in lab if lab[k] != site[k]}
        lengths = {k for k in lab if k.endswith("_cells")}
        seeds = {name for name in lab if name.endswith("seeds")}
        assert changed <= {"preset"} | seeds | lengths
        for name in lengths:  # batch size and learning rate stay
            assert [cell[:2] for cell in lab[name]] == [cell[:2] for cell in site[name]]


def test_presets_stand_on_one_another():
    assert set(PRESETS) >= {"smoke", "lab", "site", "paper"}
    lab = resolve(CHAPTERS[0], "lab", {})
    site = resolve(CHAPTERS[0], "site", {})
    assert site["epochs"] == lab["epochs"] == 15
    assert (lab["seeds"], site["seeds"]) == (1, 3)


@pytest.mark.parametrize("text", ["00", "0", "00_primer"])
def test_the_primer_is_a_page_and_no_chapter(text):
    assert notebooks.pages(text) == ["00_primer"]
    assert notebooks.pages("all") == notebooks.pages() == ["00_primer", *CHAPTERS]
    assert notebooks.pages("2") == [CHAPTERS[1]]
    for known in (find, frame):
        with pytest.raises(ValueError, match=f"unknown chapter '{text}'"):
            known(text)


@pytest.mark.parametrize("text", ["02", "2", "02_sam_and_adversarial_training"])
def test_a_chapter_has_three_names(text):
    assert find(text) == ["02_sam_and_adversarial_training"]
    assert find("all") == CHAPTERS


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find("06"), "unknown chapter '06'"),
        (lambda: find("01_width_of_minma"), "did you mean '01_width_of_minima'"),
        (lambda: resolve(CHAPTERS[0], "lap", {}), "did you mean 'lab'"),
        (lambda: resolve(CHAPTERS[0], "smoke", {"epoch": "3"}), "did you mean 'epochs"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("chapter", "name", "text", "message"),
    [
        (
            "01",
            "epochs",
            "2.5",
            "epochs must be a whole number of at least 0, e.g. 3; got '2.5'",
        ),
        (
            "01",
            "epochs",
            "1:30",
            "epochs must be a whole number of at least 0, e.g. 3; got '1:30'",
        ),
        (
            "01",
            "epochs",
            "",
            "epochs must be a whole number of at least 0, e.g. 3; got ''",
        ),
        (
            "01",
            "seeds",
            "-1",
            "seeds must be a whole number of at least 0, e.g. 3; got '-1'",
        ),
        ("01", "seeds", "0x10", "seeds must be a whole number"),
        ("01", "epsilon", ".nan", "epsilon must be a number, e.g. 0.1 or 8/255"),
        ("01", "epsilon", "1:30", "epsilon must be a number, e.g. 0.1 or 8/255"),
        ("01", "epsilon", "1/0", "epsilon must be a number, e.g. 0.1 or 8/255"),
        (
            "01",
            "learning_rates",
            "[.inf]",
            "learning_rates must be a list of at least one value, like",
        ),
        (
            "01",
            "seeds",
            "yes",
            "seeds must be a whole number of at least 0, e.g. 3; got 'yes'",
        ),
        (
            "02",
            "rhos",
            "a",
            "rhos must be a list of at least one value, like .0.1, 0.2, 0.4.; got 'a'",
        ),
        ("02", "rhos", "[]", "rhos must be a list"),
        ("02", "rhos", "[0.1, b]", "rhos must be a list"),
        ("01", "epsilon", "big", "epsilon must be a number, e.g. 0.1 or 8/255"),
        (
            "01",
            "decisive_cells",
            "[[1, 2, 3]]",
            "decisive_cells must be a list of at least one value, like",
        ),
        ("01", "batch_sizes", "16", "batch_sizes must be a list"),
        ("01", "epochs", "[", "epochs must be a whole number"),
        ("02", "table_seeds", "3", r"must be 3 values like \[1, 1, 1\]; got '3'"),
        ("02", "table_seeds", "[3]", r"must be 3 values like \[1, 1, 1\]; got '.3.'"),
        ("03", "longer_epochs", "[9, x]", r"must be 2 values like \[7, 8\]"),
    ],
)
def test_wrong_types_are_named(chapter, name, text, message):
    with pytest.raises(ValueError, match=message):
        resolve(find(chapter)[0], "smoke", {name: text})


WRONG = [mark for mark in test_wrong_types_are_named.pytestmark if mark.args[1:]]


@pytest.mark.parametrize(("chapter", "name", "text", "message"), WRONG[0].args[1])
def test_a_notebook_refuses_in_the_same_words(chapter, name, text, message):
    [chapter] = find(chapter)
    with pytest.raises(ValueError) as by_command:
        resolve(chapter, "smoke", {name: text})
    cell = defaults(chapter) | {name: text, "In": [f"# Parameters\n{name} = {text!r}"]}
    with pytest.raises(ValueError) as by_notebook:
        notebooks.planned(chapter, cell)
    assert str(by_notebook.value) == str(by_command.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochz = 3", "unknown parameter 'epochz' .did you mean 'epochs'"),
        ('preset = "paper"', "preset must be given as --preset; got -p preset paper"),
    ],
)
def test_a_notebook_refuses_what_papermill_injects_beside(line, message):
    cell = defaults(CHAPTERS[2]) | {"In": ["", "import os", f"# Parameters\n{line}"]}
    with pytest.raises(ValueError, match=message):
        notebooks.planned(CHAPTERS[2], cell)
    with pytest.raises(ValueError, match="must leave a run to compute; got seeds = 0"):
        notebooks.planned(CHAPTERS[3], defaults(CHAPTERS[3]) | {"seeds": 0})


def test_a_page_names_what_departs_from_its_preset():
    cell = defaults(CHAPTERS[2]) | {"longer_epochs": "[1, 2]", "epochs": "3"}
    plan, label = notebooks.planned(CHAPTERS[2], cell)
    assert label == "smoke, but epochs = 3, longer_epochs = (1, 2)"
    assert cell["longer_epochs"] == (1, 2) and cell["epochs"] == 3
    given = {"longer_epochs": "[1, 2]", "epochs": "3"}
    values = resolve(CHAPTERS[2], "smoke", given)
    assert plan["recipes"] == recipes(CHAPTERS[2], values)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epsilon", "8/255", 8 / 255),
        ("epsilon", "1", 1),
        ("batch_sizes", "[8, 16]", [8, 16]),
        ("learning_rates", "[1, 0.5]", [1, 0.5]),
        ("decisive_cells", "[[8, 1, 9, 2]]", [[8, 1.0, 9, 2]]),
        ("dataset", "mnist", "mnist"),
        ("seeds", "010", 10),
        ("train_size", "1_000", 1000),
        ("batch_sizes", "[010, 08]", [10, 8]),
        ("epsilon", "010", 10),
        ("epsilon", "1e-3", 0.001),
    ],
)
def test_texts_are_read_as_papermill_reads_them(name, text, value):
    assert resolve(CHAPTERS[0], "smoke", {name: text})[name] == value


def test_a_tuple_is_a_list_of_just_so_many():
    found = resolve(CHAPTERS[1], "smoke", {"table_network": "[4, 2]"})
    assert found["table_network"] == (4, 2)
    source = with_values("table_network = (8, 1)", found)
    assert source == "table_network = (4, 2)"


@pytest.mark.parametrize(
    ("chapter", "name", "text", "message"),
    [
        ("01", "epsilon", "-0.1", "epsilon must be .* got -0.1"),
        ("01", "epsilon", "1.5", "epsilon must be .* got 1.5"),
        ("01", "epochs", "0", "epochs must be at least 1; got 0"),
        ("01", "batch_sizes", "[5000]", "batch_size must be at most"),
        ("01", "model", "m2", "unknown model"),
        ("04", "dataset", "minst", "did you mean 'mnist'"),
    ],
)
def test_values_out_of_range_are_named_before_anything_runs(
    chapter, name, text, message
):
    [chapter] = find(chapter)
    with pytest.raises(ValueError, match=message):
        recipes(chapter, resolve(chapter, "smoke", {name: text}))


SMALL_CELLS = {
    name: [[8, 0.1, 40, 2]] for name in ("corner_cells", "decisive_cells", "adam_cells")
}
FITTING = [
    ("01", {"train_size": 40, "batch_sizes": [4, 8], **SMALL_CELLS}),
    ("02", {"train_size": "40", "batch_size": "8"}),
    ("03", {"batch_size": 8, "train_size": 40}),
    ("04", {"train_size": 40, "batch_sizes": [8]}),
]


@pytest.mark.parametrize(("number", "given"), FITTING)
def test_values_that_fit_one_another_need_not_fit_the_defaults(number, given):
    [chapter] = find(number)
    planned = recipes(chapter, resolve(chapter, "smoke", given))
    assert {run.train_size for run in planned} == {40}
    assert max(run.batch_size for run in planned) == 8


AWKWARD = [
    "/Users/Anna's Mac/runs",
    'a 12" disk',
    "C:\\new\\runs",
    "één ε \u2028 \x0c",
    "~/runs\n",
    "{x} %s #",
    "",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_text_arrives_as_given(text):
    given = resolve(CHAPTERS[0], "smoke", {"results_dir": text})["results_dir"]
    assert given == text
    cell = with_values(
        'results_dir = ""  # of runs\nseeds = 1', dict(results_dir=text, seeds=2)
    )
    scope = {}
    exec(cell, scope)
    assert scope["results_dir"] == text and scope["seeds"] == 2
    listed = with_values('balls = [""]', {"balls": [text, text]})
    assert ast.literal_eval(listed.removeprefix("balls = ")) == [text, text]


def test_a_text_that_no_file_can_hold_is_named():
    with pytest.raises(ValueError, match="results_dir must be a text"):
        resolve(CHAPTERS[0], "smoke", {"results_dir": os.fsdecode(b"\xff")})


def test_a_parameter_cell_takes_new_values_and_keeps_its_comments():
    source = 'a = 1  # one, ε\nb = ["x", "y"]  # two\nc = True\n'
    found = with_values(source, {"a": 0.5, "b": ["z"], "c": False})
    assert found == 'a = 0.5  # one, ε\nb = ["z"]  # two\nc = False'
    found = with_values("a: int = 1  # one #1\n\n# two", {"a": 2})
    assert found == "a: int = 2  # one #1\n\n# two"


def cell(*lines):
    return [{"metadata": {"tags": ["parameters"]}, "source": "\n".join(lines)}]


def test_a_parameter_cell_may_do_sums_and_name_types():
    lines = ["a = 8/255", "b: int = 60 * 60", "c = [1 / 2, -2**3]", "d = (1, 'x')"]
    found = notebooks.parameters(cell("# how much", *lines))
    assert found == {"a": 8 / 255, "b": 3600, "c": [0.5, -8], "d": (1, "x")}
    assert isinstance(found["b"], int)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("epochs = len([1])", "epochs must be a constant"),
        ("epochs = seeds", "epochs must be a constant"),
        ("epochs = 1 / 0", "epochs must be a constant"),
        ('epochs = f"{3}"', "epochs must be a constant"),
        ("epochs: int", "epochs: int"),
        ("a = b = 3", "a = b = 3"),
        ("a, b = 1, 2", r"a, b"),
        ("a += 1", r"a \+= 1"),
        ("import math", "import math"),
        ("a = [", r"a = \["),
        ("a = 1; b = 2", "a = 1; b = 2"),
        ("epochs = ", "epochs = "),
        ("%matplotlib inline", "%matplotlib inline"),
    ],
)
def test_what_a_parameter_cell_cannot_hold_is_named(line, named):
    with pytest.raises(ValueError, match=named):
        notebooks.parameters(cell("seeds = 1", line))


COPIES = ["{}-Copy1", "{} copy", "{} (1)", "{}_executed", "._{}", "09_my_notes"]


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_of_a_chapter_is_none(copy, tmp_path, monkeypatch):
    for name in CHAPTERS:
        (tmp_path / f"{name}.ipynb").write_text("{}")
    (tmp_path / f"{copy.format(CHAPTERS[0])}.ipynb").write_bytes(b"\xb0")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    assert chapters() == CHAPTERS and find("01") == CHAPTERS[:1]


@pytest.mark.parametrize("content", ["", "[]", '{"cells": []}', "<<<<<<< HEAD"])
def test_a_file_that_is_no_chapter_is_named(content, tmp_path, monkeypatch):
    (tmp_path / "01_other.ipynb").write_text(content)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    with pytest.raises(ValueError, match=r"01_other.ipynb must"):
        defaults("01_other")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_digest_sees_parameters_and_rows(chapter):
    values = defaults(chapter)
    stamp = notebooks.digest(chapter, values, ["a"])
    assert stamp == notebooks.digest(chapter, values, ["a"])
    assert stamp != notebooks.digest(chapter, values, ["b"])
    assert stamp != notebooks.digest(chapter, values | {"seeds": 9}, ["a"])


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A chapter of three cells that fails as its parameter says."""
    import nbformat

    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                'how = "well"', metadata={"tags": ["parameters"]}
            ),
            nbformat.v4.new_code_cell(
                "%matplotlib inline\nimport os\nimport matplotlib\n"
                'if how == "raise":\n    raise ValueError("as asked")\n'
                'if how == "die":\n    os._exit(9)\n'
                "print(how, matplotlib.get_backend())"
            ),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "", "language": "python"}
        },
    )
    nbformat.write(notebook, tmp_path / "09_toy.ipynb")
    return tmp_path


def test_an_executed_chapter_is_stamped(toy, monkeypatch):
    """Where folders of the machine's own are deep, and draw on another backend."""
    long = toy / "project" / "scratch-" / ("job-" * 20)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    target = toy / "out" / "09_toy.ipynb"
    notebooks.execute("09_toy", {"how": "nicely"}, target, "stamp")
    assert notebooks.is_current(target, "stamp")
    assert not notebooks.is_current(target, "other")
    text = target.read_text()
    assert 'how = \\"nicely\\"' in text and "nicely inline" in text
    assert os.environ["MPLBACKEND"] == "Agg"
    assert "papermill" not in text
    assert [path.name for path in target.parent.iterdir()] == ["09_toy.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"), [("raise", "ValueError: as asked"), ("die", "the kernel died")]
)
def test_a_chapter_that_fails_leaves_the_good_page_in_place(toy, how, reason):
    target = toy / "out" / "09_toy.ipynb"
    notebooks.execute("09_toy", {"how": "well"}, target, "stamp")
    good = target.read_bytes()
    with pytest.raises(notebooks.ChapterFailed, match=reason):
        notebooks.execute("09_toy", {"how": how}, target, "later")
    assert target.read_bytes() == good
    failed = target.with_suffix(".failed.ipynb")
    assert json.loads(failed.read_text())["metadata"]["widemin"]["status"] == "failed"
    notebooks.execute("09_toy", {"how": "well"}, target, "again")
    assert not failed.exists()


@pytest.mark.slow
def test_the_page_attacks_a_network_that_comes_with_the_book(
    mnist_here, monkeypatch, capsys
):
    """What its lines print is what the published row of that network says."""
    monkeypatch.setenv("WIDEMIN_DATA", mnist_here)
    chapter = CHAPTERS[0]
    cells = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "page", "exec"), {})
    printed = float(re.search(r"[\d.]+", capsys.readouterr().out)[0])
    table = results.table_of(
        recipes(chapter, resolve(chapter, "site", {})), paths.PUBLISHED
    )
    last = table[(table["measured"] == "final") & table["brief_epochs"].gt(0)]
    [row] = last[last["batch_size"].eq(16) & last["seed"].eq(0)].to_dict("records")
    # Rows leave images alone that are wrong already.
    assert printed == pytest.approx(row["fgsm_margin_accuracy"], abs=0.005)


def test_a_page_of_another_source_is_read_as_the_chapter_now_is():
    tags = {"tags": ["parameters"]}
    cell = {"metadata": tags, "source": ["epochs = 3\n", "no_longer = 0.25"]}
    values = notebooks.drawn(CHAPTERS[2], [cell])
    assert values == defaults(CHAPTERS[2]) | {"epochs": 3}
    assert notebooks.drawn(CHAPTERS[2], []) == defaults(CHAPTERS[2])


def test_parameters_of_ones_own_reach_the_chapters_that_have_them():
    """And leave no further settings, which are for the paper's tables."""
    given = {"fosc_max": 0.25}
    plans = notebooks.settings(CHAPTERS, "paper", given, device="none")
    assert [values["fosc_max"] for values in plans[CHAPTERS[2]]] == [0.25]
    assert "fosc_max" not in plans[CHAPTERS[0]][0]
    assert len(plans[CHAPTERS[3]]) > 1
    assert {values["device"] for own in plans.values() for values in own} == {"none"}
    with pytest.raises(ValueError, match="unknown parameter 'nothing'"):
        notebooks.settings(CHAPTERS, "paper", {"nothing": 1})
