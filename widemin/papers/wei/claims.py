"""Chapter 2: Wei et al., sharpness-aware minimisation and robustness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import Array, Cells, Part, Rows, claim, drawn, final
from widemin.papers.wei import theory

# The columns of its tables, in their order.
PAPER_SETS = ("linf 1/255", "linf 2/255", "l2 16/255", "l2 32/255")

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


def bargain(table: pd.DataFrame, test: str) -> dict[str, float]:
    """Return what the most robust SAM and adversarial training gain, and cost.

    Args:
        table: Rows of a chapter.
        test: The set in which worst-case accuracy is compared.

    Returns:
        For "sam" and "adversarial" the gain over standard training in points, and under
        "sam_cost" and "adversarial_cost" the ratio of gradients; NaN without rows.
    """
    rows = final(table)
    rows = rows[rows["test"] == test] if len(rows) else rows
    found = dict.fromkeys(
        ["sam", "sam_cost", "adversarial", "adversarial_cost"], math.nan
    )
    if rows.empty or "standard" not in set(rows["method"]):
        return found
    columns = ["worst_accuracy", "gradients"]
    means = rows.groupby(["method", "rho", "attack"])[columns].mean()
    base = means.loc["standard"].iloc[0]
    for method in {"sam", "adversarial"} & set(rows["method"]):
        part = means.loc[method]
        best = part.loc[part["worst_accuracy"].idxmax()]
        gain = 100 * (best["worst_accuracy"] - base["worst_accuracy"])
        found[method] = float(gain)
        found[f"{method}_cost"] = float(best["gradients"] / base["gradients"])
    return found


def gains(table: pd.DataFrame) -> dict[str, float]:
    """Return SAM's least and largest mean gain under PGD-10, in points.

    Over the paper's test sets and SAM's radii; NaN without both arms.
    """
    rows = final(table)
    if rows.empty or not (rows["rho"] == 0).any():
        return dict.fromkeys(["least", "most"], math.nan)
    rows = rows[rows["attack"].eq("") & rows["test"].isin(PAPER_SETS)]
    means = 100 * rows.groupby(["rho", "test"])["pgd_accuracy"].mean().unstack("rho")
    apart = means.drop(columns=0.0).sub(means[0.0], axis=0).stack()
    return {"least": float(apart.min()), "most": float(apart.max())}


_ARM = ("rho", "attack")


def _accuracy(part: Part) -> str:
    """Return the column of accuracy that a part's criterion speaks of."""
    for said, column in (
        ("PGD-50", "restarts_accuracy"),
        ("PGD-10", "pgd_accuracy"),
        ("worst of all attacks", "worst_accuracy"),
    ):
        if said in part.criterion:
            return column
    return "natural_accuracy"


def _averaged(rows: Rows) -> pd.DataFrame:
    """Return a row a network, its accuracies the means over the paper's test sets."""
    chosen = rows.final[rows.final["test"].isin(PAPER_SETS)]
    means = chosen.groupby("key")["pgd_accuracy"].mean()
    once = chosen.drop_duplicates("key")
    return once.assign(pgd_accuracy=once["key"].map(means))


@claim("S1", "S2", "S4")
def gain(rows: Rows, part: Part) -> Array:
    """SAM's accuracy less that of standard training."""
    column = _accuracy(part)
    final = _averaged(rows) if part.claim == "S4" else rows.final
    cells, rho = Cells(final, _ARM, [column]), float(part.given["rho"])
    return cells.of(column, rho=rho, attack="") - cells.of(column, rho=0, attack="")


