"""Which of two verdicts on a claim counts, and what it says it rests on."""

import importlib
import json

import pytest

from widemin import claims, notebooks, paths, results, staging, verdicts
from widemin.claims import Verdict

CHAPTER = "01_width_of_minima"
drawing = importlib.import_module("widemin.cli.book")  # its command has the same name


def page(edition, preset, *found):
    """Write an executed chapter that shows verdicts: (claim, outcome, seeds)."""
    cells = [
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": f'preset = "{preset or "site"}"',
        }
    ]
    for claim, outcome, seeds in found:
        verdict = Verdict(claim, outcome, "", preset, "", basis={"seeds": seeds})
        data, metadata = verdict._repr_mimebundle_()
        outputs = [{"data": data, "metadata": metadata}]
        cells.append({"cell_type": "code", "metadata": {}, "outputs": outputs})
    path = verdicts.executed(edition, CHAPTER, preset)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells}))


@pytest.mark.parametrize(
    ("smaller", "larger", "preset"),
    [
        (("not decidable at this scale", 3), ("reproduced", 1), "paper"),
        (("reproduced", 2), ("not reproduced", 2), "paper"),
        (("reproduced", 3), ("not reproduced", 1), "site"),  # too few seeds
        (("not yet run", 0), ("not decidable at this scale", 5), "site"),
        (("not decidable at this scale", 1), ("not yet run", 0), "site"),
    ],
)
def test_the_papers_own_scale_goes_first_where_it_decides(
    tmp_path, monkeypatch, smaller, larger, preset
):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", "", ("W1", *smaller))
    assert verdicts.of_edition("site")["W1"]["preset"] == "site"
    page("site", "paper", ("W1", *larger))
    chosen = verdicts.of_edition("site")["W1"]
    assert chosen["preset"] == preset
    assert chosen["outcome"] == (larger if preset == "paper" else smaller)[0]
    assert f"(`{preset}`) |" in verdicts.as_page("site")


def test_a_chapter_says_in_short_what_became_of_its_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", "", ("W7", "not reproduced", 3), ("W1", "reproduced", 2))
    box = verdicts.in_short("site", CHAPTER, ["W7", "W2"]).splitlines()
    counts = "**1** reproduced, **1** not reproduced, **11** not yet run"
    assert box[1] == f"Of [13 claims](../verdicts.md): {counts}."
    [told] = [line for line in box if line.startswith("- ")]  # W2 is not there
    assert told.startswith("- {ref}`W7 <verdict-w7>`, ")
    assert ": **not reproduced**: " in told


@pytest.mark.parametrize("chapter", notebooks.chapters())
def test_what_a_chapter_tells_in_short_are_claims_of_its_own(chapter):
    opening = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text())["cells"][0]
    [mark] = staging._IN_SHORT.findall("".join(opening["source"]))
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


def test_two_seeds_at_the_papers_scale_are_drawn_for_their_verdicts(monkeypatch):
    seeds = {run.seed: run for run in notebooks.plan(CHAPTER, "paper")}
    there = {}
    monkeypatch.setattr(results, "published", lambda: there)
    chapters = [(chapter, "") for chapter in notebooks.chapters()]
    assert [page[:2] for page in drawing._published()] == chapters
    there[seeds[0].key] = []
    assert [page[:2] for page in drawing._published()] == chapters
    there[seeds[1].key] = []
    found = drawing._published()
    assert [page[:2] for page in found] == [*chapters, (CHAPTER, "paper")]
    assert found[-1][2]["train_size"] == 60_000
