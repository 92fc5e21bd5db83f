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
from widemin.names import DATASETS, DataSet, check, check_choice

PARTS = ("train", "validation", "test")
ALTERED = "truncated or altered"


class DataError(ValueError):
    """A data set is missing, truncated or altered."""


@dataclass(frozen=True)
class Images:
    """Labelled images of one part of a data set.

    >>> len(Images(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 0]), ("no", "yes")))
    3
    """

    x: Tensor  #: pixels in [0, 1], float32, shape (images, channels, height, width)
    y: Tensor  #: labels, int64, shape (images,)
    classes: tuple[str, ...]  #: their names, in the order of the labels

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
    """Return the first images of one part of a data set, in the official order.

    Args:
        name: One of DATASETS; digits come with scikit-learn and need no download.
        part: train, validation or test. The validation part is the end of the
            official training images, the train part what stands before it.
        size: How many images, from the first; all of the part by default. A train size
            beyond the part runs on into the validation images, as chapters 1 to 3 do.
        device: Where the tensors go, whole.
        root: Folder with torchvision's layout; WIDEMIN_DATA or the user's cache by
            default. What is not there is downloaded into it, by one process at a time.

    Raises:
        DataError: Files missing while offline, truncated or altered.
        ValueError: Unknown name or part, or more images than there are.

    >>> digits = load("digits", "train", size=3)
    >>> digits.x.shape, digits.y.tolist()
    (torch.Size([3, 1, 8, 8]), [0, 1, 2])
    """
    check_choice("dataset", name, DATASETS)
    check_choice("part", part, PARTS)
    known = DATASETS[name]
    alone = known.train - known.held_out  # what only trains
    default = {"train": alone, "validation": known.held_out, "test": known.test}[part]
    most = known.train if part == "train" else default
    first, count = alone if part == "validation" else 0, size or default
    sizes = f"size must be between 1 and {most} for the {part} part of {name}"
    check(0 < count <= most, sizes, size)
    read = known.read or (_torchvision if known.torchvision else _digits)
    root = (root or paths.data()).expanduser()
    x, y, classes = read(name, part != "test", root)
    x, y = x[first : first + count], y[first : first + count]
    scale = 255.0 if x.dtype == torch.uint8 else 1.0
    return Images(x.to(device).float() / scale, y.to(device).long(), classes)


def images(name: str, part: str, size: int, device: str) -> tuple[Tensor, Tensor]:
    """Return the first images of a part, laid out channels last, and their labels.

    Arguments and errors as of `load`.

    >>> images("digits", "train", 3, "cpu")[1]
    tensor([0, 1, 2])
    """
    first = load(name, part, size=size, device=device)
    return first.x.contiguous(memory_format=torch.channels_last), first.y


@lru_cache(maxsize=2)
def _digits(name: str, train: bool, root: Path) -> tuple[Tensor, Tensor, Any]:
    # Read without scikit-learn, which takes longer to import than these to train on.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits come with scikit-learn, which is not installed")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")  # 64 pixels and the digit
    official = DATASETS[name].train
    cut = slice(None, official) if train else slice(official, None)
    x = torch.from_numpy(table[cut, :64] / 16).reshape(-1, 1, 8, 8)
    return x, torch.from_numpy(table[cut, 64]), tuple("0123456789")


@lru_cache(maxsize=2)
def _torchvision(name: str, train: bool, root: Path) -> tuple[Tensor, Tensor, Any]:
    try:
        # Imported here: torchvision takes longer to import than digits need to train.
        from torchvision import datasets
    except ModuleNotFoundError:
        raise DataError(
            f"dataset {name!r} is read by torchvision, which is not installed"
        ) from None

    dataset_class = getattr(datasets, DATASETS[name].torchvision)
    if _wrong(dataset_class, DATASETS[name], root):
        _complete(dataset_class, name, root)
    dataset = dataset_class(str(root), train=train)
    x = torch.as_tensor(dataset.data)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x, torch.as_tensor(dataset.targets), tuple(dataset.classes)


def _complete(dataset_class: Any, name: str, root: Path) -> None:
    """Download what is missing of a data set, or wait for a process that does.

    Altered files, which a download would write over, are left to their owner, with a
    DataError, as where files are missing for good.
    """
    # Imported here: who has the files needs no lock.
    from filelock import FileLock

    reason, lock = "", root / f".{name}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            wrong = _wrong(dataset_class, DATASETS[name], root)
            try:
                if wrong and ALTERED not in wrong.values():
                    dataset_class(str(root), download=True)
            finally:  # who waits looks again at what is missing
                lock.unlink(missing_ok=True)
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
    wrong = _wrong(dataset_class, DATASETS[name], root)
    if ALTERED in wrong.values():
        problems = [f"{path} is {problem}" for path, problem in wrong.items()]
        raise DataError(
            f"dataset {name!r}: {', '.join(problems)} (wrong md5 sums); unless "
            "something writes them now, move altered files away to have them "
            "downloaded again, or point WIDEMIN_DATA elsewhere"
        )
    if wrong:
        first = next(iter(wrong))
        raise DataError(
            f"dataset {name!r}: {first} is missing and could not be downloaded "
            f"({reason}); point WIDEMIN_DATA at a folder that has it in torchvision's "
            "layout, or use --preset smoke, which needs no download"
        )


def _wrong(dataset_class: Any, dataset: DataSet, root: Path) -> dict[Path, str]:
    """Return the files of a data set that are not as published: missing or altered."""
    sums = dataset.md5 or dict([*dataset_class.train_list, *dataset_class.test_list])
    wrong = {}
    for name, md5 in sums.items():
        path = root / dataset.folder / name
        if not path.exists():
            wrong[path] = "missing"
        elif hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            wrong[path] = ALTERED
    return wrong


def augment(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Return randomly shifted and mirrored images: reflect padding, crop, flip.

    Each image of x, shape (batch, channels, height, width), has its own shift, of up to
    `padding` pixels along both axes (4 for CIFAR: Wei et al., Kamath et al.), and is
    mirrored with probability 1/2; `generator`, on the CPU, draws both.

    >>> x = torch.tensor([0.0, 1.0]).expand(4, 1, 1, 2)
    >>> augment(x, torch.Generator().manual_seed(0), padding=0)[:, 0, 0, 0]
    tensor([1., 0., 1., 1.])
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

    Arguments as of `augment`. Each image is turned about its centre by up to 10 degrees
    and moved by up to a fifth of its size along both axes, between pixels bilinearly,
    beyond the edge by the nearest pixel, and mirrored with probability 1/2.

    >>> grey = torch.full((5, 3, 8, 8), 0.5)  # stays so, beyond the edge as well
    >>> bool(torch.allclose(turn(grey, torch.Generator()), grey))
    True
    """
    draws = torch.rand(4, len(x), generator=generator, dtype=x.dtype) * 2 - 1
    angle, right, down, mirror = draws.to(x.device)
    angle = angle * math.pi / 18
    mirror = mirror.sign()
    # In units of half an image: 0.4 is a fifth of it.
    first = torch.stack([mirror * angle.cos(), -angle.sin(), 0.4 * right], 1)
    second = torch.stack([mirror * angle.sin(), angle.cos(), 0.4 * down], 1)
    places = torch.stack([first, second], 1)
    grid = F.affine_grid(places, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
