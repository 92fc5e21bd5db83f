"""Chapter 1: widths, the grid, ways of computing one attack."""

import base64
import io
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame
from PIL import Image

from widemin.papers import figures as plot
from widemin.papers.claims import final, with_columns
from widemin.papers.claims.draws import distance_revisions, of_one_revision
from widemin.papers.figures import BLACK, BLUE, GREEN, RED, WAYS, Panels
from widemin.papers.khritankov.claims import best_epochs, measured_widths
from widemin.papers.khritankov.theory import logistic_widths
from widemin.papers.ranks import FLATNESS, rank_flatness

ROBUSTNESS = plot.LABELS["robustness"]
# Those in orange fade: their gradient is lost as the network grows sure of itself.
_FADING = ["fgsm_clipped_accuracy", "fgsm_accuracy", "fgsm_float64_accuracy"]
_COLOURS = dict.fromkeys(WAYS, BLUE) | {"natural_accuracy": BLACK}
_COLOURS |= dict.fromkeys([*_FADING, "pgd_accuracy"], RED)


def logistic_scale(ax: Axes, x: Any, theta: Any, scales: Any, level: float) -> Axes:
    """Draw one sample's widths, and its distance to the boundary, over the scale."""
    widths = [logistic_widths(x, k * np.asarray(theta), level) for k in scales]
    distance = np.dot(x, theta) / np.linalg.norm(theta)
    lines = np.column_stack([widths, np.full(len(scales), distance)]).T
    names = ["width in weights", "width in inputs", "distance to boundary"]
    plot.curves(ax, scales, dict(zip(names, lines, strict=True)), (RED, BLUE, BLACK))
    ax.set(title="theorem 2.3", ylim=(0.2, 2_000))
    return plot.framed(ax, "all weights times", "length", "upper left", log="xy")


def level_set(ax: Axes, curvatures: Sequence[float], gap: float) -> Axes:
    """Draw a bowl's contours, one level set and the way to its nearest point."""
    steep, flat = max(curvatures), min(curvatures)
    reach, d = 1.3 * (2 * gap / flat) ** 0.5, (2 * gap / steep) ** 0.5
    x, y = np.meshgrid(*[np.linspace(-reach, reach, 121)] * 2)
    loss = (flat * x**2 + steep * y**2) / 2
    ax.contour(x, y, loss, levels=[gap * f for f in (0.25, 2, 4)], colors="0.8")
    ax.contour(x, y, loss, levels=[gap], colors=RED, linewidths=2)
    turn = np.linspace(0, 2 * np.pi, 181)
    ax.plot(d * np.cos(turn), d * np.sin(turn), color=BLUE, linestyle=":")
    ax.annotate("", (0, d), (0, 0), arrowprops={"arrowstyle": "->", "color": BLUE})
    look: Any = {"va": "center", "bbox": {"fc": "white", "ec": "none", "pad": 0.5}}
    ax.text(0.07 * reach, d / 2, "d(c)", color=BLUE, **look)
    ax.text(0.48 * reach, -0.75 * d, "V(c)", color=RED, **look)
    ax.plot(0, 0, "o", color=BLACK)
    return plot.framed(ax, "flat direction", "steep direction", aspect="equal")


def against_bound(ax: Axes, x: Any, loss: Any, bound: Any, theorem: str) -> Axes:
    """Draw a loss and what a theorem allows it."""
    lines = {"the loss": loss, "what the theorem allows": bound}
    plot.curves(ax, x, lines, (RED, BLACK))
    ax.set(title=f"theorem {theorem}", ylim=(0, None))
    return plot.framed(ax, "way from one point to another", "loss", "best")


def width_by_gap(
    ax: Axes, gaps: Any, exact: dict[str, Any], measured: dict[str, Any]
) -> Axes:
    """Draw widths in closed form as lines, as measured as points, over the level."""
    points = {f"_{name}": values for name, values in measured.items()}
    for lines, style in ((exact, "-"), (points, "o")):
        plot.curves(ax, gaps, lines, (BLUE, RED, GREEN), style)
    said = "level above the minimum, c - φ(x*)", "width w(x*, c)"
    return plot.framed(ax, *said, "best", log="xy")


def flatness(grid: DataFrame) -> DataFrame:
    """Return rank correlations of measures of flatness with those of robustness."""
    rows = measured_widths(grid)
    return DataFrame() if rows.empty else rank_flatness(rows, ROBUSTNESS)


