"""Chapter 3: attacks climbing, and what training against them buys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin import theory
from widemin.claims import final
from widemin.figures import BLUE, COLOURS, GREEN, RED, as_percent, ball_name


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


def gap_in_ball(
    ax: Axes, gradient: tuple[float, float], epsilon: float, norm: str
) -> Axes:
    """Draw FOSC over a ball of two pixels, for a loss of one gradient everywhere."""
    side = np.linspace(-epsilon, epsilon, 161)
    moved = np.stack(np.meshgrid(side, side), -1)
    gap = theory.first_order_gap(gradient, moved, epsilon, norm)
    if norm == "l2":
        gap = np.where(np.linalg.norm(moved, axis=-1) <= epsilon, gap, np.nan)
    ax.contourf(side, side, gap, levels=12, cmap="viridis")
    lines = ax.contour(side, side, gap, levels=4, colors="white", linewidths=1)
    ax.clabel(lines, fontsize="small")
    length = 0.5 * epsilon / float(np.hypot(*gradient))
    tip = (length * gradient[0], length * gradient[1])
    ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": "white"})
    ax.set(aspect="equal", title=ball_name(f"{norm} {epsilon:g}"))
    ax.set(xlabel="move of pixel 1", ylabel="move of pixel 2")
    ax.label_outer()
    return ax


def rates(
    ax: Axes, lengths: Sequence[int], found: dict[float, list[tuple[float, float]]]
) -> Axes:
    """Draw measured mean squared gradients and their bounds, a colour per delta."""
    for (delta, pairs), colour in zip(found.items(), [BLUE, GREEN, RED], strict=False):
        measured, bound = zip(*pairs, strict=True)
        ax.plot(lengths, bound, color=colour, label=f"δ = {delta:g}")
        ax.plot(lengths, measured, "o", color=colour)
    ax.set(xscale="log", yscale="log", xlabel="steps T")
    ax.set(ylabel="mean squared gradient")
    ax.legend()
    return ax
