"""Chapter 4: everything against batch size."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from widemin.claims import final
from widemin.figures import COLOURS, ORANGE, PURPLE, SKY, YELLOW, plain_log


def by_batch_size(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a number against batch size, a line per setting and a point per seed.

    Hollow points are undertrained: below 95 % on training images. A row's setting
    stands in the column `setting`.
    """
    rows = final(table)
    spare = iter([ORANGE, PURPLE, SKY, YELLOW])
    scale = 100 if column.endswith("accuracy") else 1
    for setting, part in rows.groupby("setting", sort=False):
        colour = COLOURS.get(str(setting)) or next(spare)
        mean = part.groupby("batch_size")[column].mean()
        ax.plot(mean.index, scale * mean, color=colour, label=str(setting))
        poor = part["train_accuracy"] < 0.95
        for points, face in ((part[~poor], colour), (part[poor], "white")):
            ax.scatter(
                points["batch_size"],
                scale * points[column],
                color=colour,
                facecolor=face,
                zorder=3,
            )
    sizes = sorted(rows["batch_size"].unique())
    ax.set(xscale="log", xlabel="batch size", ylabel=label)
    plain_log(ax.xaxis, sizes)
    if scale == 1:
        ax.set(yscale="log")
    return ax
