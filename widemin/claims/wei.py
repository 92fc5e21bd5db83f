"""Chapter 2: Wei et al., sharpness-aware minimisation and robustness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from widemin import theory
from widemin.claims import (
    Verdict,
    absent,
    criteria,
    deciding,
    final,
    judge,
    of_each_seed,
    paper_table,
    percent,
)

# The columns of its tables, in their order.
PAPER_SETS = ("linf 1/255", "linf 2/255", "l2 16/255", "l2 32/255")


def _has(rows: pd.DataFrame, *methods: str) -> bool:
    """Return whether there are networks of each of these methods."""
    return not rows.empty and set(methods) <= set(rows["method"])


def _gains(table: pd.DataFrame, column: str) -> list[tuple[float, str, float, float]]:
    """Return (rho, test set, gain over standard training, its standard error)."""
    rows = final(table)
    found = []
    for (rho, test), group in rows[rows["method"] == "sam"].groupby(["rho", "test"]):
        base = rows[(rows["method"] == "standard") & (rows["test"] == test)]
        paired = group.set_index("seed")[column] - base.set_index("seed")[column]
        paired = paired.dropna()
        error = paired.std(ddof=1) / len(paired) ** 0.5 if len(paired) > 1 else np.nan
        found.append((float(rho), str(test), float(paired.mean()), float(error)))
    return found


def _printed_gain(rho: float) -> float:
    """Return the mean gain of the paper's four robust columns on CIFAR-10, points."""
    printed = paper_table("sam_table2_cifar10")
    columns = ["linf_1_255", "linf_2_255", "l2_16_255", "l2_32_255"]
    sam = printed[(printed["method"] == "SAM") & (printed["strength"] == f"{rho:g}")]
    base = printed[printed["method"] == "ST"]
    return float((sam[columns].to_numpy() - base[columns].to_numpy()).mean())


def S1(table: pd.DataFrame) -> Verdict:
    """SAM raises natural accuracy."""
    if not _has(final(table), "standard", "sam"):
        return absent("S1")
    gains = _gains(table, "natural_accuracy")
    gains = gains[:: len({test for _, test, _, _ in gains})]  # the same in every set
    errors = criteria()["S1"].thresholds["errors"]
    printed = paper_table("sam_table2_cifar10").set_index("strength")["natural"]
    base = float(printed[~printed.index.isin(["0.1", "0.2", "0.4"])].iloc[0])
    theirs = [float(printed[f"{rho:g}"]) - base for rho in (0.1, 0.2, 0.4)]
    return judge(
        "S1",
        final(table),
        all(gain > max(0, errors * error) for _, _, gain, error in gains),
        paper=f"{', '.join(f'{gain:+.1f}' for gain in theirs)} points at rho 0.1, 0.2, "
        "0.4 on CIFAR-10",
        ours=", ".join(
            f"{100 * gain:+.1f} ± {100 * error:.1f} at rho {rho:g}"
            for rho, _, gain, error in gains
        ),
        evidence="Points and their standard errors, paired by seed.",
        holds_up="not applicable",
        seeds=_seeds(table, "natural_accuracy", min, 0.0),
    )


def _seeds(
    table: pd.DataFrame, column: str, number: Callable[[list[float]], float], at: float
) -> str:
    """Return how many seeds would decide a number of a column's gains over SGD."""

    def of_part(part: pd.DataFrame) -> float:
        if not _has(part, "standard", "sam"):
            return math.nan
        return number([gain for _, _, gain, _ in _gains(part, column)])

    return deciding(of_each_seed(final(table), of_part), at)


