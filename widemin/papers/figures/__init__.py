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
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, ScalarFormatter

from widemin.papers.claims import ball_name as ball_name
from widemin.papers.figures import numbers
from widemin.statistics import over_seeds

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


def style() -> None:
    """Set the book's style; call it once, before the first figure.

    In a notebook figures then carry their numbers too, to be downloaded.
    """
    if shell := get_ipython():
        numbers.attach(shell)
    sns.set_theme(context="notebook", style="ticks")
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 220,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "figure.constrained_layout.w_pad": 0.08,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "widemin",  # the same drawing, the same file
        }
    )


def glue(name: str, value: float) -> None:
    """Keep a number of this cell for the text of the page, which shows it by its name.

    What `myst_nb.glue` does without showing it; that one's import takes three seconds.
    """
    prefix = "application/papermill.record/"
    kept = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    display({f"{prefix}text/plain": repr(value)}, raw=True, metadata=kept)


def panels(columns: int, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of equal panels and its axes, wide enough for the page."""
    import matplotlib.pyplot as plt

    size = (3.4 * columns + 0.8, 3.2 * rows + 0.3)
    return plt.subplots(rows, columns, figsize=size, **options)


def as_percent(values: Any) -> Any:
    """Return fractions in percent."""
    return 100 * np.asarray(values, float)


def plain_log(axis: Any, ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis at powers of ten, or at the given ticks, plainly."""
    if ticks is not None:
        axis.set_major_locator(FixedLocator(list(ticks)))  # outside: not drawn
        axis.set_major_formatter(ScalarFormatter())
    else:
        axis.set_major_locator(LogLocator())
    axis.set_minor_formatter(NullFormatter())


def spread(rows: pd.DataFrame, column: str, unit: float = 100, digits: int = 1) -> str:
    """Return a column's mean and 95 % interval over runs, e.g. "49.1 ± 5.2".

    "not run" where no run has measured it.
    """
    values = list(unit * rows[column].dropna())
    if not values:
        return "not run"
    mean, half = over_seeds(values)
    return f"{mean:.{digits}f}" + (
        "" if np.isnan(half) else f" ±\u00a0{half:.{digits}f}"
    )


def hours_table(hours: dict[str, tuple[int, float]]) -> pd.DataFrame:
    """Return presets with their runs and the hours of one core that these take."""
    rows = [
        (name, f"{runs:,}", f"{time:,.1f}" if time < 100 else f"{time:,.0f}")
        for name, (runs, time) in hours.items()
    ]
    found = pd.DataFrame(rows, columns=["preset", "runs", "hours of one core"])
    return found.set_index("preset").rename_axis(None)


def there(rows: pd.DataFrame, groups: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the groups of runs, name to keys, that have rows."""
    return {name: keys for name, keys in groups.items() if rows["key"].isin(keys).any()}


def by_group(
    rows: pd.DataFrame,
    groups: dict[str, list[str]],
    ax: Axes,
    columns: dict[str, str],
) -> Axes:
    """Draw accuracies of named groups of runs, a line a group and a mark a run.

    Args:
        rows: Final rows.
        groups: Name to the keys of its runs; without runs a group is left out.
        ax: Where to draw.
        columns: What is drawn, each with the colour its marks are filled with.
    """
    groups = there(rows, groups)
    for place, keys in enumerate(groups.values()):
        part = rows[rows["key"].isin(keys)]
        for column, face in columns.items():
            at = np.full(len(part), place)
            ax.scatter(as_percent(part[column]), at, color=BLUE, facecolor=face)
    ax.set_yticks(range(len(groups)), list(groups))
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    return ax
