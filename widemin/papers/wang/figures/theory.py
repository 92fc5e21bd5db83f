"""Figures of theory: the first-order gap, the convergence rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from widemin.papers.figures import BLUE, GREEN, RED, ball_name
from widemin.papers.wang import theory


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
