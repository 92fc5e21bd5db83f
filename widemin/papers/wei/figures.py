"""Chapter 2: the feature model; robustness, its price and flatness, by method."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas import DataFrame

from widemin.names import norm_and_radius
from widemin.papers import figures as plot
from widemin.papers.claims import ball_name, final, paper_table, with_columns
from widemin.papers.figures import BLACK, BLUE, COLOURS, GREY, RED, Groups, Panels
from widemin.papers.wei import theory
from widemin.papers.wei.claims import PAPER_SETS, chosen_epochs


def three_optima(
    ax: Axes, p: float, eta: float, d: int, attack: float, radius: float
) -> Axes:
    """Draw the feature model's accuracy over the robust weight, by three trainings."""
    best = [theory.optimum(p, eta, d), theory.sam_optimum(p, eta, d, radius)]
    best.insert(1, theory.adversarial_optimum(p, eta, d, attack))
    w = np.linspace(0, 1.3 * max(best), 241)
    ends = [theory.accuracy(w + sign * radius, p, eta, d) for sign in (-1, 1)]
    natural = theory.accuracy(w, p, eta, d)
    heights = natural, theory.accuracy(w, p, eta - attack, d), np.minimum(*ends)
    names = ("standard", "attacked inputs", "worst weights within SAM's radius")
    colours = (BLACK, RED, BLUE)
    for at, height, name, colour in zip(best, heights, names, colours, strict=True):
        ax.plot(w, 100 * height, color=colour, label=name)
        ax.plot(at, np.interp(at, w, 100 * height), "o", color=colour)
    return plot.framed(ax, "weight on the robust feature", "accuracy (%)", "best")


def shift_by_radius(ax: Axes, p: float, eta: float, d: int, radii: Any) -> Axes:
    """Draw how far SAM moves the robust weight: exactly, as printed, as derived."""
    printed = [theory.sam_shift(p, eta, d, radius, "printed") for radius in radii]
    derived = [theory.sam_shift(p, eta, d, radius) for radius in radii]
    lines = {"as printed, 2/3": printed, "as derived, 1/(3d)": derived}
    plot.curves(ax, radii, lines, (RED, BLUE))
    exact = [_shift(p, eta, d, radius, "robust") for radius in radii]
    plot.curves(ax, radii, {"exact": exact}, [BLACK], "o")
    said = "SAM's radius", "shift of the robust weight"
    return plot.framed(ax, *said, "upper left", log="xy", ylim=(1e-6, 1e5))


def direction_of_shift(ax: Axes, p: float, etas: Any, ds: Any, radius: float) -> Axes:
    """Draw which way SAM on all weights moves the robust one, by size of the model."""
    line = np.geomspace(min(etas), max(etas), 61)
    odds = np.log(p / (1 - p))
    ax.plot((odds / line) ** 2 / 8, line, color=BLACK, label="w*² = 2d")
    places = np.array([(d, eta) for d in ds for eta in etas])
    shifts = np.array([_shift(p, eta, int(d), radius, "all") for d, eta in places])
    more, less = ("^", BLUE, "more robust weight"), ("v", RED, "less robust weight")
    for sign, (marker, colour, name) in ((1, more), (-1, less)):
        at = places[sign * shifts > 0].T
        ax.scatter(*at, marker=marker, color=colour, label=name)
    said, ends = ("weak features d", "their mean η"), (min(ds) / 2, 2 * max(ds))
    return plot.framed(ax, *said, "outside", log="xy", xlim=ends)


def _shift(p: float, eta: float, d: int, radius: float, weights: str) -> float:
    return theory.sam_optimum(p, eta, d, radius, weights) - theory.optimum(p, eta, d)


def trained_ratios(
    ax: Axes, radii: Sequence[float], ratios: dict[int, np.ndarray]
) -> Axes:
    """Draw the robust over the weak weights after SAM, relative to SGD, by radius."""
    for (d, each), colour in zip(sorted(ratios.items()), [BLUE, RED], strict=False):
        change = 100 * (each / each[:, :1] - 1)
        ax.plot(radii, change.mean(0), color=colour, label=f"d = {d}")
        ax.plot(radii, change.T, "o", color=colour, markersize=4)
    ax.axhline(0, color="grey", linewidth=1)
    return plot.framed(ax, "SAM's radius", "change of robust / weak (%)", "best")


