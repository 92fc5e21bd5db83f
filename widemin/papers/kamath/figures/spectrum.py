"""Eigenvalues: how they were found, how near to the limit, and all of them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.claims import final
from widemin.papers.figures import BLUE, GREEN, PURPLE, RED


def with_limit(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows with `limit_share`, the top eigenvalue over the largest stable one.

    Along a curvature above 2 (1 + m) / η gradient descent with learning rate η and
    momentum m diverges; for m = 0, Cohen et al. (2021).

    >>> row = pd.DataFrame([{"momentum": 0.0, "learning_rate": 0.1}])
    >>> with_limit(row.assign(top_eigenvalue=15.0))["limit_share"].item()
    0.75
    """
    limit = 2 * (1 + table["momentum"]) / table["learning_rate"]
    return table.assign(limit_share=table["top_eigenvalue"] / limit)


def eigenvalues(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each way of finding an eigenvalue gives, a row a network and way."""
    rows = table[table["measured"] == "spectrum"]
    rows = rows[rows["of"] == "eigenvalue"] if len(rows) else rows
    found = [
        {
            "network": _network(row),
            "way": row["way"],
            "eigenvalue": f"{row['value']:.4g}",
            "residual": f"{row['residual']:.2g}",
            "products": f"{row['products']:.0f}",
        }
        for _, row in rows.iterrows()
    ]
    columns = ["network", "way", "eigenvalue", "residual", "products"]
    index = ["network", "way"]
    named = pd.DataFrame(found, columns=columns).set_index(index)
    return named.rename_axis([None, None])


def eigenvalue_differences(table: pd.DataFrame) -> dict[str, float]:
    """Return by how many percent ways of finding a top eigenvalue differ at most.

    `solver` on the same images, `images` by Lanczos on more of them, and `smallest`,
    the size of the most negative eigenvalue over the largest; NaN where none is known.
    """
    rows = table[table["measured"] == "spectrum"]
    rows = rows[rows["of"] == "eigenvalue"] if len(rows) else rows
    found: dict[str, list[float]] = {"solver": [], "images": [], "smallest": []}
    for _, part in rows.groupby("key") if len(rows) else ():
        ways = dict(zip(part["way"], part["value"], strict=True))
        usual = next(v for way, v in ways.items() if way.startswith("Lanczos"))
        for way, value in ways.items():
            kind = {"Lanczos": "images", "PyHessian": "solver"}.get(way.split(",")[0])
            if kind:
                found[kind].append(100 * abs(value / usual - 1))
            else:
                found["smallest"].append(100 * abs(value / usual))
    return {kind: max(values, default=math.nan) for kind, values in found.items()}


def eigenvalue_of_each(table: pd.DataFrame) -> pd.DataFrame:
    """Return every network's top eigenvalue, and how it was found, a row a network.

    A row's setting stands in the column `setting`.
    """
    shown = {
        "setting": "setting",
        "batch_size": "batch size",
        "seed": "seed",
        "top_eigenvalue": "eigenvalue",
        "eigenvalue_residual": "residual",
        "hessian_products": "products",
        "hessian_images": "images",
    }
    rows = final(table)
    rows = rows.drop_duplicates(["setting", "key"]) if len(rows) else rows
    rows = rows.reindex(columns=list(shown)).rename(columns=shown)
    rows[["products", "images"]] = rows[["products", "images"]].astype("Int64")
    for column in ("eigenvalue", "residual"):
        rows[column] = rows[column].map("{:.3g}".format)
    return rows.set_index("setting").rename_axis(None)


def _network(row: pd.Series[Any]) -> str:
    return f"B = {row['batch_size']}, LR = {row['learning_rate']:g}"


def densities(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the Hessian's spectral density, a line a network."""
    rows = table[table["measured"] == "spectrum"]
    rows = rows[rows["of"] == "density"] if len(rows) else rows
    for (_, part), colour in zip(
        rows.groupby("key", sort=False), (RED, BLUE, GREEN, PURPLE), strict=False
    ):
        ax.plot(
            part["place"],
            part["value"].clip(lower=1e-9),
            color=colour,
            label=_network(part.iloc[0]),
        )
    ax.set(xlabel="eigenvalue", ylabel="density", yscale="log", ylim=(1e-6, None))
    ax.set_xscale("symlog", linthresh=1)
    if ax.lines:
        ax.legend(fontsize="small")
    return ax
