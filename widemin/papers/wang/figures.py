"""Chapter 3: attacks climbing, and what training against them buys."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame

from widemin.papers import figures as plot
from widemin.papers.claims import ball_name, final, paper_table, with_columns
from widemin.papers.figures import BLACK, BLUE, GREEN, PURPLE, RED, Groups, Panels
from widemin.papers.wang import theory
from widemin.papers.wang.claims import ATTACKS, named

DEFENCES = {"unsecured": (BLACK, "o"), "standard": (RED, "s")}
DEFENCES |= {"curriculum": (PURPLE, "^"), "dynamic": (GREEN, "D")}
# FOSC over the test images: smallest, tenths, largest.
DECILES = [f"fosc_d{tenth}" for tenth in range(11)]
_WORST = "worst-case accuracy (%)"
WHITE_BOX = plot.LABELS["white box"]
_THEIRS = plot.LABELS["printed white box"]  # columns of the paper's table


def _rows(table: DataFrame, measured: str = "final") -> DataFrame:
    """Return rows of a kind with their defence."""
    rows = final(table) if measured == "final" else table
    rows = rows[rows["measured"] == measured]
    return named(rows) if len(rows) else rows.assign(defence="")


def _labelled(table: DataFrame) -> DataFrame:
    """Return final rows with defence and label, e.g. "dynamic, 8 epochs"."""
    rows = with_columns(_rows(table), WHITE_BOX)
    label = rows["defence"] + ", " + rows["epochs"].astype(int).astype(str) + " epochs"
    return rows.assign(label=label)


def _printed(table: str) -> DataFrame:
    """Return the paper's numbers for MNIST by defence."""
    rows = paper_table(table)
    return rows[rows["dataset"] == "mnist"].set_index("defense")


def table_of_defences(table: DataFrame) -> DataFrame:
    """Return ours and the paper's white-box table for MNIST, in percent.

    Without the attacks that no run of the table has a number of.
    """
    theirs, lines = _printed("dynamic_table1"), dict[Any, list[str]]()
    rows = _labelled(table)
    columns = [column for column in WHITE_BOX if rows[column].notna().any()]
    for label, part in rows.groupby("label", sort=False):
        printed = theirs.loc[part["defence"].iloc[0]]
        ours = [plot.spread(part, column) for column in columns]
        said = [f"{printed[_THEIRS[c]]:g}" if c in _THEIRS else "" for c in columns]
        lines |= {(label, "ours"): [*ours, *plot.costs(part)]}
        lines |= {(label, "paper"): [*said, "", "", ""]}
    return plot.stacked(lines, [*(WHITE_BOX[name] for name in columns), *plot.COSTS])


def black_box(table: DataFrame) -> DataFrame:
    """Return accuracy under transferred attacks, a row a surrogate, and the paper's."""
    theirs, lines = _printed("dynamic_table2"), {}
    printed = theirs[["fgsm", "pgd10", "pgd20", "cw_inf"]].map("{:g}".format)
    for label, part in _labelled(table).groupby("label", sort=False):
        defence = part["defence"].iloc[0]
        if defence in theirs.index and "natural_fgsm_accuracy" in part:
            for kind in ("natural", "robust"):
                ours = [plot.spread(part, f"{kind}_{way}_accuracy") for way in ATTACKS]
                lines[label, f"from a {kind} network"] = ours
            lines[label, "paper"] = list(printed.loc[defence])
    return plot.stacked(lines, ["FGSM", "PGD-10", "PGD-20", "C&W"])


def robust_by_cost(table: DataFrame, ax: Axes) -> Axes:
    """Draw worst-case accuracy against the gradients that training took.

    Hollow: a defence trained for longer than its shortest.
    """
    rows = _labelled(table)
    longer = rows["epochs"] > rows.groupby("defence")["epochs"].transform("min")
    for label, part in rows.groupby("label", sort=False):
        colour, marker = DEFENCES[part["defence"].iloc[0]]
        face = "none" if longer[part.index].any() else colour
        look: Any = {"color": colour, "facecolor": face, "marker": marker}
        plot.marks(ax, part, "gradients", "worst_accuracy", label=label, **look)
    return plot.framed(ax, "gradients taken per training image", _WORST, "outside")