_FAMILIES = {BLACK: "standard", BLUE: "SAM", RED: "AT L∞", plot.ORANGE: "AT L2"}


def _called(method: str, rho: float, attack: str) -> tuple[Any, str, str]:
    """Return a run's place by strength, its method's name ("SAM 0.2") and colour."""
    norm, radius = norm_and_radius(attack) if attack else ("", Fraction())
    kind = {"standard": 0, "sam": 1, "adversarial": 2}.get(method, 3)
    place = kind, rho, norm == "l2", radius
    name = ("standard", f"SAM {rho:g}")[kind] if kind < 2 else f"AT {ball_name(attack)}"
    return place, name, plot.ORANGE if norm == "l2" else COLOURS.get(method, RED)


def with_names(table: DataFrame, measured: str = "final", test: str = "") -> DataFrame:
    """Return rows by strength of their method, with its `name` and `colour`."""
    rows = final(table) if measured == "final" else table
    rows = rows[rows["measured"] == measured]
    rows = rows[rows["test"] == test] if test else rows
    called = list(map(_called, rows["method"], rows["rho"], rows["attack"]))
    rows = rows.assign(name=[c[1] for c in called], colour=[c[2] for c in called])
    return rows.iloc[sorted(range(len(called)), key=called.__getitem__)]


def line_looks(rows: DataFrame) -> dict[str, dict[str, Any]]:
    """Return each name's colour, by method, and line, by strength within it."""
    first = rows.drop_duplicates("name")
    strength = first.groupby("colour").cumcount() % 4
    listed = zip(first["name"], first["colour"], strength, strict=True)
    lines = ("-", "--", ":", "-.")
    return {name: {"color": c, "linestyle": lines[k]} for name, c, k in listed}


def robust_by_method(table: DataFrame, axes: Panels) -> Panels:
    """Draw robust accuracy by training method, a panel per test set."""
    rows = with_names(table)
    names = list(rows["name"].unique())
    top = 100 * rows[["pgd_accuracy", "worst_accuracy"]].max().max() + 5
    for ax, (test, part) in zip(axes, rows.groupby("test", sort=False), strict=False):
        at, colour = part["name"].map(names.index), part["colour"]
        plot.marks(ax, part, at - 0.1, "pgd_accuracy", color=colour)
        plot.marks(ax, part, at + 0.1, "worst_accuracy", color=colour, facecolor="none")
        ax.set_xticks(range(len(names)), names, **plot.SLANTED)
        ax.set(title=ball_name(str(test)), ylim=(0, top))
        ax.label_outer()
    axes[0].figure.supylabel("robust accuracy (%)", fontsize="medium")
    return axes


def _worst(test: str) -> str:
    return f"worst-case accuracy, {ball_name(test)} (%)"


def _by_strength(rows: DataFrame, ax: Axes, *sides: str) -> None:
    """Draw a point a network, and lines of means whose ends, strengths, are named."""
    augmented = rows["augment"] == "crop+flip"
    for (colour, other), part in rows.groupby(["colour", augmented], sort=False):
        label = _FAMILIES[colour] + ", crop and flip" * other
        look: Any = {"facecolor": "none" if other else colour, "label": label}
        plot.marks(ax, part, *sides, color=colour, alpha=0.7, **look)
        means = part.groupby("name", sort=False)[[*sides]].mean()
        places = np.column_stack([plot.shown(means, side) for side in sides])
        ax.plot(*places.T, color=colour)
        look = {"textcoords": "offset points", "fontsize": "small"}
        look["xytext"] = 5, -11 if colour == plot.ORANGE else 4  # below the rest
        for end in (0, -1) if len(means) > 1 else ():
            strength = str(means.index[end]).split()[-1]
            ax.annotate(strength, places[end], color=colour, weight="bold", **look)


def trade_off(table: DataFrame, ax: Axes, test: str) -> Axes:
    """Draw worst-case against natural accuracy, by family and strength."""
    sides = "natural_accuracy", "worst_accuracy"
    _by_strength(with_names(table, test=test), ax, *sides)
    return plot.framed(ax, "natural accuracy (%)", _worst(test), "outside")


