"""Claims about what SAM gains: S1 to S4, S10."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final

# The columns of its tables, in their order.
PAPER_SETS = ("linf 1/255", "linf 2/255", "l2 16/255", "l2 32/255")


def has_methods(rows: pd.DataFrame, *methods: str) -> bool:
    """Return whether there are networks of each of these methods."""
    return not rows.empty and set(methods) <= set(rows["method"])


def _gains(table: pd.DataFrame, column: str) -> list[tuple[float, str, float, float]]:
    """Return (rho, test set, gain over standard training, its standard error)."""
    rows = final(table)
    found = []
    for (rho, test), group in rows[rows["method"] == "sam"].groupby(["rho", "test"]):
        base = rows[(rows["method"] == "standard") & (rows["test"] == test)]
        gain, error, _ = claims.difference(group, base, column)
        found.append((float(rho), str(test), gain, error))
    return found


def _printed_gain(rho: float) -> float:
    """Return the mean gain of the paper's four robust columns on CIFAR-10, points."""
    printed = claims.paper_table("sam_table2_cifar10")
    columns = ["linf_1_255", "linf_2_255", "l2_16_255", "l2_32_255"]
    sam = printed[(printed["method"] == "SAM") & (printed["strength"] == f"{rho:g}")]
    base = printed[printed["method"] == "ST"]
    return float((sam[columns].to_numpy() - base[columns].to_numpy()).mean())


def S1(table: pd.DataFrame) -> Verdict:
    """SAM raises natural accuracy."""
    if not has_methods(final(table), "standard", "sam"):
        return claims.absent("S1")
    gains = _gains(table, "natural_accuracy")
    gains = gains[:: len({test for _, test, _, _ in gains})]  # the same in every set
    errors = claims.criteria()["S1"].thresholds["errors"]
    printed = claims.paper_table("sam_table2_cifar10").set_index("strength")["natural"]
    base = float(printed[~printed.index.isin(["0.1", "0.2", "0.4"])].iloc[0])
    theirs = [float(printed[f"{rho:g}"]) - base for rho in (0.1, 0.2, 0.4)]
    return claims.judge(
        "S1",
        final(table),
        all(gain > max(0, errors * error) for _, _, gain, error in gains),
        paper=f"{', '.join(f'{gain:+.1f}' for gain in theirs)} points at ρ 0.1, 0.2, "
        "0.4 on CIFAR-10",
        ours=", ".join(
            f"{100 * gain:+.1f} ± {100 * error:.1f} at ρ {rho:g}"
            for rho, _, gain, error in gains
        ),
        evidence="Points and their standard errors.",
        holds_up="not applicable",
        seeds=_seeds(table, "natural_accuracy", min, 0.0),
    )


def _seeds(
    table: pd.DataFrame, column: str, number: Callable[[list[float]], float], at: float
) -> claims.Spread:
    """Return how many seeds would decide a number of a column's gains over SGD."""

    def of_part(part: pd.DataFrame) -> float:
        if not has_methods(part, "standard", "sam"):
            return math.nan
        return number([gain for _, _, gain, _ in _gains(part, column)])

    return claims.deciding(claims.of_each_seed(final(table), of_part), at)


def S2(table: pd.DataFrame) -> Verdict:
    """SAM raises every robust column, by more than two standard errors."""
    if not has_methods(final(table), "standard", "sam"):
        return claims.absent("S2")
    gains = _gains(table, "pgd_accuracy")
    errors = claims.criteria()["S2"].thresholds["errors"]
    passed = all(gain > errors * error for _, _, gain, error in gains)
    raised = sum(gain > 0 for _, _, gain, _ in gains)
    stronger = _gains(table, "pgd_margin_accuracy")
    held = all(gain > errors * error for _, _, gain, error in stronger)
    low = min(gain for _, _, gain, _ in gains)
    high = max(gain for _, _, gain, _ in gains)
    least, most = _printed_gain(0.1), _printed_gain(0.4)
    return claims.judge(
        "S2",
        final(table),
        passed,
        paper=f"mean gain {least:.1f} points (ρ 0.1) to {most:.1f} (ρ 0.4)",
        ours=f"gains from {100 * low:.1f} to {100 * high:.1f} points",
        evidence=f"{raised} of {len(gains)} columns are up (PGD-10).",
        holds_up="yes" if held else "no",
        seeds=_seeds(table, "pgd_accuracy", min, 0.0),
    )


