"""Chapter 1: Khritankov et al., adversarial robustness through wide local minima."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from widemin.papers.claims import (
    Array,
    Cells,
    Part,
    Rows,
    claim,
    final,
    paper_table,
    ranks,
)
from widemin.papers.khritankov import theory

_CELL = ("batch_size", "learning_rate")


def best_epochs(table: pd.DataFrame, column: str = "fgsm_accuracy") -> pd.DataFrame:
    """Return each run's row of the epoch that is best in a column: the poster's rule.

    Of equals it is the first. `share` is that epoch as a fraction of training.
    """
    rows = table[table["measured"] == "epoch"].reset_index(drop=True)
    best = rows.loc[rows.groupby("key")[column].idxmax()]
    return best.assign(
        share=best["epoch"] / best["epochs"],
        ratio=best["learning_rate"] / best["batch_size"],
    )


def measured_widths(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the networks whose width was measured and that do not answer one class."""
    rows = final(grid)
    if rows.empty or "width_images" not in rows:
        return rows.iloc[:0]
    rows = rows[rows["width_images"].notna() & ~rows["constant"].astype(bool)]
    if "distance_q50" not in rows:  # strong_size is 0
        rows = rows.assign(distance_q50=math.nan)
    return rows.assign(ratio=rows["learning_rate"] / rows["batch_size"])


def _ratio(cells: Cells) -> Array:
    """Return LR/B of the cells."""
    return (cells.labels["learning_rate"] / cells.labels["batch_size"]).to_numpy()


def _robust(part: Part) -> str:
    """Return the column of robustness that a part's criterion speaks of."""
    for said, column in (
        ("worst of all attacks", "worst_accuracy"),
        ("minimal distance", "distance_q50"),
        ("clipped probabilities", "fgsm_clipped_accuracy"),
    ):
        if said in part.criterion:
            return column
    return "fgsm_accuracy"