def S2(table: pd.DataFrame) -> Verdict:
    """SAM raises every robust column, by more than two standard errors."""
    if not _has(final(table), "standard", "sam"):
        return absent("S2")
    gains = _gains(table, "pgd_accuracy")
    errors = criteria()["S2"].thresholds["errors"]
    passed = all(gain > errors * error for _, _, gain, error in gains)
    raised = sum(gain > 0 for _, _, gain, _ in gains)
    stronger = _gains(table, "pgd_margin_accuracy")
    held = all(gain > errors * error for _, _, gain, error in stronger)
    low = min(gain for _, _, gain, _ in gains)
    high = max(gain for _, _, gain, _ in gains)
    least, most = _printed_gain(0.1), _printed_gain(0.4)
    return judge(
        "S2",
        final(table),
        passed,
        paper=f"mean gain {least:.1f} points (rho 0.1) to {most:.1f} (rho 0.4)",
        ours=f"gains from {100 * low:.1f} to {100 * high:.1f} points",
        evidence=f"{raised} of {len(gains)} columns are up (PGD-10).",
        holds_up="yes" if held else "no",
        seeds=_seeds(table, "pgd_accuracy", min, 0.0),
    )


def S3(table: pd.DataFrame) -> Verdict:
    """More rho, more robustness, in every column."""
    if not _has(final(table), "standard", "sam"):
        return absent("S3")
    gains = _gains(table, "pgd_accuracy")

    def rising(column: str) -> int:
        frame = pd.DataFrame(_gains(table, column), columns=["rho", "test", "g", "e"])
        groups = frame.sort_values("rho").groupby("test")["g"]
        return int(groups.apply(lambda g: g.is_monotonic_increasing).sum())

    columns = len({test for _, test, _, _ in gains})
    found, stronger = rising("pgd_accuracy"), rising("pgd_margin_accuracy")
    return judge(
        "S3",
        final(table),
        found == columns,
        paper="all four columns rise with rho",
        ours=f"{found} of {columns} columns rise with rho",
        evidence="Judged on means over seeds.",
        holds_up="yes" if stronger == columns else "no",
        seeds=deciding(of_each_seed(final(table), _least_step), 0.0),
    )


def _least_step(rows: pd.DataFrame, column: str = "pgd_accuracy") -> float:
    """Return the least gain from one radius to the next, over the test sets."""
    rows = rows[rows["method"].isin(["standard", "sam"])]
    means = rows.groupby(["test", "rho"])[column].mean().unstack()
    steps = means.diff(axis=1).iloc[:, 1:]
    return float(steps.min().min()) if steps.size else math.nan


def S4(table: pd.DataFrame) -> Verdict:
    """SAM gains more than ten points on average, at the largest radius."""
    limits = criteria()["S4"].thresholds
    if not _has(final(table), "standard", "sam"):
        return absent("S4")

    def mean_gain(column: str) -> dict[float, float]:
        frame = pd.DataFrame(_gains(table, column), columns=["rho", "test", "g", "e"])
        return {float(r): float(g) for r, g in frame.groupby("rho")["g"].mean().items()}

    found, stronger = mean_gain("pgd_accuracy"), mean_gain("pgd_margin_accuracy")
    if limits["rho"] not in found:
        return absent("S4")
    theirs = ", ".join(f"{_printed_gain(rho):.1f}" for rho in (0.1, 0.2, 0.4))
    return judge(
        "S4",
        final(table),
        found[limits["rho"]] >= limits["gain"],
        paper=f"{theirs} points at rho 0.1, 0.2, 0.4 on CIFAR-10",
        ours=", ".join(f"{100 * g:.1f} points at rho {r:g}" for r, g in found.items()),
        evidence="Means of the four columns, and over seeds.",
        holds_up="yes" if stronger[limits["rho"]] >= limits["gain"] else "no",
        seeds=_seeds(
            table[table["rho"].isin([0.0, limits["rho"]])],
            "pgd_accuracy",
            lambda gains: sum(gains) / len(gains),
            limits["gain"],
        ),
    )


