"""One function per figure: a tidy table and axes in, the axes out.

Figures compute no results beyond means. A method keeps one colour, safe for the
colour-blind, through the book; every seed is a visible point; accuracies are drawn
in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

# Okabe and Ito's palette.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
COLOURS = {
    "standard": BLACK,
    "sam": BLUE,
    "adversarial": RED,
    "dynamic": GREEN,
    "LR": RED,
    "LR/BS": BLUE,
    "Benchmark": GREEN,
    "cross-entropy": RED,
    "margin": BLUE,
}
# How an attack is computed, as a reader should see it.
WAYS = {
    "natural_accuracy": "no attack",
    "fgsm_clipped_accuracy": "FGSM, clipped probabilities",
    "fgsm_accuracy": "FGSM, cross-entropy float32",
    "fgsm_float64_accuracy": "FGSM, cross-entropy float64",
    "fgsm_rescaled_accuracy": "FGSM, rescaled logits",
    "fgsm_margin_accuracy": "FGSM, margin",
    "pgd_accuracy": "PGD, cross-entropy",
    "pgd_margin_accuracy": "PGD, margin",
    "worst_accuracy": "worst case per image",
}
MORE_WAYS = {
    "transfer_accuracy": "PGD on a briefly trained network",
    "masked_share": "images with a margin above 16.64",
}
# On fewer images
STRONG = {
    "restarts_accuracy": "PGD, margin, 5 restarts",
    "restarts_float64_accuracy": "the same in float64",
    "autoattack_accuracy": "AutoAttack",
    "moved_share": "images moved by FGSM, clipped probabilities",
}
# Those whose gradient fades as the network grows sure of itself.
FADING = {"fgsm_clipped_accuracy", "fgsm_accuracy", "fgsm_float64_accuracy"}
FADING |= {"pgd_accuracy"}
BALLS = {"linf": "L∞", "l2": "L2"}


def style() -> None:
    """Set the book's style; call it once, before the first figure."""
    sns.set_theme(context="notebook", style="ticks")
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 220,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "svg.fonttype": "none",
        }
    )


def panels(columns: int, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of equal panels and its axes, wide enough for the page."""
    import matplotlib.pyplot as plt

    size = (3.4 * columns + 0.8, 3.2 * rows + 0.3)
    return plt.subplots(rows, columns, figsize=size, **options)


def as_percent(values: Any) -> Any:
    """Return fractions in percent."""
    return 100 * np.asarray(values, float)


def ball_name(test: str) -> str:
    """Return a set as axes name it, e.g. "L∞ 8/255"."""
    norm, _, radius = test.partition(" ")
    return f"{BALLS[norm]} {radius}"


def plain_log(axis: Any, ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis at powers of ten, or at the given ticks, plainly."""
    if ticks is not None:
        axis.set_ticks(list(ticks))
        axis.set_major_formatter(ScalarFormatter())
    else:
        axis.set_major_locator(LogLocator())
    axis.set_minor_formatter(NullFormatter())
