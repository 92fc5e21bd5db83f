"""Claims about a constant learning rate: H4 to H8, H12."""

from __future__ import annotations

from typing import Any

import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.kamath.claims.runs import (
    by_batch,
    rank_by_batch,
    ranked_by_size,
    slope_interval,
    trained_again,
    well_trained,
)
from widemin.statistics import spearman


def _trend(name: str, table: pd.DataFrame, column: str, stronger: str = "") -> Verdict:
    """Judge a rank correlation with the batch size over cells' means."""
    rows = final(table)
    if rows.empty:
        return claims.absent(name)
    wanted = claims.criteria()[name].thresholds["spearman"]
    values = by_batch(table, column)

    def passes(series: pd.Series[Any]) -> tuple[float, bool]:
        found = spearman(series.index.to_numpy(), series.to_numpy())
        return found, bool(found >= wanted if wanted > 0 else found <= wanted)

    found, passed = passes(values)
    listed = ", ".join(
        f"{size}: {value:.3g}"
        if column == "top_eigenvalue"
        else f"{size}: {percent(value)}"
        for size, value in values.items()
    )
    parts = []
    if stronger:
        other, held = passes(by_batch(table, stronger))
        parts.append(
            f"{'yes' if held else 'no'}; margin-loss PGD: Spearman {other:.2f}"
        )
    good = by_batch(well_trained(rows), column)
    if len(good) < 3:
        parts.append("too few batch sizes are trained to test without the others")
    else:
        again, held = passes(good)
        answer = "yes" if held else "no"
        parts.append(f"{answer}; trained batch sizes alone: Spearman {again:.2f}")
    holds_up = "; ".join(parts)
    return claims.judge(
        name,
        rows,
        passed,
        paper="a trend (figures only)",
        ours=f"Spearman {found:.2f} with the batch size",
        evidence=f"Means by batch size: {listed}.",
        holds_up=holds_up,
        seeds=claims.deciding(
            claims.of_each_seed(rows, lambda part: rank_by_batch(part, column)), wanted
        ),
    )


def H4(constant: pd.DataFrame) -> Verdict:
    """At constant learning rate natural accuracy falls with the batch size."""
    return _trend("H4", constant, "natural_accuracy")


def H5(constant: pd.DataFrame) -> Verdict:
    """At constant learning rate the top eigenvalue rises with the batch size."""
    return _trend("H5", constant, "top_eigenvalue")


def H6(constant: pd.DataFrame) -> Verdict:
    """At constant learning rate adversarial accuracy falls with the batch size."""
    return _trend("H6", constant, "fgsm_accuracy", "pgd_margin_accuracy")


def H7(benchmark: pd.DataFrame) -> Verdict:
    """The Benchmark, with momentum and decay, shows the three trends as well."""
    rows = final(benchmark)
    if rows.empty:
        return claims.absent("H7")
    limits = claims.criteria()["H7"].thresholds
    natural = rank_by_batch(benchmark, "natural_accuracy")
    curvature = rank_by_batch(benchmark, "top_eigenvalue")
    robust = rank_by_batch(benchmark, "fgsm_accuracy")
    held = [
        natural <= limits["natural"],
        curvature >= limits["eigenvalue"],
        robust <= limits["robust"],
    ]
    margin = rank_by_batch(benchmark, "pgd_margin_accuracy")
    return claims.judge(
        "H7",
        rows,
        all(held) or (any(held) and "partly"),
        paper="the same trends (figures only)",
        ours=f"Spearman with the batch size {natural:.2f} (natural), {curvature:.2f} "
        f"(eigenvalue), {robust:.2f} (FGSM)",
        evidence=f"{sum(held)} of 3 trends meet their thresholds."
        + trained_again(rows, "fgsm_accuracy", ranked_by_size),
        holds_up=f"{'yes' if margin <= limits['robust'] else 'no'}; margin-loss PGD: "
        f"Spearman {margin:.2f}",
        seeds=claims.deciding(
            claims.of_each_seed(
                rows, lambda part: rank_by_batch(part, "fgsm_accuracy")
            ),
            limits["robust"],
        ),
    )


def H12(settings: pd.DataFrame) -> Verdict:
    """PGD shows the trends of FGSM, setting by setting."""
    rows = final(settings)
    if rows.empty:
        return claims.absent("H12")
    agree, most = [], 0.0
    for _, part in rows.groupby("setting", sort=False):
        slopes = [
            sum(slope_interval(part, column)) / 2
            for column in ("fgsm_accuracy", "pgd_accuracy")
        ]
        agree.append(bool(slopes[0] * slopes[1] > 0))
        most = max(most, float(part.groupby("batch_size")["pgd_accuracy"].mean().max()))
    share = sum(agree) / len(agree)
    return claims.judge(
        "H12",
        rows,
        bool(share >= claims.criteria()["H12"].thresholds["share"]),
        paper="the same trends (figures only)",
        ours=f"the slope has the same sign in {sum(agree)} of {len(agree)} settings",
        evidence="Slopes over the doubling of the batch size, every run a point. PGD "
        "on "
        f"the cross-entropy leaves at most {percent(most)}.",
    )


def H8(other: pd.DataFrame) -> Verdict:
    """The counter-example: robustness and eigenvalue rise together."""
    rows = final(other)
    if rows.empty:
        return claims.absent("H8")
    left_out = sorted(set(rows["batch_size"]) - set(well_trained(rows)["batch_size"]))
    everything, rows = rows, well_trained(rows)
    if rows.empty:
        return claims.judge(
            "H8",
            everything.assign(batch_size=0),  # no batch size that counts
            False,
            paper="all three rise (figures only)",
            ours="no batch size at which every network learnt its training images",
            evidence="Robust accuracy of a network that has not learnt says nothing.",
        )
    wanted = claims.criteria()["H8"].thresholds["spearman"]
    columns = ("fgsm_accuracy", "pgd_accuracy", "top_eigenvalue", "pgd_margin_accuracy")
    found = {}
    for column in columns:
        means = by_batch(rows, column)
        found[column] = spearman(means.index.to_numpy(), means.to_numpy())
    fgsm, pgd, curvature, margin = found.values()
    return claims.judge(
        "H8",
        rows,
        all(value >= wanted for value in (fgsm, pgd, curvature)),
        paper="all three rise (figures only)",
        ours=f"Spearman with the batch size {fgsm:.2f} (FGSM), {pgd:.2f} (PGD), "
        f"{curvature:.2f} (eigenvalue)",
        evidence="Over means of the seeds, trained networks alone"
        + (f" (not batch size {', '.join(map(str, left_out))})." if left_out else "."),
        holds_up=f"{'yes' if margin >= wanted else 'no'}; margin-loss PGD: Spearman "
        f"{margin:.2f}",
    )
