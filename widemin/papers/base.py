"""What a chapter's plan starts from."""

from dataclasses import fields
from typing import Any

from widemin.experiments.recipe import Recipe


def base_recipe(values: dict[str, Any], **given: Any) -> Recipe:
    """Return the recipe of the parameters that go by a field's name, then of others.

    No strong attack is in it: `strong_size` is for the runs that a plan chooses. The
    parameter `attack` is one's own, beside PGD; none is trained on.

    >>> base_recipe({"epochs": 3, "strong_size": 50, "workers": 2}, seed=1).epochs
    3
    """
    named = {f.name: values[f.name] for f in fields(Recipe) if f.name in values}
    named |= {"strong_size": 0, "attack": None, "own_attack": values.get("attack", "")}
    return Recipe(**named | given)
