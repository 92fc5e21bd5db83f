"""Image data sets as tensors: pixels in [0, 1], the papers' splits, augmentation."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from widemin import paths
from widemin.names import check_choice

PARTS = ("train", "validation", "test")

# The last training images are the validation part: 5,000 and 10,000 in Kamath et al.
HELD_OUT = {
    "digits": 200,
    "mnist": 5_000,
    "fashion-mnist": 5_000,
    "cifar10": 10_000,
    "cifar100": 10_000,
}
# (training images of the official file, test images)
SIZES = {
    "digits": (1_397, 400),
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
}
# (channels, height, width), classes
SHAPES = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
}
# Mean and standard deviation of each channel; Wei et al. use these for CIFAR.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
# torchvision's class, and where a file of it lies below the data folder
_TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}
# md5 of the uncompressed idx files; torchvision only knows those of the archives.
_IDX_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


class DataError(ValueError):
    """A data set that is missing, truncated or altered."""


@dataclass(frozen=True)
class Images:
    """Labelled images of one part of a data set.

    Attributes:
        x: Pixels in [0, 1], float32, shape (images, channels, height, width).
        y: Labels, int64, shape (images,).
        classes: The names of the classes, in the order of the labels.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.x)


def load(
    name: str,
    part: str = "train",
    *,
    size: int | None = None,
    device: torch.device | str = "cpu",
    root: Path | None = None,
) -> Images:
    """Return the first images of one part of a data set, whole on the device.

    Args:
        name: digits, mnist, fashion-mnist, cifar10 or cifar100. digits comes with
            scikit-learn and needs no download.
        part: train, validation or test. The validation part is the end of the
            official training images (HELD_OUT of them), the train part what stands
            before it.
        size: How many images, from the first; all of the part by default. A train
            size beyond the part runs on into the validation images: the papers of
            chapters 1 to 3 train on all of them.
        device: Where the tensors go.
        root: Folder with torchvision's layout; WIDEMIN_DATA or the user's cache by
            default. What is not there is downloaded into it, by one process at a time.

    Returns:
        Images in [0, 1], in the official order.

    Raises:
        DataError: Files missing while offline, truncated or altered.
        ValueError: Unknown name or part, or more images than there are.

    >>> digits = load("digits", "train", size=3)
    >>> digits.x.shape, digits.y.tolist()
    (torch.Size([3, 1, 8, 8]), [0, 1, 2])
    """
    check_choice("dataset", name, LOADERS)
    check_choice("part", part, PARTS)
    official, held_out = SIZES[name][0], HELD_OUT[name]
    first = official - held_out if part == "validation" else 0
    most = {"train": official, "validation": held_out, "test": SIZES[name][1]}[part]
    count = size or (official - held_out if part == "train" else most)
    if not 0 < count <= most:
        raise ValueError(
            f"size must be between 1 and {most} for the {part} part of {name}; "
            f"got {size}"
        )
    root = (root or paths.data()).expanduser()
    x, y, classes = LOADERS[name](name, part != "test", root)
    x, y = x[first : first + count], y[first : first + count]
    return Images(x.to(device).float() / _scale(x), y.to(device).long(), classes)


def _scale(x: Tensor) -> float:
    # uint8 images span 0 to 255; scikit-learn's digits span 0 to 16.
    return 255.0 if x.dtype == torch.uint8 else 16.0


@lru_cache(maxsize=2)
def _digits(name: str, train: bool, root: Path) -> tuple[Tensor, Tensor, Any]:
    # Read without scikit-learn, which takes longer to import than these to train on.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits come with scikit-learn, which is not installed")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")  # 64 pixels and the digit
    cut = slice(None, SIZES[name][0]) if train else slice(SIZES[name][0], None)
    x = torch.from_numpy(table[cut, :64]).reshape(-1, 1, 8, 8)
    return x, torch.from_numpy(table[cut, 64]), tuple("0123456789")


@lru_cache(maxsize=2)
def _torchvision(name: str, train: bool, root: Path) -> tuple[Tensor, Tensor, Any]:
    # Imported here: torchvision takes longer to import than digits need to train.
    from torchvision import datasets

    class_name, folder = _TORCHVISION[name]
    dataset_class = getattr(datasets, class_name)
    here = root / folder
    if any(_wrong(dataset_class, name, here)):
        _complete(dataset_class, name, root, here)
    dataset = dataset_class(str(root), train=train)
    x = torch.as_tensor(dataset.data)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x, torch.as_tensor(dataset.targets), tuple(dataset.classes)


