"""Chapter 2: robustness by training method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin import theory
from widemin.claims import final
from widemin.figures import BLACK, BLUE, COLOURS, RED, as_percent, ball_name


def _strength(row: pd.Series[Any]) -> str:
    if row["method"] == "sam":
        return f"SAM {row['rho']:g}"
    if row["method"] == "standard":
        return "standard"
    return f"AT {ball_name(row['attack'])}"


def robust_by_method(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw robust accuracy by training method, a panel per test set."""
    rows = final(table)
    rows = rows.assign(name=rows.apply(_strength, axis=1))
    names = list(dict.fromkeys(rows["name"]))
    for ax, (test, part) in zip(axes, rows.groupby("test", sort=False), strict=True):
        for position, name in enumerate(names):
            of_method = part[part["name"] == name]
            colour = COLOURS[of_method["method"].iloc[0]]
            for column, face in (("pgd_accuracy", colour), ("worst_accuracy", "none")):
                ax.scatter(
                    np.full(len(of_method), position),
                    as_percent(of_method[column]),
                    color=colour,
                    facecolor=face,
                )
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
        ax.set(title=ball_name(str(test)), ylim=(0, 100))
        ax.label_outer()
    axes[0].figure.supylabel("robust accuracy (%)", fontsize="medium")
    return axes


def trade_off(table: pd.DataFrame, ax: Axes, test: str) -> Axes:
    """Draw worst-case against natural accuracy, a point per network."""
    rows = final(table)
    rows = rows[rows["test"] == test]
    rows = rows.assign(name=rows.apply(_strength, axis=1))
    names = list(dict.fromkeys(rows["name"]))
    markers = dict(zip(names, "osD^vPX*", strict=False))
    augmented = rows["augment"] == "crop+flip"
    for (name, other), part in rows.groupby(["name", augmented], sort=False):
        colour = COLOURS[part["method"].iloc[0]]
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


def eigenvalue_by_method(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the top Hessian eigenvalue by training method, a point per network."""
    rows = final(table).drop_duplicates("key")
    rows = rows.assign(name=rows.apply(_strength, axis=1))
    names = list(dict.fromkeys(rows["name"]))
    ax.scatter(
        [names.index(name) for name in rows["name"]],
        rows["top_eigenvalue"],
        c=[COLOURS[method] for method in rows["method"]],
    )
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    ax.set(ylabel="top Hessian eigenvalue", yscale="log")
    return ax


def three_optima(
    ax: Axes, p: float, eta: float, d: int, attack: float, radius: float
) -> Axes:
    """Draw the feature model's accuracy over the robust weight, by three trainings."""
    best = {
        "standard": theory.optimum(p, eta, d),
        "adversarial": theory.adversarial_optimum(p, eta, d, attack),
        "sam": theory.sam_optimum(p, eta, d, radius),
    }
    w = np.linspace(0, 1.3 * max(best.values()), 241)
    ends = [theory.accuracy(w + sign * radius, p, eta, d) for sign in (-1, 1)]
    curves = {
        "standard": theory.accuracy(w, p, eta, d),
        "adversarial": theory.accuracy(w, p, eta - attack, d),
        "sam": np.minimum(*ends),
    }
    names = {"standard": "standard", "adversarial": "attacked inputs"}
    names["sam"] = "worst weights within SAM's radius"
    for method, curve in curves.items():
        colour = COLOURS[method]
        ax.plot(w, as_percent(curve), color=colour, label=names[method])
        top = float(np.interp(best[method], w, curve))
        ax.plot(best[method], 100 * top, "o", color=colour)
    ax.set(xlabel="weight on the robust feature", ylabel="accuracy (%)")
    ax.legend(fontsize="small")
    return ax


def shift_by_radius(ax: Axes, p: float, eta: float, d: int, radii: Any) -> Axes:
    """Draw how far SAM moves the robust weight: exactly, as printed, as derived."""
    best = theory.optimum(p, eta, d)
    exact = [theory.sam_optimum(p, eta, d, radius) - best for radius in radii]
    printed = [theory.printed_sam_shift(p, eta, d, radius) for radius in radii]
    derived = [theory.sam_shift(p, eta, d, radius) for radius in radii]
    ax.plot(radii, printed, color=RED, label="as printed, 2/3")
    ax.plot(radii, derived, color=BLUE, label="as derived, 1/(3d)")
    ax.plot(radii, exact, "o", color=BLACK, label="exact")
    ax.set(xscale="log", yscale="log", xlabel="SAM's radius")
    ax.set(ylabel="shift of the robust weight", ylim=(1e-6, None))
    ax.legend(fontsize="small", loc="lower right")
    return ax


def direction_of_shift(ax: Axes, p: float, etas: Any, ds: Any, radius: float) -> Axes:
    """Draw which way SAM on all weights moves the robust one, over the model's sizes.

    The line is where w*^2 = 2 d; marks are exact solutions.
    """
    line = np.geomspace(min(etas), max(etas), 61)
    odds = np.log(p / (1 - p))
    ax.plot((odds / line) ** 2 / 8, line, color=BLACK, label="$w^{*2} = 2d$")
    for sign, colour, label in ((1, BLUE, "more"), (-1, RED, "less")):
        found = [
            (d, eta)
            for d in ds
            for eta in etas
            if sign * _shift(p, eta, int(d), radius) > 0
        ]
        x, y = zip(*found, strict=True) if found else ((), ())
        marker = "^" if sign > 0 else "v"
        ax.scatter(x, y, color=colour, marker=marker, label=f"{label} robust weight")
    ax.set(xscale="log", yscale="log", xlabel="weak features d", ylabel="their mean η")
    ax.set(xlim=(min(ds) / 2, 2 * max(ds)))
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _shift(p: float, eta: float, d: int, radius: float) -> float:
    best = theory.optimum(p, eta, d)
    return theory.sam_optimum(p, eta, d, radius, "all") - best


def trained_ratios(
    ax: Axes, radii: Sequence[float], ratios: dict[int, np.ndarray]
) -> Axes:
    """Draw the robust over the weak weights after SAM, relative to SGD, by radius."""
    for (d, found), colour in zip(sorted(ratios.items()), [BLUE, RED], strict=False):
        change = 100 * (found / found[:, :1] - 1)
        ax.plot(radii, change.mean(0), color=colour, label=f"d = {d}")
        for seed in change:
            ax.plot(radii, seed, "o", color=colour, markersize=4)
    ax.axhline(0, color="grey", linewidth=1)
    ax.set(xlabel="SAM's radius", ylabel="change of robust / weak (%)")
    ax.legend()
    return ax
