"""The rule of book/criteria.md, on rows of a few numbers."""

import itertools
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from widemin import paths
from widemin.book import verdicts
from widemin.papers import claims
from widemin.papers.claims import Judged, Runs, draws, engine
from widemin.papers.claims.verdict import Verdict

WORDS = (
    *("passes", "fails", "inconclusive"),
    *("not decidable at this scale", "not yet run"),
)
[FIRST] = [p for p in claims.parts()["W2"] if p.part == "a"]  # at least 80 %


def part(needs="seed=3", untrained="counted", **change):
    pairs = dict(each.split("=") for each in needs.split("; ") if each)
    change = {"needs": pairs, "untrained": untrained, "runs": "runs"} | change
    return replace(FIRST, given={}, **change)


def runs(accuracies, preset="paper", **about):
    """Rows of one cell, a seed each, with accuracies under FGSM."""
    rows = pd.DataFrame({"fgsm_accuracy": accuracies}).assign(
        **dict(measured="final", dataset="mnist", model="m1", batch_size=16),
        **dict(learning_rate=0.1, momentum=0.0, rho=0.0, attack="", images=1000),
        **dict(train_size=60_000, epochs=25, diverged=False, constant=False),
        **dict(natural_accuracy=0.99, train_accuracy=1.0),
    )
    rows = rows.assign(seed=range(len(rows)), key=[f"{preset}{i}" for i in rows.index])
    rows = rows.assign(**about)
    recipes = [SimpleNamespace(key=key) for key in rows["key"]]
    return Runs(preset, {"runs": recipes}, rows)


def judged(*evidence, **change):
    return engine._of_all(part(**change), evidence, None)


@pytest.mark.parametrize(
    ("accuracies", "compare", "word"),
    [
        ([0.82, 0.83, 0.84], ">=", "passes"),
        ([0.76, 0.77, 0.78], ">=", "fails"),
        ([0.78, 0.83, 0.84], ">=", "inconclusive"),
        ([0.82, 0.83, 0.84], "<=", "fails"),
        ([0.76, 0.77, 0.78], "<", "passes"),
    ],
)
def test_a_part_is_decided_where_the_whole_interval_lies_on_one_side(
    accuracies, compare, word
):
    found = judged(runs(accuracies), compare=compare)
    assert found.word == word and found.value == pytest.approx(np.mean(accuracies))
    assert found.interval[0] == pytest.approx(min(accuracies))  # 1 draw in 27
    assert found.interval[1] == pytest.approx(max(accuracies))
    assert bool(found.would_decide) == (word == "inconclusive")


def test_fewer_than_three_seeds_decide_nothing():
    found = judged(runs([0.9, 0.95]))
    assert found.word == "not decidable at this scale"
    assert (found.lacks, found.interval) == (
        "it takes 3 seeds of every cell; there are 2",
        None,
    )
    assert found.seen == (0.9, 0.95) and not found.would_decide
    assert judged(runs([])).word == "not yet run"
    assert judged().word == "not yet run"


def test_needs_are_of_the_smallest_run_and_the_poorest_cell():
    sizes = {"train_size": [60_000, 60_000, 5_000]}
    found = judged(runs([0.9] * 3, **sizes), needs="samples=1500000; seed=3")
    assert found.lacks == "it takes 1,500,000 samples; there are 125,000"
    found = judged(runs([0.9] * 3, **sizes), needs="train_size=10000; seed=3")
    assert found.lacks == "it takes 10,000 training images; there are 5,000"
    cells = {"batch_size": [16, 16, 16, 64], "seed": [0, 1, 2, 0]}
    lacks = "it takes 3 seeds of every cell; there are 1"
    assert judged(runs([0.9] * 4, **cells)).lacks == lacks


@pytest.mark.parametrize(
    ("rates", "lacks"),
    [
        ([(16, 0.1), (16, 0.2), (32, 0.1), (32, 0.2)], ""),
        ([(16, 0.1), (16, 0.2), (32, 0.2), (32, 0.3)], "2 batch sizes by 2 rates"),
        ([(16, 0.1), (16, 0.2), (32, 0.2), (64, 0.1), (64, 0.2)], ""),
    ],
)
def test_a_grid_has_every_crossing(rates, lacks):
    each = [cell for cell in rates for _ in range(3)]
    cells = dict(
        zip(("batch_size", "learning_rate"), zip(*each, strict=True), strict=True)
    )
    table = runs([0.9] * len(each), seed=[0, 1, 2] * len(rates), **cells)
    found = judged(table, needs="batch_size=2; learning_rate=2; seed=3")
    assert found.lacks == (f"it takes a full grid of {lacks}" if lacks else "")


