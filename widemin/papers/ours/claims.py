"""Chapter 5: our own claims, N1 to N6."""

import re

import numpy as np
import pandas as pd
from scipy import stats

from widemin.papers.claims import NONE, Array, Part, Rows, claim, with_columns
from widemin.papers.claims.draws import DRAWS, drawn, of_one_revision

_CELL = ("batch_size", "learning_rate")
# What N2's criteria call measures; a sharpness is turned, so that more is flatter.
MEASURES = {
    "node-normalised width": "scale_free_width_nodes_1",
    "adaptive sharpness": "scale_free_adaptive_sharpness",
    "relative flatness": "scale_free_relative_flatness",
    "rescaled top eigenvalue": "scale_free_top_eigenvalue",
    "batch sharpness": "scale_free_batch_sharpness",
    "plain width": "width_weights_1",
}


def with_own_loss(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with `own`, accuracy under FGSM through the loss trained on."""
    rows = with_columns(rows, ["fgsm_own_accuracy"])
    return rows.assign(own=rows["fgsm_own_accuracy"].fillna(rows["fgsm_accuracy"]))


def complete(rows: pd.DataFrame, part: Part) -> bool:
    """Return True if every list that a part names has a row."""
    return rows["list"].nunique() == len(part.runs.split(" + "))


@claim("N1")
def by_own_loss(rows: Rows, part: Part) -> Array:
    """The best cell's accuracy under FGSM through its own loss, or under PGD.

    Or how much more of it FGSM leaves through that loss than through the margin.
    """
    table = with_own_loss(rows.final)
    if not complete(table, part):
        return NONE
    column = "own" if "trained on" in part.criterion else part.column
    by = ["list", *_CELL]
    cells = rows.cells(by, column, "fgsm_margin_accuracy", of=table)
    if part.statistic == "difference":
        return (cells[column] - cells["fgsm_margin_accuracy"]).max(1)
    return cells[column].max(1)


def trained_alike(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the networks that reached the training loss at which they were to end."""
    asked = ["stopped_epoch", "constant", "distance_q50", *MEASURES.values()]
    rows = with_columns(rows, asked)
    rows = rows[rows["stopped_epoch"].notna() & ~rows["constant"].eq(True)]
    turned = {c: -rows[c] for c in MEASURES.values() if "width" not in c}
    return of_one_revision(rows).assign(**turned)


def partial_ranks(x: Array, y: Array, given: Array) -> Array:
    """Return partial Spearman correlations of draws, shape (draws,).

    Sides have the shape (draws, networks), what is held fixed (others, draws,
    networks).
    """
    sides = [stats.rankdata(side, axis=-1) for side in (x, y, *given)]
    table = np.stack(sides, -1)
    table -= table.mean(1, keepdims=True)
    basis = table[..., 2:]
    left = table[..., :2] - basis @ (np.linalg.pinv(basis) @ table[..., :2])
    one, other = left[..., 0], left[..., 1]
    return (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))


@claim("N2")
def without_scale(rows: Rows, part: Part) -> Array:
    """Partial rank correlation of a flatness with the smallest fooling radius.

    Cells are drawn, with all their seeds: networks of one cell are alike.
    """
    table, column = trained_alike(rows.final), part.column
    asked = [m for said, m in MEASURES.items() if said in part.criterion]
    given = ["natural_accuracy"]
    if "learning rate" in part.criterion:
        given += [*_CELL, "weight_decay"]
    table = table.dropna(subset=[*asked, column, *given])
    rows.used.update(table["key"])
    groups = table.groupby([*_CELL, "weight_decay"]).indices.values()
    members = [np.asarray(of) for of in groups]
    if len(members) < 4:
        return NONE
    lists = [np.arange(len(table))]
    lists += [
        np.concatenate([members[i] for i in draw]) for draw in drawn(len(members))
    ]
    values = table[[*asked, column, *given]].to_numpy(float)

    def rank(place: int) -> Array:
        found = np.empty(len(lists))
        sizes = np.array([len(of) for of in lists])
        for size in np.unique(sizes):  # all draws of as many networks at once
            at = np.flatnonzero(sizes == size)
            sides = np.moveaxis(values[np.stack([lists[i] for i in at])], -1, 0)
            radius, *held = range(len(asked), len(sides))
            found[at] = partial_ranks(sides[place], sides[radius], sides[held])
        return found

    found = rank(0)
    return found - rank(1) if part.statistic == "rank_lead" else found


