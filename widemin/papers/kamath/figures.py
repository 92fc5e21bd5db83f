"""Chapter 4: everything against batch size, and the spectrum."""

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas import DataFrame

from widemin.papers import figures as plot
from widemin.papers.claims import ball_name, final, with_columns
from widemin.papers.claims.draws import of_one_revision
from widemin.papers.kamath.claims import undertrained, well_trained
from widemin.papers.ranks import rank_correlations
from widemin.statistics import spearman

# What the controls, and what the counter-example is about.
EXPLAINED, COUNTERED = plot.LABELS["controls"], plot.LABELS["counter-example"]
_LISTED = plot.LABELS["eigenvalues"]


def by_batch_size(table: DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a number against batch size, a line per setting and a point per seed.

    Hollow points are undertrained: below 95 % on training images, 85 % of
    Fashion-MNIST, 70 % of CIFAR-10. A row's setting stands in the column `setting`.
    """
    rows, x = final(table), "batch_size"
    spare = cycle([plot.YELLOW, plot.BLACK, plot.GREY])
    for setting, part in rows.groupby("setting", sort=False):
        colour = plot.COLOURS.get(str(setting)) or next(spare)
        look = {"color": colour, "linestyle": "--" if "," in str(setting) else "-"}
        plot.mean_line(ax, part, x, column, label=str(setting), **look)
        part = part.iloc[np.argsort(undertrained(part), kind="stable")]
        face = np.where(undertrained(part), "white", colour)
        plot.marks(ax, part, x, column, edgecolor=colour, facecolor=face, zorder=3)
    sizes = sorted(rows[x].unique())
    ax.set(yscale="log" if plot.unit_of(column) == 1 else "linear")
    ticks = sizes if len(sizes) < 7 else sizes[::2]
    return plot.framed(ax, "batch size", label, log={"x": ticks})


def from_end_to_end(table: DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Return columns of one attack's runs at the least and greatest batch size.

    `_small` and `_large`, fractions in percent, and `_rank`, Spearman's correlation
    with the batch size; with `trained_` of trained batch sizes alone. NaN without runs.
    """
    rows, numbers = final(table), dict[str, float]()
    for prefix, part in (("", rows), ("trained_", well_trained(rows))):
        for column in ("batch_size", *columns):
            means = part.groupby("batch_size")[column].mean() * plot.unit_of(column)
            ends = means.iloc[[0, -1]] if len(means) else [math.nan] * 2
            told = *map(float, ends), spearman(means.index, means)
            heads = (f"{prefix}{column}_{end}" for end in ("small", "large", "rank"))
            numbers |= zip(heads, told, strict=True)
    return numbers


def by_run(table: DataFrame) -> DataFrame:
    """Return accuracies and top eigenvalue, a row a run, by batch size."""
    lines: dict[Any, dict[str, str]] = {}
    for row in final(table).to_dict("records"):
        line = lines.setdefault((row["batch_size"], f"{row['learning_rate']:g}"), {})
        line["right in training (%)"] = f"{100 * row['train_accuracy']:.1f}"
        line["natural (%)"] = f"{100 * row['natural_accuracy']:.1f}"
        line["top eigenvalue"] = f"{row['top_eigenvalue']:.3g}"
        for column, name in (("fgsm", "FGSM"), ("pgd_margin", "margin-loss PGD")):
            said = f"{name}, {ball_name(row['test'])} (%)"
            line[said] = f"{100 * row[f'{column}_accuracy']:.1f}"
    index = pd.MultiIndex.from_tuples(lines, names=["batch size", "learning rate"])
    return DataFrame(list(lines.values()), index).sort_index()


def beside_printed(printed: DataFrame, usual: DataFrame) -> DataFrame:
    """Return means by Algorithm 1 as printed and as usual, at batch size 64."""
    lines = {}
    for name, table in (("as printed", printed), ("as usual", usual)):
        rows = final(table)
        rows = rows[rows["batch_size"] == 64] if len(rows) else rows
        lost = table["diverged"].eq(True).sum() if len(table) else 0
        means = [plot.spread(rows, c) if len(rows) else "" for c in EXPLAINED]
        lines[name] = [len(rows), lost, *means]
    return plot.stacked(lines, ["runs", "diverged", *EXPLAINED.values()])


def explanations(table: DataFrame, outcomes: dict[str, str]) -> DataFrame:
    """Return rank correlations of a small top eigenvalue with robustness."""
    rows = of_one_revision(table)
    rows = rows.assign(small_eigenvalue=-rows["top_eigenvalue"])
    rows = rows[rows["train_accuracy"] >= 0.95]
    # The margin is the scale of the logits.
    held = ["final_train_loss", "median_margin", "learning_rate"]
    named = {"small_eigenvalue": "small top eigenvalue"}
    return rank_correlations(rows, named, outcomes, held)


def with_limit(table: DataFrame) -> DataFrame:
    """Return rows with `limit_share` and `sharpness_share`, curvature over its limit.

    Along a curvature above 2 (1 + m) / η gradient descent with learning rate η and
    momentum m diverges; for m = 0, Cohen et al. (2021): the top eigenvalue over it. The
    batch sharpness over 2 (1 - m) / η, about which it settles in training on small
    batches (Andreyev et al. 2026); NaN in rows without.
    """
    twice, m = 2 / table["learning_rate"], table["momentum"]
    sharpness = table.get("batch_sharpness", pd.Series(math.nan, table.index))
    shares = {"limit_share": table["top_eigenvalue"] / (twice * (1 + m))}
    return table.assign(**shares, sharpness_share=sharpness / (twice * (1 - m)))


def _spectrum(table: DataFrame, of: str) -> DataFrame:
    rows = with_columns(table, ["of", "way", "value", "residual", "products"])
    return rows[(rows["measured"] == "spectrum") & (rows["of"] == of)]


def eigenvalues(table: DataFrame) -> DataFrame:
    """Return the eigenvalues found, a row a network and a way of finding them."""
    forms = {"value": "{:.4g}", "residual": "{:.2g}", "products": "{:.0f}"}
    lines = {
        (plot.cell_name(row), row["way"]): [f.format(row[c]) for c, f in forms.items()]
        for row in _spectrum(table, "eigenvalue").to_dict("records")
    }
    numbers = plot.stacked(lines, ["eigenvalue", "residual", "products"])
    return numbers.replace("^-", "\u2212", regex=True)


def eigenvalue_differences(table: DataFrame) -> dict[str, float]:
    """Return by how many percent ways of finding a top eigenvalue differ at most.

    By `solver`, by `images`, and `smallest`, the most negative one over it; or NaN.
    """
    rows = _spectrum(table, "eigenvalue")
    way = rows["way"].astype(str).str.split(",").str[0]
    usual = rows[way == "Lanczos"].groupby("key")["value"].first()
    ratio = rows["value"].astype(float) / rows["key"].map(usual)
    off = 100 * (ratio - (way != "smallest")).abs()
    kinds = {"solver": "PyHessian", "images": "Lanczos", "smallest": "smallest"}
    return {kind: float(off[way == name].max()) for kind, name in kinds.items()}


def eigenvalue_of_each(table: DataFrame) -> DataFrame:
    """Return every network's top eigenvalue, how it was found, and its setting."""
    rows = with_columns(final(table), ["setting", "key", *_LISTED])
    rows = rows.drop_duplicates(["setting", "key"]).set_index("setting")
    numbers = rows[["top_eigenvalue", "eigenvalue_residual"]].map("{:.3g}".format)
    counts = rows[["hessian_products", "hessian_images"]].astype("Int64")
    rows = rows.assign(**numbers, **counts)[list(_LISTED)]
    return rows.rename(columns=_LISTED).rename_axis(None)


def densities(table: DataFrame, ax: Axes) -> Axes:
    """Draw the Hessian's spectral density, a line a network."""
    networks = _spectrum(table, "density").groupby("key", sort=False)
    colours = (plot.BLACK, "#8C510A", plot.GREY, plot.PURPLE)
    for (_, part), colour in zip(networks, colours, strict=False):
        name, density = plot.cell_name(part.iloc[0]), part["value"].clip(lower=1e-9)
        ax.plot(part["place"], density, color=colour, label=name)
    ax.set_xscale("symlog", linthresh=1)
    return plot.framed(ax, "eigenvalue", "density", "best", log="y", ylim=(1e-6, None))