def test_a_smaller_run_never_overrules_a_larger_one():
    low, high = [0.7, 0.71, 0.72], [0.9, 0.91, 0.92]
    # Both decide: the larger run names the word, the smaller is shown.
    found = judged(runs(low), runs(high, "site"))
    assert (found.word, found.preset, found.other.preset) == ("fails", "paper", "site")
    # The larger has too few seeds: the smaller decides if it agrees.
    found = judged(runs(high[:1]), runs(high, "site"))
    assert (found.word, found.preset, found.other) == ("passes", "site", None)
    found = judged(runs(low[:1]), runs(high, "site"))
    assert found.word == "not decidable at this scale"
    assert found.lacks == "larger runs with fewer seeds point the other way"
    assert found.other.preset == "paper" and not found.would_decide
    assert "`paper`: 70.0 %" in Verdict("W2", [found]).box()


@pytest.mark.parametrize("networks", [1, 3])
def test_a_single_proportion_has_wilsons_interval(networks):
    """And equal ones of three seeds: no spread is not no uncertainty."""
    for value, ends in ((0.0, (0.0, 0.0038268)), (1.0, (0.9961732, 1.0))):
        low, high = judged(runs([value] * networks)).interval
        assert (low, high) == pytest.approx(ends, abs=1e-6)
        assert 0 <= low <= value <= high <= 1


def test_a_batch_size_whose_high_rates_were_not_run_has_no_boundary():
    """W5: the paper's is 0.6 at 16, 32 and 64 and 1.0 at 128, 0.3 at 4 and 8."""
    rates = (0.1, 0.3, 0.6, 1.0)
    # From which rate on accuracy is below 50 %, and up to which it was run.
    sizes = {4: (0.1, 1.0), 8: (1.0, 1.0), 16: (0.6, 0.6), 32: (0.6, 0.3)}
    sizes |= {64: (9.0, 1.0), 128: (9.0, 0.6)}
    cells = [(b, r) for b, (_, last) in sizes.items() for r in rates if r <= last]
    rows = [
        (b, r, s, 0.1 if r >= sizes[b][0] else 0.99) for b, r in cells for s in "012"
    ]
    names = ("batch_size", "learning_rate", "seed", "natural_accuracy")
    columns = pd.DataFrame(rows, columns=names).to_dict("list")
    table = runs([0.5] * len(rows), **columns)
    found = [
        engine.judge_part(replace(p, runs="runs", needs=needs), table)
        for needs in ({"seed": "3"}, {"seed": "3", "batch_size": "5"})
        for p in claims.parts()["W5"]
    ]
    # 32 and 128 have no boundary here. 4, 16 within a step; 64 breaks beyond 1.0.
    assert [j.value for j in found[::2]] == [0.5, 0.5]
    assert found[0].n == "3 seeds, 45 networks" and found[0].word == "fails"
    order = stats.spearmanr([4, 8, 16, 64], [0.1, 1.0, 0.6, 9.0]).statistic
    assert [j.value for j in found[1::2]] == [pytest.approx(order)] * 2
    assert found[1].n.endswith("4 points")
    lacks = {j.lacks for j in found[2:]}
    assert lacks == {"it takes 5 batch sizes; there are 4"}
    # A network that answers almost one class has broken down, whatever `constant` says.
    assert not table.table["constant"].any()


def test_one_order_of_all_draws_has_a_chance_and_no_interval():
    [rank] = [p for p in claims.parts()["H6"] if p.part == "a"]
    rank = replace(rank, runs="runs", given={}, needs={"seed": "3"})
    sizes = {"batch_size": [s for s in (16, 64, 128, 512) for _ in range(3)]}
    sizes |= {"seed": [0, 1, 2] * 4}
    fall = [0.9, 0.91, 0.92, 0.7, 0.71, 0.72, 0.5, 0.51, 0.52, 0.3, 0.31, 0.32]
    found = engine.judge_part(rank, runs(fall, **sizes))
    assert (found.word, found.value, found.interval) == ("passes", -1.0, None)
    assert found.chance == pytest.approx(4 / 24) and "4 points" in found.n
    orders = np.array(list(itertools.permutations(range(5))))
    each = draws.ranks(orders.astype(float), np.broadcast_to(range(5), orders.shape))
    for limit in (0.7, 0.9):
        chance = draws.chance_of_rank(5, ">=", limit)
        assert chance == pytest.approx((each >= limit).mean())


