"""Claims about the attack used in training: D4 to D6."""

from __future__ import annotations

import numpy as np
import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.wang.claims.runs import attack_columns
from widemin.statistics import spearman


def D4(sizes: pd.DataFrame) -> Verdict:
    """Training on half and quarter steps is best, and FOSC nearest 0 there."""
    rows = final(sizes)
    if rows.empty or rows["attack_step"].nunique() < 2:
        return claims.absent("D4")
    column = attack_columns(rows)["pgd20"]
    robust = rows.groupby("attack_step")[column].mean()
    ends = sizes[sizes["measured"] == "step"]
    ends = ends[ends["step"] == ends["step"].max()]
    fosc = ends.groupby("attack_step")["fosc_q50"].mean().reindex(robust.index)
    rank = spearman(fosc, robust)
    best = set(robust.nlargest(2).index)
    limit = claims.criteria()["D4"].thresholds["spearman"]
    held = [best == {0.5, 0.25}, rank < limit]
    return claims.judge(
        "D4",
        rows,
        all(held) or (any(held) and "partly"),
        paper="steps of half and a quarter of the radius (figure)",
        ours="best two: " + " and ".join(f"{size:.3g}" for size in sorted(best)),
        evidence="PGD-20 by step in radii: "
        + ", ".join(f"{k:.3g}: {percent(v)}" for k, v in robust.items())
        + f". Spearman of median FOSC with it {rank:.2f}.",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows,
                lambda part: (
                    part.loc[part["attack_step"].isin([0.25, 0.5]), column].min()
                    - part.loc[~part["attack_step"].isin([0.25, 0.5]), column].max()
                ),
            ),
            0.0,
        ),
    )


def D5(numbers: pd.DataFrame) -> Verdict:
    """Ten to forty steps of the training attack make no difference."""
    rows = final(numbers)
    if rows.empty or rows["attack_steps"].nunique() < 2:
        return claims.absent("D5")
    limit = claims.criteria()["D5"].thresholds["range"]

    column = attack_columns(rows)["pgd20"]

    def spread(part: pd.DataFrame) -> float:
        return float(np.ptp(part.groupby("attack_steps")[column].mean()))

    robust = rows.groupby("attack_steps")[column].mean()
    return claims.judge(
        "D5",
        rows,
        spread(rows) < limit,
        paper="alike, 20 and 30 slightly better (figure)",
        ours=f"a range of {100 * spread(rows):.1f} points under PGD-20",
        evidence="By number of steps: "
        + ", ".join(f"{k}: {percent(v)}" for k, v in robust.items())
        + ".",
        seeds=claims.deciding(claims.of_each_seed(rows, spread), limit),
    )


def D6(schedules: pd.DataFrame) -> Verdict:
    """A weak attack early does not hurt, late it does."""
    rows = final(schedules)
    kinds = {"weak-first", "weak-last", ""}
    if rows.empty or not kinds <= set(rows["step_schedule"]):
        return claims.absent("D6")
    limit = claims.criteria()["D6"].thresholds["margin"]
    column = attack_columns(rows)["pgd20"]
    by = rows.pivot_table(index="seed", columns="step_schedule", values=column)
    early, late = by["weak-first"] - by[""], by["weak-last"] - by[""]
    held = [early.mean() >= -limit, late.mean() < -limit]
    worst = rows.groupby("step_schedule")["worst_accuracy"].mean()
    again = worst["weak-first"] >= worst[""] - limit > worst["weak-last"]
    return claims.judge(
        "D6",
        rows,
        all(held) or (any(held) and "partly"),
        paper="weak early is as good, weak late is not (figure)",
        ours=f"weak early {100 * early.mean():+.1f}, weak late "
        f"{100 * late.mean():+.1f} points under PGD-20",
        evidence="Against PGD throughout. Weak is one step of the "
        "whole radius, for a third of training.",
        holds_up="yes" if again else "no",
        seeds=claims.deciding(list(early), -limit),
    )
