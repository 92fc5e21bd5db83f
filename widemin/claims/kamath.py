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
        return absent("H11")
    little, much = _changes(scaled), _changes(constant)
    wanted = criteria()["H11"].thresholds["share"]
    return judge(
        "H11",
        rows,
        little < wanted * much,
        paper="little at constant ratio (figures only)",
        ours=f"accuracies change by {100 * little:.1f} points on average, at constant "
        f"rate by {100 * much:.1f}",
        evidence=f"Natural, FGSM and PGD accuracy, momenta "
        f"{_listed(rows['momentum'])} against 0.",
        holds_up="not applicable",
        seeds=deciding(
            [
                _changes(part) - wanted * _changes(other)
                for (_, part), (_, other) in zip(
                    rows.groupby("seed"), final(constant).groupby("seed"), strict=False
                )
            ],
            0.0,
        ),
    )


def H13(constant: pd.DataFrame, scaled: pd.DataFrame) -> Verdict:
    """(check) Both settings agree at batch size 64."""
    if final(constant).empty or final(scaled).empty:
        return absent("H13")
    one, two = (
        rows[rows["batch_size"] == 64].sort_values(["seed", "test"])
        for rows in map(final, (constant, scaled))
    )
    if one.empty or len(one) != len(two):
        return absent("H13")
    numbers = [*CHANGED, "top_eigenvalue", "final_train_loss"]
    off = abs(one[numbers].to_numpy(float) - two[numbers].to_numpy(float)).max()
    return judge(
        "H13",
        one,
        bool(off == 0),
        paper="follows from 0.00015625 x 64 = 0.01",
        ours=f"the largest difference is {off:g}",
        evidence=f"{one['seed'].nunique()} seeds; the two settings are the same recipe "
        "there, so this checks our own book-keeping.",
        holds_up="not applicable",
        seeds="nothing: it is an identity",
    )


def H14(momentum: pd.DataFrame, rate: pd.DataFrame) -> Verdict:
    """(control) Momentum acts through LR / (1 - m).

    Args:
        momentum: Runs with one momentum at constant rate.
        rate: Runs without, at the rate divided by 1 - m.
    """
    one, two = final(momentum), final(rate)
    if one.empty or two.empty:
        return absent("H14")
    limits, near, worst = criteria()["H14"].thresholds, [], 0.0
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
    return judge(
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


def H15(equal: pd.DataFrame, constant: pd.DataFrame) -> Verdict:
    """(control) A large batch is under-trained, not sharper.

    Args:
        equal: Runs whose sum of learning rates is that of batch size 64.
        constant: Runs of equal epochs.
    """
    if final(equal).empty or final(constant).empty:
        return absent("H15")
    sizes = final(equal)["batch_size"].unique()
    constant = constant[constant["batch_size"].isin(sizes)]
    if len(sizes) < 2:
        return absent("H15")
    wanted = criteria()["H15"].thresholds["share"]

    def left(one: pd.DataFrame, two: pd.DataFrame) -> list[float]:
        """Return what is left of either trend."""
        natural = [float(np.ptp(_by_batch(t, "natural_accuracy"))) for t in (one, two)]
        curved = [
            float(np.ptp(np.log(_by_batch(t, "top_eigenvalue")))) for t in (one, two)
        ]
        return [natural[0] / natural[1], curved[0] / curved[1]]

    shares = left(equal, constant)
    return judge(
        "H15",
        final(equal),
        all(share <= wanted for share in shares)
        or (any(share <= wanted for share in shares) and "partly"),
        paper="not tested",
        ours=f"{percent(shares[0])} of the range of natural accuracy and "
        f"{percent(shares[1])} of that of the eigenvalue's logarithm are left",
        evidence="With as many epochs as give every batch size the sum of learning "
        "rates of batch size 64; against equal epochs.",
        holds_up="not applicable",
        seeds=deciding(
            [
                max(left(part, other))
                for (_, part), (_, other) in zip(
                    final(equal).groupby("seed"),
                    final(constant).groupby("seed"),
                    strict=False,
                )
            ],
            wanted,
        ),
    )