def beside_the_paper(table: DataFrame) -> DataFrame:
    """Return ours and the paper's CIFAR-10 table, two rows a method, in percent."""
    printed = paper_table("sam_table2_cifar10").fillna("")
    kinds = {"ST": "standard", "SAM": "SAM", "AT-Linf": "AT L∞", "AT-L2": "AT L2"}
    theirs = {
        f"{kinds[row[1]]} {row[3]}".strip(): [f"{value:g}" for value in row[4:]]
        for row in printed.itertuples()
    }
    lines = {}
    for name, rows in with_names(table).groupby("name", sort=False):
        one, sets = rows.drop_duplicates("key"), dict(list(rows.groupby("test")))
        robust = [plot.spread(sets.get(t, one[:0]), "pgd_accuracy") for t in PAPER_SETS]
        natural = plot.spread(one, "natural_accuracy")
        lines[name, "ours"] = [natural, *robust, *plot.costs(one)]
        if name in theirs:
            lines[name, "paper"] = [*theirs[name], "", "", ""]
    heads = ["natural", *map(ball_name, PAPER_SETS), *plot.COSTS]
    return plot.stacked(lines, heads)


def robust_by_cost(table: DataFrame, ax: Axes, test: str) -> Axes:
    """Draw worst-case accuracy over the gradients that training took, a point a run."""
    _by_strength(with_names(table, test=test), ax, "gradients", "worst_accuracy")
    ticks = {"x": [5, 10, 20, 50, 100, 200, 500, 1000]}
    said = "gradients an image in training", _worst(test), "upper left"
    return plot.framed(ax, *said, log=ticks)


