"""Figures of stronger attacks and of controls."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.claims import final
from widemin.papers.figures import BLUE, as_percent, ball_name, by_group
from widemin.papers.wei.claims import PAPER_SETS
from widemin.papers.wei.figures.methods import line_looks, with_names


def sweep_by_method(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw worst-case accuracy over the L-infinity radius, a line a method."""
    rows = with_names(table)
    rows = rows[rows["test"].str.startswith("linf") & rows["test"].str.endswith("/255")]
    radii = rows["test"].str.extract(r"linf (\d+)/255")[0].astype(float)
    rows = rows.assign(radius=radii)
    for name, look in line_looks(rows).items():
        part = rows[rows["name"] == name]
        means = part.groupby("radius")["worst_accuracy"].mean()
        means.loc[0.0] = part["natural_accuracy"].mean()
        means = means.sort_index()
        ax.plot(means.index, as_percent(means), marker="o", label=name, **look)
    ax.set(xlabel="L∞ radius (1/255)", ylabel="worst-case accuracy (%)", ylim=(0, None))
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def drops(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw what stronger attacks take beyond PGD-10 on the same images, per set."""
    rows = with_names(table)
    ways = {"restarts": ("o", "PGD-50, margin, 5 restarts")}
    ways["autoattack"] = ("s", "AutoAttack")
    rows = rows.reindex(columns=rows.columns.union(_both(*ways)))
    rows = rows[rows["restarts_accuracy"].notna()]
    names = list(rows["name"].unique())
    for ax, test in zip(axes, PAPER_SETS, strict=True):
        part = rows[rows["test"] == test]
        for way, (marker, label) in ways.items():
            lost = part[f"{way}_pgd_accuracy"] - part[f"{way}_accuracy"]
            lost = lost.dropna()
            places = [names.index(name) for name in part.loc[lost.index, "name"]]
            face = BLUE if way == "restarts" else "none"
            ax.scatter(places, 100 * lost, marker=marker, color=BLUE, facecolor=face)
            ax.scatter([], [], marker=marker, color=BLUE, facecolor=face, label=label)
        ax.axhline(0, color="grey", linewidth=1)
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
        ax.set(title=ball_name(test))
        ax.label_outer()
    axes[0].legend(fontsize="small", loc="upper left")
    axes[0].figure.supylabel("points lost beyond PGD-10", fontsize="medium")
    return axes


def _both(*ways: str) -> list[str]:
    return [f"{way}{kind}_accuracy" for way in ways for kind in ("", "_pgd")]


def by_control(
    table: pd.DataFrame, groups: dict[str, list[str]], ax: Axes, test: str
) -> Axes:
    """Draw natural and worst-case accuracy of named groups of runs, a mark a run.

    Args:
        table: Their rows.
        groups: Name to the keys of its runs; without runs a group is left out.
        ax: Where to draw.
        test: The set in which networks are attacked.
    """
    rows = final(table)
    rows = rows[rows["test"] == test]
    by_group(rows, groups, ax, {"natural_accuracy": "none", "worst_accuracy": BLUE})
    ax.scatter([], [], color=BLUE, facecolor="none", label="natural")
    ax.scatter([], [], color=BLUE, label=f"worst case, {ball_name(test)}")
    ax.set(xlabel="accuracy (%)", xlim=(0, None))
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return ax
