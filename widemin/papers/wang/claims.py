"""Chapter 3: Wang et al., convergence and robustness of adversarial training."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import Array, Cells, Part, Rows, claim, final
from widemin.papers.wang import theory
from widemin.statistics import spearman

ATTACKS = ("fgsm", "pgd10", "pgd20", "cw")  # the columns of its tables


def _turned(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return True for runs with a switch of dynamic training turned."""
    turned = rows["fosc_from_start"].astype(bool) | rows["loss_weighted"].astype(bool)
    return turned | (rows["rate_decay"].astype(float) > 0)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the name of their defence, as the paper has it."""
    names = {"standard": "unsecured", "adversarial": "standard", "dynamic": "dynamic"}
    defence = rows["method"].map(names)
    rising = rows["step_schedule"].eq("rising")
    return rows.assign(defence=defence.mask(rising, "curriculum"))


def costs(table: pd.DataFrame) -> dict[str, float]:
    """Return the gradients an image that the shortest run of each defence took."""
    rows = final(table)
    found = dict.fromkeys(["standard", "dynamic", "curriculum"], math.nan)
    if rows.empty:
        return found
    rows = rows[~_turned(rows) & rows["step_schedule"].isin(["", "rising"])]
    means = named(rows).groupby(["defence", "epochs"])["gradients"].mean()
    for defence in set(found) & set(means.index.get_level_values("defence")):
        found[defence] = float(means[defence].iloc[0])
    return found


def separation(rows: pd.DataFrame) -> float:
    """Return variance of FOSC between three stages of training over that within."""
    epochs = int(rows["epochs"].max())
    stages = [math.ceil(epochs / 3), math.ceil(2 * epochs / 3), epochs]
    chosen = rows[rows["epoch"].isin(stages)]
    means = chosen.groupby("epoch")[["fosc_mean", "fosc_variance"]].mean()
    within = float(means["fosc_variance"].mean())
    return float(means["fosc_mean"].var(ddof=0)) / within if within else math.nan


def _defended(rows: Rows) -> pd.DataFrame:
    """Return final rows of equal epochs with their defence, or their schedule."""
    rows_ = named(rows.final[~_turned(rows.final)])
    other = ~rows_["step_schedule"].isin(["", "rising"])
    rows_["defence"] = rows_["defence"].mask(other, rows_["step_schedule"])
    epochs = rows_.loc[rows_["defence"] == "standard", "epochs"]
    return rows_[rows_["epochs"].isin(epochs if len(epochs) else rows_["epochs"])]


def _pgd20(rows: pd.DataFrame) -> str:
    """Return the column of PGD-20: the paper's attack where every row has it."""
    own = "wang_pgd20_accuracy"
    return own if own in rows and rows[own].notna().all() else "pgd_accuracy"


_OTHER = {
    **{"D6a": ("weak-first", "standard"), "D6b": ("weak-last", "standard")},
    **{"D8": ("dynamic", "curriculum"), "D13a": ("dynamic", "random")},
    "D13b": ("dynamic", "curriculum"),
}


@claim("D6", "D7", "D8", "D9", "D13", "D14")
def lead(rows: Rows, part: Part) -> Array:
    """One defence's accuracy less another's."""
    final = _defended(rows)
    column = {"D9": "natural_accuracy", "D14": "autoattack_accuracy"}.get(part.claim)
    if "attack_name" in part.given:
        column = f"wang_{part.given['attack_name']}_accuracy"
    column = column or _pgd20(final)
    one, than = _OTHER.get(part.name) or _OTHER.get(part.claim, ("dynamic", "standard"))
    cells = Cells(final, ["defence"], [column])
    return cells.of(column, defence=one) - cells.of(column, defence=than)


@claim("D10")
def transferred(rows: Rows, part: Part) -> Array:
    """Dynamic training's lead over the better of two under a transferred attack."""
    column = f"natural_{part.given['attack_name']}_accuracy"
    cells = Cells(_defended(rows), ["defence"], [column])
    others = [cells.of(column, defence=name) for name in ("standard", "curriculum")]
    return cells.of(column, defence="dynamic") - np.maximum(*others)


@claim("D2")
def over_bins(rows: Rows, part: Part) -> Array:
    """Spearman's correlation with FOSC over bins, mean of the networks."""
    column = "loss" if "mean loss" in part.criterion else "accuracy"
    bins = rows.of("bin")
    if bins.empty:
        return np.array([np.nan])
    bins = bins[(bins["pool"] == part.given["pool"]) & (bins["by"] == part.given["by"])]
    each = {k: spearman(b["value"], b[column]) for k, b in bins.groupby("key")}
    return _over_networks(rows, pd.Series(each, dtype=float))


