"""Gains by the rule that chooses the epoch."""

from __future__ import annotations

import math

import pandas as pd

# How an epoch is chosen, and by which column of the curve; the last one flatters.
RULES = {
    "last": "epoch",
    "best on held-out images": "validation_fgsm_accuracy",
    "best on test images": "fgsm_accuracy",
}


def chosen_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the epochs that three rules choose, with the `rule`."""
    rows = table[table["measured"] == "epoch"] if len(table) else table
    rows = rows[rows["watch"].astype(str) != ""] if len(rows) else rows
    if rows.empty:
        return rows.assign(rule="")
    found = [
        rows.loc[rows.groupby("key", sort=False)[column].idxmax()].assign(rule=rule)
        for rule, column in RULES.items()
    ]
    return pd.concat(found)


def gains_by_rule(table: pd.DataFrame, rho: float) -> dict[str, float]:
    """Return SAM's gain over standard training under FGSM, in points, by rule.

    And, under "standard", what standard training gains by the epoch that held-out
    images choose over its last one.
    """
    rows = chosen_epochs(table)
    rows = rows[rows["attack"] == ""] if len(rows) else rows
    means = rows.groupby(["rule", "rho"])["fgsm_accuracy"].mean() if len(rows) else {}

    def of(rule: str, radius: float) -> float:
        return float(means.get((rule, radius), math.nan))

    found = {rule: 100 * (of(rule, rho) - of(rule, 0.0)) for rule in RULES}
    kept = of("best on held-out images", 0.0) - of("last", 0.0)
    return found | {"standard": 100 * kept}
