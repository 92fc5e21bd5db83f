"""Chapter 5: radius against flatness, losses, readings, noise, certificates, SAM."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from pandas import DataFrame

from widemin.papers import figures as plot
from widemin.papers.claims import final, with_columns
from widemin.papers.figures import BLUE, ORANGE, RED, Panels
from widemin.papers.ours.claims import spreads, trained_alike, with_own_loss
from widemin.papers.ranks import in_words, rank_correlations

RADIUS = "smallest radius that fools, median (pixels)"
# What N2 ranks, as its figures and its table name it.
FLAT = plot.LABELS["flat"]
_ARMS = {  # of N6: name to how an arm begins, its colour and its mark
    "SGD": (r"SGD$", plot.BLACK, "o"),
    "SAM": (r"SAM [\d.]+$", BLUE, "o"),
    "SAM, late": (r"SAM .* from", plot.SKY, "s"),
    "SGD, ended early": (r"SGD to", ORANGE, "v"),
    "weight decay": (r"weight decay", plot.GREEN, "D"),
    "label smoothing": (r"label smoothing", RED, "^"),
    "logit normalisation": (r"logit", plot.PURPLE, "P"),
}


def named(lists: Mapping[str, Any], table: DataFrame) -> DataFrame:
    """Return final rows of a dictionary of lists with the name of the list, `list`."""
    rows, parts = final(table), []
    for name, runs in lists.items():
        keys = {run.key for run in runs}
        parts.append(rows[rows["key"].isin(keys)].assign(list=name))
    return pd.concat(parts) if parts else rows.assign(list="")


def against_radius(table: DataFrame, ax: Axes, column: str) -> Axes:
    """Draw the smallest radius that fools against a flatness, a point a network.

    Colour is the learning rate, size the batch size.
    """
    rows = trained_alike(final(table)).dropna(subset=[column, "distance_q50"])
    rates = sorted(rows["learning_rate"].unique())
    colours = sns.color_palette("flare", len(rates))
    for rate, colour in zip(rates, colours, strict=True):
        part = rows[rows["learning_rate"] == rate]
        sizes = 12 * np.log2(part["batch_size"].to_numpy(float))
        look: Any = {"color": [colour], "s": sizes, "alpha": 0.8, "label": f"{rate:g}"}
        plot.marks(ax, part, column, "distance_q50", **look)
    return plot.framed(ax, FLAT[column], RADIUS, log={"x": 4})


def ranks_in_words(table: DataFrame, held: Mapping[str, list[str]]) -> DataFrame:
    """Return rank correlations of N2's measures with the radius, a row a measure.

    On their own, then with lists of columns held fixed, each under its name.
    """
    columns = {"distance_q50", *FLAT, *(c for names in held.values() for c in names)}
    rows = with_columns(trained_alike(final(table)), columns)
    outcome, heads = {"distance_q50": "radius that fools"}, dict[str, Any]()
    for name, given in held.items():
        said = in_words(rank_correlations(rows, FLAT, outcome, given))
        heads |= {"networks": said["networks"], "on its own": said["on its own"]}
        heads[f"given {name}"] = said["others held fixed"]
    within = [f"{within_settings(rows, c):.2f}".replace("-", "\u2212") for c in FLAT]
    return DataFrame(heads | {"within a setting": within}).droplevel("with")


def within_settings(rows: DataFrame, column: str) -> float:
    """Return the correlation with the radius of what seeds of one setting differ by.

    Of ranks over all networks, each less its setting's mean; NaN without two seeds.
    """
    settings = [rows[name] for name in ("batch_size", "learning_rate", "weight_decay")]
    ranks = rows[[column, "distance_q50"]].dropna().rank()
    left = ranks - ranks.groupby(settings).transform("mean")
    return float(left[column].corr(left["distance_q50"]))


def partial_of_each(table: DataFrame) -> dict[str, float]:
    """Return N2's rank correlations with the radius, natural accuracy held fixed."""
    rows = with_columns(trained_alike(final(table)), ["distance_q50", *FLAT])
    named = {column: column for column in FLAT}
    given = ["natural_accuracy"]
    found = rank_correlations(rows, named, {"distance_q50": "radius"}, given)
    return dict(zip(found["measure"], found["partial"], strict=True))


