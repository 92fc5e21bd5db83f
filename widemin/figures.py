"""One function per figure: a tidy table and axes in, the axes out.

Figures compute no results beyond means. A method keeps one colour, safe for the
colour-blind, through the book; every seed is a visible point; accuracies are drawn
in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from widemin.claims import final
from widemin.statistics import over_seeds
from widemin.theory import logistic_widths

# Okabe and Ito's palette.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
COLOURS = {
    "standard": BLACK,
    "sam": BLUE,
    "adversarial": RED,
    "dynamic": GREEN,
    "LR": RED,
    "LR/BS": BLUE,
    "Benchmark": GREEN,
    "cross-entropy": RED,
    "margin": BLUE,
}
# How an attack is computed, as a reader should see it.
WAYS = {
    "natural_accuracy": "no attack",
    "fgsm_clipped_accuracy": "FGSM, clipped probabilities",
    "fgsm_accuracy": "FGSM, cross-entropy float32",
    "fgsm_float64_accuracy": "FGSM, cross-entropy float64",
    "fgsm_rescaled_accuracy": "FGSM, rescaled logits",
    "fgsm_margin_accuracy": "FGSM, margin",
    "pgd_accuracy": "PGD, cross-entropy",
    "pgd_margin_accuracy": "PGD, margin",
    "worst_accuracy": "worst case per image",
}
STRONG = {
    "restarts_accuracy": "PGD, margin, 5 restarts",
    "autoattack_accuracy": "AutoAttack",
    "moved_share": "images moved by FGSM, clipped probabilities",
}
# Those whose gradient fades as the network grows sure of itself.
FADING = {"fgsm_clipped_accuracy", "fgsm_accuracy", "fgsm_float64_accuracy"}
FADING |= {"pgd_accuracy"}
BALLS = {"linf": "L∞", "l2": "L2"}


def style() -> None:
    """Set the book's style; call it once, before the first figure."""
    sns.set_theme(context="notebook", style="ticks")
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 220,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "svg.fonttype": "none",
        }
    )


