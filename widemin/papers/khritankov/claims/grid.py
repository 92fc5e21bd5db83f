"""Claims about the grid of batch sizes and learning rates: W1, W3, W5."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.statistics import over_seeds, spearman, spearman_interval, wilson

TRAINED = 0.95  # accuracy on training images below which a network is undertrained


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of every (batch size, learning rate)."""
    rows = final(table)
    cells = rows.groupby(["batch_size", "learning_rate"], as_index=False).mean(
        numeric_only=True
    )
    cells["ratio"] = cells["learning_rate"] / cells["batch_size"]
    return cells


def _ratio_rank(limit: float) -> Callable[[pd.DataFrame], float]:
    """Return what ranks FGSM accuracy with LR/B among cells of enough accuracy."""

    def rank(rows: pd.DataFrame) -> float:
        cells = _cells(rows)
        cells = cells[cells["natural_accuracy"] > limit]
        return spearman(cells["ratio"], cells["fgsm_accuracy"])

    return rank


def W1(grid: pd.DataFrame) -> Verdict:
    """FGSM accuracy is ruled by learning rate over batch size."""
    if final(grid).empty:
        return claims.absent("W1")
    limits = claims.criteria()["W1"].thresholds
    printed = claims.paper_table("wide_minima_table2")
    printed = printed[printed["acc_mean"] > 100 * limits["clean"]]
    theirs = spearman(
        printed["learning_rate"] / printed["batch_size"], printed["adv_acc_mean"]
    )
    cells = _cells(grid)
    cells = cells[cells["natural_accuracy"] > limits["clean"]]
    if len(cells) < 3:
        clean = percent(limits["clean"])
        return claims.judge(
            "W1",
            final(grid),
            False,
            paper=f"Spearman {theirs:.2f} in {len(printed)} cells",
            ours=f"{len(cells)} cells above {clean} natural accuracy",
            evidence="Too few to rank.",
        )
    by = {
        name: spearman(cells[name], cells["fgsm_accuracy"])
        for name in ("ratio", "learning_rate", "batch_size")
    }
    stronger = spearman(cells["ratio"], cells["pgd_margin_accuracy"])
    others = max(abs(by["learning_rate"]), abs(by["batch_size"]))
    passed = bool(by["ratio"] >= limits["spearman"] and by["ratio"] > others)
    level = cells["pgd_margin_accuracy"].max()
    return claims.judge(
        "W1",
        final(grid),
        passed,
        paper=f"Spearman {theirs:.2f} in {len(printed)} cells",
        ours=f"Spearman {with_interval(by['ratio'], len(cells))} in {len(cells)} "
        f"cells, {final(grid)['key'].nunique()} runs",
        evidence=(
            f"With the learning rate alone it is {by['learning_rate']:.2f}, with the "
            f"batch size alone {by['batch_size']:.2f}."
        ),
        holds_up=_ranked(stronger, level, limits["spearman"]),
        seeds=claims.deciding(
            claims.of_each_seed(final(grid), _ratio_rank(limits["clean"])),
            limits["spearman"],
        ),
    )


def with_interval(rho: float, n: int) -> str:
    """Return a rank correlation over n networks with its 95 % interval."""
    low, high = spearman_interval(rho, n)
    return f"{rho:.2f} ({low:.2f} to {high:.2f})"


def _ranked(correlation: float, level: float, threshold: float) -> str:
    """Return whether a trend survives, or that there is nothing left to rank."""
    if not level > 0.02:
        return f"no; margin-loss PGD leaves at most {percent(level)} in any cell"
    held = "yes" if correlation >= threshold else "no"
    return f"{held}; margin-loss PGD: Spearman {correlation:.2f}"


def W3(grid: pd.DataFrame) -> Verdict:
    """No natural accuracy is lost where FGSM accuracy is best."""
    if final(grid).empty:
        return claims.absent("W3")
    cells = _cells(grid)
    best = cells.loc[cells["fgsm_accuracy"].idxmax()]
    loss, wanted = _clean_loss(final(grid)), claims.criteria()["W3"].thresholds["loss"]
    by_seed = claims.of_each_seed(final(grid), _clean_loss)
    printed = claims.paper_table("wide_minima_table2")
    theirs = printed["acc_mean"].max()
    theirs -= printed.loc[printed["adv_acc_mean"].idxmax(), "acc_mean"]
    return claims.judge(
        "W3",
        final(grid),
        bool(loss <= wanted),
        paper=f"a loss of {theirs:.2f} points in its own table",
        ours=f"a loss of {100 * loss:.2f} points{_over_seeds(by_seed)}",
        evidence=(
            f"Best FGSM accuracy at batch size {best['batch_size']:.0f}, learning "
            f"rate {best['learning_rate']:g}."
        ),
        holds_up="not applicable",
        seeds=claims.deciding(by_seed, wanted),
    )


def _over_seeds(values: list[float]) -> str:
    """Return mean and interval of fractions in points, where there is an interval."""
    mean, half = (100 * number for number in over_seeds(values))
    if math.isnan(half):
        return ""
    return f" ({mean:.2f} ± {half:.2f} over {len(values)} seeds, each by its best cell)"


def _clean_loss(rows: pd.DataFrame) -> float:
    """Return the natural accuracy lost in the cell that is best under FGSM."""
    cells = _cells(rows)
    best = cells.loc[cells["fgsm_accuracy"].idxmax(), "natural_accuracy"]
    return float(cells["natural_accuracy"].max() - best)


def W5(grid: pd.DataFrame) -> Verdict:
    """Training breaks down at one learning rate over batch size, or at one rate."""
    if grid.empty or not (grid["measured"] == "final").any():
        return claims.absent("W5")
    limits = claims.criteria()["W5"].thresholds
    rows = grid[grid["measured"] == "final"]
    lost = rows["diverged"].eq(True) | rows["constant"].eq(True)
    share = lost.groupby([rows["batch_size"], rows["learning_rate"]]).mean().unstack()
    low, high = share < limits["low"], share > limits["high"]
    sharp = {}
    for size in share.index:
        if size < limits["batch_size"]:
            # Below one rate nearly none diverges, at the next nearly all do.
            steps = low.loc[size].to_numpy()[:-1] & high.loc[size].to_numpy()[1:]
            sharp[size] = bool(steps.any())
        else:
            large = share.columns >= limits["rate"]
            sharp[size] = bool(
                high.loc[size, large].all() & low.loc[size, ~large].all()
            )
    held = [str(size) for size in sharp if sharp[size]]
    printed = claims.paper_table("wide_minima_table2")
    theirs = int((printed["acc_mean"] < 15).sum())
    return claims.judge(
        "W5",
        rows,
        all(sharp.values()),
        paper=f"{theirs} of {len(printed)} cells diverged",
        ours=f"{int((share == 1).sum().sum())} of {share.size} cells diverged in every "
        f"run, {rows['key'].nunique()} runs in all",
        evidence=f"The boundary is as stated at batch size {' and '.join(held)}."
        if held
        else "At no batch size is the boundary as stated.",
        holds_up="not applicable",
        seeds=f"{_unanimous(limits['low'])} runs of a cell, if all agree, tell below "
        f"{percent(limits['low'])} from above it",
    )


def _unanimous(share: float) -> int:
    """Return how many runs without a single loss put its interval below a share."""
    return next(n for n in range(1, 1_000) if wilson(0.0, n)[1] < share)