def switched(table: DataFrame, groups: Groups, ax: Axes, column: str) -> Axes:
    """Draw an accuracy of groups that have runs, and what training took."""
    parts = plot.by_group(final(table), groups, ax, {column: plot.GREY})
    look: Any = {"textcoords": "offset points", "fontsize": "small", "va": "center"}
    for place, part in enumerate(parts.values()):
        text = f"{part['gradients'].iloc[0]:.0f} gradients"
        at = (plot.shown(part, column).max(), place)
        ax.annotate(text, at, xytext=(7, 0), **look)  # clear of the mark
    ax.margins(x=0.25)
    return plot.framed(ax, _WORST, "")


def best_and_last(table: DataFrame) -> DataFrame:
    """Return accuracy under training's own attack by how the epoch is chosen."""
    rules = {"last": "epoch", "best on held-out images": "validation_attack_accuracy"}
    rules["best on test images"] = "attack_accuracy"
    rows = with_columns(_rows(table, "epoch"), rules.values())
    rows = rows.dropna(subset="attack_accuracy")
    # Before the radius is grown the attack is weaker: those epochs do not compete.
    rows = rows[rows["epoch"] >= rows["ramp"] * rows["epochs"]]
    parts = {}
    for (defence, epochs), part in rows.groupby(["defence", "epochs"], sort=False):
        for rule, column in rules.items():
            chosen = part.groupby("key")[column].idxmax()
            parts[f"{defence}, {epochs} epochs", rule] = part.loc[chosen]
    return plot.spreads(parts, "rules of chapter 3")


