"""Values of parameters: checked against an example of their type."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import yaml

Values = dict[str, Any]  # a chapter's parameters, by name


def typed(name: str, value: Any, example: Any) -> Any:
    """Return value if it has the type of the example; read a text as YAML first."""
    given = value
    if isinstance(value, str) and not isinstance(example, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            value = given
    fits, wanted = _fit(value, example)
    if not fits:
        raise ValueError(f"{name} must be {wanted}; got {given!r}")
    return _as(value, example)


def _fit(value: Any, example: Any) -> tuple[bool, str]:
    """Return whether value has the example's type, and how to call that type."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(example, int):
        return number, "a whole number, e.g. 3"
    if isinstance(example, float):
        fits = number or isinstance(value, float) or _is_fraction(value)
        return fits, "a number, e.g. 0.1 or 8/255"
    if isinstance(example, str):
        return isinstance(value, str), "a text"
    wanted = f"a list like {json.dumps(example)}"
    if isinstance(example, tuple):  # of just so many
        wanted = f"{len(example)} values like {json.dumps(example)}"
        if not isinstance(value, list | tuple) or len(value) != len(example):
            return False, wanted
        return all(_fit(a, b)[0] for a, b in zip(value, example, strict=True)), wanted
    if not isinstance(value, list) or not value:
        return False, wanted
    if example and isinstance(example[0], list):  # of lists, each like the first
        fits = all(
            isinstance(item, list)
            and len(item) == len(example[0])
            and all(_fit(a, b)[0] for a, b in zip(item, example[0], strict=True))
            for item in value
        )
        return fits, wanted
    return all(_fit(item, example[0])[0] for item in value), wanted


def _is_fraction(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(Fraction(value) or True)
    except (ValueError, ZeroDivisionError):
        return False


def _as(value: Any, example: Any) -> Any:
    if isinstance(example, float):
        return float(Fraction(value)) if isinstance(value, str) else float(value)
    if isinstance(example, tuple):
        return tuple(_as(a, b) for a, b in zip(value, example, strict=True))
    if isinstance(example, list):
        inner = example[0]
        return [
            [_as(a, b) for a, b in zip(item, inner, strict=True)]
            if isinstance(inner, list)
            else _as(item, inner)
            for item in value
        ]
    return value