def by_epoch(table: DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw what is watched after each epoch, a line a run."""
    rows = with_names(table, "epoch")
    rows = rows[rows["watch"].astype(str) != ""]
    for name, look in line_looks(rows).items():
        plot.line_a_run(ax, rows[rows["name"] == name], column, name, **look)
    return plot.framed(ax, "epoch", label, "outside")


def best_and_last(table: DataFrame) -> DataFrame:
    """Return accuracies by how the epoch is chosen, a row a method and rule."""
    rows = with_names(chosen_epochs(table), "epoch")
    parts = dict(list(rows.groupby(["name", "rule"], sort=False)))
    return plot.spreads(parts, "rules of chapter 2")


def eigenvalue_by_method(table: DataFrame, ax: Axes) -> Axes:
    """Draw the top Hessian eigenvalue by training method, a point per network."""
    rows = with_names(table).drop_duplicates("key")
    if rows.empty:
        return ax
    ax.scatter(rows["name"], rows["top_eigenvalue"], c=rows["colour"])
    ax.set_xticks(range(rows["name"].nunique()), rows["name"].unique(), **plot.SLANTED)
    return plot.framed(ax, "", "top Hessian eigenvalue", log={"y": [2, 5, 10, 20, 50]})


def by_flatness(
    table: DataFrame, axes: Panels, columns: dict[str, str], test: str
) -> Panels:
    """Draw worst-case accuracy over measures of flatness, a point a network."""
    rows = with_columns(with_names(table, test=test), ["width_images", *columns])
    rows = rows.dropna(subset="width_images")
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for method, part in rows.groupby("method", sort=False):
            name = str(method).replace("sam", "SAM")
            look = {"color": COLOURS[str(method)], "label": name}
            plot.marks(ax, part, column, "worst_accuracy", **look)
        if rows.empty:
            ax.set(title="not measured at this preset")
        plot.framed(ax, label, "", "below" * (ax is axes[0]), log={"x": 4})
    axes[0].set(ylabel=_worst(test))
    return axes


def _by_family(
    rows: DataFrame, axes: Panels, columns: tuple[str, str], label: str, **more: Any
) -> None:
    """Draw mean lines, a panel a family of methods, with standard training in each."""
    for ax, (colour, family) in zip(axes, [*_FAMILIES.items()][1:], strict=True):
        known = rows[rows["colour"].isin([BLACK, colour])]
        for name, look in line_looks(known).items():
            part = known[known["name"] == name]
            plot.mean_line(ax, part, *columns, label=name, **look)
        plot.framed(ax, label, "", title=family, **more)


def along_lines(table: DataFrame, axes: Sequence[Panels]) -> Sequence[Panels]:
    """Draw the loss along the steepest line in weights and in images, by family."""
    columns = "distance", "loss"
    rows = with_columns(with_names(table, "line"), ["of", *columns])
    weights = "weights", 1, "moved weights (L2)", ""
    images = "images", 255, "moved images (L∞, 1/255)", "below"
    for line, (of, unit, label, legend) in zip(axes, (weights, images), strict=True):
        part = rows.assign(distance=unit * rows["distance"])[rows["of"] == of]
        look: Any = {"legend": legend, "log": {"y": [0.2, 0.5, 1, 2, 5, 10]}}
        _by_family(part, line, columns, label, **look)
        line[0].set(ylabel="cross-entropy")
    return axes


def in_pixels(table: DataFrame) -> DataFrame:
    """Return SAM's step in the first layer in pixels, a row a method."""
    rows = with_names(table).drop_duplicates("key")
    rows = with_columns(rows, ["implicit_share"]).dropna(subset="implicit_share")
    return plot.spreads(dict(list(rows.groupby("name", sort=False))), "in pixels")


def sweep_by_method(table: DataFrame, axes: Panels) -> Panels:
    """Draw worst-case accuracy over the L-infinity radius, a panel a family."""
    rows = with_names(table)
    sets = [norm_and_radius(test) for test in rows["test"]]
    rows = rows.assign(radius=[float(255 * radius) for _, radius in sets])
    rows = rows[np.array([norm == "linf" for norm, _ in sets], bool)]
    unattacked = rows.assign(radius=0.0, worst_accuracy=rows["natural_accuracy"])
    rows, columns = pd.concat([unattacked, rows]), ("radius", "worst_accuracy")
    look: Any = {"legend": "below", "ylim": (0, None)}
    _by_family(rows, axes, columns, "L∞ radius (1/255)", **look)
    axes[0].set(ylabel="worst-case accuracy (%)")
    return axes


def drops(table: DataFrame, axes: Panels) -> Panels:
    """Draw what stronger attacks take beyond PGD-10 on the same images, per set."""
    looks: dict[str, Any] = {
        "restarts": {"marker": "o", "label": "PGD-50, margin, 5 restarts"},
        "autoattack": {"marker": "s", "label": "AutoAttack", "facecolor": "none"},
    }
    kinds = [f"{way}{kind}_accuracy" for way in looks for kind in ("", "_pgd")]
    rows = with_columns(with_names(table), kinds)
    rows = rows.dropna(subset="restarts_accuracy")
    names = list(rows["name"].unique())
    for ax, test in zip(axes, PAPER_SETS, strict=True):
        for way, look in looks.items():
            part = rows[rows["test"] == test].dropna(subset=f"{way}_accuracy")
            lost = 100 * (part[f"{way}_pgd_accuracy"] - part[f"{way}_accuracy"])
            at, look = part["name"].map(names.index), {"color": GREY} | look
            ax.scatter(at, lost, **look | {"color": part["colour"], "label": ""})
            ax.scatter([], [], **look)
        ax.axhline(0, color="grey", linewidth=1)
        ax.set_xticks(range(len(names)), names, **plot.SLANTED)
        ax.set(title=ball_name(test))
        ax.label_outer()
    axes[0].legend(loc="upper left")
    axes[0].figure.supylabel("points lost beyond PGD-10", fontsize="medium")
    return axes


def by_control(table: DataFrame, groups: Groups, ax: Axes, test: str) -> Axes:
    """Draw natural and worst-case accuracy of groups that have runs, a mark a run."""
    rows, columns = final(table), {"natural_accuracy": "none", "worst_accuracy": GREY}
    plot.by_group(rows[rows["test"] == test], groups, ax, columns)
    for name, face in (("natural", "none"), (f"worst case, {ball_name(test)}", GREY)):
        ax.scatter([], [], color=GREY, facecolor=face, label=name)
    return plot.framed(ax, "accuracy (%)", "", "below", xlim=(0, None))