def by_flatness(grid: DataFrame, axes: Panels, column: str) -> Panels:
    """Draw accuracy under FGSM and the distance that fools against a flatness."""
    rows = with_columns(measured_widths(grid), [column, "ratio", *ROBUSTNESS])
    colours = np.log10(rows["ratio"].to_numpy(float))
    for ax, (name, label) in zip(axes, ROBUSTNESS.items(), strict=True):
        plot.marks(ax, rows, column, name, c=colours, cmap="plasma", s=44)
        unit = "pixels" if name == "distance_q50" else "%"
        plot.framed(ax, FLATNESS[column], f"{label} ({unit})", log={"x": 4})
    return axes


def cell_means(rows: DataFrame, column: str) -> DataFrame:
    """Return means over seeds in percent, learning rates by batch sizes.

    A network that answers one class counts; where the loss overflowed there is none.
    """
    return 100 * rows.pivot_table(column, "learning_rate", "batch_size", dropna=False)


def heat_map(cells: DataFrame, ax: Axes, title: str) -> Axes:
    """Draw percentages of (learning rate, batch size) cells; empty ones are grey."""
    # seaborn's would draw the whole figure anew for every panel.
    cells = cells.sort_index(ascending=False).astype(float)
    ax.pcolormesh(cells.to_numpy(), vmin=0, vmax=100, cmap="viridis")
    look: Any = {"size": "small", "ha": "center", "va": "center"}
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            place = (column + 0.5, row + 0.5, f"{value:.0f}")
            text = ax.text(*place, color="white" if value < 60 else "black", **look)
            text.set_in_layout(False)  # inside its cell: no need to measure it
    ax.set_xticks(np.arange(len(cells.columns)) + 0.5, cells.columns)
    ax.set_yticks(np.arange(len(cells.index)) + 0.5, cells.index)
    ax.tick_params(length=0)
    ax.set_facecolor("0.9")
    ax.grid(visible=False)
    ax.yaxis.set_inverted(True)
    return plot.framed(ax, "batch size", "learning rate", title=title)