def ascent(table: DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw median and quartiles of a number along the steps of an attack."""
    steps = _rows(table, "step")
    band = (f"{column}_q25", f"{column}_q75")
    for defence, part in steps[steps["step_schedule"] == ""].groupby("defence"):
        look = {"color": DEFENCES[defence][0], "label": defence}
        plot.mean_line(ax, part, "step", f"{column}_q50", band, **look)
    return plot.framed(ax, "steps taken", label, "best")


def _of_standard(table: DataFrame, measured: str) -> DataFrame:
    """Return the rows of one measurement of standard adversarial training."""
    rows = _rows(table, measured)
    return rows[rows["defence"] == "standard"]


_KINDS = {"accuracy": "accuracy (%)", "normalised_fosc_box": "FOSC / largest gain"}
_KINDS["loss"] = "cross-entropy"


def by_bin(table: DataFrame, axes: Panels) -> Panels:
    """Draw accuracy and loss over FOSC, bins of as many images each, mean of seeds."""
    rows = with_columns(_of_standard(table, "bin"), ["pool", "by", "bin", "value"])
    pools = {"all": ("every step", BLUE), "last": ("the last step", plot.ORANGE)}
    kinds = [("fosc", "accuracy"), ("fosc", "loss"), ("normalised_fosc", "accuracy")]
    for ax, (by, column) in zip(axes, kinds, strict=True):
        for pool, (label, colour) in pools.items() if len(rows) else ():
            part = rows[(rows["pool"] == pool) & (rows["by"] == by)]
            means = part.groupby("bin")[["value", column]].mean()
            y = plot.shown(means, column)
            ax.plot(means["value"], y, "o-", color=colour, label=label)
        label = "FOSC" if by == "fosc" else "FOSC / largest possible gain"
        plot.framed(ax, label, _KINDS[column])
    axes[0].legend(loc="lower left")
    return axes


def by_strength(table: DataFrame, axes: Sequence[Panels]) -> Sequence[Panels]:
    """Draw accuracy, FOSC and loss over size and number of an attack's steps."""
    rows = _of_standard(table, "strength")
    if rows.empty:
        return axes
    sizes = rows[rows["steps_taken"] == 10], "step_radii", "size of a step (radii)"
    numbers = rows[rows["step_radii"] == 0.25], "steps_taken", "number of steps"
    for line, (part, over, label) in zip(axes, (sizes, numbers), strict=True):
        for ax, (kind, name) in zip(line, _KINDS.items(), strict=True):
            band = (f"{kind}_q25", f"{kind}_q75") if kind != "accuracy" else ()
            middle = f"{kind}_q50" if band else kind
            plot.mean_line(ax, part, over, middle, band, color=BLUE, marker="o")
            plot.framed(ax, label, name)
    return axes


def strengths(table: DataFrame) -> dict[str, float]:
    """Return means over runs at the least and the greatest number of steps.

    `steps`, `accuracy` (percent) and `fosc` (median, normalised, in the box), each
    with `_few` and `_many`; NaN where nothing was measured.
    """
    columns = ["steps_taken", "accuracy", "normalised_fosc_box_q50"]
    rows = with_columns(_of_standard(table, "strength"), ["step_radii", *columns])
    rows = rows[rows["step_radii"] == 0.25]
    means = rows.groupby("steps_taken", as_index=False)[columns].mean()
    ends = dict[str, float]()
    for kind, column in zip(("steps", "accuracy", "fosc"), columns, strict=True):
        values = plot.shown(means, column) if len(means) else [math.nan]
        ends |= {f"{kind}_few": float(values[0]), f"{kind}_many": float(values[-1])}
    return ends


def _watched(table: DataFrame) -> DataFrame:
    """Return the epochs after which FOSC was measured, of each defence's shortest."""
    rows = with_columns(_rows(table, "epoch"), DECILES)
    rows = rows.dropna(subset="fosc_d5")
    return rows[rows["epochs"] == rows.groupby("defence")["epochs"].transform("min")]


def fosc_by_epoch(table: DataFrame, axes: Panels) -> Panels:
    """Draw FOSC where training's attack stops: median and the middle 60 % of images."""
    rows, band = _watched(table), ("fosc_d2", "fosc_d8")
    for ax, defence in zip(axes, [*DEFENCES][1:], strict=True) if len(rows) else ():
        part, look = rows[rows["defence"] == defence], {"color": DEFENCES[defence][0]}
        plot.mean_line(ax, part, "epoch", "fosc_d5", band, **look)
        ax.set(title=defence, xlabel="epoch")
    axes[0].set(ylabel="FOSC where training's attack stops")
    return axes


def fosc_by_stage(table: DataFrame, axes: Panels) -> Panels:
    """Draw the distribution of FOSC over test images at three stages, by defence."""
    rows = _watched(table)
    for ax, defence in zip(axes, [*DEFENCES][1:], strict=True):
        part = rows[rows["defence"] == defence]
        for third, colour in enumerate((plot.SKY, BLUE, BLACK), 1) if len(part) else ():
            stage = math.ceil(part["epochs"].iloc[0] * third / 3)
            means, name = part[part["epoch"] == stage][DECILES].mean(), f"epoch {stage}"
            ax.plot(means, np.linspace(0, 100, 11), color=colour, label=name)
        ax.set(title=defence, xlim=(0.01, None))
        plot.framed(ax, "FOSC", "", log="x").label_outer()
    axes[0].set(ylabel="images with at most this FOSC (%)")
    axes[-1].legend()
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
    bands = ax.contourf(side, side, gap, levels=12, cmap="viridis", alpha=0.6)
    look: Any = {"levels": list(bands.levels)[2::2], "colors": BLACK}
    ax.clabel(ax.contour(side, side, gap, **look), fontsize="small")
    tip = 0.5 * epsilon * np.array(gradient) / np.hypot(*gradient)
    ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": BLACK})
    ax.set(aspect="equal", title=ball_name(f"{norm} {epsilon:g}"))
    plot.framed(ax, "move of pixel 1", "move of pixel 2").label_outer()
    return ax


def rates(
    ax: Axes, lengths: Sequence[int], gradients: dict[float, list[tuple[float, float]]]
) -> Axes:
    """Draw measured mean squared gradients and their bounds, a colour per delta."""
    for (delta, pairs), colour in zip(
        gradients.items(), (plot.SKY, BLUE, BLACK), strict=False
    ):
        measured, bound = zip(*pairs, strict=True)
        ax.plot(lengths, bound, color=colour, label=f"δ = {delta:g}")
        ax.plot(lengths, measured, "o", color=colour)
    return plot.framed(ax, "steps T", "mean squared gradient", "best", log="xy")
