"""What share of the device each kind of run uses: `python -m tests.benchmarks.rates`.

Each network of the papers is trained by a recipe, on the GPU if there is one; the
operations that takes, over its seconds, are compared with the most that the device is
seen to do in the same numbers. The table goes to book/results/rates.csv.
Real images are needed (WIDEMIN_DATA), and nothing else should run meanwhile.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F

from widemin import data, paths
from widemin.experiments import progress, train
from widemin.experiments.provenance import provenance
from widemin.experiments.recipe import Recipe

SIDE_BY_SIDE = 45  # of M1 on a GPU: nine learning rates, five seeds
MORE_ON_A_GPU = 20  # times the images
_MNIST = Recipe(dataset="mnist", learning_rate=0.01, train_size=4_096)
_CIFAR = Recipe(dataset="cifar10", learning_rate=0.01, momentum=0.9, batch_size=128)
_CIFAR = dataclasses.replace(_CIFAR, augment="crop+flip", train_size=256)
_RESNET = dataclasses.replace(_CIFAR, model="preactresnet18")
RECIPES = {
    "M1": dataclasses.replace(_MNIST, model="m1"),
    "StdCNN": dataclasses.replace(_MNIST, model="stdcnn"),
    "4-layer CNN, PGD-10": dataclasses.replace(
        _MNIST, model="cnn4", attack="linf 0.3", batch_size=128, train_size=512
    ),
    "C1": dataclasses.replace(_CIFAR, model="c1", batch_size=64),
    "PreActResNet-18": _RESNET,
    "PreActResNet-18, bfloat16": dataclasses.replace(
        _RESNET, model="preactresnet18-bf16"
    ),
    "PreActResNet-18, SAM": dataclasses.replace(_RESNET, rho=0.1),
    "PreActResNet-18, PGD-10": dataclasses.replace(
        _RESNET, attack="linf 8/255", train_size=128
    ),
}


def operations(recipe: Recipe) -> float:
    """Return the floating-point operations that training takes for an image.

    A gradient in the weights is one pass forwards and two backwards, one in the image
    lacks a third of that.
    """
    whole = progress.operations(recipe.dataset, recipe.model, recipe.width)
    attack = 2 / 3 * recipe.attack_steps if recipe.attack else 0.0
    return whole * ((2 if recipe.rho else 1) + attack)


def peak(device: str, dtype: torch.dtype) -> float:
    """Return the most operations a second that the device is seen to do in a type.

    Of a large square matrix product and a 3 x 3 convolution of 256 channels; which is
    faster depends on the library. As runs, float32 takes no TF32 on a GPU.
    """
    side, images = (8_192, 1_024) if device == "cuda" else (2_048, 32)
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    x = torch.rand(images, 256, 16, 16, device=device, dtype=dtype)
    k = torch.rand(256, 256, 3, 3, device=device, dtype=dtype)
    x, k = (t.contiguous(memory_format=torch.channels_last) for t in (x, k))
    work = {
        2.0 * side**3: lambda: (a @ b)[0, 0].item(),
        2.0 * images * 16**2 * 9 * 256**2: lambda: F.conv2d(x, k, padding=1)[
            0, 0, 0, 0
        ].item(),
    }
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    with torch.no_grad():
        found = [
            count / min(_timed(one) for _ in range(10)) for count, one in work.items()
        ]
    return max(found)


def _timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def images_a_second(recipe: Recipe, device: str) -> float:
    """Return the rate of one training, or of many side by side where runs are."""
    if device == "cuda" and train.family(recipe):
        seeds = range(SIDE_BY_SIDE)
        group = [dataclasses.replace(recipe, seed=seed) for seed in seeds]
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "group"
            found = train.train_together(group, device, checkpoint)
        return recipe.train_size / found[0][2]["train_seconds"]
    model = train.build(recipe).to(torch.device(device))
    model = model.to(memory_format=torch.channels_last)
    _, facts = train.train(model, recipe, device)
    return recipe.train_size / facts["train_seconds"]


def rates(device: str) -> Iterator[dict[str, object]]:
    """Yield a row a kind of run."""
    peaks = {dtype: peak(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    for name, recipe in RECIPES.items():
        if device == "cuda":
            official = data.DATASETS[recipe.dataset].train
            more = min(official, MORE_ON_A_GPU * recipe.train_size)
            recipe = dataclasses.replace(recipe, train_size=more)
        images_a_second(recipe, device)  # warm up
        rate = images_a_second(recipe, device)
        dtype = torch.bfloat16 if "bf16" in recipe.model else torch.float32
        done = rate * operations(recipe)
        yield {
            "run": name,
            "dataset": recipe.dataset,
            "batch_size": recipe.batch_size,
            "images_a_second": round(rate, 1),
            "seconds_an_epoch": round(data.DATASETS[recipe.dataset].train / rate, 1),
            "gflops": round(done / 1e9, 1),
            "peak_gflops": round(peaks[dtype] / 1e9, 1),
            "share_of_peak": round(done / peaks[dtype], 3),
        }


def main() -> None:
    """Print the table and write it; rows of other hardware stay as they are."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = provenance(device)
    kept = {k: facts[k] for k in ("device", "hardware", "torch", "source", "date")}
    path = paths.PUBLISHED / "rates.csv"
    known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(kept))
    rows = known[known["hardware"] != kept["hardware"]].to_dict("records")
    try:
        for name in ("mnist", "cifar10"):
            data.load(name, "test", size=1)
    except data.DataError as error:
        raise SystemExit(str(error)) from error
    for row in rates(device):
        rows.append(row | kept)
        print(*row.values(), sep=" | ", flush=True)
        pd.DataFrame(rows).to_csv(path, index=False)


if __name__ == "__main__":
    main()