def panels(columns: int, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of equal panels and its axes, wide enough for the page."""
    import matplotlib.pyplot as plt

    size = (3.4 * columns + 0.8, 3.2 * rows + 0.3)
    return plt.subplots(rows, columns, figsize=size, **options)


def _percent(values: Any) -> Any:
    return 100 * np.asarray(values, float)


def ball_name(test: str) -> str:
    """Return a set as axes name it, e.g. "L∞ 8/255"."""
    norm, _, radius = test.partition(" ")
    return f"{BALLS[norm]} {radius}"


def _plain_log(axis: Any, ticks: Sequence[float] | None = None) -> None:
    if ticks is not None:
        axis.set_ticks(list(ticks))
        axis.set_major_formatter(ScalarFormatter())
    else:
        axis.set_major_locator(LogLocator())
    axis.set_minor_formatter(NullFormatter())


def accuracy_by_ratio(table: pd.DataFrame, ax: Axes, column: str) -> Axes:
    """Draw accuracy against learning rate over batch size; colour is the batch size.

    Hollow points are networks below 95 % clean accuracy.
    """
    rows = final(table).assign(ratio=lambda t: t["learning_rate"] / t["batch_size"])
    sizes = sorted(rows["batch_size"].unique())
    colours = sns.color_palette("viridis", len(sizes))
    for size, colour in zip(sizes, colours, strict=True):
        of_size = rows[rows["batch_size"] == size]
        good = of_size["natural_accuracy"] > 0.95
        for part, face in ((of_size[good], colour), (of_size[~good], "none")):
            ax.scatter(
                part["ratio"],
                _percent(part[column]),
                color=colour,
                facecolor=face,
                s=36,
            )
        ax.scatter([], [], color=colour, label=f"{size}")
    ax.set(xscale="log", xlabel="learning rate / batch size", ylim=(-3, 103))
    ax.set(ylabel=f"accuracy, {WAYS[column]} (%)")
    ax.legend(title="batch size")
    return ax


def cell_means(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return means over seeds in percent, learning rates by batch sizes.

    Every run counts that gives an answer, be it one class for every image; where the
    loss overflowed there is none.
    """
    rows = table[table["measured"] == "final"] if len(table) else table
    return 100 * rows.pivot_table(
        index="learning_rate", columns="batch_size", values=column, dropna=False
    )


def printed_cells(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column of a paper's own table, learning rates by batch sizes."""
    return table.pivot_table(index="learning_rate", columns="batch_size", values=column)


def heat_map(cells: pd.DataFrame, ax: Axes, title: str) -> Axes:
    """Draw percentages of (learning rate, batch size) cells; empty ones stay blank."""
    sns.heatmap(
        cells.sort_index(ascending=False),
        ax=ax,
        vmin=0,
        vmax=100,
        cmap="viridis",
        annot=True,
        fmt=".0f",
        annot_kws={"size": 8},
        cbar=False,
    )
    ax.set(xlabel="batch size", ylabel="learning rate", title=title)
    ax.tick_params(axis="y", rotation=0)
    return ax


def logistic_scale(ax: Axes, x: Any, theta: Any, scales: Any, level: float) -> Axes:
    """Draw one sample's widths, and its distance to the boundary, over the scale."""
    x, theta, scales = (np.asarray(v, float) for v in (x, theta, scales))
    widths = np.array([logistic_widths(x, k * theta, level) for k in scales])
    margin = float(x @ theta) / float(np.linalg.norm(theta))
    ax.plot(scales, widths[:, 0], color=RED, label="width in weights")
    ax.plot(scales, widths[:, 1], color=BLUE, label="width in inputs")
    ax.plot(
        scales, np.full(len(scales), margin), color=BLACK, label="distance to boundary"
    )
    ax.set(xscale="log", yscale="log", xlabel="all weights times", ylabel="length")
    ax.legend()
    return ax


def ways_of_attack(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw what each way of computing one attack answers; a mark per network."""
    rows = final(table)
    markers = "os^Dv"
    cells = rows.groupby(["batch_size", "learning_rate"], sort=False)
    shift = np.linspace(0.15, -0.15, max(2, cells.ngroups))
    for index, ((size, rate), part) in enumerate(cells):
        for row, column in enumerate(WAYS):
            colour = COLOURS["cross-entropy" if column in FADING else "margin"]
            ax.scatter(
                _percent(part[column]),
                np.full(len(part), row + shift[index]),
                marker=markers[index % 5],
                color=BLACK if column == "natural_accuracy" else colour,
                s=44,
            )
        ax.scatter(
            [],
            [],
            marker=markers[index % 5],
            color="grey",
            label=f"B = {size}, LR = {rate:g}",
        )
    ax.set_yticks(range(len(WAYS)), list(WAYS.values()))
    ax.invert_yaxis()
    ax.set(xlabel="images still classified rightly (%)", xlim=(-3, 103))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def table_of_ways(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each way of attacking leaves: percent, mean and interval over seeds.

    A row is a way, a column a cell of the grid; below stand the instruments that were
    run on fewer images, and the median radius that fools an image, in pixels.
    """
    rows = final(table)
    columns = {}
    for (size, rate), part in rows.groupby(["batch_size", "learning_rate"], sort=False):
        found = {label: _spread(part, way, 100) for way, label in WAYS.items()}
        if "strong_images" in part and part["strong_images"].notna().any():
            images = f" ({part['strong_images'].max():.0f} images)"
            for way, label in STRONG.items():
                if way in part:
                    found[label + images] = _spread(part, way, 100)
            found["median radius that fools" + images] = _spread(
                part, "distance_q50", 1
            )
        columns[f"B = {size}, LR = {rate:g}"] = found
    return pd.DataFrame(columns)


def _spread(rows: pd.DataFrame, column: str, unit: float) -> str:
    mean, half = over_seeds(list(unit * rows[column].dropna()))
    digits = 1 if unit > 1 else 3
    return f"{mean:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def learning_curves(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a watched number over epochs, one line per run."""
    rows = table[table["measured"] == "epoch"]
    cells = rows.groupby(["batch_size", "learning_rate"], sort=False)
    for ((size, rate), part), colour in zip(
        cells, [RED, BLUE, GREEN, PURPLE, SKY], strict=False
    ):
        name: str | None = f"B = {size}, LR = {rate:g}"
        for _, run in part.groupby("key"):
            ax.plot(run["epoch"], _percent(run[column]), color=colour, label=name)
            name = None
    ax.set(xlabel="epoch", ylabel=label, ylim=(-3, 103))
    ax.legend()
    return ax


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
                    _percent(of_method[column]),
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
            _percent(part["natural_accuracy"]),
            _percent(part["worst_accuracy"]),
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
                _percent(part[column]),
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
        x, y = part["gradients"], _percent(part["worst_accuracy"])
        marker = "osD^v"[index % 5]
        name = f"{method}, {epochs} epochs"
        ax.scatter(x, y, color=COLOURS[method], marker=marker, label=name)
    ax.set(xlabel="gradients taken per training image")
    ax.set(ylabel="worst-case accuracy (%)")
    ax.legend()
    return ax


def by_batch_size(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a number against batch size, a line per setting and a point per seed.

    Hollow points are undertrained: below 95 % on training images. A row's setting
    stands in the column `setting`.
    """
    rows = final(table)
    spare = iter([ORANGE, PURPLE, SKY, YELLOW])
    scale = 100 if column.endswith("accuracy") else 1
    for setting, part in rows.groupby("setting", sort=False):
        colour = COLOURS.get(str(setting)) or next(spare)
        mean = part.groupby("batch_size")[column].mean()
        ax.plot(mean.index, scale * mean, color=colour, label=str(setting))
        poor = part["train_accuracy"] < 0.95
        for points, face in ((part[~poor], colour), (part[poor], "white")):
            ax.scatter(
                points["batch_size"],
                scale * points[column],
                color=colour,
                facecolor=face,
                zorder=3,
            )
    sizes = sorted(rows["batch_size"].unique())
    ax.set(xscale="log", xlabel="batch size", ylabel=label)
    _plain_log(ax.xaxis, sizes)
    if scale == 1:
        ax.set(yscale="log")
    return ax