def test_means_of_a_cell_are_of_all_its_seeds_or_of_none():
    """One seed that did not train takes its cell away, not itself alone."""
    cells = {"batch_size": [16] * 3 + [64] * 3, "seed": [0, 1, 2] * 2}
    table = runs([0.9] * 3 + [0.5] * 3, **cells, train_accuracy=[1, 0.2, 1, 1, 1, 1])
    poor = "excluded: constant, or training accuracy below 0.95"
    found = judged(table, untrained=poor)
    assert found.value == 0.5 and found.n == "3 seeds, 3 networks"
    assert judged(table).value == pytest.approx(0.9)
    found = judged(table, untrained=poor, needs="batch_size=2; seed=3")
    assert found.lacks == (
        "it takes 2 batch sizes; there are 1 whose networks are trained"
    )
    lost = runs([0.9] * 3, constant=True)
    assert judged(lost, untrained=poor).lacks == "no network is trained"


@pytest.mark.parametrize("kinds", [("printed", "printed"), ("argued", "control")])
@pytest.mark.parametrize(("one", "other"), list(itertools.product(WORDS, WORDS)))
def test_the_weakest_part_names_the_claim(kinds, one, other):
    parts = [replace(FIRST, kind=kind) for kind in kinds]
    found = [Judged(p, w) for p, w in zip(parts, (one, other), strict=True)]
    words = [one, other] if kinds[1] != "control" else [one]
    if "passes" in words and "fails" in words:
        wanted = "partly"
    else:
        order = ("fails", "not yet run", "not decidable at this scale", "inconclusive")
        wanted = next((w for w in order if w in words), "reproduced")
        wanted = "not reproduced" if wanted == "fails" else wanted
    assert engine.word(found) == wanted


def test_checks_of_our_own_are_judged_by_their_controls():
    controls = [replace(FIRST, kind="control")] * 2
    found = [Judged(p, w) for p, w in zip(controls, ("passes", "fails"), strict=True)]
    assert engine.word(found) == "partly"
    assert engine.counted(found) == found


def test_a_verdict_says_in_a_sentence_what_makes_its_word():
    def reason(*words):
        of = [replace(FIRST, part=letter) for letter in "abcde"]
        lacks = {"not decidable at this scale": "it takes 3 seeds; there are 1"}
        return Verdict(
            "W2",
            [
                Judged(p, w, lacks=lacks.get(w, ""))
                for p, w in zip(of, words, strict=False)
            ],
        ).reason()

    assert reason("passes", "fails", "not yet run") == "Part a passes. Part b fails."
    assert reason("passes", "passes") == "Parts a and b pass."
    said = "Parts b to d have not been run."
    assert reason("passes", *["not yet run"] * 3, "inconclusive") == said
    assert reason("not decidable at this scale", "inconclusive") == (
        "Part a cannot be decided yet: it takes 3 seeds; there is 1."
    )
    assert reason("inconclusive") == (
        "Part a has an interval that contains the threshold."
    )


def test_the_page_says_how_often_three_seeds_err():
    """Differences of nothing that pass or fail, in percent; and one mean's interval."""
    generator = np.random.default_rng(0)

    def decided(*arms):
        """Whether the interval of a difference of means, or of one, leaves 0 out."""
        each = [
            np.append(a.mean(), a[draws.drawn(len(a), generator)].mean(1)) for a in arms
        ]
        drawn = each[0] - (each[1] if len(each) > 1 else 0)
        sign = replace(FIRST, statistic="difference", compare=">", threshold=0.0)
        judged = engine._worded(Judged(sign, "", float(drawn[0])), drawn)
        return judged.word != "inconclusive"

    def share(seeds, arms):
        each = generator.normal(size=(2_000, arms, seeds))
        return 100 * np.mean([decided(*one) for one in each])

    criteria, intro = (
        (paths.BOOK / f"{n}.md").read_text() for n in ("criteria", "intro")
    )
    said = re.findall(r"^\| (\d+) \| (\d+) % \| (\d+) % \|$", criteria, re.MULTILINE)
    assert [row[0] for row in said] == ["3", "5", "10"]
    for seeds, unpaired, paired in (map(int, row) for row in said):
        # Paired arms of one block are drawn together: means of their differences.
        assert share(seeds, 2) == pytest.approx(unpaired, abs=2.0)
        assert share(seeds, 1) == pytest.approx(paired, abs=2.0)
    assert f"{said[0][1]} % (unpaired) to {said[0][2]} % (paired)" in intro
    half = [math.ceil(int(percent) / 2) for percent in said[0][1:]]
    page = verdicts._PAGE
    assert "probability of {} to {} %".format(*half) in page
    assert "the truth in 75 %" in criteria and "truth in about 75 %" in intro
    assert 100 - share(3, 1) == pytest.approx(75, abs=2)


