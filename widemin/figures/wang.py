"""Chapter 3: attacks climbing, and what training against them buys."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.claims import final
from widemin.figures import COLOURS, as_percent


def ascent(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw median and quartiles of a number along the steps of an attack."""
    steps = table[table["measured"] == "step"]
    for method, part in steps.groupby("method"):
        mean = part.groupby("step").mean(numeric_only=True)
        colour = COLOURS[str(method)]
        ax.plot(mean.index, mean[f"{column}_q50"], color=colour, label=str(method))
        ax.fill_between(
            mean.index,
            mean[f"{column}_q25"],
            mean[f"{column}_q75"],
            color=colour,
            alpha=0.2,
            lw=0,
        )
    ax.set(xlabel="steps taken", ylabel=label)
    ax.legend()
    return ax


def white_box(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw accuracy under each attack, a colour per training method."""
    rows = final(table)
    columns = ["natural_accuracy", "fgsm_accuracy", "pgd_accuracy"]
    columns += ["pgd_margin_accuracy", "worst_accuracy"]
    defences = rows.groupby(["method", "epochs"], sort=False)
    shift = np.linspace(-0.24, 0.24, max(2, defences.ngroups))
    for index, ((method, epochs), part) in enumerate(defences):
        for position, column in enumerate(columns):
            ax.scatter(
                np.full(len(part), position + shift[index]),
                as_percent(part[column]),
                color=COLOURS[method],
                marker="osD^v"[index % 5],
                label=f"{method}, {epochs} epochs" if position == 0 else None,
            )
    names = ["none", "FGSM", "PGD", "PGD,\nmargin", "worst\ncase"]
    ax.set_xticks(range(len(columns)), names)
    ax.set(ylabel="accuracy (%)", ylim=(-3, 103))
    ax.legend()
    return ax


def robust_by_cost(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw worst-case accuracy against the gradients that training took."""
    rows = final(table)
    defences = rows.groupby(["method", "epochs"], sort=False)
    for index, ((method, epochs), part) in enumerate(defences):
        x, y = part["gradients"], as_percent(part["worst_accuracy"])
        marker = "osD^v"[index % 5]
        name = f"{method}, {epochs} epochs"
        ax.scatter(x, y, color=COLOURS[method], marker=marker, label=name)
    ax.set(xlabel="gradients taken per training image")
    ax.set(ylabel="worst-case accuracy (%)")
    ax.legend()
    return ax
