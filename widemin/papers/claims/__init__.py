"""The papers' claims: parts in book/claims.csv, a statistic each, one rule for words.

Statements, criteria, thresholds and what it takes to decide stand in
book/claims.csv; `engine` judges by them, and each paper's `claims` module computes
the statistics of its own. Accuracies are fractions in tables, percent in sentences.
"""

from widemin.papers.claims.criterion import Claim, criteria, paper_table, plain
from widemin.papers.claims.numbers import BALLS, ball_name, difference, final, percent
from widemin.papers.claims.parts import SIMULATED, Part, lacking, parts

from widemin.papers.claims.engine import (  # isort: skip
    OUTCOMES,
    Array,
    Cells,
    Judged,
    Rows,
    Runs,
    claim,
    judge_part,
    judge_parts,
    word,
)
from widemin.papers.claims.verdict import (  # isort: skip
    Verdict,
    anchor,
    kind_of,
    lacking_in_words,
    odds,
    revision_1,
    show,
)

__all__ = [
    "BALLS",
    "OUTCOMES",
    "SIMULATED",
    "Array",
    "Cells",
    "Claim",
    "Judged",
    "Part",
    "Rows",
    "Runs",
    "Verdict",
    "anchor",
    "ball_name",
    "claim",
    "criteria",
    "difference",
    "final",
    "judge_part",
    "judge_parts",
    "kind_of",
    "lacking",
    "lacking_in_words",
    "odds",
    "paper_table",
    "parts",
    "percent",
    "plain",
    "revision_1",
    "show",
    "word",
]