@claim("W1", statistic="spearman")
def with_ratio(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of robustness with LR/B over cells."""
    cells = Cells(rows.final, _CELL, [_robust(part)], networks=True)
    return cells.rank(_ratio(cells), cells[_robust(part)])


@claim("W1", statistic="rank_lead")
def lead_of_ratio(rows: Rows, part: Part) -> Array:
    """The same, less the larger in size of that with either alone."""
    cells = Cells(rows.final, _CELL, ["fgsm_accuracy"], networks=True)
    robust = cells["fgsm_accuracy"]
    alone = [abs(cells.rank(cells.labels[n].to_numpy(), robust)) for n in _CELL]
    return cells.rank(_ratio(cells), robust) - np.maximum(*alone)


@claim("W2", "W10", "W13")
def best_cell(rows: Rows, part: Part) -> Array:
    """Robust accuracy in the best cell, mean over seeds."""
    return Cells(rows.final, _CELL, [_robust(part)])[_robust(part)].max(1)


def _at_best(one: Array, best: Array) -> Array:
    """Return the values of the cell that is best in another column, per draw."""
    return np.take_along_axis(one, best.argmax(1)[:, None], 1)[:, 0]


@claim("W3", "W7", "W8")
def at_best_cell(rows: Rows, part: Part) -> Array:
    """What the cell best under FGSM loses, or how many images FGSM moves there."""
    columns = [_robust(part) if part.claim == "W8" else "fgsm_accuracy"]
    columns += {"W3": ["natural_accuracy"], "W7": ["worst_accuracy"]}.get(
        part.claim,
        ["zero_gradient_share" if part.part == "a" else "moved_share"],
    )
    cells = Cells(rows.final, _CELL, columns)
    best, other = (cells[column] for column in columns)
    if part.claim == "W3":
        return other.max(1) - _at_best(other, best)
    if part.claim == "W7":
        return _at_best(best - other, best)
    return _at_best(1 - other if part.part == "a" else other, best)


def _of_best_epoch(rows: Rows, column: str, name: str) -> pd.DataFrame:
    """Return the final rows with a number of each network's best epoch, `value`."""
    best = best_epochs(rows.of("epoch").dropna(subset=[column]), column)
    return rows.joined(best.set_index("key")[name])


@claim("W4")
def late(rows: Rows, part: Part) -> Array:
    """The mean best epoch at high LR/B, as a share of training; less that at low."""
    cells = Cells(_of_best_epoch(rows, _robust(part), "share"), _CELL, ["value"])
    low, high = float(part.given["from"]), float(part.given["to"])
    ratio = _ratio(cells) + 1e-12
    found = _over(cells["value"], (ratio >= low) & (ratio <= high + 1e-9))
    if part.statistic == "epoch_share":
        return found
    return found - _over(cells["value"], ratio <= float(part.given["low"]) + 1e-9)


def _over(values: Array, chosen: Array) -> Array:
    """Return the mean over chosen cells, NaN without any."""
    if not chosen.any():
        return np.full(len(values), np.nan)
    return values[:, chosen].mean(1)


def printed_boundary() -> dict[int, float]:
    """Return the lowest rate from which on the paper's mean accuracy is below 50 %."""
    found = {}
    for size, rows in paper_table("wide_minima_table2").groupby("batch_size"):
        lost = rows[rows["acc_mean"] < 50]["learning_rate"]
        kept = rows[rows["acc_mean"] >= 50]["learning_rate"].max()
        found[int(str(size))] = float(lost[lost > kept].min())
    return found


@claim("W5")
def boundary(rows: Rows, part: Part) -> Array:
    """Where training breaks down by batch size, against the paper's or the size."""
    lost = rows.final["diverged"].eq(True) | rows.final["constant"].eq(True)
    cells = Cells(rows.final.assign(lost=lost.astype(float)), _CELL, ["lost"])
    sizes = np.unique(cells.labels["batch_size"])
    rates = np.unique(cells.labels["learning_rate"])
    steps = []
    for size in sizes:
        share = cells["lost"][:, cells.where(batch_size=size)] > 0.5
        steps.append(np.logical_and.accumulate(share[:, ::-1], 1).sum(1))
    found = len(rates) - np.stack(steps, 1)  # first rate of the broken end
    if part.statistic == "spearman":
        return ranks(np.broadcast_to(sizes, found.shape), found)
    printed = printed_boundary()
    theirs = [np.searchsorted(rates, printed.get(int(s), math.inf)) for s in sizes]
    return (abs(found - np.array(theirs)) <= 1).mean(1)


@claim("W6", "W11")
def width_rank(rows: Rows, part: Part) -> Array:
    """Spearman's correlation of a width with robustness or LR/B, lower of levels."""
    of = "nodes" if "node-normalised" in part.criterion else "weights"
    levels = [name for name in rows.final if name.startswith(f"width_{of}_")]
    final = rows.final.assign(ratio=rows.final["learning_rate"])
    final["ratio"] /= final["batch_size"]
    other = "ratio" if part.claim == "W11" else _robust(part)
    cells = Cells(final, ["key"], [*levels, other], networks=True)
    ranks = [cells.rank(cells[other], cells[level]) for level in levels]
    return np.minimum.reduce(ranks)


@claim("W9")
def corner(rows: Rows, part: Part) -> Array:
    """The best epoch at small rates and large batches: its accuracy, or when it is."""
    if part.statistic == "distance":
        best = _of_best_epoch(rows, "fgsm_accuracy", "fgsm_accuracy")
        return abs(Cells(best, _CELL, ["value"])["value"] - 0.17).mean(1)
    best = _of_best_epoch(rows, "fgsm_accuracy", "epoch")
    passes = (best["value"] - 1) * best["train_size"] / 60_000  # counted from 0
    return Cells(best.assign(value=passes), _CELL, ["value"])["value"].mean(1)


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