def _complete(dataset_class: Any, name: str, root: Path, here: Path) -> None:
    """Download what is missing of a data set, or wait for a process that does.

    Nothing is removed: half a download is completed, and altered files, which a
    download would write over, are left to their owner.

    Raises:
        DataError: Files are altered, or missing and cannot be had.
    """
    reason, lock = "", root / f".{name}.lock"
    try:
        with paths.lock(lock):
            missing, altered = _wrong(dataset_class, name, here)
            try:
                if missing and not altered:
                    dataset_class(str(root), download=True)
            finally:  # who waits looks again at what is missing
                lock.unlink(missing_ok=True)
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
    missing, altered = _wrong(dataset_class, name, here)
    problems = [f"{path} is missing" for path in missing]
    problems += [f"{path} is truncated or altered" for path in altered]
    if altered:
        raise DataError(
            f"dataset {name!r}: {', '.join(problems)} (wrong md5 sums); unless "
            "something writes them now, move altered files away to have them "
            "downloaded again, or point WIDEMIN_DATA elsewhere"
        )
    if missing:
        raise DataError(
            f"dataset {name!r}: {problems[0]} and could not be downloaded ({reason}); "
            "point WIDEMIN_DATA at a folder that has it in torchvision's layout, or "
            "use --preset smoke, which needs no download"
        )


def _wrong(
    dataset_class: Any, name: str, folder: Path
) -> tuple[list[Path], list[Path]]:
    """Return the files of a data set that are missing, and those not as published."""
    sums = _IDX_MD5.get(name) or dict(
        [*dataset_class.train_list, *dataset_class.test_list]
    )
    there = [folder / file for file in sums if (folder / file).exists()]
    return [folder / file for file in sums if folder / file not in there], [
        path
        for path in there
        if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        != sums[path.name]
    ]


LOADERS = {
    "digits": _digits,
    "mnist": _torchvision,
    "fashion-mnist": _torchvision,
    "cifar10": _torchvision,
    "cifar100": _torchvision,
}


def augment(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Return randomly shifted and mirrored images: reflect padding, crop, flip.

    Args:
        x: Images, shape (batch, channels, height, width).
        generator: Draws shifts and flips, on the CPU.
        padding: The largest shift, in pixels; 4 for CIFAR (Wei et al., Kamath et al.).

    Returns:
        Images, shape of x. Each image has its own shift, in [-padding, padding] along
        both axes, and is mirrored with probability 1/2. Padding 0 only mirrors.
    """
    n, channels, height, width = x.shape
    flipped = (torch.rand(n, generator=generator) < 0.5).to(x.device)
    x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    if padding == 0:
        return x
    top, left = torch.randint(2 * padding + 1, (2, n), generator=generator).to(x.device)
    rows = (top[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=x.device))[:, None, None]
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[:, None, None]
    padded = F.pad(x, (padding,) * 4, mode="reflect")
    return padded[image, channel, rows, columns]


def turn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return images turned, shifted and mirrored, as Wang et al.'s code asks Keras to.

    Args:
        x: Images, shape (batch, channels, height, width).
        generator: Draws angles, shifts and flips, on the CPU.

    Returns:
        Images, shape of x: each turned about its centre by up to 10 degrees and moved
        by up to a fifth of its size along both axes, between pixels bilinearly,
        beyond the edge by the nearest pixel, and mirrored with probability 1/2.

    >>> x = torch.rand(5, 3, 8, 8)
    >>> turn(x, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 3, 8, 8])
    """
    draws = torch.rand(4, len(x), generator=generator, dtype=x.dtype) * 2 - 1
    angle, right, down, mirror = draws.to(x.device)
    angle = angle * math.pi / 18
    mirror = mirror.sign()
    # In units of half an image: 0.4 is a fifth of it.
    first = torch.stack([mirror * angle.cos(), -angle.sin(), 0.4 * right], 1)
    second = torch.stack([mirror * angle.sin(), angle.cos(), 0.4 * down], 1)
    places = F.affine_grid(
        torch.stack([first, second], 1), list(x.shape), align_corners=False
    )
    return F.grid_sample(x, places, padding_mode="border", align_corners=False)
