"""Names that an argument may have, and how the book writes them."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_WRITTEN = {
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cpu": "CPU",
    "cuda": "CUDA",
}


def written(name: str) -> str:
    """Return a data set's or a device's name as prose has it.

    >>> written("fashion-mnist"), written("digits")
    ('Fashion-MNIST', 'digits')
    """
    return _WRITTEN.get(name, name)


def columns(record: Any) -> dict[str, Any]:
    """Return a dataclass's fields as rows, files and keys have them.

    Numbers and texts stay, nothing is an empty text, another object is its str().

    >>> from widemin.attacks import Linf
    >>> from widemin.experiments.recipe import Recipe
    >>> columns(Recipe(tests=(Linf(0.1), "linf 8/255")))["tests"]
    ('linf 0.1', 'linf 8/255')
    """
    return {
        field.name: as_column(getattr(record, field.name)) for field in fields(record)
    }


def as_column(value: Any) -> Any:
    """Return one value as `columns` does."""
    if isinstance(value, tuple):
        return tuple(map(as_column, value))
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) else str(value)


def check_choice(argument: str, value: str, known: Any) -> None:
    """Raise ValueError unless value is one of the known names; offer the nearest.

    >>> check_choice("dataset", "minst", ["digits", "mnist"])
    Traceback (most recent call last):
    ...
    ValueError: unknown dataset 'minst' (did you mean 'mnist'?); known: digits, mnist
    """
    if value in known:
        return
    near = difflib.get_close_matches(str(value), list(known), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"unknown {argument} {value!r}{hint}; known: {', '.join(known)}")


@cache
def imported(argument: str, name: str) -> tuple[Callable[..., Any], str]:
    """Return a function that a user wrote, and the SHA-256 sum of its module's file.

    Read once a process: restart it after a change of the file.

    Args:
        argument: What the name stands for, to be named in an error.
        name: A module that Python can import, and a function: "mine.nets:build".

    Raises:
        ValueError: It cannot be imported, has no source, or cannot be called.

    >>> imported("model", "colorsys:rgb_to_hsv")[0](1, 0, 0)
    (0.0, 1.0, 1)
    """
    module, _, function = name.partition(":")
    try:
        spec = find_spec(module)
        source = Path(str(spec and spec.origin)).read_bytes()
        found = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise TypeError(f"{function} cannot be called")
    except Exception as error:  # a module may raise anything
        raise ValueError(
            f"{argument} must be a function to import, like 'mine.nets:build'; "
            f"got {name!r} ({in_a_line(error)})"
        ) from error
    return found, hashlib.sha256(source).hexdigest()


def in_a_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def check_counts(least: int = 1, **counts: int) -> None:
    """Raise ValueError for a named number below the least.

    >>> check_counts(steps=0)
    Traceback (most recent call last):
    ...
    ValueError: steps must be at least 1; got 0
    """
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name} must be at least {least}; got {count}")


def check_sizes(**sizes: float) -> None:
    """Raise ValueError for a named number below 0 or not finite.

    >>> check_sizes(rho=-0.1)
    Traceback (most recent call last):
    ...
    ValueError: rho must be at least 0 and finite; got -0.1
    """
    for name, size in sizes.items():
        if not 0 <= size < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite; got {size}")
