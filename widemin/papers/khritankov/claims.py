"""Chapter 1: Khritankov et al., adversarial robustness through wide local minima."""

import math
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import Array, Part, Rows, claim, final, paper_table, ranks
from widemin.papers.claims.rows import with_columns
from widemin.papers.khritankov import theory

_CELL = ("batch_size", "learning_rate")
_FGSM = "fgsm_accuracy"


def best_epochs(table: pd.DataFrame, column: str = _FGSM) -> pd.DataFrame:
    """Return each run's row of the epoch that is best in a column: the poster's rule.

    Of equals it is the first. `share` is that epoch as a fraction of training.
    """
    rows = table[table["measured"] == "epoch"].reset_index(drop=True)
    best = rows.loc[rows.groupby("key")[column].idxmax()]
    return best.assign(share=best["epoch"] / best["epochs"])


def measured_widths(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the networks whose width was measured and that do not answer one class."""
    # The distance is not measured where strong_size is 0.
    rows = with_columns(final(grid), ["width_images", "constant", "distance_q50"])
    rows = rows[rows["width_images"].notna() & ~rows["constant"].astype(bool)]
    return rows.assign(ratio=rows["learning_rate"] / rows["batch_size"])


@claim("W1")
def with_ratio(rows: Rows, part: Part) -> Array:
    """Spearman's correlation with LR/B over cells; less the larger with either."""
    cells = rows.cells(_CELL, part.column, networks=True)
    ratio = cells.labels["learning_rate"] / cells.labels["batch_size"]
    rank = cells.rank(ratio.to_numpy(), part.column)
    if part.statistic == "spearman":
        return rank
    return rank - np.maximum(*(abs(cells.rank(name, part.column)) for name in _CELL))


@claim("W2 W10 W13")
def best_cell(rows: Rows, part: Part) -> Array:
    """Robust accuracy in the best cell, mean over seeds."""
    return rows.cells(_CELL, part.column)[part.column].max(1)


@claim("W3 W7")
def lost_at_best(rows: Rows, part: Part) -> Array:
    """What the cell best under FGSM lacks of the best natural, or of its own FGSM."""
    cells = rows.cells(_CELL, part.column, _FGSM)
    most = cells[part.column if part.claim == "W3" else _FGSM].max(1)
    return most - cells.at_best(part.column, _FGSM)


@claim("W8")
def moved_at_best(rows: Rows, part: Part) -> Array:
    """The share of images that have a gradient, or that FGSM moves, at the best."""
    other = "zero_gradient_share" if part.part == "a" else "moved_share"
    share = rows.cells(_CELL, part.column, other).at_best(other, part.column)
    return 1 - share if part.part == "a" else share


def _of_best_epoch(rows: Rows, column: str, name: str) -> pd.DataFrame:
    """Return the final rows with a number of each network's best epoch, `value`."""
    best = best_epochs(rows.of("epoch").dropna(subset=[column]), column)
    return rows.joined(best.set_index("key")[name])


@claim("W4")
def late(rows: Rows, part: Part) -> Array:
    """The mean best epoch at high LR/B, as a share of training; less that at low."""
    best = _of_best_epoch(rows, part.column, "share")
    low, high, least = (float(part.given.get(k, -1)) for k in ("from", "to", "low"))
    ratio = best["learning_rate"] / best["batch_size"]
    above = ratio.between(low - 1e-12, high + 1e-9)
    best = best[above | (ratio <= least + 1e-9)].assign(above=above)
    cells = rows.cells(["above", *_CELL], "value", of=best)
    if part.statistic == "epoch_share":
        return cells.of("value", above=True)
    return cells.of("value", above=True) - cells.of("value", above=False)


def printed_boundary() -> dict[int, float]:
    """Return the lowest rate from which on the paper's mean accuracy is below 50 %."""
    table = paper_table("wide_minima_table2")
    held = table[table["acc_mean"] >= 50].groupby("batch_size")["learning_rate"].max()
    beyond = table[table["learning_rate"] > table["batch_size"].map(held)]
    return beyond.groupby("batch_size")["learning_rate"].min().to_dict()


@claim("W5")
def boundary(rows: Rows, part: Part) -> Array:
    """Where training breaks down by batch size, against the paper's or the size.

    Of batch sizes that were run up to a rate that broke, or to the paper's largest.
    """
    natural = rows.final["natural_accuracy"].mask(rows.final["diverged"].eq(True), 0)
    runs = rows.final.assign(natural=natural)
    most = paper_table("wide_minima_table2")["learning_rate"].max()
    last = runs.groupby("batch_size")["learning_rate"].transform("max")
    ends = runs[runs["learning_rate"] == last].groupby("batch_size")
    broke = runs["batch_size"].map(ends["natural"].mean() < 0.5)
    cells = rows.cells(_CELL, "natural", of=runs[broke | (last >= most)])
    sizes, rates = (np.unique(cells.labels[name]) for name in _CELL)
    first = []  # place of the lowest rate of the broken end
    for size in sizes:
        here = cells.where(batch_size=size)
        lost = cells["natural"][:, here] < 0.5
        steps = np.logical_and.accumulate(lost[:, ::-1], 1).sum(1)
        place = np.searchsorted(rates, cells.labels["learning_rate"][here])
        first.append(np.append(place, place[-1] + 1)[len(place) - steps])
    if part.statistic == "spearman":
        return ranks(np.tile(sizes, (len(first[0]), 1)), np.stack(first, 1))
    printed = printed_boundary()
    theirs = [np.searchsorted(rates, printed.get(int(s), math.inf)) for s in sizes]
    return (abs(np.stack(first, 1) - theirs) <= 1).mean(1)


@claim("W6 W11")
def width_rank(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of a width with robustness or LR/B, lower of levels."""
    of = "nodes" if "node-normalised" in part.criterion else "weights"
    levels = [name for name in rows.final if name.startswith(f"width_{of}_")]
    ratio = rows.final["learning_rate"] / rows.final["batch_size"]
    other = "ratio" if part.claim == "W11" else part.column
    final = rows.final.assign(ratio=ratio)
    cells = rows.cells(["key"], *levels, other, of=final, networks=True)
    return np.minimum.reduce([cells.rank(other, level) for level in levels])


@claim("W9")
def corner(rows: Rows, part: Part) -> Array:
    """The best epoch at small rates and large batches: its accuracy, or when it is."""
    what = _FGSM if part.statistic == "distance" else "epoch"
    best = _of_best_epoch(rows, _FGSM, what)
    if what == "epoch":  # in passes over all images, counted from 0
        best["value"] = (best["value"] - 1) * best["train_size"] / 60_000
    means = rows.cells(_CELL, "value", of=best)["value"]
    return means.mean(1) if what == "epoch" else abs(means - 0.17).mean(1)


@claim("W12")
def theorems(rows: Any, part: Part) -> Array:
    """1 where theorem 1 or 2 holds as printed, 0 where a counterexample breaks it."""
    x, theta, level = np.array([1.0, 0.0]), np.array([1.0, 2.0]), math.log(2)
    once, scaled = (theory.logistic_widths(x, k * theta, level) for k in (1, 16))
    ends, middle = (float(theory.two_sigmoids(at)) for at in ([-8, 2], [-3, -3]))
    way = once[0] * (level - theory.logistic_loss(x, theta))  # along x, to the level
    sunk = 0.0**2 - 10  # of theta^2 - 10 at its minimum, inside the level c = 1
    holds = {
        "a": abs(sunk) <= 1.0,
        "b": float(theory.bent_ramp(0.5)) <= 0.5,
        "c": middle <= ends,
        "d": math.isclose(theory.logistic_loss(x, theta - way * x), level),
        "e": not (scaled[0] > once[0] and scaled[1] <= once[1] + 1e-9),
    }
    return np.array([float(holds[part.part])])
