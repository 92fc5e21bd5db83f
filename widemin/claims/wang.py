"""Chapter 3: Wang et al., convergence and robustness of adversarial training."""

from __future__ import annotations

import pandas as pd

from widemin.claims import Verdict, absent, criteria, final, judge, paper_table


def D3(table: pd.DataFrame) -> Verdict:
    """FOSC falls to 0 along the attack while the loss spreads."""
    steps = table[table["measured"] == "step"] if not table.empty else table
    steps = steps[steps["method"] == "adversarial"] if len(steps) else steps
    if steps.empty:
        return absent("D3")
    limits = criteria()["D3"].thresholds
    last = steps[steps["step"] == steps["step"].max()].mean(numeric_only=True)
    median = last["normalised_fosc_q50"]
    spread = last["loss_q75"] - last["loss_q25"]
    gap = last["fosc_q75"] - last["fosc_q25"]
    box = last["normalised_fosc_box_q50"]
    return judge(
        "D3",
        steps,
        bool(median < limits["median"] and spread > limits["ratio"] * gap),
        paper="FOSC close to 0 for all images at step 10, loss spread wide",
        ours=f"median normalised FOSC {median:.3f} at step {last['step']:.0f}",
        evidence=f"Interquartile range of the loss {spread:.3f}, of FOSC {gap:.4f}. "
        f"Pixels that clipping pins at 0 or 1 keep FOSC from 0; counted over the ball "
        f"and the pixel range together the median is {box:.3f}.",
    )


def _defences(table: pd.DataFrame) -> pd.DataFrame:
    """Return final rows of standard and of equally long dynamic training."""
    rows = final(table)
    if rows.empty:
        return rows
    rows = rows[rows["method"].isin(["adversarial", "dynamic"])]
    epochs = rows.loc[rows["method"] == "adversarial", "epochs"]
    return rows[rows["epochs"].isin(epochs)]


def _difference(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Return dynamic minus standard, paired by seed, and its standard error."""
    by = rows.pivot_table(index="seed", columns="method", values=column)
    gain = (by["dynamic"] - by["adversarial"]).dropna()
    error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else float("nan")
    return float(gain.mean()), float(error)


def D7(table: pd.DataFrame) -> Verdict:
    """Dynamic training is more robust than standard adversarial training."""
    rows = _defences(table)
    if rows.empty or rows["method"].nunique() < 2:
        return absent("D7")
    printed = paper_table("dynamic_table1")
    printed = printed[printed["dataset"] == "mnist"].set_index("defense")
    theirs = printed.loc["dynamic", "pgd20"] - printed.loc["standard", "pgd20"]
    columns = ("fgsm_accuracy", "pgd_accuracy", "pgd_margin_accuracy")
    found = {column: _difference(rows, column) for column in columns}
    errors = criteria()["D7"].thresholds["errors"]
    worst, error = _difference(rows, "worst_accuracy")
    text = ", ".join(
        f"{name.removesuffix('_accuracy').replace('_', ' ')} {100 * gain:+.1f}"
        for name, (gain, _) in found.items()
    )
    return judge(
        "D7",
        rows,
        all(gain > errors * error for gain, error in found.values()),
        paper=f"PGD-20 {theirs:+.2f} points",
        ours=f"{text} points at equal epochs",
        evidence=f"Worst case {100 * worst:+.1f} points.",
        holds_up="yes" if worst > error else "no",
    )


def D9(table: pd.DataFrame) -> Verdict:
    """Dynamic training keeps more natural accuracy than standard."""
    rows = _defences(table)
    if rows.empty or rows["method"].nunique() < 2:
        return absent("D9")
    printed = paper_table("dynamic_table1")
    printed = printed[printed["dataset"] == "mnist"].set_index("defense")["clean"]
    gain, _ = _difference(rows, "natural_accuracy")
    return judge(
        "D9",
        rows,
        gain > 0,
        paper=f"{printed['dynamic'] - printed['standard']:+.2f} points",
        ours=f"{100 * gain:+.2f} points at equal epochs",
        evidence="Paired by seed: same weights at the start, same order of images.",
        holds_up="not applicable",
    )
