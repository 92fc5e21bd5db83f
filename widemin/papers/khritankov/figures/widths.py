"""Figures of widths: of functions, of minima, against robustness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from widemin.papers.figures import BLACK, BLUE, GREEN, RED, as_percent
from widemin.papers.khritankov.claims import measured_widths
from widemin.papers.khritankov.theory import logistic_widths
from widemin.papers.ranks import FLATNESS, rank_flatness


def logistic_scale(ax: Axes, x: Any, theta: Any, scales: Any, level: float) -> Axes:
    """Draw one sample's widths, and its distance to the boundary, over the scale."""
    x, theta, scales = (np.asarray(v, float) for v in (x, theta, scales))
    widths = np.array([logistic_widths(x, k * theta, level) for k in scales])
    margin = float(x @ theta) / float(np.linalg.norm(theta))
    ax.plot(scales, widths[:, 0], color=RED, label="width in weights")
    ax.plot(scales, widths[:, 1], color=BLUE, label="width in inputs")
    ax.plot(
        scales, np.full(len(scales), margin), color=BLACK, label="distance to boundary"
    )
    ax.set(xscale="log", yscale="log", xlabel="all weights times", ylabel="length")
    ax.legend(fontsize="small", loc="upper left")
    return ax


def level_set(ax: Axes, curvatures: Sequence[float], gap: float) -> Axes:
    """Draw a bowl's contours, one level set and the way to its nearest point."""
    steep, flat = max(curvatures), min(curvatures)
    reach = 1.3 * (2 * gap / flat) ** 0.5
    x, y = np.meshgrid(np.linspace(-reach, reach, 121), np.linspace(-reach, reach, 121))
    loss = (flat * x**2 + steep * y**2) / 2
    ax.contour(x, y, loss, levels=[gap * f for f in (0.25, 2, 4)], colors="0.8")
    ax.contour(x, y, loss, levels=[gap], colors=RED, linewidths=2)
    d = (2 * gap / steep) ** 0.5
    turn = np.linspace(0, 2 * np.pi, 181)
    ax.plot(d * np.cos(turn), d * np.sin(turn), color=BLUE, linestyle=":")
    ax.annotate("", (0, d), (0, 0), arrowprops={"arrowstyle": "->", "color": BLUE})
    ax.text(0.04 * reach, d / 2, "d(c)", color=BLUE, va="center")
    ax.text(0.8 * reach, 0, "V(c)", color=RED, va="center")
    ax.plot(0, 0, "o", color=BLACK)
    ax.set(xlabel="flat direction", ylabel="steep direction", aspect="equal")
    return ax


def against_bound(ax: Axes, x: Any, loss: Any, bound: Any, theorem: str) -> Axes:
    """Draw a loss and what a theorem allows it."""
    ax.plot(x, loss, color=RED, label="the loss")
    ax.plot(x, bound, color=BLACK, label="what is allowed")
    ax.set(xlabel="way from one point to another", ylabel="loss", ylim=(0, None))
    ax.set_title(f"theorem {theorem}")
    ax.legend()
    return ax


def width_by_gap(
    ax: Axes, gaps: Any, exact: dict[str, Any], measured: dict[str, Any]
) -> Axes:
    """Draw widths in closed form as lines, as measured as points, over the level."""
    for (name, values), colour in zip(exact.items(), [BLUE, RED, GREEN], strict=False):
        ax.plot(gaps, values, color=colour, label=name)
        ax.plot(gaps, measured[name], "o", color=colour)
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="level above the minimum, c - φ(x*)", ylabel="width w(x*, c)")
    ax.legend()
    return ax


ROBUSTNESS = {
    "fgsm_accuracy": "accuracy under FGSM",
    "distance_q50": "median radius that fools",
}


def flatness(grid: pd.DataFrame) -> pd.DataFrame:
    """Return how each measure of flatness ranks with each of robustness.

    Partial correlations hold median margin and training loss fixed.
    """
    rows = measured_widths(grid)
    if rows.empty:
        return pd.DataFrame()
    return rank_flatness(rows, ROBUSTNESS)


def by_flatness(
    grid: pd.DataFrame, axes: Sequence[Axes], column: str
) -> Sequence[Axes]:
    """Draw accuracy under FGSM and the distance that fools against a flatness."""
    rows = measured_widths(grid)
    rows = rows.reindex(columns=rows.columns.union([column, *ROBUSTNESS]))
    colours = np.log10(rows["ratio"]) if len(rows) else []
    for ax, (name, label) in zip(axes, ROBUSTNESS.items(), strict=True):
        values = as_percent(rows[name]) if name.endswith("accuracy") else rows[name]
        ax.scatter(rows[column], values, c=colours, cmap="viridis", s=44)
        unit = " (%)" if name.endswith("accuracy") else " (pixels)"
        ax.set(xscale="log", xlabel=FLATNESS[column], ylabel=label + unit)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    return axes
