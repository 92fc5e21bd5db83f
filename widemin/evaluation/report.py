"""The robustness of one network in one call, as a table."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from widemin import attacks
from widemin.attacks import Ball, Linf
from widemin.evaluation.accuracy import (
    Attack,
    autoattack,
    correct,
    robust_mask,
    share,
    within,
)
from widemin.evaluation.distance import minimal_distance
from widemin.evaluation.gradient_masking import Sign, signs

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["value", "low", "high", "against", "masked"]
Estimate = tuple[float, float, float]  # a number and the ends of its 95 % interval


@dataclass(frozen=True)
class Report:
    """Accuracies of a network under attacks, distances, and signs of masked gradients.

    It prints as a table; `table` is one of pandas, which notebooks lay out.
    """

    ball: Ball  #: in which images were moved
    images: int  #: how many were measured
    #: Fraction right, with Wilson intervals, by "natural", by each attack's name and by
    #: "worst case", under all of them.
    accuracy: dict[str, Estimate]
    distance: Estimate  #: median smallest radius that fools, in the ball's norm
    signs: list[Sign]  #: of masked gradients
    warnings: list[str]  #: AutoAttack's

    def rows(self) -> dict[str, tuple[float | str, ...]]:
        """Return value, low, high, against and masked of each number, by its name.

        Fractions, and pixels for the distance; a sign is compared with `against`.
        """
        from widemin.statistics import wilson

        numbers = {f"{name} accuracy": p for name, p in self.accuracy.items()}
        numbers["median distance"] = self.distance
        rows: dict[str, tuple[float | str, ...]] = {
            name: (*number, float("nan"), "") for name, number in numbers.items()
        }
        for sign in self.signs:
            interval = wilson(sign.value, self.images)
            answer = "yes" if sign.masked else "no"
            rows[sign.name] = (sign.value, *interval, sign.against, answer)
        return rows

    def table(self) -> pd.DataFrame:
        """Return `rows` as a table; it takes pandas."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.rows(), orient="index", columns=COLUMNS)

    def __repr__(self) -> str:
        """Return the table as text, below the set and AutoAttack's warnings."""
        rows = [["", *COLUMNS]]
        for name, (*numbers, answer) in self.rows().items():
            texts = [f"{n:.3f}" if n == n else "" for n in numbers]
            rows.append([name, *texts, str(answer)])
        first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.images} images, {self.ball}"]
        lines += [f"AutoAttack: {line}" for line in self.warnings]
        for name, *values in rows:
            cells = [name.ljust(first), *map(str.rjust, values, widths)]
            lines.append(" ".join(cells).rstrip())
        return "\n".join(lines)


def report(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Report:
    """Measure how robust a network is, by attacks from weak to strong.

    Accuracy without an attack, under FGSM, PGD-10, margin-loss PGD-40 with 5 restarts
    and AutoAttack, where it is installed; the worst case of all; the median of the
    minimal distance; the signs that gradients are masked.

    Arguments and errors as of `robust_mask`; without a generator, seed 0 draws the
    random starts.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(20, 1, 2, 2), torch.zeros(20, dtype=torch.int64)
    >>> report(model, x, y, Linf(1.0)).accuracy["worst case"][0]
    0.0
    """
    from widemin.statistics import median, wilson

    generator = generator or torch.Generator().manual_seed(0)
    pgd = partial(attacks.pgd, ball=ball, generator=generator, until_fooled=True)
    small = ball.epsilon / 16 or None
    strong = partial(pgd, steps=40, step_size=small, loss=attacks.margin, restarts=5)
    ways: dict[str, Attack] = {"FGSM": partial(attacks.fgsm, ball=ball)}
    ways |= {"PGD-10": pgd, "margin PGD-40, 5 restarts": strong}
    inside = {name: within(attack, ball, name) for name, attack in ways.items()}
    right = {"natural": correct(model, x, y, chunk)}
    right |= robust_mask(model, x, y, inside, chunk)
    heard: list[str] = []
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right["AutoAttack"], heard = autoattack(model, x, y, ball, chunk=chunk)
    right["worst case"] = torch.stack(list(right.values())).all(0)
    norm, most = "linf", 1.0
    if not isinstance(ball, Linf):
        norm, most = "l2", float(x[0].numel()) ** 0.5  # from any image to any
    distance = minimal_distance(model, x, y, norm=norm, most=most, chunk=chunk)
    rates = {name: share(mask) for name, mask in right.items()}
    return Report(
        ball=ball,
        images=len(x),
        accuracy={name: (p, *wilson(p, len(x))) for name, p in rates.items()},
        distance=median(distance.tolist()),
        signs=signs(model, x, y, ball, generator=generator),
        warnings=heard,
    )
