"""Chapter 3: attacks climbing, and what training against them buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.claims import final, paper_table
from widemin.papers.figures import (
    BLACK,
    BLUE,
    GREEN,
    PURPLE,
    RED,
    SKY,
    as_percent,
    ball_name,
    by_group,
    spread,
    stacked,
    there,
)
from widemin.papers.wang import theory
from widemin.papers.wang.claims import ATTACKS, named

DEFENCES = {
    "unsecured": (BLACK, "o"),
    "standard": (RED, "s"),
    "curriculum": (PURPLE, "^"),
    "dynamic": (GREEN, "D"),
}

# FOSC over the test images: smallest, tenths, largest.
DECILES = ["fosc_d0", "fosc_d1", "fosc_d2", "fosc_d3", "fosc_d4", "fosc_d5"]
DECILES += ["fosc_d6", "fosc_d7", "fosc_d8", "fosc_d9", "fosc_d10"]

# Columns of the white-box table, as a reader should see them.
WHITE_BOX = {
    "natural_accuracy": "none",
    "wang_fgsm_accuracy": "FGSM",
    "wang_pgd10_accuracy": "PGD-10",
    "wang_pgd20_accuracy": "PGD-20",
    "wang_cw_accuracy": "C&W",
    "pgd_margin_accuracy": "PGD-20, margin",
    "restarts_accuracy": "PGD-50, 5 restarts",
    "autoattack_accuracy": "AutoAttack",
}


def _defences(table: pd.DataFrame) -> pd.DataFrame:
    """Return final rows with defence and label, e.g. "dynamic, 8 epochs"."""
    rows = final(table)
    if rows.empty:
        return rows.assign(defence="", label="")
    rows = named(rows)
    label = rows["defence"] + ", " + rows["epochs"].astype(int).astype(str) + " epochs"
    return rows.reindex(columns=rows.columns.union(WHITE_BOX)).assign(label=label)


def _look(rows: pd.DataFrame, part: pd.DataFrame) -> dict[str, Any]:
    """Return a defence's colour and mark, hollow where it was trained for longer."""
    run = part.iloc[0]
    colour, marker = DEFENCES[run["defence"]]
    shortest = rows.loc[rows["defence"] == run["defence"], "epochs"].min()
    face = colour if run["epochs"] == shortest else "none"
    return {"color": colour, "facecolor": face, "marker": marker}


