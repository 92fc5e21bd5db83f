"""Claims about momentum: H9 to H11, H14."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final


def _with_momentum(table: pd.DataFrame, column: str, sign: int) -> pd.Series[Any]:
    """Return for each batch size whether a column's mean moves one way with momentum.

    Args:
        table: Runs at one learning rate, several momenta.
        column: What is measured.
        sign: 1 for a rise, -1 for a fall.
    """
    means = final(table).groupby(["batch_size", "momentum"])[column].mean().unstack()
    return (sign * means.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)


def H9(momenta: pd.DataFrame) -> Verdict:
    """Momentum at constant rate: natural accuracy up, top eigenvalue down."""
    rows = final(momenta)
    if rows.empty or rows["momentum"].nunique() < 2:
        return claims.absent("H9")
    up = _with_momentum(momenta, "natural_accuracy", 1)
    down = _with_momentum(momenta, "top_eigenvalue", -1)
    wanted = claims.criteria()["H9"].thresholds["share"]
    return claims.judge(
        "H9",
        rows,
        bool(up.mean() >= wanted and down.mean() >= wanted),
        paper="accuracy up, eigenvalue down (figures only)",
        ours=f"accuracy rises at {up.sum()} of {len(up)} batch sizes, the eigenvalue "
        f"falls at {down.sum()}",
        evidence=f"Means over seeds, momenta {_listed(rows['momentum'])}. Momentum m "
        "also multiplies the effective rate by 1 / (1 - m).",
        holds_up="not applicable",
    )


def _listed(values: pd.Series[Any]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values.unique()))


def H10(momenta: pd.DataFrame) -> Verdict:
    """Momentum at constant rate raises adversarial accuracy in most cases."""
    rows = final(momenta)
    if rows.empty or rows["momentum"].nunique() < 2:
        return claims.absent("H10")
    wanted = claims.criteria()["H10"].thresholds["share"]
    fgsm = _with_momentum(momenta, "fgsm_accuracy", 1)
    pgd = _with_momentum(momenta, "pgd_accuracy", 1)
    margin = _with_momentum(momenta, "pgd_margin_accuracy", 1)
    cases = pd.concat([fgsm, pgd])
    return claims.judge(
        "H10",
        rows,
        bool(cases.mean() > wanted),
        paper="up in most cases (figures only)",
        ours=f"up at {fgsm.sum()} of {len(fgsm)} batch sizes under FGSM, at "
        f"{pgd.sum()} "
        "under PGD",
        evidence=f"One network, momenta {_listed(rows['momentum'])}.",
        holds_up=f"{'yes' if margin.mean() > wanted else 'no'}; margin-loss PGD: up at "
        f"{margin.sum()} of {len(margin)}",
    )


CHANGED = ("natural_accuracy", "fgsm_accuracy", "pgd_accuracy")


def _changes(table: pd.DataFrame) -> float:
    """Return the mean size of accuracy's change from momentum 0 to others, a fraction.

    Over batch sizes, momenta and three accuracies, of means over seeds.
    """
    means = final(table).groupby(["batch_size", "momentum"])[list(CHANGED)].mean()
    found = [
        abs(part - part.xs(0.0, level="momentum").iloc[0]).drop(0.0, level="momentum")
        for _, part in means.groupby("batch_size")
        if 0.0 in part.index.get_level_values("momentum")
    ]
    joined = pd.concat(found) if found else pd.DataFrame()
    return float(joined.to_numpy().mean()) if joined.size else float("nan")


def _complete(table: pd.DataFrame) -> set[int]:
    """Return the batch sizes that were run with every momentum of the table."""
    rows = final(table)
    if rows.empty:
        return set()
    momenta = rows.groupby("batch_size")["momentum"].nunique()
    return set(momenta[momenta == rows["momentum"].nunique()].index)


def H11(scaled: pd.DataFrame, constant: pd.DataFrame) -> Verdict:
    """Momentum matters little at constant LR/BS.

    Args:
        scaled: Runs at constant ratio, several momenta.
        constant: Runs at constant rate, several momenta.
    """
    # Both settings share the runs of batch size 64: only sizes with every momentum
    # count, and the same ones on both sides.
    complete = _complete(scaled) & _complete(constant)
    scaled = scaled[scaled["batch_size"].isin(complete)] if complete else scaled[:0]
    constant = constant[constant["batch_size"].isin(complete)] if complete else scaled
    rows = final(scaled)
    if len(complete) < 2 or rows["momentum"].nunique() < 2:
        return claims.absent("H11")
    little, much = _changes(scaled), _changes(constant)
    wanted = claims.criteria()["H11"].thresholds["share"]
    return claims.judge(
        "H11",
        rows,
        little < wanted * much,
        paper="little at constant ratio (figures only)",
        ours=f"accuracies change by {100 * little:.1f} points on average, at constant "
        f"rate by {100 * much:.1f}",
        evidence=f"Natural, FGSM and PGD accuracy, momenta "
        f"{_listed(rows['momentum'])} against 0.",
        holds_up="not applicable",
        seeds=claims.deciding(
            [
                _changes(part) - wanted * _changes(other)
                for (_, part), (_, other) in zip(
                    rows.groupby("seed"), final(constant).groupby("seed"), strict=False
                )
            ],
            0.0,
        ),
    )


def H14(momentum: pd.DataFrame, rate: pd.DataFrame) -> Verdict:
    """(control) Momentum acts through LR / (1 - m).

    Args:
        momentum: Runs with one momentum at constant rate.
        rate: Runs without, at the rate divided by 1 - m.
    """
    one, two = final(momentum), final(rate)
    if one.empty or two.empty:
        return claims.absent("H14")
    limits, near, worst = claims.criteria()["H14"].thresholds, [], 0.0
    for column in ("natural_accuracy", "top_eigenvalue"):
        for size, part in one.groupby("batch_size"):
            a, b = part[column], two.loc[two["batch_size"] == size, column]
            if column == "top_eigenvalue":
                a, b = np.log(a), np.log(b)
            error = float(np.hypot(a.sem(), b.sem()))
            gap = abs(float(a.mean() - b.mean()))
            near.append(gap <= limits["errors"] * error)
            if column == "natural_accuracy":
                worst = max(worst, gap)
    share = float(np.mean(near))
    m = float(one["momentum"].iloc[0])
    return claims.judge(
        "H14",
        two,
        share >= limits["share"],
        paper="not tested",
        ours=f"{sum(near)} of {len(near)} means agree within two standard errors",
        evidence=f"Natural accuracy and the logarithm of the top eigenvalue at each "
        f"batch size, momentum {m:g} against the rate divided by {1 - m:g}; natural "
        f"accuracies differ by at most {100 * worst:.2f} points.",
        holds_up="not applicable",
        seeds="more seeds make the test stricter: it asks for no difference",
    )
