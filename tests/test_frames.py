"""Committed rows as a table: every recipe column filled, nothing else changed."""

import dataclasses
import runpy
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import pytest

from widemin import paths
from widemin.experiments import frame, results
from widemin.experiments.recipe import Recipe


@pytest.mark.parametrize(("chapter", "scale"), [("01", "paper"), ("02", "lab")])
def test_a_frame_has_the_committed_rows_with_their_recipes(chapter, scale):
    table = frame(chapter, scale)
    fields = [field.name for field in dataclasses.fields(Recipe)]
    assert not table[["key", "measured", *fields]].isna().any().any()
    published = results.published()
    assert len(table) == sum(len(published[key]) for key in table["key"].unique())
    assert table.attrs["runs"] == table["key"].nunique()
    assert table["natural_accuracy"].dropna().between(0, 1).all()


def test_an_unknown_chapter_or_scale_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="unknown chapter '09'"):
        frame("09")
    with pytest.raises(ValueError, match=r"unknown scale 'papr' \(did you mean 'paper"):
        frame("01", "papr")
    with pytest.raises(ValueError, match="must have rows of 01_width"):
        frame("01", folder=tmp_path)


def test_the_import_brings_neither_torch_nor_pandas():
    code = "import sys; from widemin.experiments import frame; "
    code += "print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_example_in_the_book_draws_every_run(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    plt.close("all")  # what other tests left open
    monkeypatch.chdir(tmp_path)
    script = paths.BOOK / "examples" / "draw_from_published_tables.py"
    names = runpy.run_path(str(script))
    drawn = sum(len(each.get_offsets()) for each in plt.gca().collections)
    plt.close("all")
    assert (tmp_path / "ratio.png").stat().st_size > 0
    assert drawn == len(names["final"]) > 0
