"""Claims about a constant ratio of learning rate to batch size: H1 to H3, H13."""

from __future__ import annotations

import numpy as np
import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.kamath.claims.momentum import CHANGED
from widemin.papers.kamath.claims.runs import (
    by_batch,
    points_apart,
    range_of,
    slope_interval,
    trained_again,
)


def H1(scaled: pd.DataFrame) -> Verdict:
    """At constant LR/BS natural accuracy does not depend on the batch size."""
    if final(scaled).empty:
        return claims.absent("H1")
    values = by_batch(scaled, "natural_accuracy")
    spread = values.max() - values.min()
    return claims.judge(
        "H1",
        final(scaled),
        bool(spread <= claims.criteria()["H1"].thresholds["range"]),
        paper="nearly constant (figures only)",
        ours=f"a range of {100 * spread:.2f} points",
        evidence=f"From {percent(values.min())} to {percent(values.max())}."
        + trained_again(final(scaled), "natural_accuracy", points_apart),
        holds_up="not applicable",
        seeds=claims.deciding(
            claims.of_each_seed(
                final(scaled), lambda t: np.ptp(by_batch(t, "natural_accuracy"))
            ),
            claims.criteria()["H1"].thresholds["range"],
        ),
    )


def H2(scaled: pd.DataFrame, constant: pd.DataFrame) -> Verdict:
    """At constant LR/BS the top eigenvalue is nearly flat."""
    if final(scaled).empty or final(constant).empty:
        return claims.absent("H2")
    flat, steep = (by_batch(t, "top_eigenvalue") for t in (scaled, constant))
    ours, contrast = flat.max() / flat.min(), steep.max() / steep.min()
    limits = claims.criteria()["H2"].thresholds
    return claims.judge(
        "H2",
        final(scaled),
        bool(ours <= limits["ratio"] and contrast >= limits["contrast"]),
        paper="nearly flat (figures only)",
        ours=f"largest over smallest mean {ours:.1f}",
        evidence=f"At constant learning rate it is {contrast:.1f}."
        + trained_again(final(scaled), "top_eigenvalue", lambda v: v.max() / v.min()),
        holds_up="not applicable",
        seeds=claims.deciding(
            claims.of_each_seed(final(scaled), _largest_ratio), limits["ratio"]
        ),
    )


def _largest_ratio(rows: pd.DataFrame) -> float:
    values = by_batch(rows, "top_eigenvalue")
    return float(values.max() / values.min())


def H3(scaled: pd.DataFrame) -> Verdict:
    """At constant LR/BS adversarial accuracy is nearly constant."""
    if final(scaled).empty:
        return claims.absent("H3")
    limit = claims.criteria()["H3"].thresholds["range"]
    spreads = {}
    for column in ("fgsm_accuracy", "pgd_accuracy", "pgd_margin_accuracy"):
        values = by_batch(scaled, column)
        spreads[column] = float(values.max() - values.min())
    low, high = slope_interval(final(scaled), "pgd_accuracy")
    level = low <= 0 <= high
    small = max(spreads["fgsm_accuracy"], spreads["pgd_accuracy"]) <= limit
    return claims.judge(
        "H3",
        final(scaled),
        bool(small and level),
        paper="nearly constant (figures only)",
        ours=f"ranges of {100 * spreads['fgsm_accuracy']:.1f} (FGSM) and "
        f"{100 * spreads['pgd_accuracy']:.1f} (PGD) points",
        evidence=f"Slope of PGD accuracy per doubling of the batch size, 95 %: "
        f"{100 * low:+.1f} to {100 * high:+.1f} points."
        + trained_again(final(scaled), "pgd_accuracy", points_apart),
        holds_up="yes" if spreads["pgd_margin_accuracy"] <= limit else "no",
        seeds=claims.deciding(
            claims.of_each_seed(final(scaled), range_of("pgd_accuracy")),
            limit,
        ),
    )


def H13(constant: pd.DataFrame, scaled: pd.DataFrame) -> Verdict:
    """(check) Both settings agree at batch size 64."""
    if final(constant).empty or final(scaled).empty:
        return claims.absent("H13")
    one, two = (
        rows[rows["batch_size"] == 64].sort_values(["seed", "test"])
        for rows in map(final, (constant, scaled))
    )
    if one.empty or len(one) != len(two):
        return claims.absent("H13")
    numbers = [*CHANGED, "top_eigenvalue", "final_train_loss"]
    off = abs(one[numbers].to_numpy(float) - two[numbers].to_numpy(float)).max()
    return claims.judge(
        "H13",
        one,
        bool(off == 0),
        paper="follows from 0.00015625 x 64 = 0.01",
        ours=f"the largest difference is {off:g}",
        evidence="The two settings are the same recipe there, so this checks our own "
        "book-keeping.",
        holds_up="not applicable",
        seeds="nothing: it is an identity",
    )