@claim("N3")
def with_ratio(rows: Rows, part: Part) -> Array:
    """Spearman's correlation with LR/B over networks; its size; a share of images."""
    if part.statistic == "share":
        name = part.given["column"]
        return rows.cells(["batch_size"], name)[name].mean(1)
    table = rows.final[~rows.final["constant"].eq(True)]
    column = "median_margin" if "median margin" in part.criterion else part.column
    cells = rows.cells(["key", *_CELL], column, of=table, networks=True)
    ratio = cells.labels["learning_rate"] / cells.labels["batch_size"]
    rank = cells.rank(ratio.to_numpy(), column)
    return abs(rank) if part.statistic == "rank_size" else rank


def spreads(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return mean and deviation over seeds, and over rounding, a row a method."""
    lines = {}
    for name, of in rows.groupby("list", sort=False):
        seeds, nudged = of[of["nudge"] == 0], of[of["seed"] == 0]
        lines[name] = {
            "mean": seeds[column].mean(),
            "seeds": seeds[column].std(ddof=1),
            "rounding": nudged[column].std(ddof=1),
            "n_seeds": len(seeds),
            "n_rounding": len(nudged),
        }
    return pd.DataFrame(lines).T


@claim("N4")
def floor(rows: Rows, part: Part) -> Array:
    """Deviation by rounding over that of seeds, what three seeds show, or a lead."""
    table = rows.final[~rows.final["constant"].eq(True)]
    if part.statistic == "difference":
        table = table[table["nudge"] == 0]
        arms = rows.cells(["list"], part.column, of=table)
        first, then = (f"{name}" for name in part.given["less"].split(" - "))
        return arms.of(part.column, list=first) - arms.of(part.column, list=then)
    rows.used.update(table["key"])
    [line] = spreads(table, part.column).to_dict("records") or [{}]
    if not line or min(line["n_seeds"], line["n_rounding"]) < 3:
        return NONE
    generator = np.random.default_rng(0)
    free = line["n_seeds"] - 1
    if part.statistic == "deviation":
        # Two arms of three seeds, 80 % power: 2.8 standard errors of the difference.
        value = (1.96 + 0.84) * line["seeds"] * (2 / 3) ** 0.5
        draws = np.sqrt(free / generator.chisquare(free, DRAWS))
    else:
        value = line["rounding"] / line["seeds"]
        draws = generator.f(free, line["n_rounding"] - 1, DRAWS) ** 0.5
    return value * np.array([1.0, *draws])


@claim("N5")
def certificate(rows: Rows, part: Part) -> Array:
    """Area under the curve of FOSC; or by how much that of the margin is larger."""
    names = "fosc_auroc", "normalised_fosc_box_auroc", "margin_auroc"
    table = with_columns(rows.final, names)
    cells = rows.cells(["list"], *names, of=table)
    box = "box" in part.criterion
    area = cells[names[1] if box else names[0]][:, 0]
    if part.statistic == "difference":
        return cells[names[2]][:, 0] - area
    return area


_CONTROL = re.compile(r"SGD to|weight decay|label smoothing|logit normalisation")


@claim("N6")
def beside_sam(rows: Rows, part: Part) -> Array:
    """SAM's accuracy less that of the best control; late SAM's share of its gain."""
    column, table = part.column, rows.final
    table = table[table["augment"] == part.given["augment"]]
    if not complete(table, part):
        return NONE
    cells = rows.cells(["list"], column, of=table)
    sam = cells.of(column, list=part.given["sam"])
    if part.statistic == "ratio":
        plain = cells.of(column, list="SGD")
        return (cells.of(column, list=part.given["late"]) - plain) / (sam - plain)
    others = cells.labels["list"].str.match(_CONTROL).to_numpy()
    return sam - cells[column][:, others].max(1)
