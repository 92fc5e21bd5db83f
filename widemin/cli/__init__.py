"""The command `widemin`: run chapters, render the book, fetch data.

Everything but click is imported where it is needed: planning and computing runs
needs neither Jupyter nor a plotting library.
"""

from widemin.cli.book import book, labs
from widemin.cli.group import BadInput, main
from widemin.cli.run import run
from widemin.cli.tables import data, publish, status, where

__all__ = [
    "BadInput",
    "book",
    "data",
    "labs",
    "main",
    "publish",
    "run",
    "status",
    "where",
]
