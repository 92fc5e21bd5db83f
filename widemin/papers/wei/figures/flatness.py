"""Figures of flatness: eigenvalues, lines, steps in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from widemin.papers.claims import final
from widemin.papers.figures import COLOURS, as_percent, ball_name, plain_log, spread
from widemin.papers.wei.figures.methods import line_looks, strength_of, with_names


def eigenvalue_by_method(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the top Hessian eigenvalue by training method, a point per network."""
    rows = final(table).drop_duplicates("key")
    if rows.empty:
        return ax
    rows = rows.assign(name=rows.apply(strength_of, axis=1))
    names = list(dict.fromkeys(rows["name"]))
    ax.scatter(
        [names.index(name) for name in rows["name"]],
        rows["top_eigenvalue"],
        c=[COLOURS[method] for method in rows["method"]],
    )
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    ax.set(ylabel="top Hessian eigenvalue", yscale="log")
    plain_log(ax.yaxis, [2, 5, 10, 20, 50])
    return ax


def by_flatness(
    table: pd.DataFrame, axes: Sequence[Axes], columns: dict[str, str], test: str
) -> Sequence[Axes]:
    """Draw worst-case accuracy over measures of flatness, a point a network."""
    rows = with_names(table)
    rows = rows.reindex(columns=rows.columns.union(["width_images", *columns]))
    rows = rows[(rows["test"] == test) & rows["width_images"].notna()]
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for method, part in rows.groupby("method", sort=False):
            worst = as_percent(part["worst_accuracy"])
            ax.scatter(part[column], worst, color=COLOURS[str(method)], label=method)
        ax.set(xscale="log", xlabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        if rows.empty:
            ax.set(title="not measured at this preset")
    axes[0].set(ylabel=f"worst-case accuracy, {ball_name(test)} (%)")
    if not rows.empty:
        axes[-1].legend(fontsize="small")
    return axes


def along_lines(table: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the loss along the steepest line in weights and in images, by method."""
    rows = with_names(table, "line")
    if rows.empty:
        return axes
    looks = line_looks(rows)
    kinds = {"weights": (1, "distance in weights (L2)")}
    kinds["images"] = (255, "distance in images (L∞, 1/255)")
    for ax, (of, (unit, label)) in zip(axes, kinds.items(), strict=True):
        for name, part in rows[rows["of"] == of].groupby("name", sort=False):
            means = part.groupby("distance")["loss"].mean()
            ax.plot(unit * means.index, means, label=name, **looks[str(name)])
        ax.set(xlabel=label, yscale="log")
        plain_log(ax.yaxis, [0.2, 0.5, 1, 2, 5, 10])
    axes[0].set(ylabel="cross-entropy")
    axes[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def in_pixels(table: pd.DataFrame) -> pd.DataFrame:
    """Return what SAM's step in the first layer is worth in pixels, a row a method."""
    rows = with_names(table).drop_duplicates("key")
    rows = rows.reindex(columns=rows.columns.union(["implicit_share"]))
    found = []
    for name, part in rows[rows["implicit_share"].notna()].groupby("name", sort=False):
        row = {"trained by": name}
        row["explained (%)"] = spread(part, "implicit_share")
        row["L2 size (1/255)"] = spread(part, "implicit_l2", 255, 0)
        row["loss: moved weights"] = spread(part, "implicit_weights_rise", 1, 3)
        row["loss: moved images"] = spread(part, "implicit_images_rise", 1, 3)
        row["loss: as far along the gradient"] = spread(
            part, "implicit_gradient_rise", 1, 2
        )
        found.append(row)
    table = pd.DataFrame(found)
    return table.set_index("trained by").rename_axis(None) if found else table
