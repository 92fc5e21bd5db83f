"""Figures and tables of the defences of chapter 3."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from widemin.papers.claims import final, paper_table
from widemin.papers.figures import (
    BLACK,
    BLUE,
    GREEN,
    PURPLE,
    RED,
    as_percent,
    by_group,
    spread,
    there,
)
from widemin.papers.wang.claims import ATTACKS, named

DEFENCES = {
    "unsecured": (BLACK, "o"),
    "standard": (RED, "s"),
    "curriculum": (PURPLE, "^"),
    "dynamic": (GREEN, "D"),
}

# Columns of the white-box table, as a reader should see them.
WHITE_BOX = {
    "natural_accuracy": "none",
    "wang_fgsm_accuracy": "FGSM",
    "wang_pgd10_accuracy": "PGD-10",
    "wang_pgd20_accuracy": "PGD-20",
    "wang_cw_accuracy": "C&W",
    "pgd_margin_accuracy": "PGD-20, margin",
    "restarts_accuracy": "PGD-50, 5 restarts",
    "autoattack_accuracy": "AutoAttack",
}


def _defences(table: pd.DataFrame) -> pd.DataFrame:
    """Return final rows with defence and label, e.g. "dynamic, 8 epochs"."""
    rows = final(table)
    if rows.empty:
        return rows.assign(defence="", label="")
    rows = named(rows)
    label = rows["defence"] + ", " + rows["epochs"].astype(int).astype(str) + " epochs"
    return rows.reindex(columns=rows.columns.union(WHITE_BOX)).assign(label=label)


def white_box(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw accuracy under each attack, a colour and a mark per defence."""
    rows = _defences(table)
    labels = list(rows["label"].unique())
    shifts = np.linspace(-0.3, 0.3, max(2, len(labels)))
    for label, shift in zip(labels, shifts, strict=False):
        part = rows[rows["label"] == label]
        colour, marker = DEFENCES[part["defence"].iloc[0]]
        shortest = rows.loc[rows["defence"] == part["defence"].iloc[0], "epochs"].min()
        face = colour if part["epochs"].iloc[0] == shortest else "none"
        for position, column in enumerate(WHITE_BOX):
            ax.scatter(
                np.full(len(part), position + shift),
                as_percent(part[column]),
                color=colour,
                facecolor=face,
                marker=marker,
                label=label if position == 0 else None,
            )
    ax.set_xticks(
        range(len(WHITE_BOX)), list(WHITE_BOX.values()), rotation=40, ha="right"
    )
    ax.set(ylabel="accuracy (%)", ylim=(-3, 103))
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def table_of_defences(
    table: pd.DataFrame, in_depth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return ours and the paper's white-box table for MNIST, in percent.

    Ours with the half-width of the 95 % interval over seeds. Cost is ours alone;
    an attack that neither has a number of is left out.

    Args:
        table: The runs of every seed.
        in_depth: Runs of like training with more attacks, which fill columns that the
            others lack.
    """
    rows, more = (
        # Runs of one kind alone lack the columns of the other.
        found.reindex(columns=found.columns.union(list(WHITE_BOX)))
        for found in map(_defences, (table, table if in_depth is None else in_depth))
    )
    printed = paper_table("dynamic_table1")
    theirs = printed[printed["dataset"] == "mnist"].set_index("defense")
    places = {"natural_accuracy": "clean", "wang_cw_accuracy": "cw_inf"}
    places |= {f"wang_{name}_accuracy": name for name in ("fgsm", "pgd10", "pgd20")}
    cost = ["gradients an image", "core seconds", "seeds"]
    found = {}
    for label, part in rows.groupby("label", sort=False):
        defence = part["defence"].iloc[0]
        again = more[more["label"] == label]
        filled = [part if part[column].notna().any() else again for column in WHITE_BOX]
        ours = [
            spread(rows, column) if rows[column].notna().any() else ""
            for rows, column in zip(filled, WHITE_BOX, strict=True)
        ]
        ours += [f"{part[c].mean():.0f}" for c in ("gradients", "train_seconds")]
        found[str(label), "ours"] = [*ours, str(part["seed"].nunique())]
        printed_row = [
            f"{theirs.loc[defence, places[column]]:g}" if column in places else ""
            for column in WHITE_BOX
        ]
        found[str(label), "paper"] = [*printed_row, "", "", ""]
    index = pd.MultiIndex.from_tuples(found, names=[None, None]) if found else None
    columns = [*WHITE_BOX.values(), *cost]
    frame = pd.DataFrame(list(found.values()), index, columns=columns)
    return frame.loc[:, (frame != "").any()]  # without attacks that nobody tried


def black_box(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy under transferred attacks, a row a defence and a surrogate.

    And the paper's, whose surrogate is not named.
    """
    printed = paper_table("dynamic_table2")
    theirs = printed[printed["dataset"] == "mnist"].set_index("defense")
    rows, found = _defences(table), {}
    for label, part in rows.groupby("label", sort=False):
        defence = part["defence"].iloc[0]
        if defence not in theirs.index or "natural_fgsm_accuracy" not in part:
            continue
        for kind in ("natural", "robust"):
            ours = [spread(part, f"{kind}_{way}_accuracy") for way in ATTACKS]
            found[str(label), f"from a {kind} network"] = ours
        names = ["fgsm", "pgd10", "pgd20", "cw_inf"]
        found[str(label), "paper"] = [f"{theirs.loc[defence, n]:g}" for n in names]
    index = pd.MultiIndex.from_tuples(found, names=[None, None]) if found else None
    heads = ["FGSM", "PGD-10", "PGD-20", "C&W"]
    return pd.DataFrame(list(found.values()), index, columns=heads)


def robust_by_cost(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw worst-case accuracy against the gradients that training took."""
    rows = _defences(table)
    for label, part in rows.groupby("label", sort=False):
        x, y = part["gradients"], as_percent(part["worst_accuracy"])
        colour, marker = DEFENCES[part["defence"].iloc[0]]
        shortest = rows.loc[rows["defence"] == part["defence"].iloc[0], "epochs"].min()
        face = colour if part["epochs"].iloc[0] == shortest else "none"
        ax.scatter(x, y, color=colour, facecolor=face, marker=marker, label=label)
    ax.set(xlabel="gradients taken per training image")
    ax.set(ylabel="worst-case accuracy (%)")
    return ax


def switched(
    table: pd.DataFrame, groups: dict[str, list[str]], ax: Axes, column: str
) -> Axes:
    """Draw worst-case accuracy of named groups of runs, and what training took.

    Args:
        table: Their rows.
        groups: Name to the keys of its runs; without runs a group is left out.
        ax: Where to draw.
        column: The accuracy drawn.
    """
    rows = final(table)
    by_group(rows, groups, ax, {column: BLUE})
    for place, keys in enumerate(there(rows, groups).values()):
        part = rows[rows["key"].isin(keys)]
        text = f"{part['gradients'].iloc[0]:.0f} gradients"
        at = (100 * part[column].max(), place)
        ax.annotate(
            text,
            at,
            xytext=(7, 0),  # clear of the mark
            textcoords="offset points",
            fontsize="x-small",
            va="center",
        )
    ax.set(xlabel="worst-case accuracy (%)")
    ax.margins(x=0.25)
    return ax


def best_and_last(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy under training's own attack by how the epoch is chosen, percent.

    The last; the best on held-out images; the best on the test images, which flatters.
    """
    rows = table[table["measured"] == "epoch"]
    if rows.empty or "validation_attack_accuracy" not in rows:
        return pd.DataFrame()
    rows = named(rows[rows["attack_accuracy"].notna()])
    rules = {"last": "epoch", "best on held-out images": "validation_attack_accuracy"}
    rules["best on test images"] = "attack_accuracy"
    # Before the radius is grown the attack is weaker: those epochs do not compete.
    rows = rows[rows["epoch"] >= rows["ramp"] * rows["epochs"]]
    found = {}
    for (defence, epochs), part in rows.groupby(["defence", "epochs"], sort=False):
        for rule, column in rules.items():
            chosen = part.loc[part.groupby("key")[column].idxmax()]
            found[f"{defence}, {epochs} epochs", rule] = {
                "epoch": spread(chosen, "epoch", 1),
                "accuracy (%)": spread(chosen, "attack_accuracy"),
            }
    index = pd.MultiIndex.from_tuples(found, names=[None, None])
    return pd.DataFrame(list(found.values()), index)
