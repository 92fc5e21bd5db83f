"""Chapters run with checked parameters.

A chapter is a notebook with two tagged cells: `parameters`, literals only, and
`recipes`, which turns them into the list of runs. Reading these two needs neither
Jupyter nor papermill, so that runs can be planned and computed anywhere.
"""

from widemin.notebooks.execution import (
    ChapterFailed,
    digest,
    execute,
    is_current,
    with_values,
)
from widemin.notebooks.planning import (
    chapters,
    defaults,
    find,
    parameters,
    plan,
    preset,
    presets,
    recipes,
    resolve,
)

__all__ = [
    "ChapterFailed",
    "chapters",
    "defaults",
    "digest",
    "execute",
    "find",
    "is_current",
    "parameters",
    "plan",
    "preset",
    "presets",
    "recipes",
    "resolve",
    "with_values",
]
