"""Chapter 4: Kamath et al., SGD hyper-parameters and robustness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from widemin.claims import (
    Verdict,
    absent,
    criteria,
    deciding,
    final,
    judge,
    of_each_seed,
    percent,
)
from widemin.statistics import spearman


def _by_batch(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    return final(table).groupby("batch_size")[column].mean().sort_index()


# Below this training accuracy (0.95 elsewhere) a network is undertrained: a trend
# across such cells says nothing about the minimum reached.
UNDERTRAINED = {"fashion-mnist": 0.85, "cifar10": 0.70}


def _trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of batch sizes whose networks all learnt what they saw."""
    limit = rows["dataset"].map(UNDERTRAINED).fillna(0.95)
    poor = rows.loc[rows["train_accuracy"] < limit, "batch_size"].unique()
    return rows[~rows["batch_size"].isin(poor)]


def _again(
    rows: pd.DataFrame, column: str, measure: Callable[[pd.Series[Any]], float]
) -> str:
    """Return a sentence with a measure without undertrained batch sizes, or "".

    Args:
        rows: The rows of a claim.
        column: What is measured.
        measure: Means by batch size to a number.
    """
    good = _trained(rows)
    poor = sorted(set(rows["batch_size"]) - set(good["batch_size"]))
    if not poor:
        return ""
    listed = ", ".join(map(str, poor))
    means = good.groupby("batch_size")[column].mean().sort_index()
    value = measure(means) if len(means) > 1 else float("nan")
    if np.isnan(value):
        return f" Undertrained: {listed}; without them too few batch sizes are left."
    return f" Undertrained: {listed}; without them it is {value:.2f}."


def H1(scaled: pd.DataFrame) -> Verdict:
    """At constant LR/BS natural accuracy does not depend on the batch size."""
    if final(scaled).empty:
        return absent("H1")
    values = _by_batch(scaled, "natural_accuracy")
    spread = values.max() - values.min()
    return judge(
        "H1",
        final(scaled),
        bool(spread <= criteria()["H1"].thresholds["range"]),
        paper="nearly constant (figures only)",
        ours=f"a range of {100 * spread:.2f} points",
        evidence=f"From {percent(values.min())} to {percent(values.max())}."
        + _again(final(scaled), "natural_accuracy", lambda v: 100 * float(np.ptp(v))),
        holds_up="not applicable",
        seeds=deciding(
            of_each_seed(
                final(scaled), lambda t: np.ptp(_by_batch(t, "natural_accuracy"))
            ),
            criteria()["H1"].thresholds["range"],
        ),
    )


def H2(scaled: pd.DataFrame, constant: pd.DataFrame) -> Verdict:
    """At constant LR/BS the top eigenvalue is nearly flat."""
    if final(scaled).empty or final(constant).empty:
        return absent("H2")
    flat, steep = (_by_batch(t, "top_eigenvalue") for t in (scaled, constant))
    ours, contrast = flat.max() / flat.min(), steep.max() / steep.min()
    limits = criteria()["H2"].thresholds
    return judge(
        "H2",
        final(scaled),
        bool(ours <= limits["ratio"] and contrast >= limits["contrast"]),
        paper="nearly flat (figures only)",
        ours=f"largest over smallest mean {ours:.1f}",
        evidence=f"At constant learning rate it is {contrast:.1f}."
        + _again(final(scaled), "top_eigenvalue", lambda v: v.max() / v.min()),
        holds_up="not applicable",
        seeds=deciding(of_each_seed(final(scaled), _largest_ratio), limits["ratio"]),
    )


def _range_of(column: str) -> Callable[[pd.DataFrame], float]:
    """Return what gives the range of a column's means over the batch sizes."""
    return lambda rows: float(np.ptp(_by_batch(rows, column)))


def _largest_ratio(rows: pd.DataFrame) -> float:
    values = _by_batch(rows, "top_eigenvalue")
    return float(values.max() / values.min())


