"""Which measure goes with which: rank correlations, drawn and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.figures import BLUE
from widemin.statistics import partial_spearman, spearman, spearman_interval

# What may be called flat, so that more is flatter.
FLATNESS = {
    "width_weights_0.1": "width in weights, level 0.1",
    "width_weights_1": "width in weights, level 1",
    "width_nodes_0.1": "width by nodes, level 0.1",
    "width_nodes_1": "width by nodes, level 1",
    "width_inputs_0.1": "width in inputs, level 0.1",
    "width_inputs_1": "width in inputs, level 1",
    "small_eigenvalue": "small top eigenvalue",
    "small_sharpness": "small adaptive sharpness",
}


def rank_correlations(
    table: pd.DataFrame,
    measures: Mapping[str, str],
    outcomes: Mapping[str, str],
    given: Sequence[str],
) -> pd.DataFrame:
    """Return how each measure ranks with each outcome, plainly and given others.

    Args:
        table: A row per network.
        measures: Column to name.
        outcomes: Column to name.
        given: Columns held fixed in the partial correlations.

    Returns:
        A row per pair: measure, outcome, networks, and for "plain" and "partial" the
        correlation with the ends of its 95 % interval (`plain_low`, ...).

    >>> table = pd.DataFrame({"a": range(9), "b": range(9), "c": [1, 0, 2] * 3})
    >>> found = rank_correlations(table, {"a": "A"}, {"b": "B"}, ["c"])
    >>> [(row.measure, row.outcome, row.networks) for row in found.itertuples()]
    [('A', 'B', 9)]
    >>> float(found.loc[0, "plain"].round(3))
    1.0
    """
    found = []
    for outcome, called in outcomes.items():
        for measure, name in measures.items():
            rows = table[[measure, outcome, *given]].dropna()
            others = [rows[column] for column in given]
            row = {"measure": name, "outcome": called, "networks": len(rows)}
            for kind, rho, held in (
                ("plain", spearman(rows[measure], rows[outcome]), 0),
                (
                    "partial",
                    partial_spearman(rows[measure], rows[outcome], others),
                    len(given),
                ),
            ):
                low, high = spearman_interval(rho, len(rows), held)
                row |= {kind: rho, f"{kind}_low": low, f"{kind}_high": high}
            found.append(row)
    return pd.DataFrame(found)


def rank_flatness(rows: pd.DataFrame, outcomes: dict[str, str]) -> pd.DataFrame:
    """Return how each measure of flatness ranks with each outcome, a row a network.

    Partial correlations hold median margin and training loss fixed.
    """
    rows = rows.reindex(columns=rows.columns.union([*FLATNESS, "adaptive_sharpness"]))
    rows = rows.assign(
        small_eigenvalue=-rows["top_eigenvalue"],
        small_sharpness=-rows["adaptive_sharpness"],
    )
    held = ["median_margin", "final_train_loss"]
    return rank_correlations(rows, FLATNESS, outcomes, held)


def correlations(found: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw rank correlations with intervals; hollow ones are partial."""
    if found.empty:
        return axes
    for ax, (outcome, part) in zip(
        axes, found.groupby("outcome", sort=False), strict=False
    ):
        places = np.arange(len(part))
        for kind, shift, face in (("plain", -0.13, BLUE), ("partial", 0.13, "white")):
            rho = part[kind].to_numpy()
            away = [rho - part[f"{kind}_low"], part[f"{kind}_high"] - rho]
            look: Any = {
                "fmt": "o",
                "color": BLUE,
                "markerfacecolor": face,
                "label": kind,
            }
            ax.errorbar(rho, places + shift, xerr=np.abs(np.stack(away)), **look)
        ax.axvline(0, color="grey", linewidth=1)
        ax.set_yticks(places, list(part["measure"]))
        ax.set(xlim=(-1.05, 1.05), xlabel="Spearman", title=f"with {outcome}")
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
        ax.label_outer()
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.1), ncols=2)
    return axes


def in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Return rank correlations as a reader wants them, e.g. "0.95 (0.89 to 0.98)"."""

    def said(row: pd.Series, kind: str) -> str:
        return (
            f"{row[kind]:.2f} ({row[f'{kind}_low']:.2f} to {row[f'{kind}_high']:.2f})"
        )

    table = pd.DataFrame(
        {
            "with": found["outcome"],
            "networks": found["networks"],
            "on its own": [said(row, "plain") for _, row in found.iterrows()],
            "others held fixed": [said(row, "partial") for _, row in found.iterrows()],
        }
    )
    return table.set_index([found["measure"].rename("Spearman of"), "with"])
