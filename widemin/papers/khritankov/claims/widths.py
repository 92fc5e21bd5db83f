"""Claims about the width of minima: W6, W11, W12."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final
from widemin.papers.khritankov import theory
from widemin.papers.khritankov.claims.grid import TRAINED, with_interval
from widemin.statistics import partial_spearman, spearman, spearman_interval


def measured_widths(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the networks whose width was measured and that do not answer one class."""
    rows = final(grid)
    if rows.empty or "width_images" not in rows:
        return rows.iloc[:0]
    rows = rows[rows["width_images"].notna() & ~rows["constant"].astype(bool)]
    if "distance_q50" not in rows:  # strong_size is 0
        rows = rows.assign(distance_q50=math.nan)
    return rows.assign(ratio=rows["learning_rate"] / rows["batch_size"])


def _planned_widths(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the final rows of all networks set to have their width measured."""
    rows = grid[grid["measured"] == "final"]
    return rows[rows["width_size"] > 0]


def _levels(rows: pd.DataFrame, of: str) -> list[str]:
    """Return the columns of a width, one for each height of the level."""
    return [name for name in rows if name.startswith(f"width_{of}_")]


def _networks_needed(rho: float, threshold: float) -> str:
    """Return how many networks put a rank correlation's interval on one side."""
    for n in range(5, 10_000):
        low, high = spearman_interval(rho, n)
        if low > threshold or high < threshold:
            return f"{n} networks, if the correlation stays {rho:.2f}"
    return "more than 10,000 networks"


def W6(grid: pd.DataFrame) -> Verdict:
    """Wider minima are more robust: the width in weights ranks with accuracy."""
    rows = measured_widths(grid)
    if len(rows) < 3 or rows["distance_q50"].isna().all():
        return claims.absent("W6")
    limit, levels = (
        claims.criteria()["W6"].thresholds["spearman"],
        _levels(rows, "weights"),
    )
    plain = [spearman(rows[level], rows["fgsm_accuracy"]) for level in levels]
    unmasked = [spearman(rows[level], rows["distance_q50"]) for level in levels]
    inputs = [spearman(rows[c], rows["fgsm_accuracy"]) for c in _levels(rows, "inputs")]
    nodes = [
        [spearman(rows[level], rows[column]) for level in _levels(rows, "nodes")]
        for column in ("fgsm_accuracy", "distance_q50")
    ]
    trained = rows[rows["train_accuracy"] >= TRAINED]
    again = [spearman(trained[level], trained["distance_q50"]) for level in levels]
    n = len(rows)
    return claims.judge(
        "W6",
        _planned_widths(grid),
        bool(min(plain + unmasked) >= limit),
        paper="argued, not measured",
        ours=f"with FGSM accuracy Spearman {with_interval(min(plain), n)}, with the "
        f"distance that fools {with_interval(min(unmasked), n)}, over {n} networks; "
        "the "
        f"lower of {len(levels)} levels each",
        evidence=f"Width in inputs against FGSM accuracy: {min(inputs):.2f}. Without "
        f"undertrained networks width in weights against the distance: "
        f"{min(again):.2f} over {len(trained)}. In units of the nodes, which the paper "
        f"does not use, width ranks with FGSM accuracy at {min(nodes[0]):.2f} and with "
        f"the distance at {min(nodes[1]):.2f}.",
        holds_up=f"{'yes' if min(unmasked) >= limit else 'no'}; the distance is found "
        "by "
        "margin-loss PGD",
        seeds=_networks_needed(min(unmasked), limit),
    )


def W11(grid: pd.DataFrame) -> Verdict:
    """More gradient noise gives wider minima, in units of the nodes."""
    rows = measured_widths(grid)
    if len(rows) < 3:
        return claims.absent("W11")
    limit, levels = (
        claims.criteria()["W11"].thresholds["spearman"],
        _levels(rows, "nodes"),
    )
    found = [spearman(rows["ratio"], rows[level]) for level in levels]
    weights = [spearman(rows["ratio"], rows[c]) for c in _levels(rows, "weights")]
    held = [rows["median_margin"], rows["final_train_loss"]]
    confounds = [spearman(rows["ratio"], other) for other in held]
    given = [partial_spearman(rows["ratio"], rows[level], held) for level in levels]
    top = spearman(rows["ratio"], rows["top_eigenvalue"])
    return claims.judge(
        "W11",
        _planned_widths(grid),
        bool(min(found) >= limit),
        paper="argued, not measured",
        ours=f"node-normalised width with LR/B Spearman "
        f"{with_interval(min(found), len(rows))} over {len(rows)} networks, the lower "
        f"of {len(levels)} levels",
        evidence=f"Plain width {min(weights):.2f}, top eigenvalue {top:.2f}. Median "
        f"margin ranks with LR/B at {confounds[0]:.2f}, training loss at "
        f"{confounds[1]:.2f}; given both, the node-normalised width is left with "
        f"{min(given):.2f}.",
        holds_up="not applicable",
        seeds=_networks_needed(min(found), limit),
    )


def W12() -> Verdict:
    """Theorems 1 and 2 as printed, against their counterexamples."""
    at_minimum, level = abs(0.0**2 - 10), 1.0
    risen = float(theory.bent_ramp(0.5))
    ends = float(theory.two_sigmoids([-8, 2]))
    middle = float(theory.two_sigmoids([-3, -3]))
    x, theta = np.array([1.0, 0.0]), np.array([1.0, 2.0])
    once, scaled = (theory.logistic_widths(x, k * theta, math.log(2)) for k in (1, 16))
    return Verdict(
        "W12",
        "not reproduced",
        paper="two theorems, proved in outline",
        ours="a counterexample to 1.1, 1.2, 2.1 and 2.3 each",
        evidence=f"1.1: {at_minimum:.0f} where at most {level:.0f} is allowed. 1.2: "
        "the "
        f"loss has risen by {risen:.1f} where 0.5 is allowed. 2.1: {middle:.2f} "
        "half-way "
        f"between two points at {ends:.2f}. 2.3: weights times 16 widen the minimum "
        "from "
        f"{once[0]:.2f} to {scaled[0]:.1f} and leave every image as far from the "
        "boundary "
        "as it was. 2.2 holds for one image.",
        holds_up="not applicable",
        seeds="nothing: it is mathematics",
    )
