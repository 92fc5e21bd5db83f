"""Where a paper's text and its released code differ, and what each difference does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from widemin import paths
from widemin.experiments import results
from widemin.experiments.recipe import Recipe
from widemin.papers.claims import ball_name, final
from widemin.statistics import over_seeds


@dataclass(frozen=True)
class Entry:
    """One difference, as book/results/papers/differences.yml describes it."""

    chapter: str
    section: str  # the label of the section that measures it
    text: str
    code: str  # what the released code does, or another reading of the text
    here: str
    switch: dict[str, Any]  # fields of a recipe that take the other side
    usual: dict[str, Any] = field(default_factory=dict)  # where they are no defaults


def entries() -> list[Entry]:
    """Return the differences that book/results/papers/differences.yml lists."""
    path = paths.PUBLISHED / "papers" / "differences.yml"
    return [Entry(**each) for each in yaml.safe_load(path.read_text())]


def pairs(
    entry: Entry, recipes: Iterable[Recipe]
) -> list[tuple[list[Recipe], list[Recipe]]]:
    """Return the runs with a switch turned, each with those that differ in it alone."""
    default = Recipe()
    back = {name: getattr(default, name) for name in entry.switch} | entry.usual
    by_training: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        by_training.setdefault(_training(recipe), []).append(recipe)
    return [
        (turned, by_training[other])
        for turned in by_training.values()
        if all(getattr(turned[0], name) == v for name, v in entry.switch.items())
        and (other := _training(replace(turned[0], **back))) in by_training
    ]


def _training(recipe: Recipe) -> str:
    """Return the key of a network's training, whatever is watched of it."""
    unseen = replace(recipe, watch=None, watch_fosc=False, validation_size=0)
    return unseen.training_key


def effect(entry: Entry, recipes: list[Recipe], folder: Path) -> str:
    """Return what a switch does to accuracies, in points, paired by seed."""
    table = final(results.table_of(recipes, folder))
    if table.empty:
        return "not measured yet"
    gains: dict[str, list[float]] = {}
    for pair in pairs(entry, recipes):
        turned, usual = (
            table[table["key"].isin([recipe.key for recipe in runs])]
            .groupby("test")[["natural_accuracy", "worst_accuracy"]]
            .mean()
            for runs in pair
        )
        for place, change in enumerate((turned - usual).dropna().mul(100).iterrows()):
            test, gain = change
            if not place:  # the natural one is the same in every set
                gains.setdefault("natural", []).append(gain["natural_accuracy"])
            worst = f"worst case, {ball_name(str(test))}"
            gains.setdefault(worst, []).append(gain["worst_accuracy"])
    if not gains:
        return "not measured yet"
    seeds = len(gains["natural"])
    words = [f"{name} {_points(values)}" for name, values in gains.items()]
    return f"{'; '.join(words)} ({seeds} seed{'s' * (seeds > 1)})"


def _points(values: list[float]) -> str:
    if len(values) < 3:
        return " and ".join(f"{value:+.1f}" for value in values)
    mean, half = over_seeds(values)
    return f"{mean:+.1f} ± {half:.1f}"
