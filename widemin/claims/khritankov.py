"""Chapter 1: Khritankov et al., adversarial robustness through wide local minima."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    summary,
)
from widemin.statistics import (
    over_seeds,
    partial_spearman,
    spearman,
    spearman_interval,
    wilson,
)

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
        return absent("W1")
    limits = criteria()["W1"].thresholds
    printed = paper_table("wide_minima_table2")
    printed = printed[printed["acc_mean"] > 100 * limits["clean"]]
    theirs = spearman(
        printed["learning_rate"] / printed["batch_size"], printed["adv_acc_mean"]
    )
    cells = _cells(grid)
    cells = cells[cells["natural_accuracy"] > limits["clean"]]
    if len(cells) < 3:
        clean = percent(limits["clean"])
        return judge(
            "W1",
            final(grid),
            False,
            paper=f"Spearman {theirs:.2f} in {len(printed)} cells",
            ours=f"{len(cells)} cells above {clean} clean accuracy",
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
    return judge(
        "W1",
        final(grid),
        passed,
        paper=f"Spearman {theirs:.2f} in {len(printed)} cells",
        ours=f"Spearman {_with_interval(by['ratio'], len(cells))} in {len(cells)} "
        f"cells, {final(grid)['key'].nunique()} runs",
        evidence=(
            f"With the learning rate alone it is {by['learning_rate']:.2f}, with the "
            f"batch size alone {by['batch_size']:.2f}."
        ),
        holds_up=_ranked(stronger, level, limits["spearman"]),
        seeds=deciding(
            of_each_seed(final(grid), _ratio_rank(limits["clean"])), limits["spearman"]
        ),
    )


def _ranked(correlation: float, level: float, threshold: float) -> str:
    """Return whether a trend survives, or that there is nothing left to rank."""
    if not level > 0.02:
        return f"no; margin-loss PGD leaves at most {percent(level)} in any cell"
    held = "yes" if correlation >= threshold else "no"
    return f"{held}; margin-loss PGD: Spearman {correlation:.2f}"


def _best_runs(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of the cell whose mean of a column is highest."""
    cells = rows.groupby(["batch_size", "learning_rate"])[column].mean()
    size, rate = cells.idxmax()
    return rows[(rows["batch_size"] == size) & (rows["learning_rate"] == rate)]


def W2(decisive: pd.DataFrame) -> Verdict:
    """Long natural training reaches 89 % under FGSM, by one loss or another."""
    rows = final(decisive)
    if rows.empty:
        return absent("W2")
    wanted = criteria()["W2"].thresholds["accuracy"]
    plain = _best_runs(rows, "fgsm_accuracy")["fgsm_accuracy"]
    clipped = _best_runs(rows, "fgsm_clipped_accuracy")["fgsm_clipped_accuracy"]
    passed: bool | str = bool(plain.mean() >= wanted)
    if not passed and clipped.mean() >= wanted:
        passed = "partly"
    images = int(rows["images"].min())
    printed = paper_table("wide_minima_table2")
    best = printed.loc[printed["adv_acc_mean"].idxmax()]
    return judge(
        "W2",
        rows,
        passed,
        paper=(
            f"{best['adv_acc_mean']:.1f} % at batch size {best['batch_size']:.0f}, "
            f"learning rate {best['learning_rate']:g}"
        ),
        ours=f"{summary(plain, images)} from logits, {summary(clipped, images)} from "
        "clipped probabilities, best cell each",
        evidence="The same networks, images and epsilon; only the arithmetic of the "
        "cross-entropy differs.",
        holds_up=_worst(rows),
        seeds=deciding(list(plain), wanted),
    )


def _worst(rows: pd.DataFrame) -> str:
    worst = rows.groupby(["batch_size", "learning_rate"])["worst_accuracy"].mean().max()
    held = "yes" if worst >= 0.8 else "no"
    return f"{held}; worst case over all attacks here {percent(worst)}, best cell"


