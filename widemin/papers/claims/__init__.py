"""The papers' claims: parts in book/claims.csv, a statistic each, one rule for words.

Statements, criteria, thresholds and what it takes to decide stand in
book/claims.csv; `engine` judges by them, and each paper's `claims` module computes
the statistics of its own. Accuracies are fractions in tables, percent in sentences.
"""

from widemin.papers.claims.draws import COMPARE, NONE, Array, Cells, drawn, ranks
from widemin.papers.claims.engine import OUTCOMES, Judged, claim, judge_part
from widemin.papers.claims.parts import SIMULATED, Part, criteria, paper_table, parts
from widemin.papers.claims.rows import Rows, Runs, final, with_columns
from widemin.papers.claims.verdict import Verdict, anchor, kind_of, revision_1, show
from widemin.papers.claims.words import BALLS, ball_name, mean_in_words, odds, plain