def _paired(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in the paper's four sets, of seeds with adversarial training."""
    if rows.empty:
        return rows
    trained = rows[rows["method"] == "adversarial"]
    rows = rows[rows["seed"].isin(trained["seed"]) & rows["test"].isin(PAPER_SETS)]
    # Sets with fewer seeds than others would leave the claim to those.
    seeds = trained.groupby("attack")["seed"].nunique()
    fewer = seeds[seeds < seeds.max()].index
    return rows[~rows["attack"].isin(fewer)]


def _rising(costs: pd.Series[Any]) -> bool:
    """Return whether the cost grows with the radius, within each norm.

    Args:
        costs: Loss of natural accuracy by the set trained on, e.g. "linf 2/255".
    """
    radii: dict[str, list[tuple[Fraction, float]]] = {}
    for name in costs.index:
        norm, _, radius = str(name).partition(" ")
        radii.setdefault(norm, []).append((Fraction(radius), costs[name]))
    ordered = [[cost for _, cost in sorted(pairs)] for pairs in radii.values()]
    return all(a < b for row in ordered for a, b in pairwise(row))


def S5(table: pd.DataFrame) -> Verdict:
    """Adversarial training lowers natural accuracy."""
    rows = _paired(final(table))
    if not _has(rows, "standard", "adversarial"):
        return absent("S5")
    natural = rows.groupby(["method", "attack"])["natural_accuracy"].mean()
    base = float(natural["standard"].iloc[0])
    costs = base - natural["adversarial"]
    printed = paper_table("sam_table2_cifar10")
    drop = printed.loc[printed["method"] == "ST", "natural"].iloc[0]
    drop -= printed.loc[printed["method"].str.startswith("AT"), "natural"].max()
    verdict = judge(
        "S5",
        rows,
        bool((costs > 0).all()) and _rising(costs),
        paper=f"a loss of at least {drop:.1f} points",
        ours=f"a loss of {100 * costs.min():.1f} points (weakest set)",
        evidence=f"Standard training reaches {percent(base)}; natural accuracy lost by "
        f"set: {_costs(table)}.",
        holds_up="not applicable",
        seeds=deciding(of_each_seed(rows, _least_cost), 0.0),
    )
    norms = [str(name).partition(" ")[0] for name in costs.index]
    if verdict.outcome == "reproduced" and len(norms) == len(set(norms)):
        return replace(
            verdict,
            outcome="not decidable at this scale",
            evidence=verdict.evidence + " Below standard training throughout; whether "
            "more the larger the radius, it takes two radii of one norm to tell.",
        )
    return verdict


def _costs(table: pd.DataFrame) -> str:
    """Return what every adversarial training loses against plain training, by seed."""
    rows = final(table).drop_duplicates("key")
    base = rows[rows["method"] == "standard"].set_index("seed")["natural_accuracy"]
    lost = []
    for attack, part in rows[rows["method"] == "adversarial"].groupby("attack"):
        gap = (base - part.set_index("seed")["natural_accuracy"]).dropna()
        lost.append((float(gap.mean()), f"{attack} {100 * gap.mean():.1f}"))
    return ", ".join(text for _, text in sorted(lost))


def _least_cost(rows: pd.DataFrame) -> float:
    """Return the natural accuracy that the gentlest adversarial training loses."""
    if not _has(rows, "standard", "adversarial"):
        return math.nan
    natural = rows.groupby(["method", "attack"])["natural_accuracy"].mean()
    return float(natural["standard"].iloc[0] - natural["adversarial"].max())


def S6(table: pd.DataFrame) -> Verdict:
    """The weakest adversarial training beats the strongest SAM in every column."""
    rows = _paired(final(table))
    if not _has(rows, "sam", "adversarial"):
        return absent("S6")

    def ahead(column: str, rows: pd.DataFrame = rows) -> pd.Series[Any]:
        means = rows.groupby(["method", "rho", "attack", "test"])[column].mean()
        trained = means["adversarial"].groupby("test").min()
        return trained - means["sam"].loc[rows["rho"].max()].groupby("test").max()

    lead, stronger = ahead("pgd_accuracy"), ahead("pgd_margin_accuracy")
    return judge(
        "S6",
        rows,
        bool((lead > 0).all()),
        paper="adversarial training is ahead in all four columns",
        ours=f"ahead in {(lead > 0).sum()} of {len(lead)} columns",
        evidence=f"Leads from {100 * lead.min():.1f} to {100 * lead.max():.1f} points.",
        holds_up="yes" if (stronger > 0).all() else "no",
        seeds=deciding(
            of_each_seed(
                rows,
                lambda part: (
                    ahead("pgd_accuracy", part).min()
                    if _has(part, "sam", "adversarial")
                    else math.nan
                ),
            ),
            0.0,
        ),
    )


def S7(table: pd.DataFrame) -> Verdict:
    """SAM costs two gradients a step, adversarial training with ten steps eleven."""
    rows = final(table)
    if not _has(rows, "standard", "sam"):
        return absent("S7")
    limits = criteria()["S7"].thresholds
    each = (rows["gradients"] / rows["epochs"]).groupby(rows["method"]).mean()
    each = each / each["standard"]
    off = abs(each["sam"] - limits["sam"])
    passed: bool | str = bool(off <= limits["sam_tolerance"])
    text = f"SAM {each['sam']:.1f} gradients a step"
    evidence = (
        "Relative to standard training, counted as they are taken. Seconds of runs "
    )
    evidence += "that share a machine are not compared; `make bench` times a step."
    if "adversarial" in each:
        text += f", adversarial training {each['adversarial']:.1f}"
        steps = int(rows["attack_steps"].max())
        evidence += f" Adversarial training takes {steps} steps here, the paper 10."
        off = abs(each["adversarial"] - limits["adversarial"])
        if passed and off > limits["adversarial_tolerance"]:
            passed = "partly"
    return judge(
        "S7",
        rows,
        passed,
        paper="2 and 11 gradients a step",
        ours=text,
        evidence=evidence,
        holds_up="not applicable",
    )


def S9(table: pd.DataFrame) -> Verdict:
    """SAM's gain is not masking: stronger attacks keep the order and take little."""
    rows = final(table)
    if not _has(rows, "standard", "sam") or "restarts_accuracy" not in rows:
        return absent("S9")
    rows = rows[rows["method"].isin(["standard", "sam"])]
    rows = rows[rows["test"].isin(PAPER_SETS) & rows["restarts_accuracy"].notna()]
    if not _has(rows, "standard", "sam"):
        return absent("S9")
    limit = criteria()["S9"].thresholds["drop"]
    means = rows.groupby(["test", "rho"])["restarts_accuracy"].mean().unstack()
    kept = (means.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
    lost = _lost(rows, "restarts")
    text = f"at most {100 * lost.max():.1f} points to PGD-50 with 5 restarts"
    sure = rows.reindex(columns=rows.columns.union(["autoattack_accuracy"]))
    sure = sure[sure["autoattack_accuracy"].notna()]
    if len(sure):
        again = _lost(sure, "autoattack")
        images = int(sure["autoattack_images"].min())
        text += f", {100 * again.max():.1f} to AutoAttack ({images} images, "
        text += f"{sure['seed'].nunique()} seed)"
        lost = pd.concat([lost, again])
    small = bool(lost.max() <= limit)
    median = rows.drop_duplicates("key").groupby("rho")["median_margin"].mean()
    margins = ", ".join(f"{m:.1f} at {r:g}" for r, m in median.items())
    return judge(
        "S9",
        rows,
        bool(kept.all() and small) or (bool(kept.all() or small) and "partly"),
        paper="not tested",
        ours=f"the order in rho is kept in {kept.sum()} of {len(kept)} columns; a "
        f"method loses {text}",
        evidence=f"Losses from PGD-10 on the same images "
        f"({int(rows['strong_images'].min())} of them), mean over seeds. Median logit "
        f"margin by rho: {margins}; no margin above 16.64 hides a gradient."
        if rows["masked_share"].max() == 0
        else f"Median logit margin by rho: {margins}.",
        holds_up="yes" if small else "no",
        seeds=deciding(
            of_each_seed(rows, lambda part: _least_step(part, "restarts_accuracy")), 0.0
        ),
    )


def _lost(rows: pd.DataFrame, way: str) -> pd.Series[Any]:
    """Return what a method loses to an attack beyond PGD-10, by set and radius."""
    lost = rows[f"{way}_pgd_accuracy"] - rows[f"{way}_accuracy"]
    return lost.groupby([rows["test"], rows["rho"]]).mean()


def S12(table: pd.DataFrame) -> Verdict:
    """Practical reach: what is left at 8/255."""
    rows = final(table)
    if not _has(rows, "standard", "sam"):
        return absent("S12")
    rows = rows[rows["test"] == "linf 8/255"]
    if not _has(rows, "standard", "sam"):
        return absent("S12")
    limit = criteria()["S12"].thresholds["accuracy"]
    worst = rows.groupby(["method", "rho", "attack"])["worst_accuracy"].mean()
    sam = float(worst["sam"].max())
    trained = "none was trained here"
    if "adversarial" in worst:
        best = worst["adversarial"].idxmax()[1]
        trained = f"{percent(worst['adversarial'].max())} trained on {best}"
    return judge(
        "S12",
        rows[rows["method"].isin(["standard", "sam"])],
        sam > limit,
        paper="not tested beyond 2/255 and 32/255",
        ours=f"standard {percent(worst['standard'].max())}, SAM at most {percent(sam)}",
        evidence="Worst case over our attacks per image, mean over seeds; adversarial "
        f"training: {trained}. SAM would be a substitute at this radius if it kept "
        f"more than {percent(limit)}.",
        holds_up=_holds_at_8(rows),
        seeds=deciding(
            of_each_seed(
                rows[rows["method"] == "sam"],
                lambda part: part.groupby("rho")["worst_accuracy"].mean().max(),
            ),
            limit,
        ),
    )


def _holds_at_8(rows: pd.DataFrame) -> str:
    """Return what AutoAttack says of SAM, where it was run."""
    if "autoattack_accuracy" not in rows:
        return "not tested"
    found = rows.loc[rows["method"] == "sam", "autoattack_accuracy"].dropna()
    if found.empty:
        return "not tested"
    return f"AutoAttack leaves SAM at most {percent(found.max())}"


def bargain(table: pd.DataFrame, test: str) -> dict[str, float]:
    """Return what the most robust SAM and adversarial training gain, and cost.

    Args:
        table: Rows of a chapter.
        test: The set in which worst-case accuracy is compared.

    Returns:
        For "sam" and "adversarial" the gain over standard training in points, and under
        "sam_cost" and "adversarial_cost" the ratio of gradients; NaN without rows.
    """
    rows = final(table)
    rows = rows[rows["test"] == test] if len(rows) else rows
    found = dict.fromkeys(
        ["sam", "sam_cost", "adversarial", "adversarial_cost"], math.nan
    )
    if not _has(rows, "standard"):
        return found
    columns = ["worst_accuracy", "gradients"]
    means = rows.groupby(["method", "rho", "attack"])[columns].mean()
    base = means.loc["standard"].iloc[0]
    for method in {"sam", "adversarial"} & set(rows["method"]):
        part = means.loc[method]
        best = part.loc[part["worst_accuracy"].idxmax()]
        gain = 100 * (best["worst_accuracy"] - base["worst_accuracy"])
        found[method] = float(gain)
        found[f"{method}_cost"] = float(best["gradients"] / base["gradients"])
    return found


# How an epoch is chosen, and by which column of the curve; the last one flatters.
RULES = {
    "last": "epoch",
    "best on held-out images": "validation_fgsm_accuracy",
    "best on test images": "fgsm_accuracy",
}


def chosen_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the epochs that three rules choose, with the `rule`."""
    rows = table[table["measured"] == "epoch"] if len(table) else table
    rows = rows[rows["watch"].astype(str) != ""] if len(rows) else rows
    if rows.empty:
        return rows.assign(rule="")
    found = [
        rows.loc[rows.groupby("key", sort=False)[column].idxmax()].assign(rule=rule)
        for rule, column in RULES.items()
    ]
    return pd.concat(found)


def gains_by_rule(table: pd.DataFrame, rho: float) -> dict[str, float]:
    """Return SAM's gain over standard training under FGSM, in points, by rule.

    And, under "standard", what standard training gains by the epoch that held-out
    images choose over its last one.
    """
    rows = chosen_epochs(table)
    rows = rows[rows["attack"] == ""] if len(rows) else rows
    means = rows.groupby(["rule", "rho"])["fgsm_accuracy"].mean() if len(rows) else {}

    def of(rule: str, radius: float) -> float:
        return float(means.get((rule, radius), math.nan))

    found = {rule: 100 * (of(rule, rho) - of(rule, 0.0)) for rule in RULES}
    kept = of("best on held-out images", 0.0) - of("last", 0.0)
    return found | {"standard": 100 * kept}


def S8() -> Verdict:
    """Theorems 4.1 to 4.5 against the exact solution of their own model."""
    p, eta, d, radius = 0.95, 0.1, 100, 1.0
    best = theory.optimum(p, eta, d)
    exact = theory.sam_optimum(p, eta, d, radius) - best
    derived = theory.sam_shift(p, eta, d, radius)
    printed = theory.printed_sam_shift(p, eta, d, radius)
    all_weights = theory.sam_optimum(p, eta, 10 * d, radius, "all") - best
    right = theory.equivalent_adversarial_epsilon(eta, d, radius)
    theirs = eta * radius**2 / (1.5 + radius**2)
    return Verdict(
        "S8",
        "partly",
        paper="five theorems",
        ours="4.1, 4.2 and 4.3 hold; the constant of 4.4 and 4.5 is too large by "
        f"{printed / derived:.0f} = 2d",
        evidence=f"At p = {p}, eta = {eta}, d = {d}, radius {radius:g} the exact shift "
        f"is {exact:.4f}, 1/(3d) gives {derived:.4f} and the printed 2/3 gives "
        f"{printed:.2f}; the attack of equal effect is {right:.5f}, not {theirs:.2f}. "
        "4.2 "
        "needs an attack smaller than eta that spares the robust feature. If SAM moves "
        "all weights, as it does in practice, the robust weight falls at d = "
        f"{10 * d}: "
        f"{all_weights:.4f}.",
        holds_up="not applicable",
        seeds="nothing: it is mathematics",
    )


def S11(ratios: dict[int, np.ndarray]) -> Verdict:
    """SAM puts more weight on the robust feature where theory says so, else less.

    Args:
        ratios: Number of weak features d to ratios, shape (seeds, radii), the first
            radius 0, of `theory.sam_on_samples` at p = 0.95 and eta = 0.1.
    """
    best = theory.optimum(0.95, 0.1, 1)
    held, said = [], []
    for d, found in sorted(ratios.items()):
        more = best**2 > 2 * d  # what theory predicts
        steps = np.diff(found, axis=1)
        held.append(bool((steps > 0).all() if more else (steps < 0).all()))
        change = 100 * (found[:, -1] / found[:, 0] - 1)
        said.append(
            f"{change.mean():+.1f} % at d = {d}, where theory predicts "
            f"{'more' if more else 'less'}"
        )
    runs = len(next(iter(ratios.values())))
    return Verdict(
        "S11",
        "reproduced" if all(held) else "partly" if any(held) else "not reproduced",
        paper="argued from a SAM that moves the robust weight alone",
        ours="robust over weak weights, largest radius against none: "
        f"{'; '.join(said)}",
        evidence=f"Linear models trained by SAM on the logistic loss of fresh samples, "
        f"{runs} seeds, the same samples for every radius. The theory is about "
        "expected "
        "accuracy and its worst case; SAM climbs each batch's own logistic loss.",
        holds_up="not applicable",
        seeds=f"nothing: all {runs} seeds agree" if _agree(ratios) else "more seeds",
    )


def _agree(ratios: dict[int, np.ndarray]) -> bool:
    """Return whether all seeds move the same way from the first radius to the last."""
    signs = [np.sign(found[:, -1] - found[:, 0]) for found in ratios.values()]
    return all(len(set(sign)) == 1 for sign in signs)


def S10(table: pd.DataFrame) -> Verdict:
    """The spread over seeds is below half a point in every column."""
    rows = final(table)
    if not _has(rows, "standard", "sam"):
        return absent("S10")
    groups = rows.groupby(["method", "rho", "attack", "test"], dropna=False)
    columns = ["natural_accuracy", "pgd_accuracy"]
    spread = groups[columns].std(ddof=1)
    wanted = criteria()["S10"].thresholds["spread"]
    below = int((spread < wanted).to_numpy().sum())
    images = int(rows["images"].min())
    chance = (0.25 / images) ** 0.5
    return judge(
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
