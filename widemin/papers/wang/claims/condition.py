"""Claims about FOSC itself: D1 to D3, D11, D12."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from widemin.papers import claims
from widemin.papers.claims import Verdict, percent
from widemin.papers.wang import theory
from widemin.papers.wang.claims.runs import named, unswitched
from widemin.statistics import spearman


def D3(table: pd.DataFrame) -> Verdict:
    """FOSC falls to 0 along the attack while the loss spreads."""
    steps = table[table["measured"] == "step"] if not table.empty else table
    if len(steps):
        steps = named(unswitched(steps))
        steps = steps[steps["defence"] == "standard"]
    if steps.empty:
        return claims.absent("D3")
    limits = claims.criteria()["D3"].thresholds
    last = steps[steps["step"] == steps["step"].max()].mean(numeric_only=True)
    median = last["normalised_fosc_q50"]
    spread = last["loss_q75"] - last["loss_q25"]
    gap = last["fosc_q75"] - last["fosc_q25"]
    box = last["normalised_fosc_box_q50"]
    return claims.judge(
        "D3",
        steps,
        bool(median < limits["median"] and spread > limits["ratio"] * gap),
        paper="FOSC close to 0 for all images at step 10, loss spread wide",
        ours=f"median normalised FOSC {median:.3f} at step {last['step']:.0f}",
        evidence=f"Interquartile range of the loss {spread:.3f}, of FOSC {gap:.4f}. "
        f"Pixels that clipping pins at 0 or 1 keep FOSC from 0; counted over the ball "
        f"and the pixel range together the median is {box:.3f}.",
        seeds=claims.deciding(
            claims.of_each_seed(
                steps[steps["step"] == last["step"]],
                lambda part: part["normalised_fosc_q50"].mean(),
            ),
            limits["median"],
        ),
    )


def D2(table: pd.DataFrame) -> Verdict:
    """Lower FOSC, lower accuracy and higher loss."""
    rows = table[table["measured"] == "bin"] if not table.empty else table
    if not rows.empty:
        rows = named(unswitched(rows))
        rows = rows[rows["defence"] == "standard"]
    if rows.empty:
        return claims.absent("D2")
    limits = claims.criteria()["D2"].thresholds
    found = {
        (pool, by): _bin_ranks(part)
        for (pool, by), part in rows.groupby(["pool", "by"])
    }
    networks = rows["key"].nunique()
    raw, normalised = found["all", "fosc"], found["all", "normalised_fosc"]
    last = found["last", "fosc"]

    def passes(pair: tuple[float, float]) -> bool:
        return pair[0] > limits["accuracy"] and pair[1] < limits["loss"]

    def said(pair: tuple[float, float]) -> str:
        return f"{pair[0]:+.2f} with accuracy, {pair[1]:+.2f} with loss"

    return claims.judge(
        "D2",
        rows,
        passes(raw),
        paper="accuracy and FOSC fall together (figure)",
        ours=f"Spearman of FOSC over bins: {said(raw)}",
        evidence="All steps of the training attack together, on test images of "
        f"{networks} network{'' if networks == 1 else 's'}. Where the attack ends "
        f"alone: {said(last)}. FOSC divided by the largest gain: {said(normalised)}."
        + _across_attacks(table),
        holds_up=f"{'yes' if passes(normalised) else 'no'}; normalised",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows[(rows["pool"] == "all") & (rows["by"] == "fosc")],
                lambda part: _bin_ranks(part)[0],
            ),
            limits["accuracy"],
        ),
    )


def _across_attacks(table: pd.DataFrame) -> str:
    """Return how FOSC ranks with accuracy over attacks, instead of over images."""
    rows = table[table["measured"] == "strength"]
    if rows.empty:
        return ""
    rows = named(unswitched(rows))
    rows = rows[rows["defence"] == "standard"]
    means = rows.groupby(["steps_taken", "step_radii"]).mean(numeric_only=True)
    raw = spearman(means["fosc_q50"], means["accuracy"])
    box = spearman(means["normalised_fosc_box_q50"], means["accuracy"])
    return (
        f" Over {len(means)} attacks of different strength on all images the median "
        f"FOSC ranks with accuracy at {raw:+.2f}; normalised over ball and pixel range "
        f"at {box:+.2f}."
    )


def _bin_ranks(part: pd.DataFrame) -> tuple[float, float]:
    """Return how FOSC ranks with accuracy and with loss over bins, mean of seeds."""
    means = part.groupby("bin")[["value", "accuracy", "loss"]].mean()
    return (
        spearman(means["value"], means["accuracy"]),
        spearman(means["value"], means["loss"]),
    )


def D11(table: pd.DataFrame) -> Verdict:
    """FOSC of dynamic training is concentrated in a stage, separated between stages."""
    rows = table[table["measured"] == "epoch"] if not table.empty else table
    if rows.empty or "fosc_mean" not in rows:
        return claims.absent("D11")
    rows = named(unswitched(rows[rows["fosc_mean"].notna()]))
    first = rows.loc[rows["defence"] == "standard", "epochs"]
    rows = rows[rows["epochs"].isin(first)]
    found = {
        defence: claims.of_each_seed(part, separation)
        for defence, part in rows.groupby("defence")
    }
    if not {"standard", "dynamic"} <= set(found):
        return claims.absent("D11")
    ours = {name: float(np.mean(values)) for name, values in found.items()}
    pairs = zip(found["dynamic"], found["standard"], strict=False)
    return claims.judge(
        "D11",
        rows,
        ours["dynamic"] > ours["standard"],
        paper="histograms, apart for dynamic training (figure)",
        ours=f"between stages over within: dynamic {ours['dynamic']:.2f}, standard "
        f"{ours['standard']:.2f}",
        evidence="Variance of the mean FOSC of three epochs (a third, two thirds, the "
        "end of training) over the mean variance within one, where the training attack "
        "stops on test images.",
        holds_up="not applicable",
        seeds=claims.deciding([dynamic - standard for dynamic, standard in pairs], 0.0),
    )


def separation(rows: pd.DataFrame) -> float:
    """Return variance of FOSC between three stages of training over that within."""
    epochs = int(rows["epochs"].max())
    stages = [math.ceil(epochs / 3), math.ceil(2 * epochs / 3), epochs]
    chosen = rows[rows["epoch"].isin(stages)]
    means = chosen.groupby("epoch")[["fosc_mean", "fosc_variance"]].mean()
    within = float(means["fosc_variance"].mean())
    return float(means["fosc_mean"].var(ddof=0)) / within if within else math.nan


def D1() -> Verdict:
    """FOSC has the closed form, against linear programmes."""
    draws, off, least = np.random.default_rng(0), 0.0, math.inf
    for _ in range(50):
        g, epsilon = draws.normal(size=8), float(draws.uniform(0.05, 0.5))
        moved = draws.uniform(-epsilon, epsilon, 8)
        best = -linprog(-g, bounds=[(-epsilon, epsilon)] * 8).fun - float(g @ moved)
        found = float(theory.first_order_gap(g, moved, epsilon))
        off, least = max(off, abs(found - best)), min(least, found)
    corner = float(theory.first_order_gap(g, epsilon * np.sign(g), epsilon))
    return Verdict(
        "D1",
        "reproduced" if off < 1e-9 and least >= 0 and corner < 1e-12 else "partly",
        paper="a closed form, derived",
        ours=f"equal to the optimum of a linear programme to {off:.0e}",
        evidence=f"50 random problems of 8 pixels; the smallest FOSC is {least:.2f}, "
        "at "
        f"the best corner it is {abs(corner):.0f}. It is 0 also where a coordinate's "
        "gradient is 0, wherever the coordinate stands: stationary, not maximal.",
        holds_up="not applicable",
        seeds="nothing: it is mathematics",
    )


def D12() -> Verdict:
    """The mean squared gradient falls as T^-1/2 to a floor linear in delta."""
    lengths, deltas = (10, 100, 1_000), (0.01, 0.1, 1.0)
    runs = [theory.rate_on_toy(t, d) for t in lengths for d in deltas]
    closest = max(measured / bound for measured, bound in runs)

    def exponent(worst: bool, start: float) -> float:
        still = partial(theory.rate_on_toy, worst=worst, start=start, spread=0.0)
        floors = [still(1_000, delta, repeats=1)[0] for delta in deltas]
        return float(np.polyfit(np.log(deltas), np.log(floors), 1)[0])

    at_the_edge, inside = exponent(True, 0.5), exponent(False, 0.0)
    within = abs(at_the_edge - 1) <= claims.criteria()["D12"].thresholds["exponent"]
    return Verdict(
        "D12",
        "reproduced" if closest < 1 and within else "not reproduced",
        paper="a theorem",
        ours=f"at most {percent(closest)} of the bound in {len(runs)} pairs of T and "
        f"δ; the floor grows as δ to the power {at_the_edge:.2f}",
        evidence="A toy problem, strongly concave inside, all constants known, each "
        "inner "
        "problem left at FOSC δ on the worst side. The floor is linear where the "
        "inner maximum just meets the edge of the ball; where it lies inside, the "
        "power "
        f"is {inside:.2f}.",
        holds_up="not applicable",
        seeds="nothing: the toy problem is averaged over 20 runs",
    )
