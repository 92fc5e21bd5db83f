"""Where a paper's text and its released code differ, and what each difference does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from widemin.experiments import results
from widemin.experiments.recipes import Recipe
from widemin.papers.claims import ball_name, final
from widemin.statistics import over_seeds


@dataclass(frozen=True)
class Entry:
    """One difference.

    Attributes:
        chapter: Its number, e.g. "02".
        section: The label of the section that measures it.
        text: What the paper says.
        code: What the released code does, or another reading of the text.
        here: Which of them this book takes.
        switch: Fields of a recipe that take the other side.
        off: The same fields where it is not taken; their defaults if not given.
    """

    chapter: str
    section: str
    text: str
    code: str
    here: str
    switch: dict[str, Any]
    off: dict[str, Any] = field(default_factory=dict)


ENTRIES = [
    Entry(
        "02",
        "sam-holds",
        "SAM's second pass; nothing on batch norm",
        "both passes move the running statistics",
        "the first alone",
        {"second_pass_statistics": True},
    ),
    Entry(
        "02",
        "sam-holds",
        "SAM on top of adversarial training",
        "the attack leaves its weight gradients in the buffers that SAM climbs along",
        "buffers cleared",
        {"gradient_leak": True},
    ),
    Entry(
        "03",
        "dynamic-work",
        "FOSC is measured from the image",
        "it is measured from the random start",
        "the text",
        {"fosc_from_start": True, "loss_weighted": False},
    ),
    Entry(
        "03",
        "dynamic-work",
        "the loss of the attacked batch",
        "each image's loss is weighted by itself",
        "the text",
        {"loss_weighted": True, "fosc_from_start": False},
    ),
    Entry(
        "03",
        "dynamic-work",
        "both of these",
        "both of these",
        "the text",
        {"fosc_from_start": True, "loss_weighted": True},
    ),
    Entry(
        "03",
        "dynamic-work",
        "decay 0.0001, as weight decay",
        "decay 0.0001 of the learning rate, as Keras has it",
        "the text",
        {"rate_decay": 1e-4, "weight_decay": 0.0},
        {"weight_decay": 1e-4},
    ),
    Entry(
        "04",
        "sgd-else",
        "Algorithm 1 resets the velocity for every batch and steps after every image",
        "no code; its figures can hardly come from that",
        "the usual mini-batch SGD",
        {"optimizer": "algorithm1"},
    ),
]
_DEFAULTS = Recipe()


def pairs(
    entry: Entry, recipes: Iterable[Recipe]
) -> list[tuple[list[Recipe], list[Recipe]]]:
    """Return the runs with a switch turned, each with those that differ in it alone."""
    off = {name: getattr(_DEFAULTS, name) for name in entry.switch} | entry.off
    by_training: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        by_training.setdefault(_training(recipe), []).append(recipe)
    found = []
    for members in by_training.values():
        one = members[0]
        if all(getattr(one, name) == value for name, value in entry.switch.items()):
            if others := by_training.get(_training(replace(one, **off))):
                found.append((members, others))
    return found


def _training(recipe: Recipe) -> str:
    """Return what a network's weights are found by, whatever is watched of it."""
    unseen = replace(recipe, watch="", watch_fosc=False, validation_size=0)
    return unseen.training_key


def effect(entry: Entry, recipes: list[Recipe], folder: Path) -> str:
    """Return what a switch does to accuracies, in points, paired by seed."""
    table = final(results.table_of(recipes, folder))
    gains: dict[str, list[float]] = {}
    for turned, usual in pairs(entry, recipes):
        change = _by_test(table, turned).sub(_by_test(table, usual)).dropna()
        for place, (test, gain) in enumerate(change.iterrows()):
            if place == 0:  # the same in every set
                gains.setdefault("natural", []).append(100 * gain["natural_accuracy"])
            worst = f"worst case, {ball_name(str(test))}"
            gains.setdefault(worst, []).append(100 * gain["worst_accuracy"])
    if not gains:
        return "not measured yet"
    seeds = len(gains["natural"])
    words = [f"{name} {_points(values)}" for name, values in gains.items()]
    runs = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"{'; '.join(words)} ({runs})"


def _by_test(table: pd.DataFrame, recipes: list[Recipe]) -> pd.DataFrame:
    if table.empty:
        return table.reindex(columns=["natural_accuracy", "worst_accuracy"])
    rows = table[table["key"].isin([recipe.key for recipe in recipes])]
    return rows.groupby("test")[["natural_accuracy", "worst_accuracy"]].mean()


def _points(values: list[float]) -> str:
    mean, half = over_seeds(values)
    return f"{mean:+.1f}" + ("" if len(values) < 2 else f" ± {half:.1f}")
