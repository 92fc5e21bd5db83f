"""Names that an argument may have, and how the book writes them."""

from __future__ import annotations

import difflib
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
