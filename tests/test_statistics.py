"""Rank correlations against closed forms and other formulas."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from widemin.papers.ranks import in_words, rank_correlations
from widemin.statistics import auroc, partial_spearman, spearman, spearman_interval


@pytest.fixture
def draws():
    return np.random.default_rng(0).normal(size=(4, 60))


def test_one_variable_held_fixed_is_the_textbook_formula(draws):
    x, y, z = draws[0] + draws[2], draws[1] + draws[2], draws[2]
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    formula = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_spearman(x, y, [z]) == pytest.approx(formula, abs=1e-12)
    assert abs(formula) < abs(xy)  # z made them correlated


def test_two_variables_held_fixed_follow_from_the_inverse_correlation(draws):
    x, y = draws[0] + draws[2], draws[1] + draws[2] - draws[3]
    inverse = np.linalg.inv(stats.spearmanr(np.stack([x, y, *draws[2:]]).T).statistic)
    expected = -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])
    assert partial_spearman(x, y, list(draws[2:])) == pytest.approx(expected, abs=1e-9)


def test_nothing_held_fixed_is_the_plain_correlation(draws):
    x, y = draws[0], draws[0] + draws[1]
    assert partial_spearman(x, y, []) == pytest.approx(spearman(x, y), abs=1e-12)


def test_what_the_others_explain_wholly_has_no_partial_correlation(draws):
    assert math.isnan(partial_spearman(draws[0], draws[1], [draws[0]]))
    assert math.isnan(partial_spearman([1, 2, 3, 4], [1, 2, 3, 4], [[1, 2, 4, 3]]))


def test_intervals_cover_as_often_as_they_say():
    """Normal pairs with correlation 0.6 have Spearman 6/pi asin(0.3)."""
    generator, hits = np.random.default_rng(1), 0
    truth = 6 / math.pi * math.asin(0.3)
    for _ in range(2_000):
        x, noise = generator.normal(size=(2, 20))
        low, high = spearman_interval(spearman(x, 0.6 * x + 0.8 * noise), 20)
        hits += low <= truth <= high
    assert 0.93 <= hits / 2_000 <= 0.975


def test_intervals_need_enough_pairs():
    assert all(map(math.isnan, spearman_interval(0.5, 3)))
    assert all(map(math.isnan, spearman_interval(0.5, 5, given=2)))
    assert all(map(math.isnan, spearman_interval(1.0, 20)))  # no spread, no interval


def test_a_perfect_order_has_area_1_a_reversed_one_0_and_ties_a_half():
    broken = [False, False, True, True, True]
    assert auroc([1, 2, 3, 4, 5], broken) == 1
    assert auroc([5, 4, 3, 2, 1], broken) == 0
    assert auroc([7] * 5, broken) == 0.5
    assert auroc([1, 3, 3, 4, 4], broken) == (0.5 + 5) / 6


def test_the_area_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(2)
    score = generator.integers(0, 12, 80)  # with ties
    positive = generator.random(80) < 0.3 + score / 40
    pairs = score[positive][:, None] - score[~positive][None]
    count = (pairs > 0).mean() + (pairs == 0).mean() / 2
    assert auroc(score, positive) == pytest.approx(count, abs=1e-12)
    assert auroc(score, ~positive) == pytest.approx(1 - count, abs=1e-12)
    assert 0.55 < count < 0.95


@pytest.mark.parametrize("positive", [[], [True, True], [False, False]])
def test_without_both_kinds_there_is_no_area(positive):
    assert math.isnan(auroc([1.0, 2.0][: len(positive)], positive))


def test_a_table_of_correlations_leaves_missing_networks_out():
    table = pd.DataFrame({"a": np.arange(12.0), "b": np.arange(12.0), "c": [1, 0] * 6})
    table.loc[0, "a"] = math.nan
    [found] = rank_correlations(table, {"a": "A"}, {"b": "B"}, ["c"]).to_dict("records")
    assert found["networks"] == 11
    assert found["plain"] == pytest.approx(1) == found["partial"]
    assert in_words(pd.DataFrame([found])).to_numpy().tolist() == [[11, "1.00", "1.00"]]
