"""The papers' claims: parts in book/claims.csv, a statistic each, one rule for words.

Statements, criteria, thresholds and what it takes to decide stand in
book/claims.csv; `engine` judges by them, and each paper's `claims` module computes
the statistics of its own. Accuracies are fractions in tables, percent in sentences.
"""

from widemin.papers.claims.criterion import BALLS as BALLS
from widemin.papers.claims.criterion import Claim as Claim
from widemin.papers.claims.criterion import ball_name as ball_name
from widemin.papers.claims.criterion import criteria as criteria
from widemin.papers.claims.criterion import paper_table as paper_table
from widemin.papers.claims.criterion import plain as plain
from widemin.papers.claims.draws import Array as Array
from widemin.papers.claims.draws import Cells as Cells
from widemin.papers.claims.draws import drawn as drawn
from widemin.papers.claims.draws import ranks as ranks
from widemin.papers.claims.engine import OUTCOMES as OUTCOMES
from widemin.papers.claims.engine import Judged as Judged
from widemin.papers.claims.engine import claim as claim
from widemin.papers.claims.engine import judge_part as judge_part
from widemin.papers.claims.engine import judge_parts as judge_parts
from widemin.papers.claims.engine import word as word
from widemin.papers.claims.parts import SIMULATED as SIMULATED
from widemin.papers.claims.parts import Part as Part
from widemin.papers.claims.parts import lacking as lacking
from widemin.papers.claims.parts import parts as parts
from widemin.papers.claims.rows import Rows as Rows
from widemin.papers.claims.rows import Runs as Runs
from widemin.papers.claims.rows import final as final
from widemin.papers.claims.verdict import Verdict as Verdict
from widemin.papers.claims.verdict import anchor as anchor
from widemin.papers.claims.verdict import kind_of as kind_of
from widemin.papers.claims.verdict import revision_1 as revision_1
from widemin.papers.claims.verdict import show as show
from widemin.papers.claims.wording import odds as odds