def test_seeds_that_would_decide_are_those_of_80_percent_power():
    found = judged(runs([0.78, 0.83, 0.84]))
    away = np.mean([0.78, 0.83, 0.84]) - 0.8
    spread = np.std([0.78, 0.83, 0.84], ddof=1) / 3**0.5  # of the mean
    needed = 3 * (2.8 * spread / away) ** 2
    seeds = int(found.would_decide.split()[0])
    assert seeds == pytest.approx(needed, rel=0.1)


def test_networks_of_another_augmentation_are_told_apart():
    """A part that needs crops is judged by them, and says what flips alone would."""
    gains = {"crop+flip": -0.02, "flip": 0.03}
    rows = [
        (how, rho, seed, 0.5 + gain * (rho > 0) + 0.001 * seed)
        for how, gain in gains.items()
        for rho in (0.0, 0.2)
        for seed in range(3)
    ]
    names = ("augment", "rho", "seed", "pgd_accuracy")
    columns = pd.DataFrame(rows, columns=names).to_dict("list")
    table = runs([0.5] * 12, dataset="cifar10", **columns)
    [gain] = [p for p in claims.parts()["S2"] if p.part == "q"]
    needs = {"augment": "crop+flip", "seed": "3"}
    gain = replace(gain, runs="runs", needs=needs, given={"rho": "0.2", "attack": ""})
    found = engine._with_flips(engine._of_all(gain, [table], None), [table])
    assert (found.word, found.elsewhere.word) == ("fails", "passes")
    assert found.value == pytest.approx(-0.02)
    assert found.elsewhere.value == pytest.approx(0.03)
    box = Verdict("S2", [found]).box()
    assert "3 seeds, 6 networks, CIFAR-10, random crops and flips," in box
    assert "**With flips alone:** 3.00 points, passes (q)." in box
    # Without crops the part is not decidable, and the flips stand in its own row.
    flips = Runs("paper", table.lists, table.table.query("augment == 'flip'"))
    found = engine._with_flips(engine._of_all(gain, [flips], None), [flips])
    assert found.lacks == "it takes augment crop+flip" and found.elsewhere is None
    assert "CIFAR-10, flips alone," in Verdict("S2", [found]).box()


def test_a_box_says_why_parts_that_differ_make_its_word():
    def box(claim, *words):
        of = zip(claims.parts()[claim], words, strict=True)
        return Verdict(
            claim, [Judged(p, w, value=0.5, n="3 seeds") for p, w in of]
        ).box()

    passes, fails = WORDS[:2]
    assert "top eigenvalue rises (0.50)" in box(
        "H8", fails, fails, passes, fails, fails
    )
    assert "*partly*" not in box("H8", passes, fails, passes, fails, fails)
    assert "leaves 50.0 % right" in box("W13", fails, passes, fails)


def test_numbers_that_round_together_have_more_decimals():
    part = claims.parts()["S11"][1]
    judged = Judged(part, "fails", value=1.0213, interval=(1.0201, 1.0224))
    assert claims.words.here(judged) == "1.02 (1.020 to 1.022)"
    each = [
        Judged(part, "passes", n=f"3 seeds, 9 networks, {n} points") for n in (4, 8)
    ]
    assert (
        claims.words.over(each) == ", n = 4 to 8" and claims.words.over([judged]) == ""
    )
    assert claims.words.to(part, 1.0, 1.0) == "1.00"


def test_a_part_rests_on_the_networks_that_enter_it():
    """W4: curves at other LR/B are no part of a and b."""
    cells = {"batch_size": [16] * 3 + [128] * 3 + [64] * 3, "seed": [0, 1, 2] * 3}
    # LR/B of 0.00625, 0.00078 and 0.0016
    table = runs([0.5] * 9, **cells, epoch=1, fgsm_clipped_accuracy=0.5)
    curves = pd.concat([table.table, table.table.assign(measured="epoch")])
    found = []
    for p in claims.parts()["W4"]:
        given = {name: value for name, value in p.given.items() if name != "test"}
        p = replace(p, runs="runs", needs={"seed": "3"}, given=given)
        found.append(engine.judge_part(p, Runs("paper", table.lists, curves)))
    assert [j.n for j in found] == [f"3 seeds, {n} networks" for n in (3, 3, 9)]
