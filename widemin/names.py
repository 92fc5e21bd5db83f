"""Names that an argument may have, and how the book writes them."""

from __future__ import annotations

import difflib
from dataclasses import fields
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
    >>> from widemin.experiments.recipes import Recipe
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
