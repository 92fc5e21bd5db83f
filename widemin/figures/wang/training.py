"""What training on attacks of other strengths buys (chapter 3)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pandas as pd
from matplotlib.axes import Axes

from widemin.claims import final
from widemin.claims.wang.runs import attack_columns
from widemin.figures import BLACK, BLUE, as_percent


def by_training_attack(
    sizes: pd.DataFrame, numbers: pd.DataFrame, axes: Sequence[Axes]
) -> Sequence[Axes]:
    """Draw networks by the attack that they were trained on.

    Left robust accuracy, in the middle the median FOSC where the attack of training
    ends on test images, by the size of its steps; right robust accuracy by their
    number. A mark is a run.

    Args:
        sizes: Runs that differ in the size of a step.
        numbers: Runs that differ in the number of steps.
        axes: Three.
    """
    left, middle, right = axes
    for ax, table, field in (
        (left, sizes, "attack_step"),
        (right, numbers, "attack_steps"),
    ):
        rows = final(table)
        if rows.empty:
            continue
        columns = {"PGD-20": (attack_columns(rows)["pgd20"], BLUE)}
        columns["worst case"] = "worst_accuracy", BLACK
        for label, (column, colour) in columns.items():
            at = rows[field].map(float)
            ax.scatter(at, as_percent(rows[column]), color=colour, label=label)
        ax.legend(fontsize="small")
    ends = sizes[sizes["measured"] == "step"]
    if len(ends):
        ends = ends[ends["step"] == ends["step"].max()]
        middle.scatter(ends["attack_step"], ends["fosc_q50"], color=BLUE)
    for ax in (left, middle):
        ax.set_xscale("log", base=2)
        ticks = sorted(set(final(sizes)["attack_step"])) if len(sizes) else []
        ax.set_xticks(ticks, [str(Fraction(t).limit_denominator(16)) for t in ticks])
        ax.minorticks_off()
        ax.set(xlabel="size of a step / radius")
    right.set(xlabel="steps of the attack", ylabel="robust accuracy (%)")
    left.set(ylabel="robust accuracy (%)")
    middle.set(ylabel="median FOSC where it ends")
    return axes
