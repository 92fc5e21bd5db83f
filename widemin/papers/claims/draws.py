"""Means over seeds, drawn anew: the bootstrap of book/criteria.md, and its ranks."""

import itertools
import math
import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from widemin.experiments.provenance import BLOCK, block

Array = np.ndarray
DRAWS = 2_000
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
NONE = np.array([np.nan])  # there are no rows of what a statistic is about


class Missing(ValueError):
    """There are no rows of what a statistic is about."""


def drawn(n: int, generator: np.random.Generator | None = None) -> Array:
    """Return DRAWS draws of n out of n with replacement, shape (DRAWS, n)."""
    return (generator or np.random.default_rng(0)).integers(n, size=(DRAWS, n))


def distance_revisions(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return rows' revisions of the search for distances, "1" where none is said."""
    return rows["revisions"].astype(str).str.extract(r"distance (\d+)")[0].fillna("1")


def of_one_revision(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in which one revision of its instrument measured each distance.

    That of most networks, of equally many the newer; others' distances are NaN.
    """
    named = [name for name in rows if str(name).startswith("distance_q")]
    if "revisions" not in rows or rows[named].isna().all(axis=None):
        return rows
    said = distance_revisions(rows)
    networks = rows["key"].where(rows[named[0]].notna()).groupby(said).nunique()
    most = said == networks[::-1].idxmax()
    return rows.assign(**{name: rows[name].where(most) for name in named})


class Cells:
    """Means of columns over the seeds of each cell, once as they are and once a draw.

    Seeds are drawn for all cells at once where one block computed each, else for each
    cell on its own, in the cells' order; with `networks` cells, each of one network,
    are drawn instead. Rows without some column are left out. `labels` are the cells, a
    row each, in ascending order, and `keys` those of their networks.
    """

    def __init__(  # noqa: D107 - the class says it
        self,
        rows: pd.DataFrame,
        by: Sequence[str],
        columns: Sequence[str],
        networks: bool = False,
    ) -> None:
        rows = of_one_revision(rows.sort_values("seed", kind="stable"))
        values = rows.reindex(columns=list(columns)).to_numpy(float)
        there = np.isfinite(values).all(1)
        rows, values = rows[there], values[there]
        if rows.empty:
            raise Missing(f"no rows with {', '.join(columns)}")
        self.keys = set(rows.get("key", ()))
        keys = list(zip(*(rows[name] for name in by), strict=True))
        cells = sorted(set(keys))
        place = {cell: i for i, cell in enumerate(cells)}
        of = np.array([place[key] for key in keys])
        self.labels = pd.DataFrame(cells, columns=list(by))
        self.shape = (1 + DRAWS, len(cells))
        generator = np.random.default_rng(0)
        self._drawn = drawn(len(cells), generator) if networks else None
        means = np.empty((len(columns), *self.shape))
        self._means = dict(zip(columns, means, strict=True))
        paired = not networks and one_block(rows)
        seeds, seed = np.unique(rows["seed"].to_numpy(), return_inverse=True)
        joint = drawn(len(seeds), generator) if paired else None
        for i in range(len(cells)):
            mine = values[of == i]
            means[:, :, i] = mine.mean(0)[:, None]
            if joint is not None:
                each, at = np.zeros((len(seeds), len(columns))), seed[of == i]
                np.add.at(each, at, mine)  # all rows of a seed
                counts = np.bincount(at, minlength=len(seeds))[joint].sum(1)
                with np.errstate(invalid="ignore"):
                    means[:, 1:, i] = each[joint].sum(1).T / counts
            elif not networks:
                means[:, 1:, i] = mine[drawn(len(mine), generator)].mean(1).T

    def __getitem__(self, column: str) -> Array:
        """Return the means of a column, shape (1 + DRAWS, cells)."""
        return self._means[column]

    def over(self, column: str, chosen: Any) -> Array:
        """Return the mean of a column over chosen cells, per draw; NaN without any."""
        chosen = np.asarray(chosen)
        if not chosen.any():
            return np.full(self.shape[0], np.nan)
        return self._means[column][:, chosen].mean(1)

    def of(self, column: str, **equal: Any) -> Array:
        """Return the mean of a column over the cells with these labels, per draw."""
        return self.over(column, self.where(**equal))

    def apart(self, column: str, chosen: Any) -> Array:
        """Return the mean of a column over chosen cells less that over the others."""
        return self.over(column, chosen) - self.over(column, ~np.asarray(chosen))

    def at_best(self, column: str, best: str) -> Array:
        """Return a column in the cell that is best in another column, per draw."""
        place = self[best].argmax(1)[:, None]
        return np.take_along_axis(self[column], place, 1)[:, 0]

    def where(self, **equal: Any) -> Array:
        """Return True for the cells with these labels, shape (cells,)."""
        chosen = np.ones(len(self.labels), bool)
        for name, value in equal.items():
            chosen &= (self.labels[name] == value).to_numpy()
        return chosen

    def rank(self, one: Any, other: Any) -> Array:
        """Return Spearman's correlation over the cells of each draw; NaN if constant.

        >>> rows = pd.DataFrame({"seed": 0, "b": [1, 2, 3], "a": [0.1, 0.2, 0.4]})
        >>> float(Cells(rows, ["b"], ["a"]).rank("b", "a")[0])
        1.0
        """
        sides = [self._side(side) for side in (one, other)]
        if self._drawn is not None:
            place = np.vstack([np.arange(self.shape[1]), self._drawn])
            sides = [np.take_along_axis(side, place, 1) for side in sides]
        return ranks(*sides)

    def _side(self, side: Any) -> Array:
        if isinstance(side, str):
            side = self.labels[side] if side in self.labels else self[side]
        return np.broadcast_to(side, self.shape)


def ranks(one: Array, other: Array) -> Array:
    """Return Spearman's correlation of each row of two arrays, NaN left out.

    >>> ranks(np.array([[1, 2, 3]]), np.array([[1.0, np.nan, 0.0]])).tolist()
    [-1.0]
    """
    lost = np.isnan(one) | np.isnan(other)
    a, b = (pd.DataFrame(np.where(lost, np.nan, side)) for side in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = a.rank(axis=1).corrwith(b.rank(axis=1), axis=1)
    return np.round(rho.to_numpy(), 12)


def one_block(rows: pd.DataFrame) -> bool:
    """Return True if, of each seed, one block computed every network."""
    if not {"seed", *BLOCK} <= set(rows):
        return False
    said = rows[["seed", *BLOCK]].drop_duplicates().to_dict("records")
    blocks = {(row["seed"], block(row)) for row in said}
    seeds = {seed for seed, _ in blocks}
    return len(blocks) == len(seeds) and all(named for _, named in blocks)


@cache
def chance_of_rank(n: int, compare: str, threshold: float) -> float:
    """Return the share of all orders of n that pass a rank criterion.

    >>> round(chance_of_rank(4, ">=", 0.8), 3)
    0.167
    """
    if n < 3:
        return math.nan
    if n <= 7:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        generator = np.random.default_rng(0)
        orders = generator.permuted(np.tile(np.arange(n), (20_000, 1)), axis=1)
    squares = ((orders - np.arange(n)) ** 2).sum(1)
    rho = np.round(1 - 6 * squares / (n * (n * n - 1)), 12)
    return float(COMPARE[compare](rho, threshold).mean())