def H3(scaled: pd.DataFrame) -> Verdict:
    """At constant LR/BS adversarial accuracy is nearly constant."""
    if final(scaled).empty:
        return absent("H3")
    limit = criteria()["H3"].thresholds["range"]
    spreads = {}
    for column in ("fgsm_accuracy", "pgd_accuracy", "pgd_margin_accuracy"):
        values = _by_batch(scaled, column)
        spreads[column] = float(values.max() - values.min())
    low, high = _slope_interval(final(scaled), "pgd_accuracy")
    level = low <= 0 <= high
    small = max(spreads["fgsm_accuracy"], spreads["pgd_accuracy"]) <= limit
    return judge(
        "H3",
        final(scaled),
        bool(small and level),
        paper="nearly constant (figures only)",
        ours=f"ranges of {100 * spreads['fgsm_accuracy']:.1f} (FGSM) and "
        f"{100 * spreads['pgd_accuracy']:.1f} (PGD) points",
        evidence=f"Slope of PGD accuracy per doubling of the batch size, 95 %: "
        f"{100 * low:+.1f} to {100 * high:+.1f} points."
        + _again(final(scaled), "pgd_accuracy", lambda v: 100 * float(np.ptp(v))),
        holds_up="yes" if spreads["pgd_margin_accuracy"] <= limit else "no",
        seeds=deciding(
            of_each_seed(final(scaled), _range_of("pgd_accuracy")),
            limit,
        ),
    )