def W3(grid: pd.DataFrame) -> Verdict:
    """No clean accuracy is lost where FGSM accuracy is best."""
    if final(grid).empty:
        return absent("W3")
    cells = _cells(grid)
    best = cells.loc[cells["fgsm_accuracy"].idxmax()]
    loss, wanted = _clean_loss(final(grid)), criteria()["W3"].thresholds["loss"]
    by_seed = of_each_seed(final(grid), _clean_loss)
    printed = paper_table("wide_minima_table2")
    theirs = printed["acc_mean"].max()
    theirs -= printed.loc[printed["adv_acc_mean"].idxmax(), "acc_mean"]
    return judge(
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
        seeds=deciding(by_seed, wanted),
    )


def _over_seeds(values: list[float]) -> str:
    """Return mean and interval of fractions in points, where there is an interval."""
    mean, half = (100 * number for number in over_seeds(values))
    if math.isnan(half):
        return ""
    return f" ({mean:.2f} ± {half:.2f} over {len(values)} seeds, each by its best cell)"


def _clean_loss(rows: pd.DataFrame) -> float:
    """Return the clean accuracy lost in the cell that is best under FGSM."""
    cells = _cells(rows)
    best = cells.loc[cells["fgsm_accuracy"].idxmax(), "natural_accuracy"]
    return float(cells["natural_accuracy"].max() - best)


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


def W4(long: pd.DataFrame) -> Verdict:
    """Longer training helps at a high ratio, and not at a low one."""
    if final(long).empty:
        return absent("W4")
    limits = criteria()["W4"].thresholds
    best = best_epochs(long)
    high = best[best["ratio"].between(limits["from"], limits["to"])]
    low = best[best["ratio"] <= limits["low"]]
    if high.empty or low.empty:
        return absent("W4")
    late, early = high["share"] > limits["late"], low["share"] <= limits["early"]
    passed = [bool(late.mean() > 0.5), bool(early.mean() > 0.5)]
    by_margin = best_epochs(long, "fgsm_margin_accuracy")
    by_margin = by_margin[by_margin["key"].isin(high["key"])]["fgsm_margin_accuracy"]
    return judge(
        "W4",
        final(long),
        all(passed) or (any(passed) and "partly"),
        paper="mean best epochs 44 to 117 of about 120 at the ratios that lead its "
        "table",
        ours=f"best epoch in the last third in {late.sum()} of {len(late)} runs at a "
        "high "
        f"ratio, in the first half in {early.sum()} of {len(early)} at a low one",
        evidence=f"The mean best epoch is at {percent(high['share'].mean())} of "
        "training "
        f"at a high ratio and at {percent(low['share'].mean())} at a low one.",
        holds_up="no; by margin-loss FGSM the best epoch of any of these runs has "
        f"{percent(by_margin.max())}",
        seeds=deciding(list(high.groupby("seed")["share"].mean()), limits["late"]),
    )


def _stronger(mean: pd.Series[Any]) -> str:
    """Say what AutoAttack leaves and how far the boundary is, where measured."""
    if "autoattack_accuracy" not in mean or pd.isna(mean["autoattack_accuracy"]):
        return ""
    text = (
        f" On {mean['strong_images']:.0f} images AutoAttack leaves "
        f"{percent(mean['autoattack_accuracy'])}; half of them are fooled within "
        f"{mean['distance_q50']:.3f}."
    )
    if pd.notna(mean.get("transfer_accuracy")):
        moved = percent(mean["transfer_accuracy"])
        text += f" Images made on a briefly trained network leave {moved}."
    return text


