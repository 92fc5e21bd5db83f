"""What verdicts a page shows, whose rows they rest on, and what they say of them."""

import json
import re
from dataclasses import asdict

import pandas as pd
import pytest

from widemin import paths
from widemin.book import notebooks, sources, verdicts
from widemin.experiments import results
from widemin.papers import claims
from widemin.papers.claims import Judged, Verdict

CHAPTER = "01_width_of_minima"


def verdict_of(claim, word, preset="", **basis):
    """A verdict all of whose parts have one word."""
    facts = {"value": 0.5, "n": "3 seeds", "preset": preset, "basis": basis}
    return Verdict(claim, [Judged(p, word, **facts) for p in claims.parts()[claim]])


def page(edition, *found):
    """Write an executed chapter that shows verdicts: claim, word of parts, preset."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Opening"},
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": 'preset = "site"',
        },
    ]
    for claim, word, *preset in found:
        verdict = verdict_of(claim, word, "".join(preset))
        data, metadata = verdict._repr_mimebundle_()
        outputs = [{"data": data, "metadata": metadata}]
        cells.append({"cell_type": "code", "metadata": {}, "outputs": outputs})
    path = verdicts.executed(edition, CHAPTER)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_a_verdict_is_of_the_pages_preset_or_names_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", ("W1", "passes"), ("W7", "fails", "paper"))
    found = verdicts.of_edition("site")
    presets = {claim: verdict["preset"] for claim, verdict in found.items()}
    assert presets == {"W1": "site", "W7": "paper"}
    words = {claim: verdict["outcome"] for claim, verdict in found.items()}
    assert words == {"W1": "reproduced", "W7": "not reproduced"}
    told = {c["id"]: c for c in verdicts.as_data("site")["claims"]}
    assert {p["preset"] for p in told["W7"]["parts"]} == {"paper"}
    assert told["W2"]["outcome"] == "not yet run" and len(told) == 61


def test_a_page_shows_what_its_own_cells_made(tmp_path, monkeypatch):
    """Whatever else was executed: verdicts are not taken from there."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    path = page("site", ("W1", "not decidable at this scale"))
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
    page("site", ("W6", "passes"))
    sources.stage("site", tmp_path / "site" / "source")
    pages = [path.read_text() for path in (tmp_path / "site/source").glob("*.md")]
    assert {n for t in pages for n in re.findall(r"\(#verdict-(\w+)", t)} == {"w6"}
    assert "(S1 to S9)" in "".join(pages)


def rows(runs):
    """Rows of runs whose robustness falls with the batch size."""
    about = {"measured": "final", "diverged": False, "constant": False}
    about |= {"train_accuracy": 1.0, "test": "linf 0.3", "images": 1000}
    table = pd.DataFrame(
        [asdict(r) | {"key": r.key, "method": r.method} | about for r in runs],
        columns=["key", "dataset", "batch_size", *about] if not runs else None,
    )
    return table.assign(fgsm_accuracy=0.5 - 1e-4 * table["batch_size"])


@pytest.mark.parametrize(
    ("own", "seeds", "preset", "word"),
    [
        ("site", 3, "paper", "fails"),
        ("site", 2, "paper", "not decidable at this scale"),
        ("site", 0, "site", "not decidable at this scale"),
        ("smoke", 3, "", "not yet run"),
    ],
)
def test_rows_at_the_papers_settings_decide_the_counter_example(
    monkeypatch, own, seeds, preset, word
):
    """They go before the page's own as soon as they are enough; never for digits."""
    [chapter] = notebooks.find("04")
    part = claims.parts()["H8"][0]
    wanted = (part.needs["dataset"], part.needs["model"])

    def larger(recipes, folder):
        of = [r for r in recipes if (r.dataset, r.model) == wanted and r.seed < seeds]
        return rows(of)

    monkeypatch.setattr(results, "table_of", larger)
    lists = notebooks.lists_of(chapter, own)[0]
    once = [r for r in lists["settings"]["LR, other"] if r.seed == 0]
    judge = verdicts.judging("04", rows(once), lists, own)
    [judged] = [j for j in judge("H8").parts if j.part == part]
    assert (judged.preset, judged.word) == (preset, word)


def test_a_chapter_counts_the_outcomes_of_its_own_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    page("site", ("W7", "fails"), ("W1", "passes"))
    claims_ = "**1** reproduced, **1** partly, **7**"  # W12 takes no rows
    argued = "**1** not reproduced, **3**"
    assert verdicts.tally("site", CHAPTER) == (
        f"Of [9 claims](../verdicts.md): {claims_} not yet run. "
        f"Of 4 arguments that no paper measures: {argued} not yet run."
    )


def cell(text, *tags, **about):
    return {"source": [text], "metadata": {"tags": list(tags), **about}}


@pytest.mark.parametrize("edition", ["site", "book"])
def test_a_chapter_opens_with_its_answer_and_a_figure(edition, tmp_path, monkeypatch):
    """Rows of this machine do not carry the published answer."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    cells = [cell("# T"), cell("It is 3.\n<!-- tally -->", "answer"), cell("code")]
    cells.append(cell("draw", "hide-input", "opening"))
    sources._open(cells, edition, CHAPTER)
    title, answer, figure, code = ("".join(one["source"]) for one in cells)
    assert (title, figure, code) == ("# T", "draw", "code")
    assert ("It is 3." in answer) == ("Of [9 claims]" in answer) == (edition == "site")
    assert ("computed on this machine" in answer) == (edition == "book")


def test_a_verdict_says_what_it_rests_on():
    basis = {"runs": 40, "seeds": 1, "dataset": ["mnist"], "device": ["cpu"]}
    basis |= {"train_size": [10_000, 60_000], "epochs": [25]}
    box = verdict_of("W1", "passes", "site", **basis).box()
    text = "MNIST, 10,000 to 60,000 training images, 25 epochs, CPU"
    assert f"**Rests on:** 3 seeds, {text}, preset `site`." in box
    assert "Rests on" not in verdict_of("W12", "passes").box()


def test_a_verdict_says_when_its_criterion_was_fixed():
    """Before rows were known only where that is true of every part."""
    known = {p.part for p in claims.parts()["S1"] if p.rows_known}
    assert known and known != {p.part for p in claims.parts()["S1"]}
    assert known == set("def")
    assert "when rows of d to f were known" in verdict_of("S1", "passes").box()
    assert "when rows were known" in verdict_of("W1", "passes").box()
    assert "before there were rows" in verdict_of("D5", "passes").box()
    for name in ("W12", "S8", "S11", "D1", "D12"):  # revision 1 had published it
        assert "when the outcome was known" in verdict_of(name, "passes").box()
