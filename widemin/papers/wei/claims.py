"""Chapter 2: Wei et al., sharpness-aware minimisation and robustness."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from widemin.names import norm_and_radius
from widemin.papers.claims import NONE, Array, Part, Rows, claim, drawn, draws, final
from widemin.papers.claims.rows import with_columns
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
    runs = rows.groupby("key", sort=False)
    best = (rows.loc[runs[by].idxmax()].assign(rule=rule) for rule, by in RULES.items())
    return pd.concat(best)


def gains_by_rule(table: pd.DataFrame, rho: float) -> dict[str, float]:
    """Return SAM's gain over standard training under FGSM, in points, by rule.

    And, under "standard", what standard training gains by the epoch that held-out
    images choose over its last one.
    """
    rows = with_columns(chosen_epochs(table), ["fgsm_accuracy"])
    means = rows[rows["attack"] == ""].groupby(["rule", "rho"])["fgsm_accuracy"].mean()
    means = means.unstack().reindex(index=list(RULES), columns=[0.0, rho])
    kept = means.loc["best on held-out images", 0.0] - means.loc["last", 0.0]
    apart = 100 * (means[rho] - means[0.0])
    return apart.to_dict() | {"standard": float(100 * kept)}


def bargain(table: pd.DataFrame, test: str) -> dict[str, float]:
    """Return gains and costs of the most robust SAM and adversarial training.

    For "sam" and "adversarial" the gain in worst-case accuracy over standard training,
    in points, and under "sam_cost" and "adversarial_cost" the ratio of gradients.
    """
    columns = ["worst_accuracy", "gradients"]
    rows = with_columns(final(table), ["test", *columns])
    rows = rows[rows["test"] == test]
    means = rows.groupby(["method", "rho", "attack"])[columns].mean()
    means = means.sort_values("worst_accuracy", na_position="first").astype(float)
    best = means.groupby("method").last()
    worst, cost = best.reindex(["standard", "sam", "adversarial"]).to_numpy().T
    gain, ratio = (100 * (worst - worst[0])).tolist(), (cost / cost[0]).tolist()
    bargains = {"sam": gain[1], "sam_cost": ratio[1], "adversarial": gain[2]}
    return bargains | {"adversarial_cost": ratio[2]}


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


@claim("S1 S2 S4")
@claim("S5", "difference")
def gain(rows: Rows, part: Part) -> Array:
    """An arm's accuracy less that of standard training; S4's is of all test sets."""
    final = rows.final
    if part.claim == "S4":
        final = final[final["test"].isin(PAPER_SETS)]
        means = final.groupby("key")["pgd_accuracy"].mean()
        final = final.drop_duplicates("key")
        final = final.assign(pgd_accuracy=final["key"].map(means))
    cells, rho = rows.cells(_ARM, part.column, of=final), part.given.get("rho", "0")
    arm = cells.of(part.column, rho=float(rho), attack=part.given.get("attack", ""))
    return arm - cells.of(part.column, rho=0, attack="")


@claim("S3 S9", "spearman")
def order(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of accuracy with SAM's radius, means over seeds."""
    plain = rows.final[rows.final["attack"] == ""]
    return rows.cells(["rho"], part.column, of=plain).rank("rho", part.column)


@claim("S5", "spearman")
def price_order(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of natural accuracy with the radius trained on."""
    final = rows.final[(rows.final["attack"] != "") & (rows.final["rho"] == 0)]
    sets = [norm_and_radius(name) for name in final["attack"]]
    final = final.assign(radius=[float(radius) for _, radius in sets])
    final = final[np.array([norm == part.given["norm"] for norm, _ in sets], bool)]
    cells = rows.cells(["radius"], part.column, of=final)
    return cells.rank("radius", part.column)


@claim("S6")
def ahead(rows: Rows, part: Part) -> Array:
    """PGD-10 accuracy, mean of the adversarial trainings, less that of SAM."""
    either = (rows.final["attack"] != "") != (rows.final["rho"] != 0)
    cells = rows.cells(_ARM, part.column, of=rows.final[either])
    trained = (cells.labels["attack"] != "") & (cells.labels["rho"] == 0)
    sam = cells.of(part.column, rho=float(part.given["rho"]), attack="")
    return cells.over(part.column, trained) - sam


@claim("S12")
def reach(rows: Rows, part: Part) -> Array:
    """Worst-case accuracy of SAM at a usual radius."""
    arm = rows.final["rho"].eq(float(part.given["rho"])) & rows.final["attack"].eq("")
    return rows.cells(_ARM, part.column, of=rows.final[arm])[part.column][:, 0]


@claim("S7")
def gradients(rows: Rows, part: Part) -> Array:
    """How far the gradients a step are from what the method should take."""
    method = "sam" if part.part == "a" else "adversarial"
    final = rows.final[rows.final["method"].isin(["standard", method])]
    rows.used.update(final["key"])
    each = (final["gradients"] / final["epochs"]).groupby(final["method"]).mean()
    each = each / each.get("standard", math.nan)
    wanted = 2 if method == "sam" else final["attack_steps"].max() + 1
    return np.array([abs(each.get(method, math.nan) - wanted)])


@claim("S9", "difference")
def lost(rows: Rows, part: Part) -> Array:
    """What the method that loses most loses to a stronger attack, same images."""
    way = "autoattack" if "AutoAttack" in part.criterion else "restarts"
    before, after = f"{way}_pgd_accuracy", f"{way}_accuracy"
    plain = rows.final[rows.final["attack"] == ""]
    cells = rows.cells(["rho"], before, after, of=plain)
    return (cells[before] - cells[after]).max(1)


@claim("S10")
def deviation(rows: Rows, part: Part) -> Array:
    """Root mean square of the standard deviation over seeds, over rows and columns.

    Its draws have the quantiles of chi-square, of seeds less one degrees of freedom a
    row, since columns are of the same networks; draws of seeds never exceed the value.
    """
    from scipy import stats

    radii = [float(rho) for rho in part.given["rho"].split(",")]
    final = rows.final[rows.final["rho"].isin(radii) & (rows.final["attack"] == "")]
    final = final[final["test"].isin(PAPER_SETS)]
    rows.used.update(final["key"])
    columns = ["natural_accuracy", "pgd_accuracy"]
    table = final.pivot_table(index="seed", columns=["rho", "test"], values=columns)
    free = final["key"].nunique() - final["rho"].nunique()
    if free < 1:
        return NONE
    spread = np.sqrt(table.var(ddof=1).mean())
    levels = (np.arange(draws.DRAWS) + 0.5) / draws.DRAWS
    return spread * np.append(1, np.sqrt(free / stats.chi2.ppf(levels, free)))


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

    Ratios by number of weak features d, shape (seeds, radii), the first radius 0, are
    of `theory.sam_on_samples` at p = 0.95 and eta = 0.1.
    """
    of = ratios[int(part.given["d"])]
    each = of[:, -1] / of[:, 0]
    return np.concatenate([[each.mean()], each[drawn(len(each))].mean(1)])
