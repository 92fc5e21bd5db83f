"""Chapter 1: widths, the grid, ways of computing one attack."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from PIL import Image

from widemin.papers.claims import final
from widemin.papers.figures import (
    BLACK,
    BLUE,
    COLOURS,
    FADING,
    GREEN,
    MORE_WAYS,
    PURPLE,
    RED,
    SKY,
    STRONG,
    WAYS,
    as_percent,
    plain_log,
    spread,
    stacked,
)
from widemin.papers.khritankov.claims import best_epochs, measured_widths
from widemin.papers.khritankov.theory import logistic_widths
from widemin.papers.ranks import FLATNESS, rank_flatness


def logistic_scale(ax: Axes, x: Any, theta: Any, scales: Any, level: float) -> Axes:
    """Draw one sample's widths, and its distance to the boundary, over the scale."""
    x, theta, scales = (np.asarray(v, float) for v in (x, theta, scales))
    widths = np.array([logistic_widths(x, k * theta, level) for k in scales])
    margin = float(x @ theta) / float(np.linalg.norm(theta))
    ax.plot(scales, widths[:, 0], color=RED, label="width in weights")
    ax.plot(scales, widths[:, 1], color=BLUE, label="width in inputs")
    margins = np.full(len(scales), margin)
    ax.plot(scales, margins, color=BLACK, label="distance to boundary")
    ax.set(xscale="log", yscale="log", xlabel="all weights times", ylabel="length")
    ax.legend(fontsize="small", loc="upper left")
    return ax


def level_set(ax: Axes, curvatures: Sequence[float], gap: float) -> Axes:
    """Draw a bowl's contours, one level set and the way to its nearest point."""
    steep, flat = max(curvatures), min(curvatures)
    reach = 1.3 * (2 * gap / flat) ** 0.5
    x, y = np.meshgrid(np.linspace(-reach, reach, 121), np.linspace(-reach, reach, 121))
    loss = (flat * x**2 + steep * y**2) / 2
    ax.contour(x, y, loss, levels=[gap * f for f in (0.25, 2, 4)], colors="0.8")
    ax.contour(x, y, loss, levels=[gap], colors=RED, linewidths=2)
    d = (2 * gap / steep) ** 0.5
    turn = np.linspace(0, 2 * np.pi, 181)
    ax.plot(d * np.cos(turn), d * np.sin(turn), color=BLUE, linestyle=":")
    ax.annotate("", (0, d), (0, 0), arrowprops={"arrowstyle": "->", "color": BLUE})
    ax.text(0.04 * reach, d / 2, "d(c)", color=BLUE, va="center")
    ax.text(0.8 * reach, 0, "V(c)", color=RED, va="center")
    ax.plot(0, 0, "o", color=BLACK)
    ax.set(xlabel="flat direction", ylabel="steep direction", aspect="equal")
    return ax


def against_bound(ax: Axes, x: Any, loss: Any, bound: Any, theorem: str) -> Axes:
    """Draw a loss and what a theorem allows it."""
    ax.plot(x, loss, color=RED, label="the loss")
    ax.plot(x, bound, color=BLACK, label="what is allowed")
    ax.set(xlabel="way from one point to another", ylabel="loss", ylim=(0, None))
    ax.set_title(f"theorem {theorem}")
    ax.legend()
    return ax


def width_by_gap(
    ax: Axes, gaps: Any, exact: dict[str, Any], measured: dict[str, Any]
) -> Axes:
    """Draw widths in closed form as lines, as measured as points, over the level."""
    for (name, values), colour in zip(exact.items(), [BLUE, RED, GREEN], strict=False):
        ax.plot(gaps, values, color=colour, label=name)
        ax.plot(gaps, measured[name], "o", color=colour)
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="level above the minimum, c - φ(x*)", ylabel="width w(x*, c)")
    ax.legend()
    return ax


ROBUSTNESS = {
    "fgsm_accuracy": "accuracy under FGSM",
    "distance_q50": "median radius that fools",
}


def flatness(grid: pd.DataFrame) -> pd.DataFrame:
    """Return how each measure of flatness ranks with each of robustness.

    Partial correlations hold median margin and training loss fixed.
    """
    rows = measured_widths(grid)
    if rows.empty:
        return pd.DataFrame()
    return rank_flatness(rows, ROBUSTNESS)


