"""Chapter 2: robustness by training method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.claims import final
from widemin.figures import COLOURS, as_percent, ball_name


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
