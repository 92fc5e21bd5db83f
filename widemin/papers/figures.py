"""What the papers' figures and tables share.

A figure is a function, a tidy table and axes in, the axes out; it computes no results
beyond means. A method keeps one colour, safe for the colour-blind, through the book;
every seed is a visible point; fractions are drawn in percent.
"""

import io
import pickle
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import matplotlib.ticker as mt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from widemin.experiments.columns import COLUMNS
from widemin.papers import NARROW
from widemin.papers.claims import ball_name as ball_name
from widemin.papers.claims import mean_in_words
from widemin.statistics import over_seeds

Panels = Sequence[Axes]
Groups = Mapping[str, list[str]]  # name to the keys of its runs
# Okabe and Ito's palette.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#666666"
# Where a legend may stand beside its axes; names below an axis.
LEGENDS: dict[str, dict[str, Any]] = {
    "outside": {"loc": "upper left", "bbox_to_anchor": (1, 1)},
    "below": {"loc": "upper left", "bbox_to_anchor": (-0.2, 0), "borderaxespad": 4.5},
}
SLANTED: dict[str, Any] = {"rotation": 60, "ha": "right"}

# Columns as a reader should see them, by table or figure.
_LISTED = pd.read_csv(Path(__file__).with_name("labels.csv"))
_LISTED = _LISTED.fillna({"digits": 1, "unit": 0}).astype({"digits": int})
LABELS: dict[str, dict[str, str]] = {
    str(table): dict(zip(part["column"], part["label"], strict=True))
    for table, part in _LISTED.groupby("table", sort=False)
}
WAYS = LABELS["ways"]  # how an attack is computed
COLOURS = LABELS["colours"]  # a setting's in all figures of a chapter
# Drawn in percent; frozen, so that `where` does not take them for a figure's columns.
_FRACTIONS = frozenset(name for name, c in COLUMNS.items() if c.unit == "fraction")


def style() -> None:
    """Set the book's style; in a notebook figures carry their numbers from then on."""
    if shell := get_ipython():
        # Not among the formatters, of which pyplot strikes figures.
        bundle = shell.display_formatter.mimebundle_formatter
        bundle.for_type(Figure, carried)
    sns.set_theme(context="notebook", style="ticks")
    plt.style.use(Path(__file__).with_name("book.mplstyle"))


def carried(canvas: Figure) -> dict[str, str]:
    """Return the numbers of a figure and a drawing of it for phones, by type."""
    numbers = drawn(canvas).to_csv(index=False, float_format="%.6g")
    (small := narrowed(canvas)).savefig(svg := io.StringIO(), format="svg")
    plt.close(small)
    return {"text/csv": numbers, NARROW: svg.getvalue()}


def narrowed(canvas: Figure) -> Figure:
    """Return a copy of a figure for phones: its panels one below the other.

    Each says what its row or its column says once. Pictures stay beside each other.
    """
    small, fold = pickle.loads(pickle.dumps(canvas)), textwrap.fill
    places = {ax: at for ax in small.axes if (at := ax.get_subplotspec())}
    axes, height = [*places], canvas.get_figheight()
    if not axes or any(ax.images for ax in axes):
        small.set_size_inches(3.7, 0.75 * height)
        small.set_layout_engine("constrained", w_pad=0.02, wspace=0)
        return small
    rows = {places[ax].rowspan: ax.get_ylabel() for ax in axes[::-1]}
    columns = {places[ax].colspan: ax.get_xlabel() for ax in axes}
    words, least = _names(axes[-1].xaxis), max(2.5, 0.8 * height / len(rows))
    height = _legend_on_top(small, axes)
    for ax, place in zip(axes, small.add_gridspec(len(axes)), strict=True):
        ax.set_ylabel(fold(ax.get_ylabel() or rows[places[ax].rowspan], 22))
        ax.set_xlabel(fold(ax.get_xlabel() or columns[places[ax].colspan], 32))
        ax.set_title(fold(ax.get_title(), 24))
        ax.set_subplotspec(place)
        # Names that panels share stand below the last.
        shared = words and ax.get_shared_x_axes().joined(ax, axes[-1])
        ax.tick_params(labelbottom=not shared or ax is axes[-1], labelleft=True)
        names = {at: fold(name, 18) for at, name in _names(ax.yaxis).items()}
        if names:
            ax.set_yticks([*names], [*names.values()], fontsize="small")
        height += max(least, 0.9 + 0.36 * len(names))
    small.set_size_inches(3.7, height)
    return small


def _legend_on_top(canvas: Figure, axes: Panels) -> float:
    """Put one legend over all axes in the place of theirs; return its height."""
    legends = [legend for ax in axes if (legend := ax.get_legend())]
    named = dict[str, Any]()
    for ax in axes if legends else ():
        named |= zip(*ax.get_legend_handles_labels()[::-1], strict=True)
    title = {legend.get_title().get_text() for legend in legends}
    columns = 1 + (max(map(len, named), default=0) < 16)
    look: Any = {"title": "".join(title), "loc": "outside upper left"}
    if named:
        canvas.legend([*named.values()], [*named], ncols=columns, **look)
    for legend in legends:
        legend.remove()
    return 0.22 * (len(named) / columns + bool(named))


