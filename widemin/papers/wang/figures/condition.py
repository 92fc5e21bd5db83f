"""Figures of FOSC: along attacks, over bins, over training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.figures import BLACK, BLUE, RED, SKY, as_percent
from widemin.papers.wang.claims import named
from widemin.papers.wang.figures.defences import DEFENCES


def ascent(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw median and quartiles of a number along the steps of an attack."""
    steps = table[table["measured"] == "step"]
    steps = named(steps) if len(steps) else steps.assign(defence="")
    for defence, part in steps[steps["step_schedule"] == ""].groupby("defence"):
        mean = part.groupby("step").mean(numeric_only=True)
        colour, _ = DEFENCES[str(defence)]
        low, high = mean[f"{column}_q25"], mean[f"{column}_q75"]
        ax.plot(mean.index, mean[f"{column}_q50"], color=colour, label=defence)
        ax.fill_between(mean.index, low, high, color=colour, alpha=0.2, lw=0)
    ax.set(xlabel="steps taken", ylabel=label)
    ax.legend()
    return ax


def by_bin(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw accuracy and loss over FOSC, bins of as many images each, mean of seeds."""
    rows = table[table["measured"] == "bin"]
    rows = named(rows)[lambda r: r["defence"] == "standard"] if len(rows) else rows
    pools = {"all": (BLUE, "every step"), "last": (RED, "the last step")}
    for ax, (by, column) in zip(
        axes,
        [("fosc", "accuracy"), ("fosc", "loss"), ("normalised_fosc", "accuracy")],
        strict=True,
    ):
        for pool, (colour, label) in pools.items():
            if rows.empty:
                continue
            part = rows[(rows["pool"] == pool) & (rows["by"] == by)]
            means = part.groupby("bin")[["value", "accuracy", "loss"]].mean()
            values = means[column]
            values = as_percent(values) if column == "accuracy" else values
            ax.plot(means["value"], values, "o-", color=colour, label=label)
        ax.set(xlabel="FOSC" if by == "fosc" else "FOSC / largest possible gain")
        ax.set(ylabel="accuracy (%)" if column == "accuracy" else "cross-entropy")
    axes[0].legend(fontsize="small")
    return axes


def by_strength(
    table: pd.DataFrame, axes: Sequence[Sequence[Axes]]
) -> Sequence[Sequence[Axes]]:
    """Draw accuracy, FOSC and loss over size and number of an attack's steps."""
    rows = table[table["measured"] == "strength"]
    rows = named(rows)[lambda r: r["defence"] == "standard"] if len(rows) else rows
    if rows.empty:
        return axes
    kinds = ["accuracy", "normalised_fosc_box", "loss"]
    labels = ["accuracy (%)", "FOSC / largest gain", "cross-entropy"]
    sizes = rows[rows["steps_taken"] == 10], "step_radii", "size of a step (radii)"
    numbers = rows[rows["step_radii"] == 0.25], "steps_taken", "number of steps"
    for row, (part, over, label) in zip(axes, (sizes, numbers), strict=True):
        means = part.groupby(over).mean(numeric_only=True)
        for ax, kind, name in zip(row, kinds, labels, strict=True):
            middle = "accuracy" if kind == "accuracy" else f"{kind}_q50"
            values = means[middle]
            values = as_percent(values) if kind == "accuracy" else values
            ax.plot(means.index, values, "o-", color=BLUE)
            if kind != "accuracy":
                low, high = means[f"{kind}_q25"], means[f"{kind}_q75"]
                ax.fill_between(means.index, low, high, color=BLUE, alpha=0.2, lw=0)
            ax.set(xlabel=label, ylabel=name)
    return axes


def strengths(table: pd.DataFrame) -> dict[str, float]:
    """Return what the least and the greatest number of steps do: means over runs.

    `steps`, `accuracy` (percent) and `fosc` (median, normalised, in the box), each
    with `_few` and `_many`; NaN where nothing was measured.
    """
    rows = table[table["measured"] == "strength"]
    rows = named(rows)[lambda r: r["defence"] == "standard"] if len(rows) else rows
    found = dict.fromkeys(
        (f"{kind}_{end}" for kind in _KINDS for end in ("few", "many")), math.nan
    )
    if rows.empty:
        return found
    rows = rows[rows["step_radii"] == 0.25]
    means = rows.groupby("steps_taken").mean(numeric_only=True).reset_index()
    for kind, (column, unit) in _KINDS.items():
        found[f"{kind}_few"] = float(unit * means[column].iloc[0])
        found[f"{kind}_many"] = float(unit * means[column].iloc[-1])
    return found


_KINDS = {
    "steps": ("steps_taken", 1),
    "accuracy": ("accuracy", 100),
    "fosc": ("normalised_fosc_box_q50", 1),
}


def fosc_by_epoch(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw FOSC where training's attack stops: median and the middle 60 % of images."""
    rows = table[table["measured"] == "epoch"]
    rows = rows.reindex(columns=rows.columns.union([f"fosc_d{i}" for i in range(11)]))
    rows = rows[rows["fosc_d5"].notna()]
    rows = named(rows) if len(rows) else rows.assign(defence="")
    shortest = rows.groupby("defence")["epochs"].transform("min")
    rows = rows[rows["epochs"] == shortest]
    for defence, part in rows.groupby("defence", sort=False):
        colour, _ = DEFENCES[str(defence)]
        means = part.groupby("epoch").mean(numeric_only=True)
        low, high = means["fosc_d2"], means["fosc_d8"]
        ax.plot(means.index, means["fosc_d5"], color=colour, label=defence)
        ax.fill_between(means.index, low, high, color=colour, alpha=0.2, lw=0)
    ax.set(xlabel="epoch", ylabel="FOSC where training's attack stops")
    ax.legend(fontsize="small")
    return ax


def fosc_by_stage(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the distribution of FOSC over test images at three stages, by defence."""
    rows = table[table["measured"] == "epoch"]
    deciles = [f"fosc_d{i}" for i in range(11)]
    rows = rows.reindex(columns=rows.columns.union(deciles))
    rows = rows[rows["fosc_d5"].notna()]
    rows = named(rows) if len(rows) else rows.assign(defence="")
    for ax, defence in zip(axes, ("standard", "curriculum", "dynamic"), strict=True):
        part = rows[rows["defence"] == defence]
        part = part[part["epochs"] == part["epochs"].min()]
        stages = part["epochs"].min() * np.array([1 / 3, 2 / 3, 1])
        for stage, colour in zip(np.ceil(stages), (SKY, BLUE, BLACK), strict=True):
            if part.empty:
                continue
            means = part.loc[part["epoch"] == stage, deciles].mean()
            shares = np.linspace(0, 100, 11)
            ax.plot(means, shares, color=colour, label=f"epoch {stage:.0f}")
        ax.set(title=defence, xlabel="FOSC")
        ax.label_outer()
    axes[0].set(ylabel="images with at most this FOSC (%)")
    axes[-1].legend(fontsize="small")
    return axes
