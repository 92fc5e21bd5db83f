"""Finished rows kept, only the missing ones computed.

A finished run is one JSON file, written atomically and named after its recipe's key;
a table is what the files say. The tables in book/results, committed to git, are one
more source. Nothing is ever computed twice: the same call again only reads.
"""

from widemin.experiments.results.computing import (
    Incomplete,
    collect,
    compute_once,
    progress_bar,
)
from widemin.experiments.results.kept import (
    Keyed,
    Rows,
    computed,
    failed,
    finished,
    missing,
    published,
    write,
    write_failure,
)
from widemin.experiments.results.publishing import publish
from widemin.experiments.results.tables import (
    part,
    stamp,
    table_of,
    to_csv,
    without_defaults,
)

__all__ = [
    "Incomplete",
    "Keyed",
    "Rows",
    "collect",
    "compute_once",
    "computed",
    "failed",
    "finished",
    "missing",
    "part",
    "progress_bar",
    "publish",
    "published",
    "stamp",
    "table_of",
    "to_csv",
    "without_defaults",
    "write",
    "write_failure",
]
