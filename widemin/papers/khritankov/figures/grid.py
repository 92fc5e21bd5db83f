"""Figures over the grid of batch sizes and learning rates, and over epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from widemin.papers.figures import BLUE, GREEN, PURPLE, RED, SKY, as_percent, spread
from widemin.papers.khritankov.claims import best_epochs


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
            ax.scatter(
                part["ratio"],
                as_percent(part[column]),
                color=colour,
                facecolor=face,
                s=36,
            )
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
        ax.text(
            column + 0.5,
            row + 0.5,
            f"{value:.0f}",
            size=8,
            ha="center",
            va="center",
            color="white" if value < 60 else "black",
        ).set_in_layout(False)  # inside its cell: no need to measure it
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
