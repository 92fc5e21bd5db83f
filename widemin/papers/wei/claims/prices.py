"""Claims about what adversarial training gains and costs: S5 to S7."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pandas as pd

from widemin.names import norm_and_radius
from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.wei.claims.gains import PAPER_SETS, has_methods


def _paired(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in the paper's four sets, of seeds with adversarial training."""
    if rows.empty:
        return rows
    trained = rows[rows["method"] == "adversarial"]
    rows = rows[rows["seed"].isin(trained["seed"]) & rows["test"].isin(PAPER_SETS)]
    # Sets with fewer seeds than others would leave the claim to those.
    seeds = trained.groupby("attack")["seed"].nunique()
    fewer = seeds[seeds < seeds.max()].index
    return rows[~rows["attack"].isin(fewer)]


def _rising(costs: pd.Series[Any]) -> bool:
    """Return whether the cost grows with the radius, within each norm.

    Args:
        costs: Loss of natural accuracy by the set trained on, e.g. "linf 2/255".
    """
    radii: dict[str, list[tuple[Fraction, float]]] = {}
    for name in costs.index:
        norm, radius = norm_and_radius(str(name))
        radii.setdefault(norm, []).append((radius, costs[name]))
    ordered = [[cost for _, cost in sorted(pairs)] for pairs in radii.values()]
    return all(a < b for row in ordered for a, b in pairwise(row))


def S5(table: pd.DataFrame) -> Verdict:
    """Adversarial training lowers natural accuracy."""
    rows = _paired(final(table))
    if not has_methods(rows, "standard", "adversarial"):
        return claims.absent("S5")
    natural = rows.groupby(["method", "attack"])["natural_accuracy"].mean()
    base = float(natural["standard"].iloc[0])
    costs = base - natural["adversarial"]
    printed = claims.paper_table("sam_table2_cifar10")
    drop = printed.loc[printed["method"] == "ST", "natural"].iloc[0]
    drop -= printed.loc[printed["method"].str.startswith("AT"), "natural"].max()
    verdict = claims.judge(
        "S5",
        rows,
        bool((costs > 0).all()) and _rising(costs),
        paper=f"a loss of at least {drop:.1f} points",
        ours=f"a loss of {100 * costs.min():.1f} points (least of {len(costs)} sets)",
        evidence=f"Standard training reaches {percent(base)}; natural accuracy lost by "
        f"set: {_costs(table)}.",
        holds_up="not applicable",
        seeds=claims.deciding(claims.of_each_seed(rows, _least_cost), 0.0),
    )
    norms = [norm_and_radius(str(name))[0] for name in costs.index]
    if verdict.outcome == "reproduced" and len(norms) == len(set(norms)):
        return replace(
            verdict,
            outcome="not decidable at this scale",
            evidence=f"{verdict.evidence} Sets with {rows['seed'].nunique()} seeds all "
            "lose; whether the loss grows with the radius, two radii of one norm would "
            "tell.",
        )
    return verdict


def _costs(table: pd.DataFrame) -> str:
    """List the natural accuracy lost by each adversarial training, with its seeds."""
    rows = final(table).drop_duplicates("key")
    base = rows[rows["method"] == "standard"]
    lost = []
    for attack, part in rows[rows["method"] == "adversarial"].groupby("attack"):
        alike = base[base["seed"].isin(part["seed"])]
        gap, _, _ = claims.difference(alike, part, "natural_accuracy")
        runs = "1 seed" if len(part) == 1 else f"{len(part)} seeds"
        lost.append((gap, f"{claims.ball_name(str(attack))} {100 * gap:+.1f} ({runs})"))
    return ", ".join(text for _, text in sorted(lost))


def _least_cost(rows: pd.DataFrame) -> float:
    """Return the natural accuracy that the gentlest adversarial training loses."""
    if not has_methods(rows, "standard", "adversarial"):
        return math.nan
    natural = rows.groupby(["method", "attack"])["natural_accuracy"].mean()
    return float(natural["standard"].iloc[0] - natural["adversarial"].max())


def S6(table: pd.DataFrame) -> Verdict:
    """The weakest adversarial training beats the strongest SAM in every column."""
    rows = _paired(final(table))
    if not has_methods(rows, "sam", "adversarial"):
        return claims.absent("S6")

    def ahead(column: str, rows: pd.DataFrame = rows) -> pd.Series[Any]:
        means = rows.groupby(["method", "rho", "attack", "test"])[column].mean()
        trained = means["adversarial"].groupby("test").min()
        return trained - means["sam"].loc[rows["rho"].max()].groupby("test").max()

    lead, stronger = ahead("pgd_accuracy"), ahead("pgd_margin_accuracy")
    return claims.judge(
        "S6",
        rows,
        bool((lead > 0).all()),
        paper="adversarial training is ahead in all four columns",
        ours=f"ahead in {(lead > 0).sum()} of {len(lead)} columns",
        evidence=f"Leads from {100 * lead.min():.1f} to {100 * lead.max():.1f} points.",
        holds_up="yes" if (stronger > 0).all() else "no",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows,
                lambda part: (
                    ahead("pgd_accuracy", part).min()
                    if has_methods(part, "sam", "adversarial")
                    else math.nan
                ),
            ),
            0.0,
        ),
    )


def S7(table: pd.DataFrame) -> Verdict:
    """SAM costs two gradients a step, adversarial training with ten steps eleven."""
    rows = final(table)
    if not has_methods(rows, "standard", "sam"):
        return claims.absent("S7")
    limits = claims.criteria()["S7"].thresholds
    each = (rows["gradients"] / rows["epochs"]).groupby(rows["method"]).mean()
    each = each / each["standard"]
    off = abs(each["sam"] - limits["sam"])
    passed: bool | str = bool(off <= limits["sam_tolerance"])
    text = f"SAM {each['sam']:.1f} gradients a step"
    evidence = (
        "Relative to standard training, counted as they are taken. Seconds of runs "
    )
    evidence += "that share a machine are not compared; `make bench` times a step."
    if "adversarial" in each:
        text += f", adversarial training {each['adversarial']:.1f}"
        steps = int(rows["attack_steps"].max())
        evidence += f" Adversarial training takes {steps} steps here, the paper 10."
        off = abs(each["adversarial"] - limits["adversarial"])
        if passed and off > limits["adversarial_tolerance"]:
            passed = "partly"
    return claims.judge(
        "S7",
        rows,
        passed,
        paper="2 and 11 gradients a step",
        ours=text,
        evidence=evidence,
        holds_up="not applicable",
    )


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
    if not has_methods(rows, "standard"):
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
