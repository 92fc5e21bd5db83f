"""Names that an argument may have: the data sets and what is fixed about each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class DataSet:
    """A data set's splits, shape and files; `widemin.data.load` gives its images.

    Attributes:
        written: Its name in prose.
        train: Images of the official training file.
        held_out: How many of them, the last, are the validation part.
        test: Test images.
        shape: Channels, height and width of an image.
        classes: Number of classes.
        torchvision: torchvision's class; "" is scikit-learn's digits.
        folder: Where its files lie below the data folder.
        md5: Sums of its files, where torchvision has those of archives alone.
        statistics: Means and standard deviations of the channels, for networks that
            normalise; None for those that do not.
        read: What gives images, labels and classes of a set that a user loads.
    """

    written: str
    train: int
    held_out: int
    test: int
    shape: tuple[int, int, int]
    classes: int = 10
    torchvision: str = ""
    folder: str = ""
    md5: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    read: Callable[[str, bool, Any], tuple[Any, Any, Any]] | None = None


# Held out are 5,000 and 10,000 in Kamath et al.; statistics are those of Wei et al.
DATASETS = {
    "digits": DataSet("digits", 1_397, 200, 400, (1, 8, 8)),
    "mnist": DataSet(
        "MNIST",
        60_000,
        5_000,
        10_000,
        (1, 28, 28),
        torchvision="MNIST",
        folder="MNIST/raw",
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion-mnist": DataSet(
        "Fashion-MNIST",
        60_000,
        5_000,
        10_000,
        (1, 28, 28),
        torchvision="FashionMNIST",
        folder="FashionMNIST/raw",
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "cifar10": DataSet(
        "CIFAR-10",
        50_000,
        10_000,
        10_000,
        (3, 32, 32),
        torchvision="CIFAR10",
        folder="cifar-10-batches-py",
        statistics=((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    ),
    "cifar100": DataSet(
        "CIFAR-100",
        50_000,
        10_000,
        10_000,
        (3, 32, 32),
        classes=100,
        torchvision="CIFAR100",
        folder="cifar-100-python",
        statistics=((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ),
}


def written(name: str) -> str:
    """Return a data set's or a device's name as prose has it.

    >>> written("fashion-mnist"), written("cpu"), written("digits")
    ('Fashion-MNIST', 'CPU', 'digits')
    """
    known = DATASETS.get(name)
    return known.written if known else {"cpu": "CPU", "cuda": "CUDA"}.get(name, name)


def norm_and_radius(ball: str) -> tuple[str, Fraction]:
    """Return what the text of a perturbation set says; `attacks.parse_ball` makes it.

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
