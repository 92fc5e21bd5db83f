"""Values of parameters: checked against an example of their type."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import yaml

Values = dict[str, Any]  # a chapter's parameters, by name


def typed(name: str, value: Any, example: Any) -> Any:
    """Return value if it has the type of the example.

    A text is read as YAML first, for its lists: numbers are as Python writes them, not
    as YAML does (010 is ten, 1:30 none), and texts stay as given.

    Raises:
        ValueError: It is of another type.

    >>> typed("epsilons", "[8/255, 1]", [0.1]), typed("seeds", "010", 3)
    ([0.03137254901960784, 1.0], 10)
    """
    found = value
    try:
        if isinstance(value, str) and not isinstance(example, str):
            found = yaml.load(value, yaml.BaseLoader)  # its numbers are texts still
        return _as(found, example)
    except (ValueError, TypeError, ArithmeticError, IndexError, yaml.YAMLError):
        wanted = _wanted(example)
        raise ValueError(f"{name} must be {wanted}; got {value!r}") from None


def _wanted(example: Any) -> str:
    """Return in words what has the type of an example."""
    if isinstance(example, str):
        return "a text"
    if isinstance(example, list):
        return f"a list of at least one value, like {json.dumps(example)}"
    if isinstance(example, tuple):  # of just so many
        return f"{len(example)} values like {json.dumps(example)}"
    if isinstance(example, int):
        return "a whole number of at least 0, e.g. 3"
    return "a number, e.g. 0.1 or 8/255"


def _as(value: Any, example: Any) -> Any:
    """Return value as the example's type; raise TypeError, or another error, if not."""
    if isinstance(example, list | tuple):
        if not isinstance(value, list | tuple) or not value:
            raise TypeError
        if isinstance(example, tuple):
            return tuple(_each(value, example))
        like = example[0]
        if isinstance(like, list):
            return [_each(item, like) for item in value]
        return [_as(item, like) for item in value]
    if isinstance(example, str):
        if not isinstance(value, str):
            raise TypeError
        return value.encode().decode()  # what a file can hold
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if isinstance(example, int):
        if isinstance(value, float) or int(value) < 0:
            raise TypeError
        return int(value)
    return float(Fraction(value))  # NaN and infinity are none


def _each(value: Any, examples: Any) -> list[Any]:
    """Return values as the types of just as many examples."""
    if not isinstance(value, list | tuple):
        raise TypeError
    return [_as(a, b) for a, b in zip(value, examples, strict=True)]
