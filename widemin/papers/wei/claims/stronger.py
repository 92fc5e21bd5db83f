"""Claims under stronger attacks and at usual radii: S9, S12."""

from __future__ import annotations

from typing import Any

import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.wei.claims.gains import PAPER_SETS, has_methods, least_step


def S9(table: pd.DataFrame) -> Verdict:
    """SAM's gain is not masking: stronger attacks keep the order and take little."""
    rows = final(table)
    if not has_methods(rows, "standard", "sam") or "restarts_accuracy" not in rows:
        return claims.absent("S9")
    rows = rows[rows["method"].isin(["standard", "sam"])]
    rows = rows[rows["test"].isin(PAPER_SETS) & rows["restarts_accuracy"].notna()]
    if not has_methods(rows, "standard", "sam"):
        return claims.absent("S9")
    limit = claims.criteria()["S9"].thresholds["drop"]
    means = rows.groupby(["test", "rho"])["restarts_accuracy"].mean().unstack()
    kept = (means.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
    lost = _lost(rows, "restarts")
    text = f"at most {100 * lost.max():.1f} points to PGD-50 with 5 restarts"
    sure = rows.reindex(columns=rows.columns.union(["autoattack_accuracy"]))
    sure = sure[sure["autoattack_accuracy"].notna()]
    if len(sure):
        again = _lost(sure, "autoattack")
        images = int(sure["autoattack_images"].min())
        text += f", {100 * again.max():.1f} to AutoAttack ({images} images, "
        text += f"{sure['seed'].nunique()} seed)"
        lost = pd.concat([lost, again])
    small = bool(lost.max() <= limit)
    median = rows.drop_duplicates("key").groupby("rho")["median_margin"].mean()
    margins = ", ".join(f"{m:.1f} at {r:g}" for r, m in median.items())
    return claims.judge(
        "S9",
        rows,
        bool(kept.all() and small) or (bool(kept.all() or small) and "partly"),
        paper="not tested",
        ours=f"the order in ρ is kept in {kept.sum()} of {len(kept)} columns; a "
        f"method loses {text}",
        evidence=f"Losses from PGD-10 on the same images "
        f"({int(rows['strong_images'].min())} of them), mean over seeds. Median logit "
        f"margin by ρ: {margins}; no margin above 16.64 hides a gradient."
        if rows["masked_share"].max() == 0
        else f"Median logit margin by ρ: {margins}.",
        holds_up="yes" if small else "no",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows, lambda part: least_step(part, "restarts_accuracy")
            ),
            0.0,
        ),
    )


def _lost(rows: pd.DataFrame, way: str) -> pd.Series[Any]:
    """Return what a method loses to an attack beyond PGD-10, by set and radius."""
    lost = rows[f"{way}_pgd_accuracy"] - rows[f"{way}_accuracy"]
    return lost.groupby([rows["test"], rows["rho"]]).mean()


def S12(table: pd.DataFrame) -> Verdict:
    """Practical reach: what is left at 8/255."""
    rows = final(table)
    if not has_methods(rows, "standard", "sam"):
        return claims.absent("S12")
    rows = rows[rows["test"] == "linf 8/255"]
    if not has_methods(rows, "standard", "sam"):
        return claims.absent("S12")
    limit = claims.criteria()["S12"].thresholds["accuracy"]
    worst = rows.groupby(["method", "rho", "attack"])["worst_accuracy"].mean()
    sam = float(worst["sam"].max())
    trained = "none was trained here"
    if "adversarial" in worst:
        best = claims.ball_name(worst["adversarial"].idxmax()[1])
        trained = f"{percent(worst['adversarial'].max())} trained on {best}"
    return claims.judge(
        "S12",
        rows[rows["method"].isin(["standard", "sam"])],
        sam > limit,
        paper="not tested beyond 2/255 and 32/255",
        ours=f"standard {percent(worst['standard'].max())}, SAM at most {percent(sam)}",
        evidence="Worst case over our attacks per image, mean over seeds; adversarial "
        f"training: {trained}. SAM would be a substitute at this radius if it kept "
        f"more than {percent(limit)}.",
        holds_up=_holds_at_8(rows),
        seeds=claims.deciding(
            claims.of_each_seed(
                rows[rows["method"] == "sam"],
                lambda part: part.groupby("rho")["worst_accuracy"].mean().max(),
            ),
            limit,
        ),
    )


def _holds_at_8(rows: pd.DataFrame) -> str:
    """Return what AutoAttack says of SAM, where it was run."""
    if "autoattack_accuracy" not in rows:
        return "not tested"
    found = rows.loc[rows["method"] == "sam", "autoattack_accuracy"].dropna()
    if found.empty:
        return "not tested"
    return f"AutoAttack leaves SAM at most {percent(found.max())}"
