"""Chapter 2: the feature model in which SAM can be computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from widemin.papers.figures import BLACK, BLUE, COLOURS, RED, as_percent
from widemin.papers.wei import theory


def three_optima(
    ax: Axes, p: float, eta: float, d: int, attack: float, radius: float
) -> Axes:
    """Draw the feature model's accuracy over the robust weight, by three trainings."""
    best = {
        "standard": theory.optimum(p, eta, d),
        "adversarial": theory.adversarial_optimum(p, eta, d, attack),
        "sam": theory.sam_optimum(p, eta, d, radius),
    }
    w = np.linspace(0, 1.3 * max(best.values()), 241)
    ends = [theory.accuracy(w + sign * radius, p, eta, d) for sign in (-1, 1)]
    curves = {
        "standard": theory.accuracy(w, p, eta, d),
        "adversarial": theory.accuracy(w, p, eta - attack, d),
        "sam": np.minimum(*ends),
    }
    names = {"standard": "standard", "adversarial": "attacked inputs"}
    names["sam"] = "worst weights within SAM's radius"
    for method, curve in curves.items():
        colour = COLOURS[method]
        ax.plot(w, as_percent(curve), color=colour, label=names[method])
        top = float(np.interp(best[method], w, curve))
        ax.plot(best[method], 100 * top, "o", color=colour)
    ax.set(xlabel="weight on the robust feature", ylabel="accuracy (%)")
    ax.legend(fontsize="small")
    return ax


def shift_by_radius(ax: Axes, p: float, eta: float, d: int, radii: Any) -> Axes:
    """Draw how far SAM moves the robust weight: exactly, as printed, as derived."""
    best = theory.optimum(p, eta, d)
    exact = [theory.sam_optimum(p, eta, d, radius) - best for radius in radii]
    printed = [theory.printed_sam_shift(p, eta, d, radius) for radius in radii]
    derived = [theory.sam_shift(p, eta, d, radius) for radius in radii]
    ax.plot(radii, printed, color=RED, label="as printed, 2/3")
    ax.plot(radii, derived, color=BLUE, label="as derived, 1/(3d)")
    ax.plot(radii, exact, "o", color=BLACK, label="exact")
    ax.set(xscale="log", yscale="log", xlabel="SAM's radius")
    ax.set(ylabel="shift of the robust weight", ylim=(1e-6, None))
    ax.legend(fontsize="small", loc="lower right")
    return ax


def direction_of_shift(ax: Axes, p: float, etas: Any, ds: Any, radius: float) -> Axes:
    """Draw which way SAM on all weights moves the robust one, over the model's sizes.

    The line is where w*^2 = 2 d; marks are exact solutions.
    """
    line = np.geomspace(min(etas), max(etas), 61)
    odds = np.log(p / (1 - p))
    ax.plot((odds / line) ** 2 / 8, line, color=BLACK, label="$w^{*2} = 2d$")
    for sign, colour, label in ((1, BLUE, "more"), (-1, RED, "less")):
        found = [
            (d, eta)
            for d in ds
            for eta in etas
            if sign * _shift(p, eta, int(d), radius) > 0
        ]
        x, y = zip(*found, strict=True) if found else ((), ())
        marker = "^" if sign > 0 else "v"
        ax.scatter(x, y, color=colour, marker=marker, label=f"{label} robust weight")
    ax.set(xscale="log", yscale="log", xlabel="weak features d", ylabel="their mean η")
    ax.set(xlim=(min(ds) / 2, 2 * max(ds)))
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _shift(p: float, eta: float, d: int, radius: float) -> float:
    best = theory.optimum(p, eta, d)
    return theory.sam_optimum(p, eta, d, radius, "all") - best


def trained_ratios(
    ax: Axes, radii: Sequence[float], ratios: dict[int, np.ndarray]
) -> Axes:
    """Draw the robust over the weak weights after SAM, relative to SGD, by radius."""
    for (d, found), colour in zip(sorted(ratios.items()), [BLUE, RED], strict=False):
        change = 100 * (found / found[:, :1] - 1)
        ax.plot(radii, change.mean(0), color=colour, label=f"d = {d}")
        for seed in change:
            ax.plot(radii, seed, "o", color=colour, markersize=4)
    ax.axhline(0, color="grey", linewidth=1)
    ax.set(xlabel="SAM's radius", ylabel="change of robust / weak (%)")
    ax.legend()
    return ax