def by_loss(rows: DataFrame, ax: Axes, names: Iterable[str]) -> Axes:
    """Draw accuracy by loss trained on: FGSM through it, FGSM and PGD up the margin.

    A row a name; of a loss without runs it stays empty.
    """
    rows, lists = with_own_loss(rows), list(names)
    ways = {
        "own": ("FGSM through the loss trained on", ORANGE),
        "fgsm_margin_accuracy": ("FGSM, margin", BLUE),
        "pgd_margin_accuracy": ("PGD, margin", plot.BLACK),
    }
    for shift, (column, (label, colour)) in enumerate(ways.items()):
        at = np.array([lists.index(name) for name in rows["list"]])
        x = 100 * rows[column].to_numpy(float)
        ax.scatter(x, at + 0.2 * (shift - 1), color=colour, label=label)
    plot.name_rows(ax, lists)
    ax.set_ylim(len(lists) - 0.5, -0.5)
    return plot.framed(ax, "images still right (%)", "", xlim=(-3, 103))


def binarized(rows: DataFrame) -> DataFrame:
    """Return the shares of images in which attacks find the example that is there."""
    ways = plot.LABELS["binarized"]
    rows = with_columns(rows, ways).dropna(subset=["binarized_fgsm"])
    lines = {}
    for column, name in ways.items():
        shares = 100 * rows.groupby("seed")[column].mean()
        said = plot.mean_in_words(list(shares), ".1f") if len(shares) else "not run"
        word = "passes" if shares.mean() >= 95 else "fails"
        lines[name] = [said, word * (len(shares) > 0 and column != "binarized_random")]
    return plot.stacked(lines, ["found (%)", "at 95 %"])


def scattered(rows: DataFrame, ax: Axes, column: str) -> Axes:
    """Draw what seeds, and what rounding alone, spread: a point a network."""
    lists = list(dict.fromkeys(rows["list"]))
    kinds = {
        "ten seeds": (rows["nudge"] == 0, BLUE),
        "one seed, other rounding": (rows["seed"] == 0, ORANGE),
    }
    for shift, (label, (chosen, colour)) in enumerate(kinds.items()):
        part = rows[chosen]
        at = [lists.index(name) + 0.24 * shift - 0.12 for name in part["list"]]
        ax.scatter(plot.shown(part, column), at, color=colour, alpha=0.7, label=label)
    plot.name_rows(ax, lists)
    return plot.framed(ax, "accuracy, margin-loss PGD (%)", "", "below")


def floor(rows: DataFrame, column: str) -> DataFrame:
    """Return deviations over seeds and over rounding, and what seeds can show."""
    table = spreads(rows[~rows["constant"].eq(True)], column)
    lines = {}
    for name, row in table.iterrows():
        shares = [100 * row[kind] for kind in ("mean", "seeds", "rounding")]
        least = [2.8 * shares[1] * (2 / n) ** 0.5 for n in (3, 5, 10)]
        counts = f"{row['n_seeds']:.0f} and {row['n_rounding']:.0f}"
        lines[name] = [counts, *(f"{value:.2f}" for value in (*shares, *least))]
    heads = ["n", "mean (%)", "± seeds", "± rounding"]
    heads += [f"{n} seeds show" for n in (3, 5, 10)]
    return plot.stacked(lines, heads)


def certificates(rows: DataFrame) -> DataFrame:
    """Return the area under the curve of what might tell which survivors break."""
    areas = plot.LABELS["certificates"]
    counts = ["certificate_survivors", "certificate_broken"]
    rows = with_columns(rows, [*areas, *counts]).dropna(subset=counts)
    lines = {}
    for (name, test), part in rows.groupby(["list", "test"], sort=False):
        means = [f"{part[count].mean():.0f}" for count in counts]
        shares = [plot.spread(part, column, 2) for column in areas]
        shares = ["none" if text == "not run" else text for text in shares]
        lines[f"{name}, {plot.ball_name(str(test))}"] = [*means, *shares]
    return plot.stacked(lines, ["survive", "break", *areas.values()])


def frontier(rows: DataFrame, axes: Panels, column: str) -> Panels:
    """Draw accuracy under attack against natural and training accuracy, and margin."""
    for ax, (side, label) in zip(axes, plot.LABELS["frontier"].items(), strict=True):
        for name, (pattern, colour, mark) in _ARMS.items():
            part = rows[rows["list"].str.match(pattern)]
            means = part.groupby("list")[[side, column]].mean()
            look: Any = {"color": colour, "marker": mark, "alpha": 0.35, "s": 18}
            plot.marks(ax, part, side, column, **look)
            plot.marks(
                ax, means, side, column, **look | {"alpha": 1, "s": 60}, label=name
            )
        plot.framed(ax, label, "accuracy, margin-loss PGD (%)")
    return axes


def by_arm(rows: DataFrame, columns: Mapping[str, str]) -> DataFrame:
    """Return means and intervals of columns, a row an arm."""
    arms = rows.groupby("list", sort=False)
    lines = {name: [plot.spread(part, c) for c in columns] for name, part in arms}
    return plot.stacked(lines, [*columns.values()])
