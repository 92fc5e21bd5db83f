"""Figures of one network attacked in several ways."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from widemin.papers.claims import final
from widemin.papers.figures import (
    BLACK,
    COLOURS,
    FADING,
    MORE_WAYS,
    RED,
    STRONG,
    WAYS,
    as_percent,
    plain_log,
    spread,
)


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
                as_percent(part[column]),
                np.full(len(part), row + shift[index]),
                marker=markers[index % 5],
                color=BLACK if column == "natural_accuracy" else colour,
                s=22,
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
        colour = COLOURS["cross-entropy" if name in FADING else "margin"]
        colour = BLACK if name == "natural_accuracy" else colour
        values = as_percent(means[name])
        ax.plot(means.index, values, color=colour, marker=markers[name], label=label)
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
    found = {
        # Hard spaces: a head of a row breaks after the comma alone.
        (
            f"{epochs:g}\u00a0epochs",
            f"B\u00a0=\u00a0{size:g}, LR\u00a0=\u00a0{rate:g}",
        ): {
            label: spread(part, column, unit, digits)
            for label, (column, unit, digits) in columns.items()
        }
        for (epochs, size, rate), part in rows.groupby(cells)
    }
    index = pd.MultiIndex.from_tuples(found, names=[None, None]) if found else None
    return pd.DataFrame(list(found.values()), index, columns=list(columns))


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
