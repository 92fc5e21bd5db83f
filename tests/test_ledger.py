"""The ledger pairs runs that differ in one switch alone."""

import dataclasses

import pytest

from widemin import paths
from widemin.book import notebooks
from widemin.book.coverage import Difference, differences, effect, pairs
from widemin.experiments import results
from widemin.experiments.recipe import Recipe, grid
from widemin.papers.claims import mean_in_words

LEAK = Difference("02", "sam-holds", "", "", "", {"gradient_leak": True})


def test_pairs_differ_in_the_switch_and_in_what_is_watched():
    base = Recipe(attack="linf 0.1", rho=0.1)
    leaking = grid(base, seed=[0, 1], gradient_leak=[True])
    watched = dataclasses.replace(base, watch="linf 0.1", test_size=100)
    other = dataclasses.replace(base, rho=0.2)
    found = pairs(LEAK, [*leaking, other, watched])
    assert found == [([leaking[0]], [watched])]  # seed 1 has no partner


def test_a_switch_of_two_fields_has_its_own_other_side():
    decay = next(entry for entry in differences() if "rate_decay" in entry.switch)
    usual = Recipe(weight_decay=1e-4)
    turned = Recipe(rate_decay=1e-4)
    assert pairs(decay, [usual, turned, Recipe()]) == [([turned], [usual])]


def test_effects_are_differences_in_points(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "none")
    base = Recipe(attack="linf 0.1", rho=0.1, tests=("linf 0.1",))
    recipes = grid(base, seed=[0, 1], gradient_leak=[False, True])
    for recipe, natural in zip(recipes, (0.90, 0.91, 0.90, 0.93), strict=True):
        row = {"measured": "final", "diverged": False, "test": "linf 0.1"}
        row |= {"natural_accuracy": natural, "worst_accuracy": natural / 2}
        results.write(tmp_path, recipe.key, [row])
    assert effect(LEAK, recipes, tmp_path) == (
        "natural +1.0 and +3.0; worst case, L∞ 0.1 +0.5 and +1.5 (2 seeds)"
    )
    three = mean_in_words([1.0, 2.0, 3.0], "+.1f")
    assert three == "+2.0 ±\u00a02.5"  # of t(2), 4.303 / 3 ** 0.5
    assert effect(LEAK, recipes[:2], tmp_path).startswith("natural +1.0; worst case")
    assert effect(LEAK, recipes, tmp_path / "empty") == "not measured yet"


@pytest.mark.parametrize("entry", differences(), ids=lambda entry: str(entry.switch))
def test_every_difference_is_planned_with_its_other_side(entry):
    [chapter] = notebooks.find(entry.chapter)
    recipes = notebooks.plan(chapter, "site")
    assert pairs(entry, recipes)
    source = (paths.NOTEBOOKS / f"{chapter}.ipynb").read_text()
    assert f"({entry.section})=" in source
