"""Cards of claims: one outcome each, criteria as sentences, what has not been run."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from widemin import paths
from widemin.book import verdicts
from widemin.experiments import progress, results
from widemin.experiments.measure import parts as instruments
from widemin.experiments.recipe import Recipe
from widemin.papers import claims
from widemin.papers.claims import Judged, Runs, Verdict
from widemin.papers.claims.verdict import _takes
from widemin.papers.claims.words import SAID, number, sentence

CSS = (paths.BOOK / "_static" / "widemin.css").read_text()
PASSES, FAILS, OPEN, LITTLE, UNRUN = (
    *("passes", "fails", "inconclusive"),
    *("not decidable at this scale", "not yet run"),
)
PARTS = [part for name in claims.parts() for part in claims.parts()[name]]
# Parts in words, and the outcome that they make.
MADE = {
    "reproduced": [PASSES, PASSES],
    "partly": [PASSES, FAILS],
    "not reproduced": [FAILS, OPEN],
    OPEN: [PASSES, OPEN],
    LITTLE: [PASSES, LITTLE],
    UNRUN: [PASSES, UNRUN],
}


def card(words, claim="W2"):
    """The card of a claim of two parts with these words."""
    seen = {UNRUN: {}}
    about = {"value": 0.5, "n": "3 seeds, 6 networks", "preset": "site"}
    each = zip(claims.parts()[claim], words, strict=True)
    return Verdict(
        claim, [Judged(part, word, **seen.get(word, about)) for part, word in each]
    ).box()


@pytest.mark.parametrize("outcome", MADE)
def test_a_card_has_one_outcome_as_a_word_and_a_class(outcome):
    box = card(MADE[outcome])
    title = box.splitlines()[0]
    assert title.startswith(":::::{admonition} [W2]{.claim} Plain SGD reaches 89 %")
    assert re.findall(r"\[([^\]]+)\]\{\.outcome\}", box) == [outcome]
    assert re.findall(r"outcome-[\w-]+", box) == [SAID["class"][outcome]]


def test_a_card_says_paper_here_and_why_and_folds_the_rest():
    shown, fold = card([FAILS, PASSES]).split("::::{dropdown}")
    assert "**Paper:** 89.9 % | **here:** 50.0 %" in shown
    assert "in the best cell (mean over seeds) is at least 80 %." in shown
    assert "Part a fails. Part b passes." in shown
    for words in ("| a | Table 2", "**Criterion fixed:** on 26 November 2026"):
        assert words in fold and words not in shown


def test_a_card_counts_the_parts_that_do_not_make_its_word():
    words = [PASSES, FAILS, OPEN, *[UNRUN] * 21]
    said = "The other parts: 1 inconclusive, 21 not yet run."
    assert said in card(words, "S2")
    assert "Our checks beside it: 1 inconclusive." in card([PASSES, PASSES, OPEN], "W1")


def test_what_would_decide_stands_at_inconclusive_parts_alone():
    decided, undecided = claims.parts()["W2"]
    seeds = "9 seeds for 80 % power (4 to 60)"
    box = Verdict(
        "W2",
        [
            Judged(decided, PASSES, value=0.9),
            Judged(undecided, OPEN, value=0.8, would_decide=seeds),
        ],
    ).box()
    assert "80 %:** 9 seeds, with a range of 4 to 60 (b)." in box
    assert "What would decide" not in card([PASSES, FAILS])


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_criterion_reads_as_a_sentence(part):
    said = sentence(part.criterion)
    assert re.fullmatch(
        r"[A-Z].* (is|are|holds|loses|lies|differs?|costs|varies|"
        r"changes|lowers) .*[^.,]\.",
        said,
    ), said
    for note in (
        r"\breport\b",
        r"\bthen [A-Z]\d",
        "[<>≥≤]",
        r"\brho\b",
        r"\beps\b",
        r" {2}|,,|\(,|,\)",
        r"\bexpected\b",
    ):
        assert not re.search(note, said), said
    # Its threshold is there, or a word for an order.
    bare = f"{abs(part.threshold):g}", f"{100 * abs(part.threshold):g}"
    order = r"\b(higher|lower|later|larger|smaller|at least that|below its bound)\b"
    exact = r"holds as printed|No number differs|10⁻⁹"
    there = any(re.search(rf"(?<![\d.]){re.escape(b)}(?![\d.]\d)", said) for b in bare)
    assert there or re.search(f"{order}|{exact}", said), (number(part, 0.1), said)


def test_a_sentence_keeps_the_side_that_is_asked_for():
    """Of words that mean more and less, those of the side of the threshold."""
    more = r"at least|above|higher|larger|later|more than"
    less = r"at most|below|lower|smaller|whatever|within|differs? from|holds|No number"
    for part in PARTS:
        said = sentence(part.criterion)
        wanted, other = (more, less) if part.compare in (">", ">=") else (less, more)
        if part.statistic == "theorem":
            continue
        turned = part.name in ("D6a", "D6b")  # a gain is told as a cost
        assert re.search(other if turned else wanted, said), (part.name, said)


@pytest.mark.parametrize("name", claims.criteria())
def test_a_claims_name_is_a_sentence(name):
    said = claims.plain(claims.criteria()[name].statement)
    assert said[0].isupper() and len(said.split()) >= 4, said
    assert not re.search(r"&[lg]t;|[<>]|\(Table|\bshows H\d", said), said


def test_criteria_of_the_first_revision_are_on_no_page():
    """They are history, in claims.csv and verdicts.json, and no sentences."""
    box = card([PASSES, PASSES])
    assert "Report separately" not in box
    assert "criterion" not in claims.revision_1()["W2"]


def test_a_claim_without_rows_has_a_line_of_what_it_takes(monkeypatch):
    recipes = [
        Recipe(dataset="mnist", model="m1", train_size=60_000, epochs=50, seed=seed)
        for seed in range(3)
    ]
    known = {"measured": "final", "diverged": False, "device": "cpu", "model": "m1"}
    known |= {"gradients": 100.0, "train_size": 60_000, "dataset": "mnist"}
    known |= {"train_seconds": 600.0, "measure_seconds": 0.0, "width": 0}
    small = replace(recipes[0], epochs=8)
    evidence = [
        Runs("paper", {"by_size": recipes}, pd.DataFrame()),
        Runs("site", {"by_size": [small]}, pd.DataFrame()),
    ]
    monkeypatch.setattr(progress, "published", lambda: {"another run's": [known]})
    took = _takes("D4", evidence)
    work = sum(recipe.work for recipe in recipes)
    assert took["preset"] == "paper" and took["runs"] == 3
    assert took["core"] == pytest.approx(work * 600 / (100 * 60_000) / 3600)
    verdict = Verdict("D4", claims.show("D4", []).parts, took)
    box = verdict.box()
    assert "admonition" not in box and "dropdown" not in box
    assert ":name: verdict-d4" in box and "[planned]{.outcome-unrun}" in box
    assert "It takes 3 runs at the preset `paper`" in box
    assert "Steps of ε/2 and ε/4 train the most robust networks" in box
    assert _takes("D4", evidence[1:]) == {}  # 8 epochs are not enough
    box = Verdict("D4", verdict.parts).box()
    assert "[not yet run]{.outcome-unrun}" in box and "No run of this page" in box


def test_a_claim_takes_the_smallest_preset_that_is_enough():
    large = Recipe(dataset="mnist", model="m1", train_size=60_000, epochs=50)
    larger = replace(large, epochs=90)
    other = replace(larger, dataset="fashion-mnist")
    evidence = [
        Runs(name, {"by_size": runs}, pd.DataFrame())
        for name, runs in {"paper": [larger], "site": [large, other]}.items()
    ]
    took = _takes("D4", evidence)  # the claim is of MNIST
    assert (took["preset"], took["runs"]) == ("site", 1)


def test_the_page_lists_by_paper_decided_first_and_what_is_planned(monkeypatch):
    def told(claim, *words, **takes):
        each = zip(claims.parts()[claim], words, strict=True)
        parts = [
            Judged(p, w, **({} if w == UNRUN else {"value": 0.5})) for p, w in each
        ]
        return Verdict(claim, parts, takes).data() | {"preset": "site"}

    planned = {"runs": 15, "core": 82.4, "gpu": 30.0, "preset": "paper"}
    shown = {
        "W7": told("W7", OPEN),
        "W2": told("W2", PASSES, FAILS),
        "D4": told("D4", UNRUN, UNRUN, **planned),
        "D6": told("D6", FAILS, FAILS),
    }
    monkeypatch.setattr(verdicts, "all_claims", lambda edition: shown)
    monkeypatch.setattr(claims, "revision_1", lambda: {"D6": {"outcome": "partly"}})
    page = verdicts.as_page("site")
    heads = [at.start() for at in re.finditer("^## ", page, re.MULTILINE)]
    first, third, later, before = (
        page[a:b] for a, b in zip(heads, [*heads[1:], None], strict=True)
    )
    assert first.index("verdict-w2") < first.index("verdict-w7")
    assert "[partly]{.outcome-partly}" in first and "(argued)" in first
    assert "verdict-d6" in third and "D4" not in third
    assert "Planned" in later and "D6" not in later
    assert "15 runs at the preset `paper`, about 82 h of one CPU core" in later
    assert "{dropdown}" in before and "| D6 | [not reproduced]" in before


def rows(**about):
    table = pd.DataFrame(
        {
            "key": ["a", "b"],
            "measured": "final",
            "seed": [0, 1],
            "train_seconds": 3600.0,
            "measure_seconds": 0.0,
            "hardware": ["AMD EPYC", "Intel"],
            "device": "cpu",
            "torch": "2.11",
            "date": ["2026-11-21", "2026-11-27"],
            "source": ["0.1.0+old", "0.1.0+older"],
            "distance_q50": 0.1,
        }
        | about
    )
    table.attrs = {"done": 2, "planned": 5}
    return table


def test_the_stamp_is_one_plain_line_however_old_the_commit(monkeypatch):
    now = f"distance {instruments.REVISIONS['distance']}"
    assert results.stamp(rows(revisions=now), "site") == (
        '<small class="stamp">Preset **site**: 2 of 5 planned runs, up to 2 seeds, '
        "2.0 core hours, computed 21 to 27 November 2026 on AMD EPYC and Intel (CPU) "
        "with torch 2.11.</small>"
    )
    later = rows(revisions=now, date=["2026-10-30", "2026-11-02"])
    assert "30 October 2026 to 2 November 2026" in results.stamp(later, "site")


def test_a_badge_marks_rows_of_an_instrument_that_was_revised_since(monkeypatch):
    now = f"distance {instruments.REVISIONS['distance']}"
    table = rows(revisions=[now, np.nan])
    text = results.stamp(table, "site")
    assert "{bdg-warning}" in text and text.endswith("measured some rows of: distance.")
    raised = instruments.REVISIONS | {"distance": 9}
    monkeypatch.setattr(instruments, "REVISIONS", raised)
    assert "{bdg-warning}" in results.stamp(rows(revisions=now), "site")
    unmeasured = rows(revisions=now, distance_q50=np.nan)
    assert "bdg" not in results.stamp(unmeasured, "site")


# Colours: what WCAG and CIE say of them.


def variables(theme):
    """The variables of a theme, by name: those of the light one where it has none."""
    found = {}
    for selector in (":root", 'html[data-theme="dark"]')[: 1 + (theme == "dark")]:
        block = re.search(rf"^{re.escape(selector)} \{{(.*?)^\}}", CSS, re.M | re.S)[1]
        found |= dict(re.findall(r"(--outcome[\w-]*): (#\w+);", block))
    return found


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    each = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(each <= 0.04045, each / 12.92, ((each + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def outcome(name, theme):
    """An outcome's colour, the one of its letters, and its sign."""
    rule = re.search(rf"^\.{name} \{{(.*?)^\}}", CSS, re.M | re.S)[1]
    own = dict(re.findall(r"(--outcome[\w-]*): (.+);", rule))
    known = variables(theme)
    colours = [
        known[value[4:-1]] if value.startswith("var(") else value
        for value in (own["--outcome"], own["--outcome-text"])
    ]
    return *colours, own["--outcome-sign"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_six_outcomes_can_be_read_and_told_apart_without_hue(theme):
    shown = [outcome(name, theme) for name in SAID["class"].values()]
    assert list(SAID["class"]) == list(claims.OUTCOMES)
    assert len({sign for *_, sign in shown}) == 6
    for fill, ink, _ in shown:
        low, high = sorted((luminance(fill), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (theme, fill, ink)
    lightness = sorted(116 * luminance(fill) ** (1 / 3) - 16 for fill, *_ in shown)
    assert min(np.diff(lightness)) >= 6, lightness
