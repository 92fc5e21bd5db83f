"""Chapter 4: everything against batch size, and the spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.claims import ball_name, final
from widemin.papers.figures import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    plain_log,
    spread,
)
from widemin.papers.kamath.claims import by_batch, undertrained, well_trained
from widemin.papers.ranks import rank_correlations
from widemin.statistics import spearman


def by_batch_size(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """Draw a number against batch size, a line per setting and a point per seed.

    Hollow points are undertrained: below 95 % on training images, 85 % of
    Fashion-MNIST, 70 % of CIFAR-10. A row's setting stands in the column `setting`.
    """
    rows = final(table)
    spare = iter([ORANGE, PURPLE, SKY, YELLOW])
    scale = 100 if column.endswith("accuracy") else 1
    for setting, part in rows.groupby("setting", sort=False):
        colour = COLOURS.get(str(setting)) or next(spare)
        mean = part.groupby("batch_size")[column].mean()
        ax.plot(mean.index, scale * mean, color=colour, label=str(setting))
        poor = undertrained(part)
        for points, face in ((part[~poor], colour), (part[poor], "white")):
            at, values = points["batch_size"], scale * points[column]
            ax.scatter(at, values, color=colour, facecolor=face, zorder=3)
    sizes = sorted(rows["batch_size"].unique())
    ax.set(xscale="log", xlabel="batch size", ylabel=label)
    plain_log(ax.xaxis, sizes if len(sizes) < 7 else sizes[::2])
    if scale == 1:
        ax.set(yscale="log")
    return ax


def with_settings(table: pd.DataFrame, rate: float, test: str) -> pd.DataFrame:
    """Return the final rows of one attack, each with the name of its setting.

    Args:
        table: Runs at a constant learning rate and at a constant ratio, in any order.
        rate: The learning rate of the first, and of both at batch size 64, whose runs
            are therefore there twice.
        test: The attack's set, e.g. "linf 0.1".
    """
    rows = final(table)
    rows = rows[rows["test"] == test]
    expected = {"LR": rate, "LR/BS": rate / 64 * rows["batch_size"]}
    parts = [
        rows[(rows["learning_rate"] / value - 1).abs() < 1e-6].assign(setting=name)
        for name, value in expected.items()
    ]
    return pd.concat(parts)


def from_end_to_end(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Return what columns are at the ends of the batch sizes, and how they rank.

    With `_small` and `_large` the values there, accuracies in percent; with `_rank`
    Spearman's correlation with the batch size; the same of trained batch sizes alone
    with `trained_` before them. NaN without runs.

    Args:
        table: The rows of one attack.
        columns: Of final rows.
    """
    rows = final(table)
    found = {}
    for prefix, part in (("", rows), ("trained_", well_trained(rows))):
        for column in ("batch_size", *columns):
            means = by_batch(part, column)
            unit = 100 if column.endswith("accuracy") else 1
            small, large = means.iloc[[0, -1]] if len(means) else (math.nan, math.nan)
            found[f"{prefix}{column}_small"] = float(unit * small)
            found[f"{prefix}{column}_large"] = float(unit * large)
            found[f"{prefix}{column}_rank"] = spearman(means.index, means)
    return found


def by_run(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies and top eigenvalue, a row a run, by batch size."""
    found = {}
    for _, rows in final(table).groupby("key", sort=False):
        run = rows.iloc[0]
        row = {
            "right in training (%)": f"{100 * run['train_accuracy']:.1f}",
            "natural (%)": f"{100 * run['natural_accuracy']:.1f}",
            "top eigenvalue": f"{run['top_eigenvalue']:.3g}",
        }
        for _, attacked in rows.iterrows():
            for column, name in (("fgsm", "FGSM"), ("pgd_margin", "margin-loss PGD")):
                said = f"{name}, {ball_name(attacked['test'])} (%)"
                row[said] = f"{100 * attacked[f'{column}_accuracy']:.1f}"
        found[run["batch_size"], f"{run['learning_rate']:g}"] = row
    if not found:
        return pd.DataFrame()
    names = ["batch size", "learning rate"]
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(names).sort_index()


# What the controls are about.
EXPLAINED = {
    "natural_accuracy": "natural accuracy (%)",
    "top_eigenvalue": "top Hessian eigenvalue",
    "pgd_margin_accuracy": "accuracy, margin-loss PGD (%)",
}


# What the counter-example is about.
COUNTERED = {
    "top_eigenvalue": "top Hessian eigenvalue",
    "fgsm_accuracy": "accuracy, FGSM (%)",
    "pgd_margin_accuracy": "accuracy, margin-loss PGD (%)",
}


def beside_printed(printed: pd.DataFrame, usual: pd.DataFrame) -> pd.DataFrame:
    """Return what Algorithm 1 as printed gives beside the usual one, batch size 64."""
    found = []
    for name, table in (("as printed", printed), ("as usual", usual)):
        rows = final(table)
        rows = rows[rows["batch_size"] == 64] if len(rows) else rows
        lost = table["diverged"].eq(True).sum() if len(table) else 0
        row = {"algorithm": name, "runs": len(rows), "diverged": int(lost)}
        for column, label in EXPLAINED.items():
            unit = 100 if column.endswith("accuracy") else 1
            row[label] = spread(rows, column, unit) if len(rows) else ""
        found.append(row)
    return pd.DataFrame(found).set_index("algorithm").rename_axis(None)


def explanations(table: pd.DataFrame, outcomes: dict[str, str]) -> pd.DataFrame:
    """Return how a small top eigenvalue ranks with robustness, alone and given others.

    Held fixed: training loss, median margin (the scale of the logits) and learning
    rate. Runs that are undertrained are left out.

    Args:
        table: A row a network.
        outcomes: Columns of robustness to their names.
    """
    rows = table.assign(small_eigenvalue=-table["top_eigenvalue"])
    rows = rows[rows["train_accuracy"] >= 0.95]
    held = ["final_train_loss", "median_margin", "learning_rate"]
    named = {"small_eigenvalue": "small top eigenvalue"}
    return rank_correlations(rows, named, outcomes, held)


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


def _spectrum(table: pd.DataFrame, of: str) -> pd.DataFrame:
    rows = table[table["measured"] == "spectrum"]
    return rows[rows["of"] == of] if len(rows) else rows


def eigenvalues(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each way of finding an eigenvalue gives, a row a network and way."""
    rows = _spectrum(table, "eigenvalue")
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
    rows = _spectrum(table, "eigenvalue")
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
    rows = _spectrum(table, "density")
    for (_, part), colour in zip(
        rows.groupby("key", sort=False), (RED, BLUE, GREEN, PURPLE), strict=False
    ):
        density = part["value"].clip(lower=1e-9)
        name = _network(part.iloc[0])
        ax.plot(part["place"], density, color=colour, label=name)
    ax.set(xlabel="eigenvalue", ylabel="density", yscale="log", ylim=(1e-6, None))
    ax.set_xscale("symlog", linthresh=1)
    if ax.lines:
        ax.legend(fontsize="small")
    return ax
