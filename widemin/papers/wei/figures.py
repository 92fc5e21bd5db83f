"""Chapter 2: robustness, its price and flatness, by training method."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.names import norm_and_radius
from widemin.papers.claims import final, paper_table
from widemin.papers.figures import (
    BLUE,
    COLOURS,
    ORANGE,
    as_percent,
    ball_name,
    by_group,
    plain_log,
    spread,
    stacked,
)
from widemin.papers.wei.claims import PAPER_SETS, RULES, chosen_epochs


def strength_of(row: pd.Series[Any]) -> str:
    """Return a run's method and how strongly it is applied, e.g. "SAM 0.2"."""
    if row["method"] == "sam":
        return f"SAM {row['rho']:g}"
    if row["method"] == "standard":
        return "standard"
    return f"AT {ball_name(row['attack'])}"


_LINES = ("-", "--", ":", "-.")


def with_names(table: pd.DataFrame, measured: str = "final") -> pd.DataFrame:
    """Return rows with the name of their method, in the order of its strength."""
    rows = final(table) if measured == "final" else table
    rows = rows[rows["measured"] == measured]
    if rows.empty:
        return rows.assign(name="")
    order = rows.apply(_place, axis=1).sort_values(kind="stable").index
    return rows.assign(name=rows.apply(strength_of, axis=1)).loc[order]


def _place(row: pd.Series[Any]) -> tuple[int, float, bool, Fraction]:
    """Return where a run stands: plain, SAM by its radius, attacked by norm, radius."""
    norm, radius = norm_and_radius(row["attack"]) if row["attack"] else ("", 0)
    kinds = ["standard", "sam", "adversarial"]
    kind = kinds.index(row["method"]) if row["method"] in kinds else len(kinds)
    return kind, row["rho"], norm == "l2", Fraction(radius)


def colour_of(row: pd.Series[Any]) -> str:
    """Return the colour of a run's method; training in L2 balls has its own."""
    attacked = row["attack"] and norm_and_radius(row["attack"])[0] == "l2"
    return ORANGE if attacked else COLOURS[row["method"]]


def line_looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return each name's colour, by method, and line, by strength within it."""
    looks: dict[str, dict[str, Any]] = {}
    lines: dict[str, Iterator[str]] = {}
    for name, part in rows.groupby("name", sort=False):
        colour = colour_of(part.iloc[0])
        line = next(lines.setdefault(colour, itertools.cycle(_LINES)))
        looks[str(name)] = {"color": colour, "linestyle": line}
    return looks


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
    return stacked(found, [*heads, *cost])


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
            look: Any = {"textcoords": "offset points", "fontsize": "x-small"}
            ax.annotate(label, (cost, height), xytext=(8, -3), **look)
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
    return stacked(found)


def eigenvalue_by_method(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the top Hessian eigenvalue by training method, a point per network."""
    rows = final(table).drop_duplicates("key")
    if rows.empty:
        return ax
    rows = rows.assign(name=rows.apply(strength_of, axis=1))
    names = list(dict.fromkeys(rows["name"]))
    ax.scatter(
        [names.index(name) for name in rows["name"]],
        rows["top_eigenvalue"],
        c=[COLOURS[method] for method in rows["method"]],
    )
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    ax.set(ylabel="top Hessian eigenvalue", yscale="log")
    plain_log(ax.yaxis, [2, 5, 10, 20, 50])
    return ax


def by_flatness(
    table: pd.DataFrame, axes: Sequence[Axes], columns: dict[str, str], test: str
) -> Sequence[Axes]:
    """Draw worst-case accuracy over measures of flatness, a point a network."""
    rows = with_names(table)
    rows = rows.reindex(columns=rows.columns.union(["width_images", *columns]))
    rows = rows[(rows["test"] == test) & rows["width_images"].notna()]
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for method, part in rows.groupby("method", sort=False):
            worst = as_percent(part["worst_accuracy"])
            ax.scatter(part[column], worst, color=COLOURS[str(method)], label=method)
        ax.set(xscale="log", xlabel=label)
        plain_log(ax.xaxis, 4)
        if rows.empty:
            ax.set(title="not measured at this preset")
    axes[0].set(ylabel=f"worst-case accuracy, {ball_name(test)} (%)")
    if not rows.empty:
        axes[-1].legend(fontsize="small")
    return axes


def along_lines(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the loss along the steepest line in weights and in images, by method."""
    rows = with_names(table, "line")
    if rows.empty:
        return axes
    looks = line_looks(rows)
    kinds = {"weights": (1, "distance in weights (L2)")}
    kinds["images"] = (255, "distance in images (L∞, 1/255)")
    for ax, (of, (unit, label)) in zip(axes, kinds.items(), strict=True):
        for name, part in rows[rows["of"] == of].groupby("name", sort=False):
            means = part.groupby("distance")["loss"].mean()
            ax.plot(unit * means.index, means, label=name, **looks[str(name)])
        ax.set(xlabel=label, yscale="log")
        plain_log(ax.yaxis, [0.2, 0.5, 1, 2, 5, 10])
    axes[0].set(ylabel="cross-entropy")
    axes[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def in_pixels(table: pd.DataFrame) -> pd.DataFrame:
    """Return what SAM's step in the first layer is worth in pixels, a row a method."""
    rows = with_names(table).drop_duplicates("key")
    rows = rows.reindex(columns=rows.columns.union(["implicit_share"]))
    found = []
    for name, part in rows[rows["implicit_share"].notna()].groupby("name", sort=False):
        row = {"trained by": name}
        row["explained (%)"] = spread(part, "implicit_share")
        row["L2 size (1/255)"] = spread(part, "implicit_l2", 255, 0)
        row["loss: moved weights"] = spread(part, "implicit_weights_rise", 1, 3)
        row["loss: moved images"] = spread(part, "implicit_images_rise", 1, 3)
        rise = spread(part, "implicit_gradient_rise", 1, 2)
        row["loss: as far along the gradient"] = rise
        found.append(row)
    table = pd.DataFrame(found)
    return table.set_index("trained by").rename_axis(None) if found else table


def sweep_by_method(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw worst-case accuracy over the L-infinity radius, a line a method."""
    rows = with_names(table)
    sets = [norm_and_radius(test) for test in rows["test"]]
    rows = rows.assign(radius=[float(255 * radius) for _, radius in sets])
    rows = rows[[norm == "linf" for norm, _ in sets]]
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
