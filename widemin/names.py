"""Arguments checked: the names that they may have, the data sets among them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DataSet:
    """A data set's splits, shape and files; `widemin.data.load` gives its images."""

    written: str  # its name in prose
    train: int  # images of the official training file
    held_out: int  # of them, the last ones: the validation part
    test: int
    shape: tuple[int, int, int]  # channels, height, width
    classes: int = 10
    torchvision: str = ""  # its class there; "" is scikit-learn's digits
    folder: str = ""  # of its files, below the data folder
    # Sums of its files, where torchvision has those of archives alone.
    md5: Mapping[str, str] = field(default_factory=dict)
    # Channels' means and standard deviations, for networks that normalise.
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    read: Callable[[str, bool, Any], tuple[Any, Any, Any]] | None = None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_RECORDS = tomllib.loads(Path(__file__).with_name("datasets.toml").read_text("utf-8"))
DATASETS = {
    name: DataSet(**{field: _tuples(value) for field, value in record.items()})
    for name, record in _RECORDS.items()
}


def written(name: str) -> str:
    """Return a data set's or a device's name as prose has it.

    >>> written("fashion-mnist"), written("cpu"), written("digits")
    ('Fashion-MNIST', 'CPU', 'digits')
    """
    known = DATASETS.get(name)
    return known.written if known else {"cpu": "CPU", "cuda": "CUDA"}.get(name, name)


def check(
    holds: object, expected: str, got: object, error: type[Exception] = ValueError
) -> None:
    """Raise an error that says what was expected and what was got, unless it holds.

    >>> check(0 > 1, "steps must be above 1", 0)
    Traceback (most recent call last):
    ...
    ValueError: steps must be above 1; got 0
    """
    if not holds:
        raise error(f"{expected}; got {got}")


class NonFiniteError(ValueError):
    """A network whose logits or gradients are NaN or infinite: broken, not robust."""


def check_finite(expected: str, *tensors: Any) -> None:
    """Raise NonFiniteError for a tensor with a NaN or an infinity."""
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
    check(finite, expected, "NaN or infinity", NonFiniteError)


def norm_and_radius(ball: str) -> tuple[str, Fraction]:
    """Return norm and radius of a set written as text; `attacks.parse_ball` makes it.

    >>> norm_and_radius("linf 8/255")
    ('linf', Fraction(8, 255))
    """
    norm, _, radius = ball.partition(" ")
    try:
        return ("linf", "l2")[("linf", "l2").index(norm)], Fraction(radius)
    except (ValueError, ZeroDivisionError):
        wanted = "a perturbation set is written 'linf 8/255' or 'l2 0.5'"
        raise ValueError(f"{wanted}; got {ball!r}") from None


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
    """Raise ValueError for a named number below the least."""
    for name, count in counts.items():
        check(count >= least, f"{name} must be at least {least}", count)


def check_sizes(**sizes: float) -> None:
    """Raise ValueError for a named number below 0 or not finite."""
    for name, size in sizes.items():
        check(0 <= size < inf, f"{name} must be at least 0 and finite", size)
