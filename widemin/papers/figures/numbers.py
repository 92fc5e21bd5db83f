"""What a figure shows, as numbers: the table that can be downloaded below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def drawn(canvas: Figure) -> pd.DataFrame:
    """Return what a figure draws: lines, points, intervals, bars and maps.

    Returns:
        Columns panel (its title, or what its axes say), series (as in the legend),
        x, y (numbers, or names where the axis has names) and value (of a map's cell).

    >>> from matplotlib.figure import Figure
    >>> canvas = Figure()
    >>> _ = canvas.subplots().plot([1, 2], [3, 4], label="ours")
    >>> drawn(canvas)[["series", "x", "y"]].values.tolist()
    [['ours', 1.0, 3.0], ['ours', 2.0, 4.0]]
    """
    rows = [
        {"panel": _panel(ax)} | row
        for ax in canvas.axes
        if ax.get_label() != "<colorbar>"
        for row in _of_axes(ax)
    ]
    return pd.DataFrame(rows, columns=["panel", "series", "x", "y", "value"])


def _panel(ax: Axes) -> str:
    said = ax.get_title() or f"{ax.get_ylabel()} over {ax.get_xlabel()}"
    return " ".join(said.split())


def _of_axes(ax: Axes) -> Iterator[dict[str, Any]]:
    across, along = _names(ax.xaxis), _names(ax.yaxis)
    groups = {  # the parts of an error bar go by the name of the whole
        id(part): whole.get_label()
        for whole in ax.containers
        for part in whole.get_children()
    }

    def point(artist: Any, x: float, y: float, value: Any = None) -> dict[str, Any]:
        label = str(groups.get(id(artist), artist.get_label()))
        series = "" if label.startswith("_") else label
        at = {"x": _name(across, x), "y": _name(along, y)}
        return {"series": series, **at, "value": value}

    for line in ax.lines:
        if line.get_transform() == ax.transData:  # not a rule across the panel
            xs, ys = (np.asarray(v, float) for v in line.get_data(orig=False))
            yield from (point(line, x, y) for x, y in zip(xs, ys, strict=True))
    for many in ax.collections:
        if isinstance(many, PathCollection):
            places: Any = np.ma.asarray(many.get_offsets(), float)
            yield from (point(many, x, y) for x, y in np.ma.filled(places, np.nan))
        elif isinstance(many, LineCollection):  # intervals: both ends
            for segment in many.get_segments():
                yield from (point(many, x, y) for x, y in np.asarray(segment))
        elif isinstance(many, QuadMesh):
            cells: Any = np.ma.filled(np.ma.asarray(many.get_array(), float), np.nan)
            for (row, column), value in np.ndenumerate(np.atleast_2d(cells)):
                yield point(many, column + 0.5, row + 0.5, value)
    for bar in ax.patches:
        if isinstance(bar, Rectangle):
            yield point(bar, bar.get_x() + bar.get_width() / 2, bar.get_height())


def _names(axis: Axis) -> dict[float, str]:
    """Return what an axis calls places, where it has words instead of numbers."""
    said = [label.get_text() for label in axis.get_ticklabels()]
    places = dict(zip(map(float, axis.get_ticklocs()), said, strict=False))
    words = any(re.search("[^\\W\\d_]{2}", text) for text in said if "$" not in text)
    return places if words else {}


def _name(names: dict[float, str], place: float) -> str | float:
    """Return the name nearest to a place; what is drawn beside it belongs to it."""
    if not names or not np.isfinite(place):
        return place
    nearest = min(names, key=lambda known: abs(known - place))
    return names[nearest] if abs(nearest - place) <= 0.45 else place


def attach(shell: Any) -> None:
    """Let every figure that a notebook shows carry its numbers, as text/csv."""
    from IPython.core.formatters import BaseFormatter
    from traitlets import ObjectName, Unicode

    class AsCSV(BaseFormatter):
        format_type = Unicode("text/csv")
        print_method = ObjectName("_repr_csv_")

        # Not registered by type: pyplot strikes Figure from every such list.
        def __call__(self, shown: Any) -> str | None:
            if not isinstance(shown, Figure):
                return None
            return drawn(shown).to_csv(index=False, float_format="%.6g")

    shell.display_formatter.formatters["text/csv"] = AsCSV()