def white_box(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw accuracy under each attack, a colour and a mark per defence."""
    rows = _defences(table)
    labels = list(rows["label"].unique())
    shifts = np.linspace(-0.3, 0.3, max(2, len(labels)))
    for label, shift in zip(labels, shifts, strict=False):
        part = rows[rows["label"] == label]
        look = _look(rows, part)
        for position, column in enumerate(WHITE_BOX):
            at = np.full(len(part), position + shift)
            name = label if position == 0 else None
            ax.scatter(at, as_percent(part[column]), label=name, **look)
    names = list(WHITE_BOX.values())
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set(ylabel="accuracy (%)", ylim=(-3, 103))
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def table_of_defences(
    table: pd.DataFrame, in_depth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return ours and the paper's white-box table for MNIST, in percent.

    Ours with the half-width of the 95 % interval over seeds. Cost is ours alone;
    an attack that neither has a number of is left out.

    Args:
        table: The runs of every seed.
        in_depth: Runs of like training with more attacks, which fill columns that the
            others lack.
    """
    rows, more = (
        # Runs of one kind alone lack the columns of the other.
        found.reindex(columns=found.columns.union(list(WHITE_BOX)))
        for found in map(_defences, (table, table if in_depth is None else in_depth))
    )
    printed = paper_table("dynamic_table1")
    theirs = printed[printed["dataset"] == "mnist"].set_index("defense")
    places = {"natural_accuracy": "clean", "wang_cw_accuracy": "cw_inf"}
    places |= {f"wang_{name}_accuracy": name for name in ("fgsm", "pgd10", "pgd20")}
    cost = ["gradients an image", "core seconds", "seeds"]
    found = {}
    for label, part in rows.groupby("label", sort=False):
        defence = part["defence"].iloc[0]
        again = more[more["label"] == label]
        filled = [part if part[column].notna().any() else again for column in WHITE_BOX]
        ours = [
            spread(rows, column) if rows[column].notna().any() else ""
            for rows, column in zip(filled, WHITE_BOX, strict=True)
        ]
        ours += [f"{part[c].mean():.0f}" for c in ("gradients", "train_seconds")]
        found[str(label), "ours"] = [*ours, str(part["seed"].nunique())]
        printed_row = [
            f"{theirs.loc[defence, places[column]]:g}" if column in places else ""
            for column in WHITE_BOX
        ]
        found[str(label), "paper"] = [*printed_row, "", "", ""]
    frame = stacked(found, [*WHITE_BOX.values(), *cost])
    return frame.loc[:, (frame != "").any()]  # without attacks that nobody tried


def black_box(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy under transferred attacks, a row a defence and a surrogate.

    And the paper's, whose surrogate is not named.
    """
    printed = paper_table("dynamic_table2")
    theirs = printed[printed["dataset"] == "mnist"].set_index("defense")
    rows, found = _defences(table), {}
    for label, part in rows.groupby("label", sort=False):
        defence = part["defence"].iloc[0]
        if defence not in theirs.index or "natural_fgsm_accuracy" not in part:
            continue
        for kind in ("natural", "robust"):
            ours = [spread(part, f"{kind}_{way}_accuracy") for way in ATTACKS]
            found[str(label), f"from a {kind} network"] = ours
        names = ["fgsm", "pgd10", "pgd20", "cw_inf"]
        found[str(label), "paper"] = [f"{theirs.loc[defence, n]:g}" for n in names]
    return stacked(found, ["FGSM", "PGD-10", "PGD-20", "C&W"])


def robust_by_cost(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw worst-case accuracy against the gradients that training took."""
    rows = _defences(table)
    for label, part in rows.groupby("label", sort=False):
        x, y = part["gradients"], as_percent(part["worst_accuracy"])
        ax.scatter(x, y, label=label, **_look(rows, part))
    ax.set(xlabel="gradients taken per training image")
    ax.set(ylabel="worst-case accuracy (%)")
    return ax


def switched(
    table: pd.DataFrame, groups: dict[str, list[str]], ax: Axes, column: str
) -> Axes:
    """Draw worst-case accuracy of named groups of runs, and what training took.

    Args:
        table: Their rows.
        groups: Name to the keys of its runs; without runs a group is left out.
        ax: Where to draw.
        column: The accuracy drawn.
    """
    rows = final(table)
    by_group(rows, groups, ax, {column: BLUE})
    for place, keys in enumerate(there(rows, groups).values()):
        part = rows[rows["key"].isin(keys)]
        text = f"{part['gradients'].iloc[0]:.0f} gradients"
        at = (100 * part[column].max(), place)
        look: Any = {"textcoords": "offset points", "fontsize": "x-small"}
        ax.annotate(text, at, xytext=(7, 0), va="center", **look)  # clear of the mark
    ax.set(xlabel="worst-case accuracy (%)")
    ax.margins(x=0.25)
    return ax


def best_and_last(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy under training's own attack by how the epoch is chosen, percent.

    The last; the best on held-out images; the best on the test images, which flatters.
    """
    rows = table[table["measured"] == "epoch"]
    if rows.empty or "validation_attack_accuracy" not in rows:
        return pd.DataFrame()
    rows = named(rows[rows["attack_accuracy"].notna()])
    rules = {"last": "epoch", "best on held-out images": "validation_attack_accuracy"}
    rules["best on test images"] = "attack_accuracy"
    # Before the radius is grown the attack is weaker: those epochs do not compete.
    rows = rows[rows["epoch"] >= rows["ramp"] * rows["epochs"]]
    found = {}
    for (defence, epochs), part in rows.groupby(["defence", "epochs"], sort=False):
        for rule, column in rules.items():
            chosen = part.loc[part.groupby("key")[column].idxmax()]
            found[f"{defence}, {epochs} epochs", rule] = {
                "epoch": spread(chosen, "epoch", 1),
                "accuracy (%)": spread(chosen, "attack_accuracy"),
            }
    return stacked(found)


def ascent(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw median and quartiles of a number along the steps of an attack."""
    steps = table[table["measured"] == "step"]
    steps = named(steps) if len(steps) else steps.assign(defence="")
    for defence, part in steps[steps["step_schedule"] == ""].groupby("defence"):
        mean = part.groupby("step").mean(numeric_only=True)
        colour, _ = DEFENCES[str(defence)]
        low, high = mean[f"{column}_q25"], mean[f"{column}_q75"]
        ax.plot(mean.index, mean[f"{column}_q50"], color=colour, label=defence)
        ax.fill_between(mean.index, low, high, color=colour, alpha=0.2, lw=0)
    ax.set(xlabel="steps taken", ylabel=label)
    ax.legend()
    return ax


def _of_standard(table: pd.DataFrame, measured: str) -> pd.DataFrame:
    """Return what was measured of networks of standard adversarial training."""
    rows = table[table["measured"] == measured]
    return named(rows)[lambda r: r["defence"] == "standard"] if len(rows) else rows


def _watched(table: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs after which FOSC was measured, with the defence."""
    rows = table[table["measured"] == "epoch"]
    rows = rows.reindex(columns=rows.columns.union(DECILES))
    rows = rows[rows["fosc_d5"].notna()]
    return named(rows) if len(rows) else rows.assign(defence="")


def by_bin(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw accuracy and loss over FOSC, bins of as many images each, mean of seeds."""
    rows = _of_standard(table, "bin")
    pools = {"all": (BLUE, "every step"), "last": (RED, "the last step")}
    for ax, (by, column) in zip(
        axes,
        [("fosc", "accuracy"), ("fosc", "loss"), ("normalised_fosc", "accuracy")],
        strict=True,
    ):
        for pool, (colour, label) in pools.items():
            if rows.empty:
                continue
            part = rows[(rows["pool"] == pool) & (rows["by"] == by)]
            means = part.groupby("bin")[["value", "accuracy", "loss"]].mean()
            values = means[column]
            values = as_percent(values) if column == "accuracy" else values
            ax.plot(means["value"], values, "o-", color=colour, label=label)
        ax.set(xlabel="FOSC" if by == "fosc" else "FOSC / largest possible gain")
        ax.set(ylabel="accuracy (%)" if column == "accuracy" else "cross-entropy")
    axes[0].legend(fontsize="small")
    return axes


def by_strength(
    table: pd.DataFrame, axes: Sequence[Sequence[Axes]]
) -> Sequence[Sequence[Axes]]:
    """Draw accuracy, FOSC and loss over size and number of an attack's steps."""
    rows = _of_standard(table, "strength")
    if rows.empty:
        return axes
    kinds = ["accuracy", "normalised_fosc_box", "loss"]
    labels = ["accuracy (%)", "FOSC / largest gain", "cross-entropy"]
    sizes = rows[rows["steps_taken"] == 10], "step_radii", "size of a step (radii)"
    numbers = rows[rows["step_radii"] == 0.25], "steps_taken", "number of steps"
    for row, (part, over, label) in zip(axes, (sizes, numbers), strict=True):
        means = part.groupby(over).mean(numeric_only=True)
        for ax, kind, name in zip(row, kinds, labels, strict=True):
            middle = "accuracy" if kind == "accuracy" else f"{kind}_q50"
            values = means[middle]
            values = as_percent(values) if kind == "accuracy" else values
            ax.plot(means.index, values, "o-", color=BLUE)
            if kind != "accuracy":
                low, high = means[f"{kind}_q25"], means[f"{kind}_q75"]
                ax.fill_between(means.index, low, high, color=BLUE, alpha=0.2, lw=0)
            ax.set(xlabel=label, ylabel=name)
    return axes


def strengths(table: pd.DataFrame) -> dict[str, float]:
    """Return what the least and the greatest number of steps do: means over runs.

    `steps`, `accuracy` (percent) and `fosc` (median, normalised, in the box), each
    with `_few` and `_many`; NaN where nothing was measured.
    """
    rows = _of_standard(table, "strength")
    found = dict.fromkeys(
        (f"{kind}_{end}" for kind in _KINDS for end in ("few", "many")), math.nan
    )
    if rows.empty:
        return found
    rows = rows[rows["step_radii"] == 0.25]
    means = rows.groupby("steps_taken").mean(numeric_only=True).reset_index()
    for kind, (column, unit) in _KINDS.items():
        found[f"{kind}_few"] = float(unit * means[column].iloc[0])
        found[f"{kind}_many"] = float(unit * means[column].iloc[-1])
    return found


_KINDS = {
    "steps": ("steps_taken", 1),
    "accuracy": ("accuracy", 100),
    "fosc": ("normalised_fosc_box_q50", 1),
}


def fosc_by_epoch(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw FOSC where training's attack stops: median and the middle 60 % of images."""
    rows = _watched(table)
    shortest = rows.groupby("defence")["epochs"].transform("min")
    rows = rows[rows["epochs"] == shortest]
    for defence, part in rows.groupby("defence", sort=False):
        colour, _ = DEFENCES[str(defence)]
        means = part.groupby("epoch").mean(numeric_only=True)
        low, high = means["fosc_d2"], means["fosc_d8"]
        ax.plot(means.index, means["fosc_d5"], color=colour, label=defence)
        ax.fill_between(means.index, low, high, color=colour, alpha=0.2, lw=0)
    ax.set(xlabel="epoch", ylabel="FOSC where training's attack stops")
    ax.legend(fontsize="small")
    return ax


def fosc_by_stage(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the distribution of FOSC over test images at three stages, by defence."""
    rows = _watched(table)
    for ax, defence in zip(axes, ("standard", "curriculum", "dynamic"), strict=True):
        part = rows[rows["defence"] == defence]
        part = part[part["epochs"] == part["epochs"].min()]
        stages = part["epochs"].min() * np.array([1 / 3, 2 / 3, 1])
        for stage, colour in zip(np.ceil(stages), (SKY, BLUE, BLACK), strict=True):
            if part.empty:
                continue
            means = part.loc[part["epoch"] == stage, DECILES].mean()
            shares = np.linspace(0, 100, 11)
            ax.plot(means, shares, color=colour, label=f"epoch {stage:.0f}")
        ax.set(title=defence, xlabel="FOSC")
        ax.label_outer()
    axes[0].set(ylabel="images with at most this FOSC (%)")
    axes[-1].legend(fontsize="small")
    return axes


def gap_in_ball(
    ax: Axes, gradient: tuple[float, float], epsilon: float, norm: str
) -> Axes:
    """Draw FOSC over a ball of two pixels, for a loss of one gradient everywhere."""
    side = np.linspace(-epsilon, epsilon, 161)
    moved = np.stack(np.meshgrid(side, side), -1)
    gap = theory.first_order_gap(gradient, moved, epsilon, norm)
    if norm == "l2":
        gap = np.where(np.linalg.norm(moved, axis=-1) <= epsilon, gap, np.nan)
    ax.contourf(side, side, gap, levels=12, cmap="viridis")
    lines = ax.contour(side, side, gap, levels=4, colors="white", linewidths=1)
    ax.clabel(lines, fontsize="small")
    length = 0.5 * epsilon / float(np.hypot(*gradient))
    tip = (length * gradient[0], length * gradient[1])
    ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": "white"})
    ax.set(aspect="equal", title=ball_name(f"{norm} {epsilon:g}"))
    ax.set(xlabel="move of pixel 1", ylabel="move of pixel 2")
    ax.label_outer()
    return ax


def rates(
    ax: Axes, lengths: Sequence[int], found: dict[float, list[tuple[float, float]]]
) -> Axes:
    """Draw measured mean squared gradients and their bounds, a colour per delta."""
    for (delta, pairs), colour in zip(found.items(), [BLUE, GREEN, RED], strict=False):
        measured, bound = zip(*pairs, strict=True)
        ax.plot(lengths, bound, color=colour, label=f"δ = {delta:g}")
        ax.plot(lengths, measured, "o", color=colour)
    ax.set(xscale="log", yscale="log", xlabel="steps T")
    ax.set(ylabel="mean squared gradient")
    ax.legend()
    return ax