@claim("S3", statistic="spearman")
@claim("S9", statistic="spearman")
def order(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of accuracy with SAM's radius, means over seeds."""
    column = _accuracy(part)
    cells = Cells(rows.final[rows.final["attack"] == ""], ["rho"], [column])
    return cells.rank(cells.labels["rho"].to_numpy(), cells[column])


@claim("S5", statistic="difference")
def price(rows: Rows, part: Part) -> Array:
    """Natural accuracy of adversarial training less that of standard training."""
    column = "natural_accuracy"
    cells = Cells(rows.final, _ARM, [column])
    trained = cells.of(column, rho=0, attack=part.given["attack"])
    return trained - cells.of(column, rho=0, attack="")


@claim("S5", statistic="spearman")
def price_order(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of natural accuracy with the radius trained on."""
    chosen = rows.final["attack"].str.startswith(part.given["norm"])
    chosen &= rows.final["rho"] == 0
    radius = rows.final["attack"].map(
        lambda name: float(Fraction(name.partition(" ")[2] or 0))
    )
    final = rows.final.assign(radius=radius)[chosen]
    cells = Cells(final, ["radius"], ["natural_accuracy"])
    return cells.rank(cells.labels["radius"].to_numpy(), cells["natural_accuracy"])


@claim("S6")
def ahead(rows: Rows, part: Part) -> Array:
    """PGD-10 accuracy, mean of the adversarial trainings, less that of SAM."""
    cells = Cells(rows.final, _ARM, ["pgd_accuracy"])
    sets = (cells.labels["attack"] != "") & (cells.labels["rho"] == 0)
    trained = cells["pgd_accuracy"][:, sets.to_numpy()]
    rho = float(part.given["rho"])
    sam = cells.of("pgd_accuracy", rho=rho, attack="")
    return trained.mean(1) - sam if trained.size else np.full(len(sam), np.nan)


@claim("S7")
def gradients(rows: Rows, part: Part) -> Array:
    """How far the gradients a step are from what the method should take."""
    final = rows.final
    each = (final["gradients"] / final["epochs"]).groupby(final["method"]).mean()
    each = each / each.get("standard", math.nan)
    steps = final.loc[final["method"] == "adversarial", "attack_steps"].max()
    wanted = ("sam", 2) if part.part == "a" else ("adversarial", steps + 1)
    return np.array([abs(each.get(wanted[0], math.nan) - wanted[1])])


@claim("S9", statistic="difference")
def lost(rows: Rows, part: Part) -> Array:
    """What the method that loses most loses to a stronger attack, same images."""
    way = "autoattack" if "AutoAttack" in part.criterion else "restarts"
    columns = [f"{way}_pgd_accuracy", f"{way}_accuracy"]
    plain = rows.final[rows.final["attack"] == ""]
    cells = Cells(plain, ["rho"], columns)
    return (cells[columns[0]] - cells[columns[1]]).max(1)


@claim("S10")
def deviation(rows: Rows, part: Part) -> Array:
    """Root mean square of the standard deviation over seeds, over rows and columns."""
    radii = [float(rho) for rho in part.given["rho"].split(",")]
    final = rows.final[rows.final["rho"].isin(radii) & (rows.final["attack"] == "")]
    final = final[final["test"].isin(PAPER_SETS)]
    columns = ["natural_accuracy", "pgd_accuracy"]
    table = final.pivot_table(index="seed", columns=["rho", "test"], values=columns)
    values = table.to_numpy(float)
    if len(values) < 2:
        return np.array([np.nan])
    place = np.vstack([np.arange(len(values)), drawn(len(values))])
    found = np.sqrt(np.nanmean(values[place].var(1, ddof=1), axis=1))
    return np.where(np.ptp(place, 1) > 0, found, np.nan)  # one seed has no deviation


@claim("S12")
def reach(rows: Rows, part: Part) -> Array:
    """Worst-case accuracy of SAM at a usual radius."""
    cells = Cells(rows.final, _ARM, ["worst_accuracy"])
    return cells.of("worst_accuracy", rho=float(part.given["rho"]), attack="")


@claim("S8")
def theorems(rows: Any, part: Part) -> Array:
    """1 where theorems 4.1 to 4.5 agree with the exact solution of their model."""
    p, eta, d, radius = 0.95, 0.1, 100, 1.0
    best = theory.optimum(p, eta, d)
    shift = theory.sam_optimum(p, eta, d, radius) - best
    printed = theory.sam_shift(p, eta, d, radius, "printed")
    right = theory.equivalent_adversarial_epsilon(eta, d, radius)
    theirs = eta * radius**2 / (1.5 + radius**2)
    attacked = theory.adversarial_optimum(p, eta, d, eta / 2)

    def peaks(weight: float, mean: float) -> bool:
        at = theory.accuracy([weight - 0.1, weight, weight + 0.1], p, mean, d)
        return bool(at.argmax() == 1)

    holds = {
        "a": peaks(best, eta),
        "b": peaks(attacked, eta / 2),
        "c": shift > 0,
        "d": abs(printed / shift - 1) < 0.1,
        "e": abs(theirs / right - 1) < 0.1,
    }
    return np.array([float(holds[part.part])])


@claim("S11")
def trained_ratio(ratios: Mapping[int, Array], part: Part) -> Array:
    """The robust weight over the weak ones, largest radius against none.

    Args:
        ratios: Number of weak features d to ratios, shape (seeds, radii), the first
            radius 0, of `theory.sam_on_samples` at p = 0.95 and eta = 0.1.
        part: Which.
    """
    of = ratios[int(part.given["d"])]
    each = of[:, -1] / of[:, 0]
    return np.concatenate([[each.mean()], each[drawn(len(each))].mean(1)])
