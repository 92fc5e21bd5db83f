"""Chapter 3: Wang et al., convergence and robustness of adversarial training."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import linprog

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
from widemin.statistics import spearman


def D3(table: pd.DataFrame) -> Verdict:
    """FOSC falls to 0 along the attack while the loss spreads."""
    steps = table[table["measured"] == "step"] if not table.empty else table
    if len(steps):
        steps = named(_plain(steps))
        steps = steps[steps["defence"] == "standard"]
    if steps.empty:
        return absent("D3")
    limits = criteria()["D3"].thresholds
    last = steps[steps["step"] == steps["step"].max()].mean(numeric_only=True)
    median = last["normalised_fosc_q50"]
    spread = last["loss_q75"] - last["loss_q25"]
    gap = last["fosc_q75"] - last["fosc_q25"]
    box = last["normalised_fosc_box_q50"]
    return judge(
        "D3",
        steps,
        bool(median < limits["median"] and spread > limits["ratio"] * gap),
        paper="FOSC close to 0 for all images at step 10, loss spread wide",
        ours=f"median normalised FOSC {median:.3f} at step {last['step']:.0f}",
        evidence=f"Interquartile range of the loss {spread:.3f}, of FOSC {gap:.4f}. "
        f"Pixels that clipping pins at 0 or 1 keep FOSC from 0; counted over the ball "
        f"and the pixel range together the median is {box:.3f}.",
        seeds=deciding(
            of_each_seed(
                steps[steps["step"] == last["step"]],
                lambda part: part["normalised_fosc_q50"].mean(),
            ),
            limits["median"],
        ),
    )


ATTACKS = ("fgsm", "pgd10", "pgd20", "cw")  # the columns of its tables


# The same by this book's own rule of steps, where the paper's attacks were not run.
OURS = {"fgsm": "fgsm", "pgd20": "pgd", "cw": "pgd_margin"}


def _columns(rows: pd.DataFrame) -> dict[str, str]:
    """Return the columns of the table's attacks, by attack: the paper's, or ours."""
    own = {way: f"wang_{way}_accuracy" for way in ATTACKS}
    if (
        set(own.values()) <= set(rows)
        and rows[list(own.values())].notna().to_numpy().all()
    ):
        return own
    return {way: f"{name}_accuracy" for way, name in OURS.items()}


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs with no switch turned."""
    if rows.empty:
        return rows
    turned = rows["fosc_from_start"].astype(bool) | rows["loss_weighted"].astype(bool)
    turned |= rows["rate_decay"].astype(float) > 0
    return rows[~turned & rows["step_schedule"].isin(["", "rising"])]


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the name of their defence, as the paper has it."""
    names = {"standard": "unsecured", "adversarial": "standard", "dynamic": "dynamic"}
    defence = rows["method"].map(names)
    rising = rows["step_schedule"].eq("rising")
    return rows.assign(defence=defence.mask(rising, "curriculum"))


def _defences(table: pd.DataFrame, *kinds: str) -> pd.DataFrame:
    """Return final rows of standard and of equally long other training."""
    rows = final(table)
    if rows.empty:
        return rows
    rows = named(_plain(rows))
    kinds = kinds or ("standard", "dynamic")
    rows = rows[rows["defence"].isin(kinds)]
    epochs = rows.loc[rows["defence"] == "standard", "epochs"]
    rows = rows[rows["epochs"].isin(epochs)]
    return rows if set(rows["defence"]) == set(kinds) else rows.iloc[:0]


def _difference(
    rows: pd.DataFrame, column: str, than: str = "standard"
) -> tuple[float, float]:
    """Return dynamic minus another defence, paired by seed, and its standard error."""
    by = rows.pivot_table(index="seed", columns="defence", values=column)
    if not {"dynamic", than} <= set(by):
        return math.nan, math.nan
    gain = (by["dynamic"] - by[than]).dropna()
    error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else math.nan
    return float(gain.mean()), float(error)


def _above(found: dict[str, tuple[float, float]], errors: float) -> bool:
    """Return whether every difference is above 0 by so many standard errors."""
    return all(gain > max(0.0, errors * error) for gain, error in found.values())


def _listed(found: dict[str, tuple[float, float]]) -> str:
    names = {"pgd10": "PGD-10", "pgd20": "PGD-20", "cw": "C&W", "fgsm": "FGSM"}
    return ", ".join(
        f"{names.get(name, name)} {100 * gain:+.1f} ± {100 * error:.1f}"
        for name, (gain, error) in found.items()
    )


def _printed(dataset: str, attack: str, than: str = "standard") -> float:
    """Return dynamic's lead in the paper's table 1, in points."""
    table = paper_table("dynamic_table1")
    table = table[table["dataset"] == dataset].set_index("defense")
    column = "cw_inf" if attack == "cw" else attack
    return float(table.loc["dynamic", column] - table.loc[than, column])


def D2(table: pd.DataFrame) -> Verdict:
    """Lower FOSC, lower accuracy and higher loss."""
    rows = table[table["measured"] == "bin"] if not table.empty else table
    if not rows.empty:
        rows = named(_plain(rows))
        rows = rows[rows["defence"] == "standard"]
    if rows.empty:
        return absent("D2")
    limits = criteria()["D2"].thresholds
    found = {
        (pool, by): _bin_ranks(part)
        for (pool, by), part in rows.groupby(["pool", "by"])
    }
    raw, normalised = found["all", "fosc"], found["all", "normalised_fosc"]
    last = found["last", "fosc"]

    def passes(pair: tuple[float, float]) -> bool:
        return pair[0] > limits["accuracy"] and pair[1] < limits["loss"]

    def said(pair: tuple[float, float]) -> str:
        return f"{pair[0]:+.2f} with accuracy, {pair[1]:+.2f} with loss"

    return judge(
        "D2",
        rows,
        passes(raw),
        paper="accuracy and FOSC fall together (figure)",
        ours=f"Spearman of FOSC over bins: {said(raw)}",
        evidence="All steps of the training attack together, on test images of "
        f"{rows['key'].nunique()} network(s). Where the attack ends alone: "
        f"{said(last)}. FOSC divided by the largest gain: {said(normalised)}."
        + _across_attacks(table),
        holds_up=f"{'yes' if passes(normalised) else 'no'}; normalised",
        seeds=deciding(
            of_each_seed(
                rows[(rows["pool"] == "all") & (rows["by"] == "fosc")],
                lambda part: _bin_ranks(part)[0],
            ),
            limits["accuracy"],
        ),
    )


def _across_attacks(table: pd.DataFrame) -> str:
    """Return how FOSC ranks with accuracy over attacks, instead of over images."""
    rows = table[table["measured"] == "strength"]
    if rows.empty:
        return ""
    rows = named(_plain(rows))
    rows = rows[rows["defence"] == "standard"]
    means = rows.groupby(["steps_taken", "step_radii"]).mean(numeric_only=True)
    raw = spearman(means["fosc_q50"], means["accuracy"])
    box = spearman(means["normalised_fosc_box_q50"], means["accuracy"])
    return (
        f" Over {len(means)} attacks of different strength on all images the median "
        f"FOSC ranks with accuracy at {raw:+.2f}; normalised over ball and pixel range "
        f"at {box:+.2f}."
    )


def _bin_ranks(part: pd.DataFrame) -> tuple[float, float]:
    """Return how FOSC ranks with accuracy and with loss over bins, mean of seeds."""
    means = part.groupby("bin")[["value", "accuracy", "loss"]].mean()
    return (
        spearman(means["value"], means["accuracy"]),
        spearman(means["value"], means["loss"]),
    )


def D4(sizes: pd.DataFrame) -> Verdict:
    """Training on half and quarter steps is best, and FOSC nearest 0 there."""
    rows = final(sizes)
    if rows.empty or rows["attack_step"].nunique() < 2:
        return absent("D4")
    column = _columns(rows)["pgd20"]
    robust = rows.groupby("attack_step")[column].mean()
    ends = sizes[sizes["measured"] == "step"]
    ends = ends[ends["step"] == ends["step"].max()]
    fosc = ends.groupby("attack_step")["fosc_q50"].mean().reindex(robust.index)
    rank = spearman(fosc, robust)
    best = set(robust.nlargest(2).index)
    limit = criteria()["D4"].thresholds["spearman"]
    held = [best == {0.5, 0.25}, rank < limit]
    return judge(
        "D4",
        rows,
        all(held) or (any(held) and "partly"),
        paper="steps of half and a quarter of the radius (figure)",
        ours="best two: " + " and ".join(f"{size:.3g}" for size in sorted(best)),
        evidence="PGD-20 by step in radii: "
        + ", ".join(f"{k:.3g}: {percent(v)}" for k, v in robust.items())
        + f". Spearman of median FOSC with it {rank:.2f}.",
        seeds=deciding(
            of_each_seed(
                rows,
                lambda part: (
                    part.loc[part["attack_step"].isin([0.25, 0.5]), column].min()
                    - part.loc[~part["attack_step"].isin([0.25, 0.5]), column].max()
                ),
            ),
            0.0,
        ),
    )


def D5(numbers: pd.DataFrame) -> Verdict:
    """Ten to forty steps of the training attack make no difference."""
    rows = final(numbers)
    if rows.empty or rows["attack_steps"].nunique() < 2:
        return absent("D5")
    limit = criteria()["D5"].thresholds["range"]

    column = _columns(rows)["pgd20"]

    def spread(part: pd.DataFrame) -> float:
        return float(np.ptp(part.groupby("attack_steps")[column].mean()))

    robust = rows.groupby("attack_steps")[column].mean()
    return judge(
        "D5",
        rows,
        spread(rows) < limit,
        paper="alike, 20 and 30 slightly better (figure)",
        ours=f"a range of {100 * spread(rows):.1f} points under PGD-20",
        evidence="By number of steps: "
        + ", ".join(f"{k}: {percent(v)}" for k, v in robust.items())
        + ".",
        seeds=deciding(of_each_seed(rows, spread), limit),
    )


def D6(schedules: pd.DataFrame) -> Verdict:
    """A weak attack early does not hurt, late it does."""
    rows = final(schedules)
    kinds = {"weak-first", "weak-last", ""}
    if rows.empty or not kinds <= set(rows["step_schedule"]):
        return absent("D6")
    limit = criteria()["D6"].thresholds["margin"]
    column = _columns(rows)["pgd20"]
    by = rows.pivot_table(index="seed", columns="step_schedule", values=column)
    early, late = by["weak-first"] - by[""], by["weak-last"] - by[""]
    held = [early.mean() >= -limit, late.mean() < -limit]
    worst = rows.groupby("step_schedule")["worst_accuracy"].mean()
    again = worst["weak-first"] >= worst[""] - limit > worst["weak-last"]
    return judge(
        "D6",
        rows,
        all(held) or (any(held) and "partly"),
        paper="weak early is as good, weak late is not (figure)",
        ours=f"weak early {100 * early.mean():+.1f}, weak late "
        f"{100 * late.mean():+.1f} points under PGD-20",
        evidence="Against PGD throughout, paired by seed. Weak is one step of the "
        "whole radius, for a third of training.",
        holds_up="yes" if again else "no",
        seeds=deciding(list(early), -limit),
    )


def _lead(table: pd.DataFrame, name: str, than: str) -> Verdict:
    """Judge whether dynamic training beats another under all of the attacks."""
    rows = _defences(table, *{"standard": 0, than: 0, "dynamic": 0})
    if rows.empty:
        return absent(name)
    columns = _columns(rows)
    own = columns["pgd20"].startswith("wang")
    columns = {w: c for w, c in columns.items() if than == "standard" or w != "fgsm"}
    found = {way: _difference(rows, column, than) for way, column in columns.items()}
    worst, error = _difference(rows, "worst_accuracy", than)
    theirs = ", ".join(f"{_printed('mnist', way, than):+.2f}" for way in columns)
    evidence = "Means and standard errors, paired by seed; "
    evidence += "the paper's own attacks." if own else "PGD-20 and, as C&W, PGD-20 on "
    evidence += "" if own else "the margin by this book's rule of steps."
    return judge(
        name,
        rows,
        _above(found, criteria()[name].thresholds["errors"]),
        paper=f"{theirs} points on MNIST",
        ours=f"{_listed(found)} points at equal epochs",
        evidence=f"{evidence} Worst case over ours {100 * worst:+.1f} points."
        + _equal_cost(table, than),
        holds_up="yes" if worst > max(0.0, error) else "no",
        seeds=deciding(
            of_each_seed(
                rows, lambda part: _difference(part, columns["pgd20"], than)[0]
            ),
            0.0,
        )
        + ", PGD-20",
    )


def _equal_cost(table: pd.DataFrame, than: str) -> str:
    """Return a sentence on the runs that took as many gradients, where there are."""
    rows = named(_plain(final(table)))
    longer = rows[rows["defence"] == "dynamic"]
    longer = longer[longer["epochs"] == longer["epochs"].max()]
    other = rows[rows["defence"] == than]
    if than == "curriculum":
        other = other[other["epochs"] == other["epochs"].max()]
    pair = pd.concat([longer, other])
    gain, error = _difference(pair, _columns(pair)["pgd20"], than)
    if math.isnan(gain) or longer["epochs"].max() == other["epochs"].max():
        return ""
    cost = longer["gradients"].mean() / other["gradients"].mean()
    return (
        f" At {cost:.2f} of its gradients, over {longer['epochs'].max()} epochs: "
        f"PGD-20 {100 * gain:+.1f} ± {100 * error:.1f}."
    )


def D7(table: pd.DataFrame) -> Verdict:
    """Dynamic training is more robust than standard adversarial training."""
    return _lead(table, "D7", "standard")


def D8(table: pd.DataFrame) -> Verdict:
    """Dynamic training is more robust than a curriculum of rising step numbers."""
    return _lead(table, "D8", "curriculum")


def D9(table: pd.DataFrame) -> Verdict:
    """Dynamic training keeps more natural accuracy than standard."""
    rows = _defences(table)
    if rows.empty:
        return absent("D9")
    gain, error = _difference(rows, "natural_accuracy")
    return judge(
        "D9",
        rows,
        gain > 0,
        paper=f"{_printed('mnist', 'clean'):+.2f} points",
        ours=f"{100 * gain:+.2f} ± {100 * error:.2f} points at equal epochs",
        evidence="Paired by seed: same weights at the start, same order of images.",
        holds_up="not applicable",
        seeds=deciding(
            of_each_seed(rows, lambda part: _difference(part, "natural_accuracy")[0]),
            0.0,
        ),
    )


def D10(table: pd.DataFrame) -> Verdict:
    """Against transferred attacks dynamic training is the best in every column."""
    rows = _defences(table, "standard", "curriculum", "dynamic")
    columns = [
        f"{kind}_{way}_accuracy" for kind in ("natural", "robust") for way in ATTACKS
    ]
    if rows.empty or not set(columns) <= set(rows):
        return absent("D10")
    means = rows.groupby("defence")[columns].mean()
    first = (means.loc["dynamic"] > means.drop("dynamic").max()).sum()
    lead = means.loc["dynamic"] - means.drop("dynamic").max()
    return judge(
        "D10",
        rows,
        bool(first == len(columns)) or (bool(first) and "partly"),
        paper="dynamic is the best in all 8 columns (two data sets)",
        ours=f"dynamic is the best in {first} of {len(columns)} columns",
        evidence=f"Leads from {100 * lead.min():+.1f} to {100 * lead.max():+.1f} "
        "points. Columns here: four attacks made on a naturally and on an "
        "adversarially trained network of another seed.",
        holds_up="not applicable",
        seeds=deciding(
            of_each_seed(
                rows,
                lambda part: float(
                    np.mean([_difference(part, c, "standard")[0] for c in columns])
                ),
            ),
            0.0,
        ),
    )


def D11(table: pd.DataFrame) -> Verdict:
    """FOSC of dynamic training is concentrated in a stage, separated between stages."""
    rows = table[table["measured"] == "epoch"] if not table.empty else table
    if rows.empty or "fosc_mean" not in rows:
        return absent("D11")
    rows = named(_plain(rows[rows["fosc_mean"].notna()]))
    first = rows.loc[rows["defence"] == "standard", "epochs"]
    rows = rows[rows["epochs"].isin(first)]
    found = {
        defence: of_each_seed(part, separation)
        for defence, part in rows.groupby("defence")
    }
    if not {"standard", "dynamic"} <= set(found):
        return absent("D11")
    ours = {name: float(np.mean(values)) for name, values in found.items()}
    pairs = zip(found["dynamic"], found["standard"], strict=False)
    return judge(
        "D11",
        rows,
        ours["dynamic"] > ours["standard"],
        paper="histograms, apart for dynamic training (figure)",
        ours=f"between stages over within: dynamic {ours['dynamic']:.2f}, standard "
        f"{ours['standard']:.2f}",
        evidence="Variance of the mean FOSC of three epochs (a third, two thirds, the "
        "end of training) over the mean variance within one, where the training attack "
        "stops on test images.",
        holds_up="not applicable",
        seeds=deciding([dynamic - standard for dynamic, standard in pairs], 0.0),
    )


def costs(table: pd.DataFrame) -> dict[str, float]:
    """Return the gradients an image that the shortest run of each defence took."""
    rows = final(table)
    found = dict.fromkeys(["standard", "dynamic", "curriculum"], math.nan)
    if rows.empty:
        return found
    means = named(_plain(rows)).groupby(["defence", "epochs"])["gradients"].mean()
    for defence in set(found) & set(means.index.get_level_values("defence")):
        found[defence] = float(means[defence].iloc[0])
    return found


def separation(rows: pd.DataFrame) -> float:
    """Return variance of FOSC between three stages of training over that within."""
    epochs = int(rows["epochs"].max())
    stages = [math.ceil(epochs / 3), math.ceil(2 * epochs / 3), epochs]
    chosen = rows[rows["epoch"].isin(stages)]
    means = chosen.groupby("epoch")[["fosc_mean", "fosc_variance"]].mean()
    within = float(means["fosc_variance"].mean())
    return float(means["fosc_mean"].var(ddof=0)) / within if within else math.nan


def D13(table: pd.DataFrame) -> Verdict:
    """The gain is due to FOSC control, not to fewer steps early."""
    rows = final(table)
    if rows.empty:
        return absent("D13")
    plain = _plain(rows)
    plain = plain[plain["fosc_max"] > 0]
    plain = plain[plain["epochs"] == plain["epochs"].min()]
    controls = rows[rows["step_schedule"].isin(["random", "rising"])]
    controls = controls[controls["epochs"].isin(plain["epochs"])]
    if plain.empty or controls["step_schedule"].nunique() < 2:
        return absent("D13")
    errors, found = criteria()["D13"].thresholds["errors"], {}
    for schedule, part in controls.groupby("step_schedule"):
        pair = pd.concat(
            [plain.assign(defence="dynamic"), part.assign(defence=str(schedule))]
        )
        found[f"{schedule} steps"] = _difference(
            pair, _columns(pair)["pgd20"], str(schedule)
        )
    cost = controls.groupby("step_schedule")["gradients"].mean()
    cost = cost / plain["gradients"].mean()
    return judge(
        "D13",
        pd.concat([plain, controls]),
        _above(found, errors),
        paper="argued from the figures",
        ours=f"dynamic against {_listed(found)} points under PGD-20",
        evidence="Gradients relative to dynamic's: "
        + ", ".join(f"{name} {value:.2f}" for name, value in cost.items())
        + ".",
        seeds="see D7",
    )


def D14(table: pd.DataFrame) -> Verdict:
    """The order dynamic above standard is kept under AutoAttack."""
    rows = _defences(table)
    if rows.empty or "autoattack_accuracy" not in rows:
        return absent("D14")
    sure = rows[rows["autoattack_accuracy"].notna()]
    if sure["defence"].nunique() < 2:
        return absent("D14")
    gain, _ = _difference(sure, "autoattack_accuracy")
    restarts, error = _difference(rows, "restarts_accuracy")
    means = sure.groupby("defence")["autoattack_accuracy"].mean()
    images = int(sure["autoattack_images"].min())
    return judge(
        "D14",
        rows,
        gain > 0,
        paper="not tested",
        ours=f"AutoAttack leaves standard {percent(means['standard'])} and dynamic "
        f"{percent(means['dynamic'])}",
        evidence=f"{images} images, {sure['seed'].nunique()} seed, so one image is "
        f"{100 / images:.1f} points. PGD on the margin with 5 restarts, "
        f"{int(rows['strong_images'].min())} images: {100 * restarts:+.1f} points"
        + ("." if math.isnan(error) else f", standard error {100 * error:.1f}."),
        holds_up="yes" if gain > 0 else "no",
        seeds=deciding(
            of_each_seed(rows, lambda part: _difference(part, "restarts_accuracy")[0]),
            0.0,
        )
        + ", PGD with restarts",
    )


def D1() -> Verdict:
    """FOSC has the closed form, against linear programmes."""
    draws, off, least = np.random.default_rng(0), 0.0, math.inf
    for _ in range(50):
        g, epsilon = draws.normal(size=8), float(draws.uniform(0.05, 0.5))
        moved = draws.uniform(-epsilon, epsilon, 8)
        best = -linprog(-g, bounds=[(-epsilon, epsilon)] * 8).fun - float(g @ moved)
        found = float(theory.first_order_gap(g, moved, epsilon))
        off, least = max(off, abs(found - best)), min(least, found)
    corner = float(theory.first_order_gap(g, epsilon * np.sign(g), epsilon))
    return Verdict(
        "D1",
        "reproduced" if off < 1e-9 and least >= 0 and corner < 1e-12 else "partly",
        paper="a closed form, derived",
        ours=f"equal to the optimum of a linear programme to {off:.0e}",
        evidence=f"50 random problems of 8 pixels; the smallest FOSC is {least:.2f}, "
        "at "
        f"the best corner it is {abs(corner):.0f}. It is 0 also where a coordinate's "
        "gradient is 0, wherever the coordinate stands: stationary, not maximal.",
        holds_up="not applicable",
        seeds="nothing: it is mathematics",
    )


def D12() -> Verdict:
    """The mean squared gradient falls as T^-1/2 to a floor linear in delta."""
    lengths, deltas = (10, 100, 1_000), (0.01, 0.1, 1.0)
    runs = [theory.rate_on_toy(t, d) for t in lengths for d in deltas]
    closest = max(measured / bound for measured, bound in runs)

    def exponent(worst: bool, start: float) -> float:
        still = partial(theory.rate_on_toy, worst=worst, start=start, spread=0.0)
        floors = [still(1_000, delta, repeats=1)[0] for delta in deltas]
        return float(np.polyfit(np.log(deltas), np.log(floors), 1)[0])

    at_the_edge, inside = exponent(True, 0.5), exponent(False, 0.0)
    within = abs(at_the_edge - 1) <= criteria()["D12"].thresholds["exponent"]
    return Verdict(
        "D12",
        "reproduced" if closest < 1 and within else "not reproduced",
        paper="a theorem",
        ours=f"at most {percent(closest)} of the bound in {len(runs)} pairs of T and "
        f"delta; the floor grows as delta to the power {at_the_edge:.2f}",
        evidence="A toy problem, strongly concave inside, all constants known, each "
        "inner "
        "problem left at FOSC delta on the worst side. The floor is linear where the "
        "inner maximum just meets the edge of the ball; where it lies inside, the "
        "power "
        f"is {inside:.2f}.",
        holds_up="not applicable",
        seeds="nothing: the toy problem is averaged over 20 runs",
    )
