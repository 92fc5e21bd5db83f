"""The papers' claims: a function each, from a tidy table to a verdict.

Statements, criteria, thresholds and what it takes to decide stand in
book/claims.csv, committed before the runs. Accuracies are fractions in tables and
percent in sentences. The functions stand in a module per paper; each is named after
its claim and judges the rows it is given; which rows those are, the chapter says.
"""

from widemin.papers.claims.criterion import Claim, criteria, paper_table, plain
from widemin.papers.claims.judging import absent, basis, judge, shortfall
from widemin.papers.claims.numbers import (
    BALLS,
    Spread,
    ball_name,
    deciding,
    difference,
    final,
    of_each_seed,
    percent,
    summary,
)
from widemin.papers.claims.parts import SIMULATED, Part, lacking, parts
from widemin.papers.claims.verdict import OUTCOMES, Verdict, anchor

__all__ = [
    "BALLS",
    "OUTCOMES",
    "SIMULATED",
    "Claim",
    "Part",
    "Spread",
    "Verdict",
    "absent",
    "anchor",
    "ball_name",
    "basis",
    "criteria",
    "deciding",
    "difference",
    "final",
    "judge",
    "lacking",
    "of_each_seed",
    "paper_table",
    "parts",
    "percent",
    "plain",
    "shortfall",
    "summary",
]
