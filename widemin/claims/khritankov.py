"""Chapter 1: Khritankov et al., adversarial robustness through wide local minima."""

from __future__ import annotations

from typing import Any

import pandas as pd

from widemin.claims import (
    Verdict,
    absent,
    criteria,
    final,
    judge,
    paper_table,
    percent,
    summary,
)
from widemin.statistics import spearman


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of every (batch size, learning rate)."""
    rows = final(table)
    cells = rows.groupby(["batch_size", "learning_rate"], as_index=False).mean(
        numeric_only=True
    )
    cells["ratio"] = cells["learning_rate"] / cells["batch_size"]
    return cells


def W1(grid: pd.DataFrame) -> Verdict:
    """FGSM accuracy is ruled by learning rate over batch size."""
    if final(grid).empty:
        return absent("W1")
    limits = criteria()["W1"].thresholds
    printed = paper_table("wide_minima_table2")
    printed = printed[printed["acc_mean"] > 100 * limits["clean"]]
    theirs = spearman(
        printed["learning_rate"] / printed["batch_size"], printed["adv_acc_mean"]
    )
    cells = _cells(grid)
    cells = cells[cells["natural_accuracy"] > limits["clean"]]
    if len(cells) < 3:
        clean = percent(limits["clean"])
        return judge(
            "W1",
            final(grid),
            False,
            paper=f"Spearman {theirs:.2f} in {len(printed)} cells",
            ours=f"{len(cells)} cells above {clean} clean accuracy",
            evidence="Too few to rank.",
        )
    by = {
        name: spearman(cells[name], cells["fgsm_accuracy"])
        for name in ("ratio", "learning_rate", "batch_size")
    }
    stronger = spearman(cells["ratio"], cells["pgd_margin_accuracy"])
    others = max(abs(by["learning_rate"]), abs(by["batch_size"]))
    passed = bool(by["ratio"] >= limits["spearman"] and by["ratio"] > others)
    level = cells["pgd_margin_accuracy"].max()
    return judge(
        "W1",
        final(grid),
        passed,
        paper=f"Spearman {theirs:.2f} in {len(printed)} cells",
        ours=f"Spearman {by['ratio']:.2f} in {len(cells)} cells",
        evidence=(
            f"With the learning rate alone it is {by['learning_rate']:.2f}, with the "
            f"batch size alone {by['batch_size']:.2f}."
        ),
        holds_up=_ranked(stronger, level, limits["spearman"]),
    )


def _ranked(correlation: float, level: float, threshold: float) -> str:
    """Return whether a trend survives, or that there is nothing left to rank."""
    if not level > 0.02:
        return f"no; margin-loss PGD leaves at most {percent(level)} in any cell"
    held = "yes" if correlation >= threshold else "no"
    return f"{held}; margin-loss PGD: Spearman {correlation:.2f}"


def _best_runs(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of the cell whose mean of a column is highest."""
    cells = rows.groupby(["batch_size", "learning_rate"])[column].mean()
    size, rate = cells.idxmax()
    return rows[(rows["batch_size"] == size) & (rows["learning_rate"] == rate)]


def W2(decisive: pd.DataFrame) -> Verdict:
    """Long natural training reaches 89 % under FGSM, by one loss or another."""
    rows = final(decisive)
    if rows.empty:
        return absent("W2")
    wanted = criteria()["W2"].thresholds["accuracy"]
    plain = _best_runs(rows, "fgsm_accuracy")["fgsm_accuracy"]
    clipped = _best_runs(rows, "fgsm_clipped_accuracy")["fgsm_clipped_accuracy"]
    passed: bool | str = bool(plain.mean() >= wanted)
    if not passed and clipped.mean() >= wanted:
        passed = "partly"
    images = int(rows["images"].min())
    printed = paper_table("wide_minima_table2")
    best = printed.loc[printed["adv_acc_mean"].idxmax()]
    return judge(
        "W2",
        rows,
        passed,
        paper=(
            f"{best['adv_acc_mean']:.1f} % at batch size {best['batch_size']:.0f}, "
            f"learning rate {best['learning_rate']:g}"
        ),
        ours=f"{summary(plain, images)} from logits, {summary(clipped, images)} from "
        "clipped probabilities, best cell each",
        evidence="The same networks, images and epsilon; only the arithmetic of the "
        "cross-entropy differs.",
        holds_up=_worst(rows),
    )


def _worst(rows: pd.DataFrame) -> str:
    worst = rows.groupby(["batch_size", "learning_rate"])["worst_accuracy"].mean().max()
    held = "yes" if worst >= 0.8 else "no"
    return f"{held}; worst case over all attacks here {percent(worst)}, best cell"


def W3(grid: pd.DataFrame) -> Verdict:
    """No clean accuracy is lost where FGSM accuracy is best."""
    if final(grid).empty:
        return absent("W3")
    cells = _cells(grid)
    best = cells.loc[cells["fgsm_accuracy"].idxmax()]
    loss = cells["natural_accuracy"].max() - best["natural_accuracy"]
    printed = paper_table("wide_minima_table2")
    theirs = printed["acc_mean"].max()
    theirs -= printed.loc[printed["adv_acc_mean"].idxmax(), "acc_mean"]
    return judge(
        "W3",
        final(grid),
        bool(loss <= criteria()["W3"].thresholds["loss"]),
        paper=f"a loss of {theirs:.2f} points in its own table",
        ours=f"a loss of {100 * loss:.2f} points",
        evidence=(
            f"Best FGSM accuracy at batch size {best['batch_size']:.0f}, learning "
            f"rate {best['learning_rate']:g}."
        ),
    )


