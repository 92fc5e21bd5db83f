"""Claims about the attack itself: W7, W8, W13."""

from __future__ import annotations

import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent, summary
from widemin.papers.khritankov.claims.long_runs import best_runs, stronger_attacks


def W8(decisive: pd.DataFrame) -> Verdict:
    """The attacked images of long training have moved: they are not the clean ones."""
    rows = final(decisive)
    if rows.empty or "moved_share" not in rows:
        return claims.absent("W8")
    rows = rows[rows["moved_share"].notna()]
    if rows.empty:
        return claims.absent("W8")
    best = best_runs(rows, "fgsm_clipped_accuracy")
    mean = best.mean(numeric_only=True)
    images = int(rows["strong_images"].min())
    return claims.judge(
        "W8",
        best,
        bool(mean["moved_share"] > claims.criteria()["W8"].thresholds["moved"]),
        paper="images drawn, no number",
        ours=f"{summary(best['moved_share'], images)} of the images move at all when "
        "the cross-entropy is computed from clipped probabilities",
        evidence=f"They move by {mean['moved_mean']:.3f} on average, in pixels. From "
        f"logits, {percent(mean['zero_gradient_share'])} of the gradients are zero.",
        holds_up="not applicable",
        seeds=claims.deciding(
            list(best["moved_share"]), claims.criteria()["W8"].thresholds["moved"]
        ),
    )


def W13(decisive: pd.DataFrame) -> Verdict:
    """Natural training beats defences of about 81 %, also in the worst case."""
    rows = final(decisive)
    if rows.empty:
        return claims.absent("W13")
    wanted = claims.criteria()["W13"].thresholds["accuracy"]
    ways = ["fgsm_accuracy", "fgsm_clipped_accuracy"]
    column = max(ways, key=lambda way: best_runs(rows, way)[way].mean())
    best = best_runs(rows, column)
    attacked, worst = best[column].mean(), best["worst_accuracy"].mean()
    images = int(rows["images"].min())
    defended = claims.paper_table("mnist_autoattack")
    listed = ", ".join(
        f"{name} {value:.1f} %"
        for name, value in zip(defended["defence"], defended["autoattack"], strict=True)
    )
    return claims.judge(
        "W13",
        rows,
        bool(min(attacked, worst) > wanted),
        paper=f"above PuVAE and BPFC, about {100 * wanted:.0f} %",
        ours=f"{summary(best[column], images)} under the more lenient FGSM, "
        f"{summary(best['worst_accuracy'], images)} in the worst case",
        evidence="Defended networks under AutoAttack at the same radius, as published: "
        f"{listed}.",
        holds_up="yes" if worst > wanted else "no",
        seeds=claims.deciding(
            list(best[[column, "worst_accuracy"]].min(axis=1)), wanted
        ),
    )


def W7(decisive: pd.DataFrame) -> Verdict:
    """The robustness is real: the worst case is near the FGSM figure."""
    rows = final(decisive)
    if rows.empty:
        return claims.absent("W7")
    best = best_runs(rows, "fgsm_accuracy")
    mean = best.mean(numeric_only=True)
    gap = mean["fgsm_accuracy"] - mean["worst_accuracy"]
    wanted = claims.criteria()["W7"].thresholds["gap"]
    passed = bool(gap <= wanted)
    gaps = list(best["fgsm_accuracy"] - best["worst_accuracy"])
    images = int(rows["images"].min())
    return claims.judge(
        "W7",
        rows,
        passed,
        paper="FGSM alone",
        ours=f"{summary(best['fgsm_accuracy'], images)} under FGSM, "
        f"{summary(best['worst_accuracy'], images)} in the worst case",
        evidence=(
            f"Margin-loss FGSM, one step as well, leaves "
            f"{percent(mean['fgsm_margin_accuracy'])}; margin-loss PGD "
            f"{percent(mean['pgd_margin_accuracy'])}; "
            f"{percent(mean['masked_share'])} of the images have a margin above 16.64."
            + stronger_attacks(mean)
        ),
        holds_up="yes" if passed else "no",
        seeds=claims.deciding(gaps, wanted),
    )