def by_flatness(
    grid: pd.DataFrame, axes: Sequence[Axes], column: str
) -> Sequence[Axes]:
    """Draw accuracy under FGSM and the distance that fools against a flatness."""
    rows = measured_widths(grid)
    rows = rows.reindex(columns=rows.columns.union([column, *ROBUSTNESS]))
    colours = np.log10(rows["ratio"]) if len(rows) else []
    for ax, (name, label) in zip(axes, ROBUSTNESS.items(), strict=True):
        values = as_percent(rows[name]) if name.endswith("accuracy") else rows[name]
        ax.scatter(rows[column], values, c=colours, cmap="viridis", s=44)
        unit = " (%)" if name.endswith("accuracy") else " (pixels)"
        ax.set(xscale="log", xlabel=FLATNESS[column], ylabel=label + unit)
        plain_log(ax.xaxis, 4)
    return axes


def accuracy_by_ratio(rows: pd.DataFrame, ax: Axes, column: str) -> Axes:
    """Draw accuracy against learning rate over batch size; colour is the batch size.

    A point is a row. Hollow ones have less than 95 % natural accuracy.
    """
    rows = rows.assign(ratio=lambda t: t["learning_rate"] / t["batch_size"])
    sizes = sorted(rows["batch_size"].unique())
    colours = sns.color_palette("viridis", len(sizes))
    for size, colour in zip(sizes, colours, strict=True):
        of_size = rows[rows["batch_size"] == size]
        good = of_size["natural_accuracy"] > 0.95
        for part, face in ((of_size[good], colour), (of_size[~good], "none")):
            values = as_percent(part[column])
            ax.scatter(part["ratio"], values, color=colour, facecolor=face, s=36)
        ax.scatter([], [], color=colour, label=f"{size}")
    ax.set(xscale="log", xlabel="learning rate / batch size", ylim=(-3, 103))
    ax.set(ylabel="accuracy under FGSM (%)")
    ax.legend(title="batch size", fontsize="small", loc="upper right")
    return ax


def cell_means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return means over seeds in percent, learning rates by batch sizes.

    Every row counts that gives an answer, be it one class for every image; where the
    loss overflowed there is none.
    """
    return 100 * rows.pivot_table(
        index="learning_rate", columns="batch_size", values=column, dropna=False
    )


def heat_map(cells: pd.DataFrame, ax: Axes, title: str) -> Axes:
    """Draw percentages of (learning rate, batch size) cells; empty ones stay blank.

    seaborn's would draw the whole figure anew for every panel.
    """
    cells = cells.sort_index(ascending=False)
    # An empty frame holds no numbers, but objects.
    values = cells.to_numpy(dtype=float)
    ax.pcolormesh(values, vmin=0, vmax=100, cmap="viridis")
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        look: Any = {"color": "white" if value < 60 else "black", "size": 8}
        look |= {"ha": "center", "va": "center"}
        text = ax.text(column + 0.5, row + 0.5, f"{value:.0f}", **look)
        text.set_in_layout(False)  # inside its cell: no need to measure it
    ax.set_xticks(np.arange(len(cells.columns)) + 0.5, cells.columns)
    ax.set_yticks(np.arange(len(cells.index)) + 0.5, cells.index)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.invert_yaxis()
    ax.set(xlabel="batch size", ylabel="learning rate", title=title)
    return ax


def learning_curves(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a watched number over epochs, one line per run."""
    rows = table[table["measured"] == "epoch"]
    share = column.endswith(("accuracy", "share"))
    cells = rows.groupby(["batch_size", "learning_rate"], sort=False)
    for ((size, rate), part), colour in zip(
        cells, [RED, BLUE, GREEN, PURPLE, SKY], strict=False
    ):
        name: str | None = f"B = {size}, LR = {rate:g}"
        for _, run in part.groupby("key"):
            values = as_percent(run[column]) if share else run[column]
            ax.plot(run["epoch"], values, color=colour, label=name)
            name = None
    ax.set(xlabel="epoch", ylabel=label)
    if share:
        ax.set(ylim=(-3, 103))
    if len(rows):
        ax.legend(fontsize="small")
    return ax


