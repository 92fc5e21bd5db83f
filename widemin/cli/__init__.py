"""The command `widemin`: run chapters, render the book, fetch data.

Everything but click is imported where it is needed: planning and computing runs
needs neither Jupyter nor a plotting library.
"""

from widemin.cli import book, run, tables  # their commands join `main`
from widemin.cli.group import main

__all__ = ["book", "main", "run", "tables"]