def _slope_interval(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Return the 95 % interval of the slope over log2 of the batch size."""
    from scipy import stats

    fit = stats.linregress(np.log2(rows["batch_size"]), rows[column])
    half = stats.t.ppf(0.975, max(1, len(rows) - 2)) * fit.stderr
    return float(fit.slope - half), float(fit.slope + half)


def _trend(name: str, table: pd.DataFrame, column: str, stronger: str = "") -> Verdict:
    """Judge a rank correlation with the batch size over cells' means."""
    rows = final(table)
    if rows.empty:
        return absent(name)
    wanted = criteria()[name].thresholds["spearman"]
    values = _by_batch(table, column)

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
        other, held = passes(_by_batch(table, stronger))
        parts.append(
            f"{'yes' if held else 'no'}; margin-loss PGD: Spearman {other:.2f}"
        )
    good = _by_batch(_trained(rows), column)
    if len(good) < 3:
        parts.append("too few batch sizes are trained to test without the others")
    else:
        again, held = passes(good)
        answer = "yes" if held else "no"
        parts.append(f"{answer}; trained batch sizes alone: Spearman {again:.2f}")
    holds_up = "; ".join(parts)
    return judge(
        name,
        rows,
        passed,
        paper="a trend (figures only)",
        ours=f"Spearman {found:.2f} with the batch size",
        evidence=f"Means by batch size: {listed}.",
        holds_up=holds_up,
        seeds=deciding(of_each_seed(rows, lambda part: _rank(part, column)), wanted),
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


def _rank(table: pd.DataFrame, column: str) -> float:
    """Return how a column's means rank with the batch size."""
    means = _by_batch(table, column)
    return spearman(means.index.to_numpy(), means.to_numpy())


def H7(benchmark: pd.DataFrame) -> Verdict:
    """The Benchmark, with momentum and decay, shows the three trends as well."""
    rows = final(benchmark)
    if rows.empty:
        return absent("H7")
    limits = criteria()["H7"].thresholds
    natural = _rank(benchmark, "natural_accuracy")
    curvature = _rank(benchmark, "top_eigenvalue")
    robust = _rank(benchmark, "fgsm_accuracy")
    held = [
        natural <= limits["natural"],
        curvature >= limits["eigenvalue"],
        robust <= limits["robust"],
    ]
    margin = _rank(benchmark, "pgd_margin_accuracy")
    return judge(
        "H7",
        rows,
        all(held) or (any(held) and "partly"),
        paper="the same trends (figures only)",
        ours=f"Spearman with the batch size {natural:.2f} (natural), {curvature:.2f} "
        f"(eigenvalue), {robust:.2f} (FGSM)",
        evidence=f"{sum(held)} of 3 trends meet their thresholds."
        + _again(rows, "fgsm_accuracy", _ranked_by_size),
        holds_up=f"{'yes' if margin <= limits['robust'] else 'no'}; margin-loss PGD: "
        f"Spearman {margin:.2f}",
        seeds=deciding(
            of_each_seed(rows, lambda part: _rank(part, "fgsm_accuracy")),
            limits["robust"],
        ),
    )


def _ranked_by_size(means: pd.Series[Any]) -> float:
    return spearman(means.index.to_numpy(), means.to_numpy())


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
        return absent("H9")
    up = _with_momentum(momenta, "natural_accuracy", 1)
    down = _with_momentum(momenta, "top_eigenvalue", -1)
    wanted = criteria()["H9"].thresholds["share"]
    return judge(
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
        return absent("H10")
    wanted = criteria()["H10"].thresholds["share"]
    fgsm = _with_momentum(momenta, "fgsm_accuracy", 1)
    pgd = _with_momentum(momenta, "pgd_accuracy", 1)
    margin = _with_momentum(momenta, "pgd_margin_accuracy", 1)
    cases = pd.concat([fgsm, pgd])
    return judge(
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


def H12(settings: pd.DataFrame) -> Verdict:
    """PGD shows the trends of FGSM, setting by setting."""
    rows = final(settings)
    if rows.empty:
        return absent("H12")
    agree, most = [], 0.0
    for _, part in rows.groupby("setting", sort=False):
        slopes = [
            sum(_slope_interval(part, column)) / 2
            for column in ("fgsm_accuracy", "pgd_accuracy")
        ]
        agree.append(bool(slopes[0] * slopes[1] > 0))
        most = max(most, float(part.groupby("batch_size")["pgd_accuracy"].mean().max()))
    share = sum(agree) / len(agree)
    return judge(
        "H12",
        rows,
        bool(share >= criteria()["H12"].thresholds["share"]),
        paper="the same trends (figures only)",
        ours=f"the slope has the same sign in {sum(agree)} of {len(agree)} settings",
        evidence="Slopes over the doubling of the batch size, every run a point. PGD "
        "on "
        f"the cross-entropy leaves at most {percent(most)}.",
    )


def H16(constant: pd.DataFrame, scaled: pd.DataFrame) -> Verdict:
    """The trends of robustness survive without masking."""
    rows = final(constant)
    if rows.empty or final(scaled).empty:
        return absent("H16")
    columns = ("fgsm_margin_accuracy", "pgd_margin_accuracy")
    falls = [_rank(constant, column) for column in columns]
    ranges = [float(np.ptp(_by_batch(scaled, column))) for column in columns]
    flat = max(ranges) <= criteria()["H16"].thresholds["range"]
    held = [all(rank < 0 for rank in falls), flat]
    masked = max(rows["masked_share"].max(), final(scaled)["masked_share"].max())
    return judge(
        "H16",
        rows,
        all(held) or (any(held) and "partly"),
        paper="not tested",
        ours=f"at constant rate Spearman {falls[0]:.2f} (margin-loss FGSM) and "
        f"{falls[1]:.2f} (PGD); at constant ratio ranges of {100 * ranges[0]:.1f} and "
        f"{100 * ranges[1]:.1f} points",
        evidence=f"At most {percent(masked)} of a network's images have a margin above "
        "16.64. The counter-example has a verdict of its own.",
        holds_up="yes" if all(held) else "no",
    )


def H8(other: pd.DataFrame) -> Verdict:
    """The counter-example: robustness and eigenvalue rise together."""
    rows = final(other)
    if rows.empty:
        return absent("H8")
    left_out = sorted(set(rows["batch_size"]) - set(_trained(rows)["batch_size"]))
    everything, rows = rows, _trained(rows)
    if rows.empty:
        return judge(
            "H8",
            everything.assign(batch_size=0),  # no batch size that counts
            False,
            paper="all three rise (figures only)",
            ours="no batch size at which every network learnt its training images",
            evidence="Robust accuracy of a network that has not learnt says nothing.",
        )
    wanted = criteria()["H8"].thresholds["spearman"]
    columns = ("fgsm_accuracy", "pgd_accuracy", "top_eigenvalue", "pgd_margin_accuracy")
    found = {}
    for column in columns:
        means = _by_batch(rows, column)
        found[column] = spearman(means.index.to_numpy(), means.to_numpy())
    fgsm, pgd, curvature, margin = found.values()
    return judge(
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
