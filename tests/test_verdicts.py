"""What verdicts a page shows, whose rows they rest on, and what they say of them."""

import dataclasses
import json
import re

import pandas as pd
import pytest

from widemin import paths
from widemin.book import notebooks, sources, verdicts
from widemin.papers import claims
from widemin.papers.claims import Verdict
from widemin.papers.kamath import claims as kamath

CHAPTER = "01_width_of_minima"


def page(edition, *found):
    """Write an executed chapter that shows verdicts: claim, outcome, seeds, preset."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Opening"},
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": 'preset = "site"',
        },
    ]
    for claim, outcome, seeds, *preset in found:
        basis = {"seeds": seeds}
        verdict = Verdict(claim, outcome, "", "", "", basis=basis)
        verdict = dataclasses.replace(verdict, preset="".join(preset))
        data, metadata = verdict._repr_mimebundle_()
        outputs = [{"data": data, "metadata": metadata}]
        cells.append({"cell_type": "code", "metadata": {}, "outputs": outputs})
    path = verdicts.executed(edition, CHAPTER)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_a_verdict_is_of_the_pages_preset_or_names_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", ("W1", "reproduced", 2), ("W7", "not reproduced", 3, "paper"))
    found = verdicts.of_edition("site")
    presets = {claim: verdict["preset"] for claim, verdict in found.items()}
    assert presets == {"W1": "site", "W7": "paper"}
    assert "(`site`) |" in verdicts.as_page("site")
    assert "(`paper`) |" in verdicts.as_page("site")
    [told] = [c for c in verdicts.as_data("site")["claims"] if c["id"] == "W7"]
    assert told["ours"]["preset"] == "paper"


def test_a_page_shows_what_its_own_cells_made(tmp_path, monkeypatch):
    """Whatever else was executed: verdicts are not taken from there."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    path = page("site", ("W1", "not decidable at this scale", 3))
    other = path.parent / "paper" / path.name
    other.parent.mkdir()
    other.write_text(path.read_text().replace("not decidable at this", "large"))
    sources.stage("site", tmp_path / "site" / "source")
    staged = json.loads((tmp_path / "site/source/chapters" / path.name).read_text())
    own = json.loads(path.read_text())
    outputs = [
        [c["outputs"] for c in b["cells"] if "outputs" in c] for b in (own, staged)
    ]
    assert outputs[0] == outputs[1]


def test_links_to_verdicts_that_no_page_shows_are_plain_words(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", ("W6", "reproduced", 2))
    sources.stage("site", tmp_path / "site" / "source")
    pages = [path.read_text() for path in (tmp_path / "site/source").glob("*.md")]
    assert {n for t in pages for n in re.findall(r"\(#verdict-(\w+)", t)} == {"w6"}
    assert "(S1 to S7)" in "".join(pages)


COUNTER = """
other_dataset = {dataset!r}
at_first = {{"LR, other": pd.DataFrame()}}
counter = pd.DataFrame({{"seed": {seeds}}})
"""


@pytest.mark.parametrize(
    ("dataset", "seeds", "preset"),
    [
        ("fashion-mnist", [0, 1, 1], "paper"),
        ("fashion-mnist", [0, 0], ""),
        ("fashion-mnist", [], ""),
        ("digits", [0, 1, 2], ""),
    ],
)
def test_two_seeds_at_the_papers_settings_decide_the_counter_example(
    monkeypatch, dataset, seeds, preset
):
    """The cell itself chooses: those rows, or the page's own."""
    judged = []

    def H8(rows):
        judged.append(len(rows))
        return Verdict("H8", "reproduced", "", "", "")

    [chapter] = notebooks.find("04")
    cells = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"]
    [cell] = [
        "".join(c["source"]) for c in cells if "kamath.H8" in "".join(c["source"])
    ]
    monkeypatch.setattr(kamath, "H8", H8)
    names = {"pd": pd, "kamath": kamath, "replace": dataclasses.replace}
    exec(COUNTER.format(dataset=dataset, seeds=seeds), names)
    *before, last = cell.splitlines()
    exec("\n".join(before), names)
    assert eval(last, names).preset == preset
    assert judged == [len(seeds) if preset else 0]


def test_a_chapter_says_in_short_what_became_of_its_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", ("W7", "not reproduced", 3), ("W1", "reproduced", 2))
    box = verdicts.in_short("site", CHAPTER, ["W7", "W2"]).splitlines()
    counts = "**1** reproduced, **1** not reproduced, **11** not yet run"
    assert box[1] == f"Of [13 claims](../verdicts.md): {counts}."
    [told] = [line for line in box if line.startswith("- ")]  # W2 is not there
    assert told.startswith("- {ref}`W7 <verdict-w7>`, ")
    assert ": **not reproduced**: " in told


@pytest.mark.parametrize("chapter", notebooks.chapters())
def test_what_a_chapter_tells_in_short_are_claims_of_its_own(chapter):
    opening = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"][0]
    [mark] = sources._IN_SHORT.findall("".join(opening["source"]))
    papers = {claims.criteria()[name].paper for name in mark.split()}
    assert [verdicts.CHAPTER[paper] for paper in papers] == [chapter[:2]]


def test_a_verdict_says_what_it_rests_on():
    basis = {"runs": 40, "seeds": 1, "dataset": ["mnist"], "device": ["cpu"]}
    basis |= {"train_size": [10_000, 60_000], "epochs": [25]}
    verdict = Verdict("W1", "reproduced", "", "", "", basis=basis)
    assert verdict.scale == (
        "40 runs, 1 seed: MNIST, 10,000 to 60,000 training images, 25 epochs, CPU"
    )
    assert f"**Rests on** {verdict.scale}." in verdict.box()
    assert "Rests on" not in Verdict("W12", "partly", "", "", "").box()
