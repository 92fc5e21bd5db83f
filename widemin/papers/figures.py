"""One function per figure: a tidy table and axes in, the axes out.

Figures compute no results beyond means. A method keeps one colour, safe for the
colour-blind, through the book; every seed is a visible point; accuracies are drawn
in percent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.core.formatters import BaseFormatter
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, ScalarFormatter
from traitlets import ObjectName, Unicode

from widemin.papers.claims import ball_name as ball_name
from widemin.statistics import over_seeds

# Okabe and Ito's palette.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
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
FADING.add("pgd_accuracy")


def style() -> None:
    """Set the book's style; call it once, before the first figure.

    In a notebook figures then carry their numbers too, to be downloaded.
    """
    if shell := get_ipython():
        shell.display_formatter.formatters["text/csv"] = _AsCSV()
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


def plain_log(axis: Any, ticks: Sequence[float] | int) -> None:
    """Label a logarithmic axis plainly at the given ticks, or at so many."""
    if isinstance(ticks, int):
        axis.set_major_locator(MaxNLocator(ticks))
    else:
        axis.set_major_locator(FixedLocator(list(ticks)))  # outside: not drawn
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def spread(rows: pd.DataFrame, column: str, unit: float = 100, digits: int = 1) -> str:
    """Return a column's mean and 95 % interval over runs, e.g. "49.1 ± 5.2".

    Both values of two runs; "not run" where no run has measured it.
    """
    values = list(unit * rows[column].dropna())
    if not values:
        return "not run"
    if len(values) == 2:
        return " and ".join(f"{value:.{digits}f}" for value in values)
    mean, half = over_seeds(values)
    return f"{mean:.{digits}f}" + (
        "" if np.isnan(half) else f" ±\u00a0{half:.{digits}f}"
    )


def stacked(
    lines: dict[tuple[str, str], Any], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return lines of a table under the pairs of names that they go by."""
    index = pd.MultiIndex.from_tuples(lines, names=[None, None]) if lines else None
    return pd.DataFrame(list(lines.values()), index, columns=columns)


def hours_table(hours: dict[str, tuple[int, float]]) -> pd.DataFrame:
    """Return presets with their runs and the hours of one core that these take."""
    rows = [
        (name, f"{runs:,}", f"{time:,.1f}" if time < 100 else f"{time:,.0f}")
        for name, (runs, time) in hours.items()
    ]
    table = pd.DataFrame(rows, columns=["preset", "runs", "hours of one core"])
    return table.set_index("preset").rename_axis(None)


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


def drawn(canvas: Figure) -> pd.DataFrame:
    """Return what a figure draws: lines, points, intervals and maps.

    Returns:
        Columns panel (its title, or what its axes say), series (as in the legend),
        x, y (numbers, or names where the axis has names) and value (of a map's cell).

    >>> canvas = Figure()
    >>> _ = canvas.subplots().plot([1, 2], [3, 4], label="ours")
    >>> drawn(canvas)[["series", "x", "y"]].values.tolist()
    [['ours', 1.0, 3.0], ['ours', 2.0, 4.0]]
    """
    rows = []
    for ax in (ax for ax in canvas.axes if ax.get_label() != "<colorbar>"):
        panel = ax.get_title() or f"{ax.get_ylabel()} over {ax.get_xlabel()}"
        # The parts of an error bar go by the name of the whole.
        whole = {part: bar for bar in ax.containers for part in bar.get_children()}
        across, along = _names(ax.xaxis), _names(ax.yaxis)
        for artist in (*ax.lines, *ax.collections):
            series = str(whole.get(artist, artist).get_label())
            series = "" if series.startswith("_") else series
            for x, y, *value in _points(artist):
                place = [_name(across, x), _name(along, y)]
                rows.append([" ".join(panel.split()), series, *place, *value])
    return pd.DataFrame(rows, columns=["panel", "series", "x", "y", "value"])


def _points(artist: Any) -> Iterator[tuple[float, ...]]:
    """Yield the places of an artist, those of a map with the value of the cell."""
    cells: Any
    places: Any
    if isinstance(artist, QuadMesh):
        cells = np.ma.filled(np.ma.asarray(artist.get_array(), float), np.nan)
        for (row, column), value in np.ndenumerate(np.atleast_2d(cells)):
            yield column + 0.5, row + 0.5, value
        return
    if isinstance(artist, PathCollection):
        places = np.ma.filled(np.ma.asarray(artist.get_offsets(), float), np.nan)
    elif isinstance(artist, LineCollection):  # intervals: both ends
        # A segment that is not finite has no ends.
        segments = [np.reshape(ends, (-1, 2)) for ends in artist.get_segments()]
        places = np.concatenate([*segments, np.empty((0, 2))])
    elif (
        hasattr(artist, "get_xydata")
        and artist.get_transform() == artist.axes.transData
    ):
        places = np.array(artist.get_data(orig=False), float).T
    else:  # a rule across the panel, an area
        return
    yield from ((x, y, np.nan) for x, y in places)


def _names(axis: Axis) -> dict[float, str]:
    """Return what an axis calls places, where it has words instead of numbers."""
    said = [label.get_text() for label in axis.get_ticklabels()]
    words = any(re.search("[^\\W\\d_]{2}", text) for text in said if "$" not in text)
    places = map(float, axis.get_ticklocs())
    return dict(zip(places, said, strict=False)) if words else {}


def _name(names: dict[float, str], place: float) -> str | float:
    """Return the name nearest to a place; what is drawn beside it belongs to it."""
    if not names or not np.isfinite(place):
        return place
    nearest = min(names, key=lambda known: abs(known - place))
    return names[nearest] if abs(nearest - place) <= 0.45 else place


class _AsCSV(BaseFormatter):
    """Figures that a notebook shows carry their numbers.

    Not registered by type: pyplot strikes Figure from every such list.
    """

    format_type = Unicode("text/csv")
    print_method = ObjectName("_repr_csv_")

    def __call__(self, shown: Any) -> str | None:
        if not isinstance(shown, Figure):
            return None
        return drawn(shown).to_csv(index=False, float_format="%.6g")
