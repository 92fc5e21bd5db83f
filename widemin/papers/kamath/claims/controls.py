"""Controls: H15, H16."""

from __future__ import annotations

import numpy as np
import pandas as pd

from widemin.papers import claims
from widemin.papers.claims import Verdict, final, percent
from widemin.papers.kamath.claims.runs import by_batch, rank_by_batch


def H16(constant: pd.DataFrame, scaled: pd.DataFrame) -> Verdict:
    """The trends of robustness survive without masking."""
    rows = final(constant)
    if rows.empty or final(scaled).empty:
        return claims.absent("H16")
    columns = ("fgsm_margin_accuracy", "pgd_margin_accuracy")
    falls = [rank_by_batch(constant, column) for column in columns]
    ranges = [float(np.ptp(by_batch(scaled, column))) for column in columns]
    flat = max(ranges) <= claims.criteria()["H16"].thresholds["range"]
    held = [all(rank < 0 for rank in falls), flat]
    masked = max(rows["masked_share"].max(), final(scaled)["masked_share"].max())
    return claims.judge(
        "H16",
        rows,
        all(held) or (any(held) and "partly"),
        paper="not tested",
        ours=f"at constant rate Spearman {falls[0]:.2f} (margin-loss FGSM) and "
        f"{falls[1]:.2f} (PGD); at constant ratio ranges of {100 * ranges[0]:.1f} and "
        f"{100 * ranges[1]:.1f} points",
        evidence=f"At most {percent(masked)} of a network's images have a margin above "
        "16.64. The counter-example has a verdict of its own.",
        holds_up="yes" if all(held) else "no",
    )


def H15(equal: pd.DataFrame, constant: pd.DataFrame) -> Verdict:
    """(control) A large batch is under-trained, not sharper.

    Args:
        equal: Runs whose sum of learning rates is that of batch size 64.
        constant: Runs of equal epochs.
    """
    if final(equal).empty or final(constant).empty:
        return claims.absent("H15")
    sizes = final(equal)["batch_size"].unique()
    constant = constant[constant["batch_size"].isin(sizes)]
    if len(sizes) < 2:
        return claims.absent("H15")
    wanted = claims.criteria()["H15"].thresholds["share"]

    def left(one: pd.DataFrame, two: pd.DataFrame) -> list[float]:
        """Return what is left of either trend."""
        natural = [float(np.ptp(by_batch(t, "natural_accuracy"))) for t in (one, two)]
        curved = [
            float(np.ptp(np.log(by_batch(t, "top_eigenvalue")))) for t in (one, two)
        ]
        return [natural[0] / natural[1], curved[0] / curved[1]]

    shares = left(equal, constant)
    return claims.judge(
        "H15",
        final(equal),
        all(share <= wanted for share in shares)
        or (any(share <= wanted for share in shares) and "partly"),
        paper="not tested",
        ours=f"{percent(shares[0])} of the range of natural accuracy and "
        f"{percent(shares[1])} of that of the eigenvalue's logarithm are left",
        evidence="With as many epochs as give every batch size the sum of learning "
        "rates of batch size 64; against equal epochs.",
        holds_up="not applicable",
        seeds=claims.deciding(
            [
                max(left(part, other))
                for (_, part), (_, other) in zip(
                    final(equal).groupby("seed"),
                    final(constant).groupby("seed"),
                    strict=False,
                )
            ],
            wanted,
        ),
    )