def glue(name: str, value: float) -> None:
    """Keep a number of this cell for the text of the page, which shows it by its name.

    What `myst_nb.glue` does without showing it; that one's import takes three seconds.
    """
    prefix = "application/papermill.record/"
    kept = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    display({f"{prefix}text/plain": repr(value)}, raw=True, metadata=kept)


def panels(columns: int, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of equal panels and its axes, wide enough for the page."""
    size = (min(3.4 * columns + 0.8, 8.2), 3.2 * rows + 0.3)
    return plt.subplots(rows, columns, figsize=size, **options)


def unit_of(column: str) -> int:
    """Return the factor of a column as drawn: 100 for a fraction, else 1."""
    return 100 if column in _FRACTIONS else 1


def shown(rows: DataFrame, column: str) -> np.ndarray:
    """Return a column as it is drawn: fractions in percent."""
    return unit_of(column) * rows[column].to_numpy(float)


def cell_name(row: Any) -> str:
    """Return a row's batch size and learning rate, e.g. "B = 16, LR = 0.1"."""
    return f"B = {row['batch_size']:g}, LR = {row['learning_rate']:g}"


def by_cell(rows: DataFrame) -> dict[str, DataFrame]:
    """Return rows by the name of their batch size and learning rate."""
    cells = rows.groupby(["batch_size", "learning_rate"], sort=False)
    return {cell_name(part.iloc[0]): part for _, part in cells}


def framed(
    ax: Axes, x: str, y: str, legend: str = "", *, log: Any = (), **more: Any
) -> Axes:
    """Label axes, add a legend if anything has a name, and return the axes.

    `legend` is its place, or one of LEGENDS. `log` names logarithmic axes, "xy" say; as
    a dictionary, each with the ticks that are labelled plainly, or how many.
    """
    scales: dict[str, Any] = {f"{axis}scale": "log" for axis in log}
    ax.set(xlabel=x, ylabel=y, **scales | more)
    for name, ticks in log.items() if isinstance(log, dict) else ():
        axis = getattr(ax, f"{name}axis")
        locator: Any = mt.MaxNLocator if isinstance(ticks, int) else mt.FixedLocator
        axis.set_major_locator(locator(ticks))
        axis.set_major_formatter(mt.ScalarFormatter())
        axis.set_minor_formatter(mt.NullFormatter())
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(**LEGENDS.get(legend, {"loc": legend}))
    return ax


def name_rows(ax: Axes, names: Iterable[str]) -> None:
    """Name the whole numbers of the vertical axis, from the top down."""
    names = list(names)
    ax.set_yticks(range(len(names)), names)
    ax.yaxis.set_inverted(True)


def curves(
    ax: Axes, x: Any, lines: Mapping[str, Any], colours: Sequence[str], style: str = "-"
) -> None:
    """Draw named lines over the same places, each in its colour."""
    for (label, y), colour in zip(lines.items(), colours, strict=False):
        ax.plot(x, y, style, color=colour, label=label)


def mean_line(
    ax: Axes, rows: DataFrame, x: str, y: str, band: Sequence[str] = (), **look: Any
) -> None:
    """Draw the mean of a column over another; between the means of two, an area."""
    means = rows.groupby(x)[[y, *band]].mean()
    [line] = ax.plot(means.index, shown(means, y), **look)
    if band:
        low, high = (means[column] for column in band)
        look = {"color": line.get_color(), "alpha": 0.2, "lw": 0}
        ax.fill_between(means.index, low, high, **look)


def line_a_run(ax: Axes, rows: DataFrame, column: str, label: str, **look: Any) -> None:
    """Draw what is watched after each epoch, a line a run, all under one name."""
    for index, (_, run) in enumerate(rows.groupby("key")):
        name = None if index else label
        ax.plot(run["epoch"], shown(run, column), label=name, **look)


def marks(ax: Axes, rows: DataFrame, x: Any, y: Any, **look: Any) -> None:
    """Draw a mark a row, at its columns or at places."""
    at = (
        shown(rows, v) if isinstance(v, str) else v + np.zeros(len(rows))
        for v in (x, y)
    )
    ax.scatter(*at, **look)


def by_group(
    rows: DataFrame, groups: Groups, ax: Axes, columns: dict[str, str]
) -> dict[str, DataFrame]:
    """Draw groups that have runs, a line a group and a mark a run; return their rows.

    Columns are drawn, each with the colour its marks are filled with.
    """
    parts = {name: rows[rows["key"].isin(keys)] for name, keys in groups.items()}
    parts = {name: part for name, part in parts.items() if len(part)}
    for place, part in enumerate(parts.values()):
        for column, face in columns.items():
            marks(ax, part, column, place, color=GREY, facecolor=face)
    name_rows(ax, parts)
    return parts


def spread(rows: DataFrame, column: str, digits: int = 1, unit: float = 0) -> str:
    """Return a column's mean and 95 % interval over runs, "49.1 ± 5.2", or "not run".

    Each value, "0.6, 1.6 and 2.6", of two runs, of equal ones, and where the interval
    would leave 0 to 100 % or values above 0. Times the unit, of fractions 100, else 1.
    """
    factor, form = unit or unit_of(column), f".{digits}f"
    values = list(factor * rows[column].dropna())
    mean, half = over_seeds(values or [np.nan])
    beyond = min(values, default=0) >= 0 > mean - half
    beyond |= column in _FRACTIONS and mean + half > factor
    if len(values) > 2 and (beyond or round(half, digits) == 0):
        *others, last = (f"{value:{form}}" for value in values)
        return f"{', '.join(others)} and {last}"
    return mean_in_words(values, form) if values else "not run"


def spreads(parts: Mapping[Any, DataFrame], table: str) -> DataFrame:
    """Return means and intervals: a row a part, a column a label of a table."""
    lines = {name: listed(part, table) for name, part in parts.items()}
    return stacked(lines, list(LABELS[table].values()))


def stacked(lines: Mapping[Any, Any], columns: Sequence[str]) -> DataFrame:
    """Return lines of a table under the names, or pairs of names, that they go by."""
    return DataFrame(list(lines.values()), pd.Index(list(lines)), columns)


COSTS = ["gradients an image", "core seconds", "seeds"]  # heads of `costs`


def costs(rows: DataFrame) -> list[str]:
    """Return means of gradients an image and of seconds, and the number of seeds."""
    means = [f"{rows[column].mean():.0f}" for column in ("gradients", "train_seconds")]
    return [*means, str(rows["seed"].nunique())]


def hours_table(hours: dict[str, tuple[int, float]]) -> DataFrame:
    """Return presets with their runs and the hours of one core that these take."""
    lines = {
        name: (f"{runs:,}", f"{time:,.{int(time < 100)}f}")
        for name, (runs, time) in hours.items()
    }
    return stacked(lines, ["runs", "hours of one core"])


def drawn(canvas: Figure) -> DataFrame:
    """Return the numbers of a figure's lines, points, intervals and maps.

    Columns panel (its title, or what its axes say), series (as in the legend), x, y
    (numbers, or names where the axis has names) and value (of a map's cell).
    """
    rows = []
    for ax in (ax for ax in canvas.axes if ax.get_label() != "<colorbar>"):
        said = ax.get_title() or f"{ax.get_ylabel()} over {ax.get_xlabel()}"
        panel = " ".join(said.split())
        # The parts of an error bar go by the name of the whole.
        whole = {part: bar for bar in ax.containers for part in bar.get_children()}
        across, along = _namer(ax.xaxis), _namer(ax.yaxis)
        for artist in (*ax.lines, *ax.collections):
            series = str(whole.get(artist, artist).get_label())
            series = "" if series.startswith("_") else series
            for x, y, *value in _points(artist):
                rows.append([panel, series, across(x), along(y), *(value or [np.nan])])
    return DataFrame(rows, columns=["panel", "series", "x", "y", "value"])


def _points(artist: Any) -> Iterable[Any]:
    """Return the places of an artist, those of a map with the values of its cells."""
    if isinstance(artist, QuadMesh):
        cells: Any = np.ma.filled(np.ma.asarray(artist.get_array(), float), np.nan)
        rows, columns = np.indices(cells.shape) + 0.5
        return zip(columns.flat, rows.flat, cells.flat, strict=True)
    if isinstance(artist, PathCollection):
        return np.ma.filled(np.ma.asarray(artist.get_offsets(), float), np.nan)
    if isinstance(artist, LineCollection):  # intervals: both ends, if they are finite
        return [place for ends in artist.get_segments() for place in ends]
    if artist.get_transform() == artist.axes.transData and isinstance(artist, Line2D):
        return np.array(artist.get_data(orig=False), float).T
    return ()  # a rule across the panel, an area


def _names(axis: Axis) -> dict[float, str]:
    """Return the words on an axis by their places; an axis of numbers has none."""
    said = [label.get_text() for label in axis.get_ticklabels()]
    words = any(re.search("[^\\W\\d_]{2}", text) for text in said if "$" not in text)
    return dict(zip(axis.get_ticklocs(), said, strict=False)) if words else {}


def _namer(axis: Axis) -> Callable[[float], str | float]:
    """Return a function from places to the names next to them, on an axis of words."""
    names = _names(axis)

    def name(place: float) -> str | float:
        nearest = min(names, key=lambda known: abs(known - place), default=np.nan)
        return names[nearest] if abs(nearest - place) <= 0.45 else place

    return name


def listed(part: DataFrame, table: str) -> dict[str, str]:
    """Return means and intervals of the columns that a table lists, by their labels."""
    rows = _LISTED[(_LISTED["table"] == table) & _LISTED["column"].isin(part)]
    measures = rows[["column", "digits", "unit"]].to_numpy()
    return dict(zip(rows["label"], [spread(part, *m) for m in measures], strict=True))