def _stronger(mean: pd.Series[Any]) -> str:
    """Say what AutoAttack leaves and how far the boundary is, where measured."""
    if "autoattack_accuracy" not in mean or pd.isna(mean["autoattack_accuracy"]):
        return ""
    return (
        f" On {mean['strong_images']:.0f} images AutoAttack leaves "
        f"{percent(mean['autoattack_accuracy'])}; half of them are fooled within "
        f"{mean['distance_q50']:.3f}."
    )


def W5(grid: pd.DataFrame) -> Verdict:
    """Training breaks down at one learning rate over batch size, or at one rate."""
    if grid.empty or not (grid["measured"] == "final").any():
        return absent("W5")
    limits = criteria()["W5"].thresholds
    rows = grid[grid["measured"] == "final"]
    lost = rows["diverged"].eq(True) | rows["constant"].eq(True)
    share = lost.groupby([rows["batch_size"], rows["learning_rate"]]).mean().unstack()
    low, high = share < limits["low"], share > limits["high"]
    sharp = {}
    for size in share.index:
        if size < limits["batch_size"]:
            # Below one rate nearly none diverges, at the next nearly all do.
            steps = low.loc[size].to_numpy()[:-1] & high.loc[size].to_numpy()[1:]
            sharp[size] = bool(steps.any())
        else:
            large = share.columns >= limits["rate"]
            sharp[size] = bool(
                high.loc[size, large].all() & low.loc[size, ~large].all()
            )
    held = [str(size) for size in sharp if sharp[size]]
    printed = paper_table("wide_minima_table2")
    theirs = int((printed["acc_mean"] < 15).sum())
    return judge(
        "W5",
        rows,
        all(sharp.values()),
        paper=f"{theirs} of {len(printed)} cells diverged",
        ours=f"{int((share == 1).sum().sum())} of {share.size} cells diverged in every "
        "run",
        evidence=f"The boundary is as stated at batch size {' and '.join(held)}."
        if held
        else "At no batch size is the boundary as stated.",
        holds_up="not applicable",
    )


def W8(decisive: pd.DataFrame) -> Verdict:
    """The attacked images of long training have moved: they are not the clean ones."""
    rows = final(decisive)
    if rows.empty or "moved_share" not in rows:
        return absent("W8")
    rows = rows[rows["moved_share"].notna()]
    if rows.empty:
        return absent("W8")
    best = _best_runs(rows, "fgsm_clipped_accuracy")
    mean = best.mean(numeric_only=True)
    images = int(rows["strong_images"].min())
    return judge(
        "W8",
        best,
        bool(mean["moved_share"] > criteria()["W8"].thresholds["moved"]),
        paper="images drawn, no number",
        ours=f"{summary(best['moved_share'], images)} of the images move at all when "
        "the cross-entropy is computed from clipped probabilities",
        evidence=f"They move by {mean['moved_mean']:.3f} on average, in pixels. From "
        f"logits, {percent(mean['zero_gradient_share'])} of the gradients are zero.",
        holds_up="not applicable",
    )


def W13(decisive: pd.DataFrame) -> Verdict:
    """Natural training beats defences of about 81 %, also in the worst case."""
    rows = final(decisive)
    if rows.empty:
        return absent("W13")
    wanted = criteria()["W13"].thresholds["accuracy"]
    ways = ["fgsm_accuracy", "fgsm_clipped_accuracy"]
    column = max(ways, key=lambda way: _best_runs(rows, way)[way].mean())
    best = _best_runs(rows, column)
    attacked, worst = best[column].mean(), best["worst_accuracy"].mean()
    images = int(rows["images"].min())
    defended = paper_table("mnist_autoattack")
    listed = ", ".join(
        f"{name} {value:.1f} %"
        for name, value in zip(defended["defence"], defended["autoattack"], strict=True)
    )
    return judge(
        "W13",
        rows,
        bool(min(attacked, worst) > wanted),
        paper=f"above PuVAE and BPFC, about {100 * wanted:.0f} %",
        ours=f"{summary(best[column], images)} under the more lenient FGSM, "
        f"{summary(best['worst_accuracy'], images)} in the worst case",
        evidence="Defended networks under AutoAttack at the same radius, as published: "
        f"{listed}.",
        holds_up="yes" if worst > wanted else "no",
    )


def W7(decisive: pd.DataFrame) -> Verdict:
    """The robustness is real: the worst case is near the FGSM figure."""
    rows = final(decisive)
    if rows.empty:
        return absent("W7")
    best = _best_runs(rows, "fgsm_accuracy")
    mean = best.mean(numeric_only=True)
    gap = mean["fgsm_accuracy"] - mean["worst_accuracy"]
    passed = bool(gap <= criteria()["W7"].thresholds["gap"])
    images = int(rows["images"].min())
    return judge(
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
            + _stronger(mean)
        ),
        holds_up="yes" if passed else "no",
    )
