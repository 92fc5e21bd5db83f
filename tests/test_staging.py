"""Executed chapters become pages: numbers taken out, sizes said, a way to run them."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from widemin import paths
from widemin.book import notebooks, sources
from widemin.papers import NARROW


def drawn(**about):
    data = {"image/svg+xml": ["<svg/>"], "text/csv": ["a,b\n", "1,2\n"]}
    data[NARROW] = ["<svg ", "width='9pt'/>"]
    return {"metadata": {"mystnb": about}, "outputs": [{"data": data}]}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "tables").mkdir()
    return tmp_path


def test_what_is_not_a_figure_stays_as_it_is(source):
    cell = drawn()
    sources._mend_figures({"cells": [cell, {"metadata": {}, "source": "text"}]}, source)
    assert cell == drawn()


def test_a_drawing_for_phones_is_taken_out_and_put_by(source):
    cells = [drawn(figure={"name": "fig-x", "caption": ""}), drawn(figure={})]
    sources._mend_figures({"cells": cells}, source)
    phones = source / "_static" / "phones"
    assert [path.name for path in phones.iterdir()] == ["fig-x.svg"]
    assert (phones / "fig-x.svg").read_text() == "<svg width='9pt'/>"
    for cell in cells:
        assert list(cell["outputs"][0]["data"]) == ["image/svg+xml"]


def test_a_figure_of_an_older_source_has_no_drawing_for_phones(source):
    cell = drawn(figure={"name": "fig-x", "caption": ""})
    del cell["outputs"][0]["data"][NARROW]
    sources._mend_figures({"cells": [cell]}, source)
    assert not list((source / "_static" / "phones").iterdir())


def test_numbers_of_a_figure_become_a_table_to_download(source):
    cell = drawn(figure={"name": "fig-x", "caption": "**Which?**"})
    sources._mend_figures({"cells": [cell]}, source)
    assert (source / "tables" / "fig-x.csv").read_text() == "a,b\n1,2\n"
    assert "text/csv" not in cell["outputs"][0]["data"]
    caption = cell["metadata"]["mystnb"]["figure"]["caption"]
    assert caption == "**Which?** {download}`CSV <../tables/fig-x.csv>`"


def test_a_caption_names_what_draws_the_figure_and_what_measured_its_numbers(source):
    cell = drawn(figure={"name": "fig-ascent", "caption": "**Does it climb?**"})
    sources._mend_figures({"cells": [cell]}, source)
    caption = cell["metadata"]["mystnb"]["figure"]["caption"]
    assert caption == (
        "**Does it climb?** {download}`CSV <../tables/fig-ascent.csv>` "
        "Drawn by {source}`widemin.papers.wang.figures.ascent`; measured by "
        "{source}`widemin.experiments.measure.fosc.climb`, "
        "{source}`widemin.experiments.measure.fosc._quartiles`."
    )
    toy = drawn(figure={"name": "fig-gap", "caption": ""})
    sources._mend_figures({"cells": [toy]}, source)
    caption = toy["metadata"]["mystnb"]["figure"]["caption"]
    assert caption.endswith(
        "Drawn by {source}`widemin.papers.wang.figures.gap_in_ball`."
    )


def test_a_page_of_an_older_source_can_still_be_put_together(tmp_path):
    """Its parameters are not the chapter's; its command names what differs."""
    chapter = notebooks.chapters()[2]
    source = 'preset = "smoke"\nepochs = 2\nlonger_epochs = (3, 4)\nno_longer = 0.25\n'
    source += 'model = "mlp"'
    cell = {"metadata": {"tags": ["parameters"]}, "source": source}
    notebook = {"cells": [cell]}
    address = "https://github.com/someone/widemin"
    sources._say_how_to_run(notebook, chapter, tmp_path, address)
    said = notebook["cells"][-1]["source"]
    colab = "[Colab](https://colab.research.google.com/github/someone/widemin/blob/"
    assert f" Or open it on {colab}main/notebooks/{chapter}.ipynb)" in said
    [line] = [line for line in said.splitlines() if line.startswith("widemin run")]
    assert line.startswith("widemin run 03 --preset smoke -p ")
    words = shlex.split(line)[5:]
    given = dict(zip(words[1::3], words[2::3], strict=True))
    values = {"epochs": 2, "longer_epochs": (3, 4), "model": "mlp"}
    # As a shell hands them over, they are the page's.
    usual = notebooks.resolve(chapter, "smoke", {})
    assert notebooks.resolve(chapter, "smoke", given) == usual | values
    assert (tmp_path / f"{chapter}.ipynb").read_bytes() == (
        paths.NOTEBOOKS / f"{chapter}.ipynb"
    ).read_bytes()
    assert json.loads((tmp_path / f"{chapter}.ipynb").read_text())["cells"]


def test_the_primer_says_how_to_run_it_and_has_no_rows(tmp_path):
    notebook = {"cells": []}
    address = "https://github.com/someone/widemin"
    sources._say_how_to_run(notebook, notebooks.PRIMER, tmp_path, address)
    said = notebook["cells"][-1]["source"]
    assert "\nwidemin run 00\n" in said and "00_primer.ipynb" in said
    assert "it has no parameters" in said and "blob/main/notebooks/00_primer" in said
    assert [path.name for path in tmp_path.iterdir()] == ["00_primer.ipynb"]


def test_the_primer_that_was_not_run_is_its_opening(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    sources.stage("book", tmp_path / "book" / "source")
    text = (tmp_path / "book/source/chapters/00_primer.md").read_text()
    assert "# A primer" in text and "`widemin run 00` runs it" in text
    assert "(primer-vanish)=" in text and "(primer)=" in text


def test_the_contents_begin_with_the_primer_and_end_with_the_notation():
    parts = yaml.safe_load((paths.BOOK / "_toc.yml").read_text())["parts"]
    files = [[page["file"] for page in part["chapters"]] for part in parts]
    assert parts[0]["caption"] == "Before you read" and files[0] == [
        "chapters/00_primer"
    ]
    assert "notation" in files[-1]
    assert [
        Path(name).stem for part in files for name in part if "chapters/" in name
    ] == (notebooks.pages())


def test_what_a_mac_leaves_behind_is_no_page_and_no_preset(tmp_path, monkeypatch):
    for name, home in (("BOOK", paths.BOOK), ("PRESETS", paths.PRESETS)):
        copy = tmp_path / name
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("networks", "images"))
        monkeypatch.setattr(paths, name, copy)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "BOOK" / "results")
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    before = notebooks.presets()
    for place in ("BOOK/._intro.md", "PRESETS/._lab.yml", "BOOK/results/lab/._01.csv"):
        (tmp_path / place).write_bytes(b"\x00\x05\x16\x07 Mac OS X \xb0")
    (tmp_path / "BOOK" / "results" / "lab" / "old.csv").mkdir()
    assert notebooks.presets() == before
    assert notebooks.digest(notebooks.chapters()[0], {}, [])
    sources.stage("site", tmp_path / "build" / "site" / "source")
    assert not list((tmp_path / "build").rglob("._*"))
