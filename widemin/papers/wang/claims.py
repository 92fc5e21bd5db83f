"""Chapter 3: Wang et al., convergence and robustness of adversarial training."""

import math
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import Array, Part, Rows, claim, final, with_columns
from widemin.papers.wang import theory
from widemin.statistics import spearman

ATTACKS = ("fgsm", "pgd10", "pgd20", "cw")  # the columns of its tables


def _turned(rows: pd.DataFrame) -> "pd.Series[bool]":
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
    rows = with_columns(final(table), ["gradients"])
    rows = named(rows[~_turned(rows) & rows["step_schedule"].isin(["", "rising"])])
    means = rows.groupby(["defence", "epochs"])["gradients"].mean().groupby("defence")
    return means.first().reindex(["standard", "dynamic", "curriculum"]).to_dict()


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
    final = named(rows.final[~_turned(rows.final)])
    other = ~final["step_schedule"].isin(["", "rising"])
    final["defence"] = final["defence"].mask(other, final["step_schedule"])
    epochs = final.loc[final["defence"] == "standard", "epochs"]
    return final[final["epochs"].isin(epochs if len(epochs) else final["epochs"])]


def _pgd20(rows: pd.DataFrame) -> str:
    """Return the column of PGD-20: the paper's attack where every row has it."""
    own = "wang_pgd20_accuracy"
    return own if own in rows and rows[own].notna().all() else "pgd_accuracy"


# Which defences a claim compares, where not dynamic and standard training.
_OTHER = {
    **{"D6a": ("weak-first", "standard"), "D6b": ("weak-last", "standard")},
    **{"D8": ("dynamic", "curriculum"), "D13a": ("dynamic", "random")},
    **{"D10": ("dynamic", "standard", "curriculum"), "D13b": ("dynamic", "curriculum")},
}


@claim("D6 D7 D8 D9 D10 D13 D14")
def lead(rows: Rows, part: Part) -> Array:
    """One defence's accuracy less another's, or less the better of two."""
    final, column = _defended(rows), part.column
    if "attack_name" in part.given:
        made_on = "natural" if part.claim == "D10" else "wang"
        column = f"{made_on}_{part.given['attack_name']}_accuracy"
    elif part.claim in ("D6", "D13"):
        column = _pgd20(final)
    default = _OTHER.get(part.claim, ("dynamic", "standard"))
    names = _OTHER.get(part.name, default)
    final = final[final["defence"].isin(names)]
    cells = rows.cells(["defence"], column, of=final)
    one, *others = (cells.of(column, defence=name) for name in names)
    return one - np.maximum.reduce(others)


@claim("D2")
def over_bins(rows: Rows, part: Part) -> Array:
    """Spearman's correlation with FOSC over bins, mean of the networks."""
    column = "loss" if "mean loss" in part.criterion else "accuracy"
    bins = rows.of("bin")
    bins = bins[(bins["pool"] == part.given["pool"]) & (bins["by"] == part.given["by"])]
    each = {k: spearman(b["value"], b[column]) for k, b in bins.groupby("key")}
    return _over_networks(rows, pd.Series(each, dtype=float))


def _over_networks(rows: Rows, values: "pd.Series[Any]") -> Array:
    """Return the mean over standard adversarial training's networks of a number."""
    final = _defended(rows)
    standard = final.loc[final["defence"] == "standard", "key"]
    plain = rows.joined(values).loc[lambda r: r["key"].isin(standard)]
    return rows.cells(["epochs"], "value", of=plain).of("value")


def _last_steps(rows: Rows) -> pd.DataFrame:
    """Return the last step of the attack on each network, by key."""
    steps = rows.of("step")
    last = steps.groupby("key")["step"].transform("max")
    return steps[steps["step"] == last].set_index("key")


@claim("D3")
def at_last_step(rows: Rows, part: Part) -> Array:
    """FOSC, or the spread of the loss over its own, at the attack's last step."""
    last = _last_steps(rows)
    if part.statistic == "normalised":
        return _over_networks(rows, last["normalised_fosc_q50"])
    spread = last["loss_q75"] - last["loss_q25"]
    return _over_networks(rows, spread / (last["fosc_q75"] - last["fosc_q25"]))


@claim("D4", "spearman")
def with_fosc(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of PGD-20 accuracy with FOSC over sizes of a step."""
    column, fosc = _pgd20(rows.final), rows.joined(_last_steps(rows)["fosc_q50"])
    return rows.cells(["attack_step"], column, "value", of=fosc).rank(column, "value")


@claim("D4 D5")
def by_steps(rows: Rows, part: Part) -> Array:
    """The lead of some sizes or numbers of steps in PGD-20 accuracy, or its range."""
    column = _pgd20(rows.final)
    by = "attack_step" if part.claim == "D4" else "attack_steps"
    cells = rows.cells([by], column)
    if part.statistic == "range":
        return np.ptp(cells[column], axis=1)
    best = [0.5, 0.25] if part.claim == "D4" else [20, 30]
    return cells.apart(column, cells.labels[by].isin(best))


@claim("D11")
def stages_apart(rows: Rows, part: Part) -> Array:
    """How much further apart stages are for dynamic training, in logarithms."""
    epochs = with_columns(rows.of("epoch"), ["fosc_mean"]).dropna(subset="fosc_mean")
    each = {key: math.log(separation(run)) for key, run in epochs.groupby("key")}
    final = _defended(rows).assign(value=lambda runs: runs["key"].map(each))
    final = final[final["defence"].isin(["dynamic", "standard"])]
    cells = rows.cells(["defence"], "value", of=final)
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