def at_updates(table: pd.DataFrame, updates: int) -> pd.DataFrame:
    """Return each run's row of the epoch after which it took about so many updates."""
    rows = table[table["measured"] == "epoch"]
    each = np.ceil(rows["train_size"] / rows["batch_size"])
    rows = rows.assign(updates=each * rows["epoch"]).reset_index(drop=True)
    nearest = (rows["updates"] / updates - 1).abs().groupby(rows["key"]).idxmin()
    return rows.loc[nearest]


def as_printed(printed: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's own table in the columns and units of ours.

    It says best epochs, not how many there were; the largest is 117.
    """
    return printed.assign(
        share=printed["epoch_mean"] / 120,
        natural_accuracy=printed["acc_mean"] / 100,
        fgsm_accuracy=printed["adv_acc_mean"] / 100,
    )


def chosen_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Return what three rules of choosing an epoch report, mean over each cell's runs.

    The poster's, best on the attacked test images; best on attacked held-out images;
    the last. Accuracies in percent, of the test images.
    """
    rows = table[table["measured"] == "epoch"]
    last = rows.loc[rows.groupby("key")["epoch"].idxmax()]
    rules = {"best on test images": best_epochs(table)}
    rules["best on held-out images"] = best_epochs(table, "validation_fgsm_accuracy")
    rules["last"] = last
    found = []
    for rule, chosen in rules.items():
        for cell, part in chosen.groupby(["batch_size", "learning_rate"], sort=False):
            means = {"epoch": spread(part, "epoch", 1)}
            means["natural (%)"] = spread(part, "natural_accuracy")
            means["FGSM (%)"] = spread(part, "fgsm_accuracy")
            means["FGSM, clipped (%)"] = spread(part, "fgsm_clipped_accuracy")
            means["FGSM, margin (%)"] = spread(part, "fgsm_margin_accuracy")
            name = f"B = {cell[0]}, LR = {cell[1]:g}"
            found.append({"cell": name, "epoch chosen": rule} | means)
    places = ["cell", "epoch chosen"]
    return pd.DataFrame(found, columns=None if found else places).set_index(places)


def _colour_of(way: str) -> str:
    if way == "natural_accuracy":
        return BLACK
    return COLOURS["cross-entropy" if way in FADING else "margin"]


def ways_of_attack(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw what each way of computing one attack answers; a mark per network."""
    rows = final(table)
    markers = "os^Dv"
    cells = rows.groupby(["batch_size", "learning_rate"], sort=False)
    shift = np.linspace(0.15, -0.15, max(2, cells.ngroups))
    for index, ((size, rate), part) in enumerate(cells):
        look: Any = {"marker": markers[index % 5]}
        for row, column in enumerate(WAYS):
            at = np.full(len(part), row + shift[index])
            shown = as_percent(part[column])
            ax.scatter(shown, at, color=_colour_of(column), s=22, **look)
        ax.scatter([], [], color="grey", label=f"B = {size}, LR = {rate:g}", **look)
    ax.set_yticks(range(len(WAYS)), list(WAYS.values()))
    ax.invert_yaxis()
    ax.set(xlabel="images still right (%)", xlim=(-3, 103))
    ax.legend(loc="lower right")
    return ax


def table_of_ways(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each way of attacking leaves: percent, mean and interval over seeds.

    A row is a way, a column a cell of the grid; below stand the instruments that were
    run on fewer images, and the median radius that fools an image, in pixels.
    """
    rows = final(table)
    columns = {}
    for (size, rate), part in rows.groupby(["batch_size", "learning_rate"], sort=False):
        listed = WAYS | {way: MORE_WAYS[way] for way in MORE_WAYS if way in part}
        found = {label: spread(part, way) for way, label in listed.items()}
        if "strong_images" in part and part["strong_images"].notna().any():
            images = f" ({part['strong_images'].max():.0f} images)"
            for way, label in STRONG.items():
                if way in part:
                    found[label + images] = spread(part, way)
            radius = spread(part, "distance_q50", 1, digits=3)
            found["median radius that fools" + images] = radius
        columns[f"B = {size}, LR = {rate:g}"] = found
    return pd.DataFrame(columns)


def _by_factor(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return means by factor of the logits, and the ways of attacking among them."""
    rows = table[table["measured"] == "scale"]
    if rows.empty:
        return rows, {}
    means = rows.groupby("factor").mean(numeric_only=True).dropna(axis=1, how="all")
    return means, {name: label for name, label in WAYS.items() if name in means}


def table_by_scale(table: pd.DataFrame) -> pd.DataFrame:
    """Return the same as `scaled_logits` in percent, a row a way, a column a factor.

    The page turns it into a slider (book/_static/scale.js).
    """
    means, ways = _by_factor(table)
    if not ways:
        return pd.DataFrame()
    shown = (100 * means[list(ways)]).T.rename(index=ways).map("{:.1f}".format)
    return shown.set_axis([f"times {factor:g}" for factor in means.index], axis=1)


def scaled_logits(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw what one attack answers as a network's logits are multiplied."""
    means, lines = _by_factor(table)
    if not lines:
        return ax
    markers = dict(zip(lines, "o^sDvPX*", strict=False))
    for name, label in lines.items():
        look: Any = {"color": _colour_of(name), "marker": markers[name]}
        ax.plot(means.index, as_percent(means[name]), label=label, **look)
    ax.set(xscale="log", xlabel="all logits times", ylim=(-3, 103))
    ax.set(ylabel="images still classified rightly (%)")
    plain_log(ax.xaxis, means.index.tolist())
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def moved(table: pd.DataFrame) -> pd.DataFrame:
    """Return how far FGSM on clipped probabilities moves images, a row a cell.

    Beside it how sure of themselves the networks are, and what attacks leave right:
    means and intervals over seeds, of accuracies and shares in percent.
    """
    rows = final(table)
    rows = rows[rows["moved_share"].notna()] if "moved_share" in rows else rows[:0]
    cells = ["epochs", "batch_size", "learning_rate"]
    columns = {
        "images that move at all (%)": ("moved_share", 100, 1),
        "mean move (pixels)": ("moved_mean", 1, 3),
        "median margin": ("median_margin", 1, 1),
        "right after it (%)": ("fgsm_clipped_accuracy", 100, 1),
        "after FGSM, margin (%)": ("fgsm_margin_accuracy", 100, 1),
        "after PGD, margin (%)": ("pgd_margin_accuracy", 100, 1),
    }
    lines = {}
    for (epochs, size, rate), part in rows.groupby(cells):
        # Hard spaces: a head of a row breaks after the comma alone.
        cell = f"B\u00a0=\u00a0{size:g}, LR\u00a0=\u00a0{rate:g}"
        lines[f"{epochs:g}\u00a0epochs", cell] = [
            spread(part, *measure) for measure in columns.values()
        ]
    return stacked(lines, list(columns))


def attacked_pictures(
    table: pd.DataFrame, axes: Any, chosen: Sequence[str] | None = None
) -> Any:
    """Draw images and what each way of attacking makes of them, a row a way.

    Over each stands what the network answers, and how far it was moved, in pixels.

    Args:
        table: Rows of which the first network with pictures is drawn.
        axes: Rows of as many axes as there are images.
        chosen: Ways of attacking; all of them by default.
    """
    rows = table[table["measured"] == "picture"]
    rows = rows[rows["key"] == rows["key"].iloc[0]] if len(rows) else rows
    if chosen is not None and len(rows):
        rows = rows[rows["way"].isin(chosen)]
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    ways = rows.groupby("way", sort=False) if len(rows) else []
    for line, (way, part) in zip(axes, ways, strict=False):
        label = (
            WAYS[f"{way}_accuracy"].replace(", ", ",\n").replace(" float", "\nfloat")
        )
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
        for ax, row in zip(line, part.to_dict("records"), strict=False):
            shades = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["png"]))))
            ax.imshow(shades, cmap="gray", vmin=0, vmax=255)
            moved = "" if way == "natural" else f", {row['moved']:.2f}"
            colour = BLACK if row["answer"] == row["label"] else RED
            title = f"{row['answer']:.0f}{moved}"
            ax.set_title(title, fontsize="small", color=colour, pad=2)
    return axes
