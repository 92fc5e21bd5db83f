"""Claims about the defences: D7 to D10, D13, D14."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.wang.claims.runs import (
    ATTACKS,
    all_above,
    attack_columns,
    in_points,
    lead_over,
    listed,
    named,
    printed_lead,
    runs_of,
    unswitched,
)


def _lead(table: pd.DataFrame, name: str, than: str) -> Verdict:
    """Judge whether dynamic training beats another under all of the attacks."""
    rows = runs_of(table, *{"standard": 0, than: 0, "dynamic": 0})
    if rows.empty:
        return claims.absent(name)
    columns = attack_columns(rows)
    own = columns["pgd20"].startswith("wang")
    columns = {w: c for w, c in columns.items() if than == "standard" or w != "fgsm"}
    found = {way: lead_over(rows, column, than) for way, column in columns.items()}
    worst, error = lead_over(rows, "worst_accuracy", than)
    theirs = ", ".join(f"{printed_lead('mnist', way, than):+.2f}" for way in columns)
    evidence = "Means and standard errors; "
    evidence += "the paper's own attacks." if own else "PGD-20 and, as C&W, PGD-20 on "
    evidence += "" if own else "the margin by this book's rule of steps."
    return claims.judge(
        name,
        rows,
        all_above(found, claims.criteria()[name].thresholds["errors"]),
        paper=f"{theirs} points on MNIST",
        ours=f"{listed(found)} points at equal epochs",
        evidence=f"{evidence} Worst case over ours {100 * worst:+.1f} points."
        + _equal_cost(table, than),
        holds_up="yes" if worst > max(0.0, error) else "no",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows, lambda part: lead_over(part, columns["pgd20"], than)[0]
            ),
            0.0,
            about=", PGD-20",
        ),
    )


def _equal_cost(table: pd.DataFrame, than: str) -> str:
    """Return a sentence on the runs that took as many gradients, where there are."""
    rows = named(unswitched(final(table)))
    longer = rows[rows["defence"] == "dynamic"]
    longer = longer[longer["epochs"] == longer["epochs"].max()]
    other = rows[rows["defence"] == than]
    if than == "curriculum":
        other = other[other["epochs"] == other["epochs"].max()]
    pair = pd.concat([longer, other])
    gain, error = lead_over(pair, attack_columns(pair)["pgd20"], than)
    if math.isnan(gain) or longer["epochs"].max() == other["epochs"].max():
        return ""
    cost = longer["gradients"].mean() / other["gradients"].mean()
    return (
        f" At {cost:.2f} of its gradients, over {longer['epochs'].max()} epochs: "
        f"PGD-20 {in_points(gain, error)}."
    )


def D7(table: pd.DataFrame) -> Verdict:
    """Dynamic training is more robust than standard adversarial training."""
    return _lead(table, "D7", "standard")


def D8(table: pd.DataFrame) -> Verdict:
    """Dynamic training is more robust than a curriculum of rising step numbers."""
    return _lead(table, "D8", "curriculum")


def D9(table: pd.DataFrame) -> Verdict:
    """Dynamic training keeps more natural accuracy than standard."""
    rows = runs_of(table)
    if rows.empty:
        return claims.absent("D9")
    gain, error = lead_over(rows, "natural_accuracy")
    return claims.judge(
        "D9",
        rows,
        gain > 0,
        paper=f"{printed_lead('mnist', 'clean'):+.2f} points",
        ours=f"{in_points(gain, error, 2)} points at equal epochs",
        evidence="The same weights at the start, the same order of images.",
        holds_up="not applicable",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows, lambda part: lead_over(part, "natural_accuracy")[0]
            ),
            0.0,
        ),
    )


def D10(table: pd.DataFrame) -> Verdict:
    """Against transferred attacks dynamic training is the best in every column."""
    rows = runs_of(table, "standard", "curriculum", "dynamic")
    columns = [
        f"{kind}_{way}_accuracy" for kind in ("natural", "robust") for way in ATTACKS
    ]
    if rows.empty or not set(columns) <= set(rows):
        return claims.absent("D10")
    means = rows.groupby("defence")[columns].mean()
    first = (means.loc["dynamic"] > means.drop("dynamic").max()).sum()
    lead = means.loc["dynamic"] - means.drop("dynamic").max()
    return claims.judge(
        "D10",
        rows,
        bool(first == len(columns)) or (bool(first) and "partly"),
        paper="dynamic is the best in all 8 columns (two data sets)",
        ours=f"dynamic is the best in {first} of {len(columns)} columns",
        evidence=f"Leads from {100 * lead.min():+.1f} to {100 * lead.max():+.1f} "
        "points. Columns here: four attacks made on a naturally and on an "
        "adversarially trained network of another seed.",
        holds_up="not applicable",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows,
                lambda part: float(
                    np.mean([lead_over(part, c, "standard")[0] for c in columns])
                ),
            ),
            0.0,
        ),
    )


def D13(table: pd.DataFrame) -> Verdict:
    """The gain is due to FOSC control, not to fewer steps early."""
    rows = final(table)
    if rows.empty:
        return claims.absent("D13")
    plain = unswitched(rows)
    plain = plain[plain["fosc_max"] > 0]
    plain = plain[plain["epochs"] == plain["epochs"].min()]
    controls = rows[rows["step_schedule"].isin(["random", "rising"])]
    controls = controls[controls["epochs"].isin(plain["epochs"])]
    if plain.empty or controls["step_schedule"].nunique() < 2:
        return claims.absent("D13")
    errors, found = claims.criteria()["D13"].thresholds["errors"], {}
    for schedule, part in controls.groupby("step_schedule"):
        pair = pd.concat(
            [plain.assign(defence="dynamic"), part.assign(defence=str(schedule))]
        )
        found[f"{schedule} steps"] = lead_over(
            pair, attack_columns(pair)["pgd20"], str(schedule)
        )
    cost = controls.groupby("step_schedule")["gradients"].mean()
    cost = cost / plain["gradients"].mean()
    return claims.judge(
        "D13",
        pd.concat([plain, controls]),
        all_above(found, errors),
        paper="argued from the figures",
        ours=f"dynamic against {listed(found)} points under PGD-20",
        evidence="Gradients relative to dynamic's: "
        + ", ".join(f"{name} {value:.2f}" for name, value in cost.items())
        + ".",
        seeds="see D7",
    )


def D14(table: pd.DataFrame) -> Verdict:
    """The order dynamic above standard is kept under AutoAttack."""
    rows = runs_of(table)
    if rows.empty or "autoattack_accuracy" not in rows:
        return claims.absent("D14")
    sure = rows[rows["autoattack_accuracy"].notna()]
    if sure["defence"].nunique() < 2:
        return claims.absent("D14")
    gain, _ = lead_over(sure, "autoattack_accuracy")
    restarts, error = lead_over(rows, "restarts_accuracy")
    means = sure.groupby("defence")["autoattack_accuracy"].mean()
    images = int(sure["autoattack_images"].min())
    return claims.judge(
        "D14",
        rows,
        gain > 0,
        paper="not tested",
        ours=f"AutoAttack leaves standard {percent(means['standard'])} and dynamic "
        f"{percent(means['dynamic'])}",
        evidence=f"{images} images, {sure['seed'].nunique()} seed, so one image is "
        f"{100 / images:.1f} points. PGD on the margin with 5 restarts, "
        f"{int(rows['strong_images'].min())} images: {100 * restarts:+.1f} points"
        + ("." if math.isnan(error) else f", standard error {100 * error:.1f}."),
        holds_up="yes" if gain > 0 else "no",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows, lambda part: lead_over(part, "restarts_accuracy")[0]
            ),
            0.0,
            about=", PGD with restarts",
        ),
    )