def _over_networks(rows: Rows, values: pd.Series[Any]) -> Array:
    """Return the mean over standard adversarial training's networks of a number."""
    plain = rows.joined(values).loc[lambda r: r["key"].isin(_standard(rows))]
    return Cells(plain, ["epochs"], ["value"]).of("value")


def _standard(rows: Rows) -> pd.Series[Any]:
    final = _defended(rows)
    return final.loc[final["defence"] == "standard", "key"]


@claim("D3")
def at_last_step(rows: Rows, part: Part) -> Array:
    """FOSC, or the spread of the loss over its own, at the attack's last step."""
    steps = rows.of("step")
    if steps.empty:
        return np.array([np.nan])
    last = steps[steps["step"] == steps["step"].max()].set_index("key")
    if part.statistic == "normalised":
        return _over_networks(rows, last["normalised_fosc_q50"])
    spread = last["loss_q75"] - last["loss_q25"]
    return _over_networks(rows, spread / (last["fosc_q75"] - last["fosc_q25"]))


@claim("D4")
def by_step_size(rows: Rows, part: Part) -> Array:
    """The lead of steps of eps/2 and eps/4, or PGD-20 accuracy's rank with FOSC."""
    column = _pgd20(rows.final)
    if part.statistic == "difference":
        cells = Cells(rows.final, ["attack_step"], [column])
        best = cells.labels["attack_step"].isin([0.5, 0.25]).to_numpy()
        return _apart(cells[column], best)
    steps = rows.of("step")
    if steps.empty:
        return np.array([np.nan])
    ends = steps[steps["step"] == steps.groupby("key")["step"].transform("max")]
    fosc = rows.joined(ends.set_index("key")["fosc_q50"])
    cells = Cells(fosc, ["attack_step"], [column, "value"])
    return cells.rank(cells[column], cells["value"])


def _apart(values: Array, chosen: Array) -> Array:
    """Return the mean over chosen cells less that over the others."""
    if not chosen.any() or chosen.all():
        return np.full(len(values), np.nan)
    return values[:, chosen].mean(1) - values[:, ~chosen].mean(1)


@claim("D5")
def by_step_number(rows: Rows, part: Part) -> Array:
    """The range of PGD-20 accuracy over numbers of steps, or the lead of 20 and 30."""
    column = _pgd20(rows.final)
    cells = Cells(rows.final, ["attack_steps"], [column])
    if part.statistic == "range":
        return np.ptp(cells[column], axis=1)
    middle = cells.labels["attack_steps"].isin([20, 30]).to_numpy()
    return _apart(cells[column], middle)


@claim("D11")
def stages_apart(rows: Rows, part: Part) -> Array:
    """How much further apart stages are for dynamic training, in logarithms."""
    epochs = rows.of("epoch")
    if "fosc_mean" not in epochs:
        return np.array([np.nan])
    epochs = epochs[epochs["fosc_mean"].notna()]
    each = {key: math.log(separation(run)) for key, run in epochs.groupby("key")}
    values = rows.joined(pd.Series(each, dtype=float))
    joined = _defended(replace(rows, final=values))
    cells = Cells(joined, ["defence"], ["value"])
    return cells.of("value", defence="dynamic") - cells.of("value", defence="standard")


@claim("D1")
def closed_form(rows: Any, part: Part) -> Array:
    """How far FOSC is from linear programmes, from 0 below it, and at a corner."""
    return np.array([_gaps()["abc".index(part.part)]])


@cache
def _gaps() -> tuple[float, float, float]:
    from scipy.optimize import linprog

    draws, off, least = np.random.default_rng(0), 0.0, math.inf
    for _ in range(50):
        g, epsilon = draws.normal(size=8), float(draws.uniform(0.05, 0.5))
        moved = draws.uniform(-epsilon, epsilon, 8)
        best = -linprog(-g, bounds=[(-epsilon, epsilon)] * 8).fun - float(g @ moved)
        gap = float(theory.first_order_gap(g, moved, epsilon))
        off, least = max(off, abs(gap - best)), min(least, gap)
    corner = abs(float(theory.first_order_gap(g, epsilon * np.sign(g), epsilon)))
    return off, max(0.0, -least), corner


@claim("D12")
def toy_rate(rows: Any, part: Part) -> Array:
    """The measured mean squared gradient over its bound; its floor's exponent."""
    deltas = (0.01, 0.1, 1.0)
    if part.statistic == "ratio":
        runs = [theory.rate_on_toy(t, d) for t in (10, 100, 1_000) for d in deltas]
        return np.array([max(measured / bound for measured, bound in runs)])
    still = partial(theory.rate_on_toy, start=0.5, spread=0.0)
    floors = [still(1_000, delta, repeats=1)[0] for delta in deltas]
    return np.array([abs(np.polyfit(np.log(deltas), np.log(floors), 1)[0] - 1)])