def learning_curves(table: DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a watched number over epochs, one line per run."""
    cells = plot.by_cell(table[table["measured"] == "epoch"])
    spare = cycle([plot.SKY, plot.YELLOW, BLACK, plot.GREY])
    for name, part in cells.items():
        colour = plot.COLOURS.get(name) or next(spare)
        plot.line_a_run(ax, part, column, name, color=colour)
    if plot.unit_of(column) == 100:
        ax.set(ylim=(-3, 103))
    return plot.framed(ax, "epoch", label, "best")


def at_updates(table: DataFrame, updates: int) -> DataFrame:
    """Return each run's row of the epoch after which it took about so many updates."""
    rows = table[table["measured"] == "epoch"].reset_index(drop=True)
    taken = np.ceil(rows["train_size"] / rows["batch_size"]) * rows["epoch"]
    return rows.loc[(taken / updates - 1).abs().groupby(rows["key"]).idxmin()]


def as_printed(printed: DataFrame) -> DataFrame:
    """Return the paper's own table in the columns and units of ours."""
    return printed.assign(
        natural_accuracy=printed["acc_mean"] / 100,
        fgsm_accuracy=printed["adv_acc_mean"] / 100,
    )


def chosen_epochs(table: DataFrame) -> DataFrame:
    """Return test accuracies in percent by rules of choosing an epoch."""
    rules = {"best on test images": "fgsm_accuracy"}  # the poster's
    rules |= {"best on held-out images": "validation_fgsm_accuracy", "last": "epoch"}
    parts = {
        (cell, rule): part
        for rule, column in rules.items()
        for cell, part in plot.by_cell(best_epochs(table, column)).items()
    }
    means = plot.spreads(parts, "rules of chapter 1")
    return means.rename_axis(["cell", "epoch chosen"]) if parts else means


def ways_of_attack(table: DataFrame, ax: Axes) -> Axes:
    """Draw what each way of computing one attack answers; a mark per network."""
    cells = plot.by_cell(final(table))
    shifts = np.linspace(0.15, -0.15, max(2, len(cells)))
    looks = zip(cells.items(), shifts, cycle("os^Dv"), strict=False)
    for (cell, part), shift, mark in looks:
        for row, way in enumerate(WAYS):
            look: Any = {"color": _COLOURS[way], "marker": mark, "s": 22}
            plot.marks(ax, part, way, row + shift, **look)
        ax.scatter([], [], color="grey", label=cell, marker=mark)
    plot.name_rows(ax, WAYS.values())
    ax.set(xlim=(-3, 103))
    return plot.framed(ax, "images still right (%)", "", "lower right")


def table_of_ways(table: DataFrame) -> DataFrame:
    """Return accuracies in percent under each way of attacking, a column a cell.

    Below stand those run on fewer images, and the median radius that fools, in pixels.
    """
    columns = {}
    for cell, part in plot.by_cell(of_one_revision(final(table))).items():
        columns[cell] = plot.listed(part, "ways") | plot.listed(part, "more ways")
        if "strong_images" in part and part["strong_images"].notna().any():
            images = f" ({part['strong_images'].max():.0f} images)"
            fewer = plot.listed(part, "fewer images")
            columns[cell] |= {label + images: said for label, said in fewer.items()}
    return DataFrame(columns)


def revision(table: DataFrame) -> str:
    """Return the revisions of the search for radii that fool, "1 and 2" say."""
    rows = with_columns(table, ["revisions", "distance_q50"])
    rows = rows.dropna(subset="distance_q50")
    return " and ".join(sorted(distance_revisions(rows).unique())) or "none"


def _by_factor(table: DataFrame) -> DataFrame:
    """Return accuracies in percent by way of attacking and factor of the logits."""
    rows = table[table["measured"] == "scale"]
    rows = rows.dropna(axis=1, how="all") if len(rows) else rows.assign(factor=[])
    return 100 * rows.groupby("factor")[[way for way in WAYS if way in rows]].mean()


def table_by_scale(table: DataFrame) -> DataFrame:
    """Return `scaled_logits` as a table: book/_static/scale.js makes it a slider."""
    means = _by_factor(table).rename("times {:g}".format).rename_axis(None)
    return means.rename(columns=WAYS).T.map("{:.1f}".format)


def scaled_logits(table: DataFrame, ax: Axes) -> Axes:
    """Draw what one attack answers as a network's logits are multiplied."""
    means = _by_factor(table)
    if len(means):
        for way, marker in zip(means, "o^sDvPX*", strict=False):
            look: Any = {"color": _COLOURS[way], "marker": marker, "label": WAYS[way]}
            ax.plot(means.index, means[way], **look)
        ax.set(ylim=(-3, 103))
        said = "all logits times", "images still classified rightly (%)"
        plot.framed(ax, *said, "outside", log={"x": list(means.index)})
    return ax


def moved(table: DataFrame) -> DataFrame:
    """Return shares of images that clipped FGSM moves, and margins, by cell."""
    rows = with_columns(final(table), ["moved_share"])
    rows = rows[rows["moved_share"].notna()]
    rows = rows.sort_values(["batch_size", "learning_rate"], kind="stable")
    parts = {  # hard spaces: a head of a row breaks after the comma alone
        (f"{epochs:g}\u00a0epochs", cell.replace(" = ", "\u00a0=\u00a0")): part
        for epochs, trained in rows.groupby("epochs")
        for cell, part in plot.by_cell(trained).items()
    }
    return plot.spreads(parts, "moved")


def attacked_pictures(
    table: DataFrame, axes: Any, chosen: Sequence[str] | None = None
) -> Any:
    """Draw images and what each way of attacking makes of them, a row a way.

    Over each stands what the first network with pictures answers, and how far it was
    moved, in pixels. A row of axes a way chosen, all of them by default.
    """
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    rows = table[table["measured"] == "picture"]
    if rows.empty:
        return axes
    rows = rows[rows["key"] == rows["key"].iloc[0]]
    ways = dict(list(rows.groupby("way", sort=False)))
    look: Any = {"rotation": 0, "ha": "right", "va": "center", "fontsize": "small"}
    for line, way in zip(axes, chosen or ways, strict=False):
        label = WAYS[f"{way}_accuracy"].replace(", ", ",\n")
        line[0].set_ylabel(label.replace(" float", "\nfloat"), **look)
        for ax, row in zip(line, ways[way].to_dict("records"), strict=False):
            shades = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["png"]))))
            ax.imshow(shades, cmap="gray", vmin=0, vmax=255)
            move = "" if way == "natural" else f"\n{row['moved']:.2f}"
            wrong = " ✗" * (row["answer"] != row["label"])
            ax.set_title(f"{row['answer']:.0f}{wrong}{move}", fontsize="small", pad=2)
    return axes
