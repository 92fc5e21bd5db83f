"""Figures and tables of accuracy, by method, cost and epoch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.claims import final, paper_table
from widemin.papers.figures import COLOURS, as_percent, ball_name, plain_log, spread
from widemin.papers.wei.claims import PAPER_SETS, RULES, chosen_epochs
from widemin.papers.wei.figures.methods import (
    colour_of,
    line_looks,
    strength_of,
    with_names,
)


def robust_by_method(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw robust accuracy by training method, a panel per test set."""
    rows = final(table)
    if rows.empty:
        return axes
    rows = rows.assign(name=rows.apply(strength_of, axis=1))
    names = list(dict.fromkeys(rows["name"]))
    ways = (("pgd_accuracy", -0.1), ("worst_accuracy", 0.1))  # filled; hollow beside it
    top = 100 * rows[[column for column, _ in ways]].max().max() + 5
    for ax, (test, part) in zip(axes, rows.groupby("test", sort=False), strict=True):
        for position, name in enumerate(names):
            of_method = part[part["name"] == name]
            colour = COLOURS[of_method["method"].iloc[0]]
            for column, shift in ways:
                ax.scatter(
                    np.full(len(of_method), position + shift),
                    as_percent(of_method[column]),
                    color=colour,
                    facecolor=colour if shift < 0 else "none",
                )
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
        ax.set(title=ball_name(str(test)), ylim=(0, top))
        ax.label_outer()
    axes[0].figure.supylabel("robust accuracy (%)", fontsize="medium")
    return axes


def trade_off(table: pd.DataFrame, ax: Axes, test: str) -> Axes:
    """Draw worst-case against natural accuracy, a point per network."""
    rows = with_names(table)
    rows = rows[rows["test"] == test]
    names = list(dict.fromkeys(rows["name"]))
    markers = dict(zip(names, itertools.cycle("osD^vPX*<>ph")))
    augmented = rows["augment"] == "crop+flip"
    for (name, other), part in rows.groupby(["name", augmented], sort=False):
        colour = colour_of(part.iloc[0])
        ax.scatter(
            as_percent(part["natural_accuracy"]),
            as_percent(part["worst_accuracy"]),
            color=colour,
            facecolor="none" if other else colour,
            marker=markers[name],
            label=f"{name}, crop and flip" if other else name,
        )
    ax.set(xlabel="natural accuracy (%)")
    ax.set(ylabel=f"worst-case accuracy, {ball_name(test)} (%)")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return ax


def beside_the_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Return ours and the paper's CIFAR-10 table, two rows a method, in percent.

    Ours with the half-width of the 95 % interval over seeds. Cost is ours alone.
    """
    printed = paper_table("sam_table2_cifar10").fillna("")
    kinds = {"ST": "standard", "SAM": "SAM", "AT-Linf": "AT L∞", "AT-L2": "AT L2"}
    theirs = {
        f"{kinds[row[1]]} {row[3]}".strip(): [f"{value:g}" for value in row[4:]]
        for row in printed.itertuples()
    }
    heads = ["natural", *(ball_name(test) for test in PAPER_SETS)]
    cost = ["gradients an image", "core seconds", "seeds"]
    found = {}
    for name, rows in with_names(table).groupby("name", sort=False):
        one = rows.drop_duplicates("key")
        ours = [spread(one, "natural_accuracy")]
        for test in PAPER_SETS:
            ours.append(spread(rows[rows["test"] == test], "pgd_accuracy"))
        ours += [f"{one[c].mean():.0f}" for c in ("gradients", "train_seconds")]
        found[str(name), "ours"] = [*ours, str(one["seed"].nunique())]
        if name in theirs:
            found[str(name), "paper"] = [*theirs[str(name)], "", "", ""]
    index = pd.MultiIndex.from_tuples(found, names=[None, None]) if found else None
    return pd.DataFrame(list(found.values()), index, columns=[*heads, *cost])


def robust_by_cost(table: pd.DataFrame, ax: Axes, test: str) -> Axes:
    """Draw worst-case accuracy over the gradients that training took, a point a run."""
    rows = with_names(table)
    rows = rows[rows["test"] == test]
    labels = []
    for name, part in rows.groupby("name", sort=False):
        worst = as_percent(part["worst_accuracy"])
        ax.plot(part["gradients"], worst, "o", color=colour_of(part.iloc[0]))
        label = str(name).removeprefix("AT ")
        labels.append((part["gradients"].mean(), worst.mean(), label))
    least = 0.035 * np.ptp(ax.get_ylim())
    for cost, group in itertools.groupby(sorted(labels), lambda label: label[0]):
        height = -np.inf  # labels of one cost stand above each other
        for _, accuracy, label in group:
            height = max(height + least, accuracy)
            ax.annotate(
                label,
                (cost, height),
                xytext=(8, -3),
                textcoords="offset points",
                fontsize="x-small",
            )
    ax.set(xscale="log", xlabel="gradients an image in training")
    plain_log(ax.xaxis, [5, 10, 20, 50, 100, 200, 500, 1000])
    ax.set(ylabel=f"worst-case accuracy, {ball_name(test)} (%)")
    return ax


def by_epoch(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw what is watched after each epoch, a line a run."""
    rows = with_names(table, "epoch")
    rows = rows[rows["watch"].astype(str) != ""] if len(rows) else rows
    for name, look in line_looks(rows).items():
        for _, run in rows[rows["name"] == name].groupby("key"):
            ax.plot(run["epoch"], as_percent(run[column]), **look)
        ax.plot([], [], label=name, **look)
    ax.set(xlabel="epoch", ylabel=label)
    if ax.lines:
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def best_and_last(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies by how the epoch is chosen, a row a method and rule, percent.

    The last; the best on held-out images; the best on the test images themselves,
    which flatters.
    """
    rows = chosen_epochs(table)
    rows = rows.assign(name=rows.apply(strength_of, axis=1) if len(rows) else "")
    found = {}
    for name in rows["name"].unique():
        for rule in RULES:
            part = rows[(rows["name"] == name) & (rows["rule"] == rule)]
            found[name, rule] = {
                "epoch": spread(part, "epoch", 1),
                "natural (%)": spread(part, "natural_accuracy"),
                "FGSM (%)": spread(part, "fgsm_accuracy"),
            }
    index = pd.MultiIndex.from_tuples(found, names=[None, None]) if found else None
    return pd.DataFrame(list(found.values()), index)