def S3(table: pd.DataFrame) -> Verdict:
    """More rho, more robustness, in every column."""
    if not has_methods(final(table), "standard", "sam"):
        return claims.absent("S3")
    gains = _gains(table, "pgd_accuracy")

    def rising(column: str) -> int:
        frame = pd.DataFrame(_gains(table, column), columns=["rho", "test", "g", "e"])
        groups = frame.sort_values("rho").groupby("test")["g"]
        return int(groups.apply(lambda g: g.is_monotonic_increasing).sum())

    columns = len({test for _, test, _, _ in gains})
    found, stronger = rising("pgd_accuracy"), rising("pgd_margin_accuracy")
    return claims.judge(
        "S3",
        final(table),
        found == columns,
        paper="all four columns rise with ρ",
        ours=f"{found} of {columns} columns rise with ρ",
        evidence="Judged on means over seeds.",
        holds_up="yes" if stronger == columns else "no",
        seeds=claims.deciding(claims.of_each_seed(final(table), least_step), 0.0),
    )


def least_step(rows: pd.DataFrame, column: str = "pgd_accuracy") -> float:
    """Return the least gain from one radius to the next, over the test sets."""
    rows = rows[rows["method"].isin(["standard", "sam"])]
    means = rows.groupby(["test", "rho"])[column].mean().unstack()
    steps = means.diff(axis=1).iloc[:, 1:]
    return float(steps.min().min()) if steps.size else math.nan


def S4(table: pd.DataFrame) -> Verdict:
    """SAM gains more than ten points on average, at the largest radius."""
    limits = claims.criteria()["S4"].thresholds
    if not has_methods(final(table), "standard", "sam"):
        return claims.absent("S4")

    def mean_gain(column: str) -> dict[float, float]:
        frame = pd.DataFrame(_gains(table, column), columns=["rho", "test", "g", "e"])
        return {float(r): float(g) for r, g in frame.groupby("rho")["g"].mean().items()}

    found, stronger = mean_gain("pgd_accuracy"), mean_gain("pgd_margin_accuracy")
    if limits["rho"] not in found:
        return claims.absent("S4")
    theirs = ", ".join(f"{_printed_gain(rho):.1f}" for rho in (0.1, 0.2, 0.4))
    return claims.judge(
        "S4",
        final(table),
        found[limits["rho"]] >= limits["gain"],
        paper=f"{theirs} points at ρ 0.1, 0.2, 0.4 on CIFAR-10",
        ours=", ".join(f"{100 * g:.1f} points at ρ {r:g}" for r, g in found.items()),
        evidence="Means of the four columns, and over seeds.",
        holds_up="yes" if stronger[limits["rho"]] >= limits["gain"] else "no",
        seeds=_seeds(
            table[table["rho"].isin([0.0, limits["rho"]])],
            "pgd_accuracy",
            lambda gains: sum(gains) / len(gains),
            limits["gain"],
        ),
    )


def S10(table: pd.DataFrame) -> Verdict:
    """The spread over seeds is below half a point in every column."""
    rows = final(table)
    if not has_methods(rows, "standard", "sam"):
        return claims.absent("S10")
    groups = rows.groupby(["method", "rho", "attack", "test"], dropna=False)
    columns = ["natural_accuracy", "pgd_accuracy"]
    spread = groups[columns].std(ddof=1)
    wanted = claims.criteria()["S10"].thresholds["spread"]
    below = int((spread < wanted).to_numpy().sum())
    images = int(rows["images"].min())
    chance = (0.25 / images) ** 0.5
    return claims.judge(
        "S10",
        rows,
        below == spread.size,
        paper="below 0.5 points, not shown",
        ours=f"below {100 * wanted:.1f} points in {below} of {spread.size} columns, at "
        f"most {100 * spread.max().max():.1f}",
        evidence=f"{rows['seed'].nunique()} seeds; {images:,} test images alone allow "
        f"a standard error of {100 * chance:.1f} points at 50 %.",
        holds_up="not applicable",
        seeds="9 seeds, from which a standard deviation is known to a quarter",
    )
