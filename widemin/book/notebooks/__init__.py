"""Chapters run with checked parameters.

A chapter is a notebook with two tagged cells: `parameters`, literals only, and
`recipes`, which turns them into the list of runs. Reading these two needs neither
Jupyter nor papermill, so that runs can be planned and computed anywhere.
"""

from widemin.book.notebooks.execution import (
    ChapterFailed,
    digest,
    execute,
    is_current,
    with_values,
)
from widemin.book.notebooks.planning import (
    by_worth,
    lists_of,
    named,
    plan,
    printed,
    recipes,
    resolve,
    settings,
)
from widemin.book.notebooks.presets import presets, stages
from widemin.book.notebooks.reading import chapters, defaults, drawn, find, parameters

__all__ = [
    "ChapterFailed",
    "by_worth",
    "chapters",
    "defaults",
    "digest",
    "drawn",
    "execute",
    "find",
    "is_current",
    "lists_of",
    "named",
    "parameters",
    "plan",
    "presets",
    "printed",
    "recipes",
    "resolve",
    "settings",
    "stages",
    "with_values",
]
