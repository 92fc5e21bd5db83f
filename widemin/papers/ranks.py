"""Which measure goes with which: rank correlations, and one against LR/B."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from pandas import DataFrame

from widemin.papers import figures as plot
from widemin.papers.claims import with_columns
from widemin.papers.figures import BLUE, LABELS
from widemin.statistics import partial_spearman, spearman, spearman_interval

FLATNESS = LABELS["flatness"]  # what may be called flat, so that more is flatter


def rank_correlations(
    table: DataFrame,
    measures: Mapping[str, str],
    outcomes: Mapping[str, str],
    given: Sequence[str],
) -> DataFrame:
    """Return rank correlations of measures with outcomes over networks, a row a pair.

    Measures and outcomes are columns to names. Correlations are `plain` and `partial`,
    given other columns, with the ends of their 95 % intervals (`plain_low`, ...).
    """
    lines = []
    for outcome, measure in product(outcomes, measures):
        rows = table[[measure, outcome, *given]].dropna()
        x, y, *others = (rows[column] for column in rows)
        row: Any = {"measure": measures[measure], "outcome": outcomes[outcome]}
        row["networks"] = len(rows)
        rhos = {"plain": spearman(x, y), "partial": partial_spearman(x, y, others)}
        for (kind, rho), held in zip(rhos.items(), (0, len(given)), strict=True):
            low, high = spearman_interval(rho, len(rows), held)
            row |= {kind: rho, f"{kind}_low": low, f"{kind}_high": high}
        lines.append(row)
    return DataFrame(lines)


def rank_flatness(rows: DataFrame, outcomes: dict[str, str]) -> DataFrame:
    """Return rank correlations of flatness, also given margin and training loss."""
    rows = with_columns(rows, [*FLATNESS, "adaptive_sharpness"])
    turned = {"small_eigenvalue": -rows["top_eigenvalue"]}
    rows = rows.assign(**turned, small_sharpness=-rows["adaptive_sharpness"])
    held = ["median_margin", "final_train_loss"]
    return rank_correlations(rows, FLATNESS, outcomes, held)


def correlations(ranked: DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw rank correlations with intervals; hollow ones are partial."""
    outcomes = ranked.groupby("outcome", sort=False) if len(ranked) else ()
    for ax, (outcome, part) in zip(axes, outcomes, strict=False):
        for kind, shift, face in (("plain", -0.13, BLUE), ("partial", 0.13, "white")):
            rho = part[kind].to_numpy()
            away = np.abs(part[[f"{kind}_low", f"{kind}_high"]].to_numpy().T - rho)
            look: Any = {"fmt": "o", "color": BLUE, "markerfacecolor": face}
            at = np.arange(len(part)) + shift
            ax.errorbar(rho, at, xerr=away, label=kind, **look)
        ax.axvline(0, color="grey", linewidth=1)
        plot.name_rows(ax, part["measure"])
        ax.set(xlim=(-1.05, 1.05), xlabel="Spearman", title=f"with {outcome}")
        ax.label_outer()
    if len(ranked):
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.1), ncols=2)
    return axes


def by_ratio(
    rows: DataFrame, ax: Axes, column: str, label: str, learnt: str = "train_accuracy"
) -> Axes:
    """Draw a number against LR/B, a point a row; colour is the batch size.

    Hollow points have less than 95 % of what says how much was learnt.
    """
    rows = rows.assign(ratio=1_000 * rows["learning_rate"] / rows["batch_size"])
    for size, part in rows.groupby("batch_size"):
        good = part[learnt] >= 0.95
        # One colour a size, whichever others there are.
        look: Any = {"color": [colormaps["viridis"](np.log2(size) / 11)]}
        plot.marks(ax, part[good], "ratio", column, label=f"{size:g}", **look)
        plot.marks(ax, part[~good], "ratio", column, facecolor="none", **look)
    return plot.framed(ax, "LR/B (thousandths)", label, log="x")


def in_words(ranked: DataFrame) -> DataFrame:
    """Return rank correlations as a reader wants them, e.g. "0.95 (0.89 to 0.98)"."""
    table = ranked[["networks"]].copy()
    for kind, head in (("plain", "on its own"), ("partial", "others held fixed")):
        numbers = ranked[[kind, f"{kind}_low", f"{kind}_high"]].to_numpy()
        said = ("{:.2f} ({:.2f} to {:.2f})".format(*row) for row in numbers)
        known = (text.replace(" (nan to nan)", "") for text in said)
        table[head] = [text.replace("-", "\u2212") for text in known]
    index = ranked["measure"].rename("Spearman of"), ranked["outcome"].rename("with")
    return table.set_index(list(index))