def W5(grid: pd.DataFrame) -> Verdict:
    """Training breaks down at one learning rate over batch size, or at one rate."""
    if grid.empty or not (grid["measured"] == "final").any():
        return absent("W5")
    limits = criteria()["W5"].thresholds
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
    printed = paper_table("wide_minima_table2")
    theirs = int((printed["acc_mean"] < 15).sum())
    return judge(
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


def measured_widths(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the networks whose width was measured and that do not answer one class."""
    rows = final(grid)
    if rows.empty or "width_images" not in rows:
        return rows.iloc[:0]
    rows = rows[rows["width_images"].notna() & ~rows["constant"].astype(bool)]
    if "distance_q50" not in rows:  # strong_size is 0
        rows = rows.assign(distance_q50=math.nan)
    return rows.assign(ratio=rows["learning_rate"] / rows["batch_size"])


def _planned_widths(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of all networks set to have their width measured."""
    rows = grid[grid["measured"] == "final"]
    return rows[rows["width_size"] > 0]


def _levels(rows: pd.DataFrame, of: str) -> list[str]:
    """Return the columns of a width, one for each height of the level."""
    return [name for name in rows if name.startswith(f"width_{of}_")]


def _networks_needed(rho: float, threshold: float) -> str:
    """Return how many networks put a rank correlation's interval on one side."""
    for n in range(5, 10_000):
        low, high = spearman_interval(rho, n)
        if low > threshold or high < threshold:
            return f"{n} networks, if the correlation stays {rho:.2f}"
    return "more than 10,000 networks"


def _with_interval(rho: float, n: int) -> str:
    low, high = spearman_interval(rho, n)
    return f"{rho:.2f} ({low:.2f} to {high:.2f})"


def W6(grid: pd.DataFrame) -> Verdict:
    """Wider minima are more robust: the width in weights ranks with accuracy."""
    rows = measured_widths(grid)
    if len(rows) < 3 or rows["distance_q50"].isna().all():
        return absent("W6")
    limit, levels = criteria()["W6"].thresholds["spearman"], _levels(rows, "weights")
    plain = [spearman(rows[level], rows["fgsm_accuracy"]) for level in levels]
    unmasked = [spearman(rows[level], rows["distance_q50"]) for level in levels]
    inputs = [spearman(rows[c], rows["fgsm_accuracy"]) for c in _levels(rows, "inputs")]
    nodes = [
        [spearman(rows[level], rows[column]) for level in _levels(rows, "nodes")]
        for column in ("fgsm_accuracy", "distance_q50")
    ]
    trained = rows[rows["train_accuracy"] >= TRAINED]
    again = [spearman(trained[level], trained["distance_q50"]) for level in levels]
    n = len(rows)
    return judge(
        "W6",
        _planned_widths(grid),
        bool(min(plain + unmasked) >= limit),
        paper="argued, not measured",
        ours=f"with FGSM accuracy Spearman {_with_interval(min(plain), n)}, with the "
        f"distance that fools {_with_interval(min(unmasked), n)}, over {n} networks; "
        "the "
        f"lower of {len(levels)} levels each",
        evidence=f"Width in inputs against FGSM accuracy: {min(inputs):.2f}. Without "
        f"undertrained networks width in weights against the distance: "
        f"{min(again):.2f} over {len(trained)}. In units of the nodes, which the paper "
        f"does not use, width ranks with FGSM accuracy at {min(nodes[0]):.2f} and with "
        f"the distance at {min(nodes[1]):.2f}.",
        holds_up=f"{'yes' if min(unmasked) >= limit else 'no'}; the distance is found "
        "by "
        "margin-loss PGD",
        seeds=_networks_needed(min(unmasked), limit),
    )


def W11(grid: pd.DataFrame) -> Verdict:
    """More gradient noise gives wider minima, in units of the nodes."""
    rows = measured_widths(grid)
    if len(rows) < 3:
        return absent("W11")
    limit, levels = criteria()["W11"].thresholds["spearman"], _levels(rows, "nodes")
    found = [spearman(rows["ratio"], rows[level]) for level in levels]
    weights = [spearman(rows["ratio"], rows[c]) for c in _levels(rows, "weights")]
    held = [rows["median_margin"], rows["final_train_loss"]]
    confounds = [spearman(rows["ratio"], other) for other in held]
    given = [partial_spearman(rows["ratio"], rows[level], held) for level in levels]
    top = spearman(rows["ratio"], rows["top_eigenvalue"])
    return judge(
        "W11",
        _planned_widths(grid),
        bool(min(found) >= limit),
        paper="argued, not measured",
        ours=f"node-normalised width with LR/B Spearman "
        f"{_with_interval(min(found), len(rows))} over {len(rows)} networks, the lower "
        f"of {len(levels)} levels",
        evidence=f"Plain width {min(weights):.2f}, top eigenvalue {top:.2f}. Median "
        f"margin ranks with LR/B at {confounds[0]:.2f}, training loss at "
        f"{confounds[1]:.2f}; given both, the node-normalised width is left with "
        f"{min(given):.2f}.",
        holds_up="not applicable",
        seeds=_networks_needed(min(found), limit),
    )


def W9(corner: pd.DataFrame) -> Verdict:
    """At a low rate and a large batch the best epoch comes first, at about 17 %."""
    if final(corner).empty:
        return absent("W9")
    limits = criteria()["W9"].thresholds
    best = best_epochs(corner)
    best["after"] = best["epoch"] - 1  # the poster counts epochs from 0
    cells = best.groupby(["batch_size", "learning_rate"])[["after", "fgsm_accuracy"]]
    means = cells.mean()
    near = (means["fgsm_accuracy"] - limits["accuracy"]).abs() <= limits["points"]
    soon = means["after"] <= limits["epoch"]
    held = int((near & soon).sum())
    edge = limits["accuracy"] + limits["points"]
    if means["fgsm_accuracy"].mean() < limits["accuracy"]:
        edge = limits["accuracy"] - limits["points"]
    by_seed = list(best.groupby("seed")["fgsm_accuracy"].mean())
    images = int(best["images"].min())
    last = final(corner)["fgsm_accuracy"].mean()
    return judge(
        "W9",
        final(corner),
        held == len(means) or (held > 0 and "partly"),
        paper="17.0 to 17.5 % at epoch 0 to 2, counted from 0",
        ours=f"{summary(pd.Series(by_seed), images)} at epoch "
        f"{means['after'].min():.0f} to {means['after'].max():.0f}, mean over "
        f"{len(means)} cells",
        evidence=f"{held} of {len(means)} cells are as stated. After the last epoch "
        "FGSM "
        f"leaves {percent(last)}.",
        holds_up="not applicable",
        seeds=deciding(by_seed, edge),
    )


def W10(adam: pd.DataFrame) -> Verdict:
    """Adam reaches 96 % under the poster's attack."""
    rows = final(adam)
    if rows.empty:
        return absent("W10")
    wanted = criteria()["W10"].thresholds["accuracy"]
    plain = _best_runs(rows, "fgsm_accuracy")
    clipped = _best_runs(rows, "fgsm_clipped_accuracy")["fgsm_clipped_accuracy"]
    passed: bool | str = bool(plain["fgsm_accuracy"].mean() >= wanted)
    if not passed and clipped.mean() >= wanted:
        passed = "partly"
    images = int(rows["images"].min())
    cell = plain.iloc[0]
    worst = rows["worst_accuracy"].max()
    return judge(
        "W10",
        rows,
        passed,
        paper="96 %, no settings given",
        ours=f"{summary(plain['fgsm_accuracy'], images)} from logits, "
        f"{summary(clipped, images)} from clipped probabilities, best cell each",
        evidence=f"From logits the best of {rows['learning_rate'].nunique()} rates is "
        f"{cell['learning_rate']:g}, at batch size {cell['batch_size']:.0f}. At most "
        f"{percent(rows['masked_share'].max())} of the images have a margin above "
        "16.64." + _stronger(plain.mean(numeric_only=True)),
        holds_up=f"{'yes' if worst >= wanted else 'no'}; worst case over all attacks "
        f"{percent(worst)} in any run",
        seeds=deciding(list(plain["fgsm_accuracy"]), wanted),
    )


def W12() -> Verdict:
    """Theorems 1 and 2 as printed, against their counterexamples."""
    at_minimum, level = abs(0.0**2 - 10), 1.0
    risen = float(theory.bent_ramp(0.5))
    ends = float(theory.two_sigmoids([-8, 2]))
    middle = float(theory.two_sigmoids([-3, -3]))
    x, theta = np.array([1.0, 0.0]), np.array([1.0, 2.0])
    once, scaled = (theory.logistic_widths(x, k * theta, math.log(2)) for k in (1, 16))
    return Verdict(
        "W12",
        "not reproduced",
        paper="two theorems, proved in outline",
        ours="a counterexample to 1.1, 1.2, 2.1 and 2.3 each",
        evidence=f"1.1: {at_minimum:.0f} where at most {level:.0f} is allowed. 1.2: "
        "the "
        f"loss has risen by {risen:.1f} where 0.5 is allowed. 2.1: {middle:.2f} "
        "half-way "
        f"between two points at {ends:.2f}. 2.3: weights times 16 widen the minimum "
        "from "
        f"{once[0]:.2f} to {scaled[0]:.1f} and leave every image as far from the "
        "boundary "
        "as it was. 2.2 holds for one image.",
        holds_up="not applicable",
        seeds="nothing: it is mathematics",
    )


def W8(decisive: pd.DataFrame) -> Verdict:
    """The attacked images of long training have moved: they are not the clean ones."""
    rows = final(decisive)
    if rows.empty or "moved_share" not in rows:
        return absent("W8")
    rows = rows[rows["moved_share"].notna()]
    if rows.empty:
        return absent("W8")
    best = _best_runs(rows, "fgsm_clipped_accuracy")
    mean = best.mean(numeric_only=True)
    images = int(rows["strong_images"].min())
    return judge(
        "W8",
        best,
        bool(mean["moved_share"] > criteria()["W8"].thresholds["moved"]),
        paper="images drawn, no number",
        ours=f"{summary(best['moved_share'], images)} of the images move at all when "
        "the cross-entropy is computed from clipped probabilities",
        evidence=f"They move by {mean['moved_mean']:.3f} on average, in pixels. From "
        f"logits, {percent(mean['zero_gradient_share'])} of the gradients are zero.",
        holds_up="not applicable",
        seeds=deciding(list(best["moved_share"]), criteria()["W8"].thresholds["moved"]),
    )


def W13(decisive: pd.DataFrame) -> Verdict:
    """Natural training beats defences of about 81 %, also in the worst case."""
    rows = final(decisive)
    if rows.empty:
        return absent("W13")
    wanted = criteria()["W13"].thresholds["accuracy"]
    ways = ["fgsm_accuracy", "fgsm_clipped_accuracy"]
    column = max(ways, key=lambda way: _best_runs(rows, way)[way].mean())
    best = _best_runs(rows, column)
    attacked, worst = best[column].mean(), best["worst_accuracy"].mean()
    images = int(rows["images"].min())
    defended = paper_table("mnist_autoattack")
    listed = ", ".join(
        f"{name} {value:.1f} %"
        for name, value in zip(defended["defence"], defended["autoattack"], strict=True)
    )
    return judge(
        "W13",
        rows,
        bool(min(attacked, worst) > wanted),
        paper=f"above PuVAE and BPFC, about {100 * wanted:.0f} %",
        ours=f"{summary(best[column], images)} under the more lenient FGSM, "
        f"{summary(best['worst_accuracy'], images)} in the worst case",
        evidence="Defended networks under AutoAttack at the same radius, as published: "
        f"{listed}.",
        holds_up="yes" if worst > wanted else "no",
        seeds=deciding(list(best[[column, "worst_accuracy"]].min(axis=1)), wanted),
    )


def W7(decisive: pd.DataFrame) -> Verdict:
    """The robustness is real: the worst case is near the FGSM figure."""
    rows = final(decisive)
    if rows.empty:
        return absent("W7")
    best = _best_runs(rows, "fgsm_accuracy")
    mean = best.mean(numeric_only=True)
    gap = mean["fgsm_accuracy"] - mean["worst_accuracy"]
    wanted = criteria()["W7"].thresholds["gap"]
    passed = bool(gap <= wanted)
    gaps = list(best["fgsm_accuracy"] - best["worst_accuracy"])
    images = int(rows["images"].min())
    return judge(
        "W7",
        rows,
        passed,
        paper="FGSM alone",
        ours=f"{summary(best['fgsm_accuracy'], images)} under FGSM, "
        f"{summary(best['worst_accuracy'], images)} in the worst case",
        evidence=(
            f"Margin-loss FGSM, one step as well, leaves "
            f"{percent(mean['fgsm_margin_accuracy'])}; margin-loss PGD "
            f"{percent(mean['pgd_margin_accuracy'])}; "
            f"{percent(mean['masked_share'])} of the images have a margin above 16.64."
            + _stronger(mean)
        ),
        holds_up="yes" if passed else "no",
        seeds=deciding(gaps, wanted),
    )
