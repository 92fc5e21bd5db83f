"""A grid of small trainings against what a user writes, on all cores of the machine.

Wall time, in processes that have started already; rounds are interleaved. `naive` is
torchvision's data set behind a DataLoader and torch.optim.SGD, run one after another
with torch's default threads, or, as a second peer, one process per core.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from widemin import data, models, paths, training
from widemin.experiments import lean_step, results
from widemin.experiments import pool as workers

SAMPLES = {1: 1_500, 8: 6_000, 32: 12_000, 128: 16_000}  # a training, by batch size
GOALS = {1: 4.0, 8: 3.5, 32: 2.5, 128: 2.0}
GRID = [(rate, seed) for seed in (0, 1) for rate in (0.01, 0.1)]
ROUNDS = 5

Task = tuple[int, float, int]  # batch size, learning rate, seed


def naive(task: Task) -> None:
    """Train M1 as a tutorial does."""
    import torchvision

    batch_size, rate, seed = task
    torch.manual_seed(seed)
    to_tensor = torchvision.transforms.ToTensor()
    images = torchvision.datasets.MNIST(str(paths.data()), transform=to_tensor)
    images = torch.utils.data.Subset(images, range(SAMPLES[batch_size]))
    loader = torch.utils.data.DataLoader(images, batch_size=batch_size, shuffle=True)
    layers: list[nn.Module] = []
    for channels in (1, 20):
        layers += [nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(320, 500), nn.ReLU(), nn.Linear(500, 10)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for x, y in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def ours(task: Task) -> None:
    """Train M1 as the runner does."""
    batch_size, rate, seed = task
    images = data.load("mnist", size=SAMPLES[batch_size])
    model = models.build("m1", torch.Generator().manual_seed(seed))
    model = model.to(memory_format=torch.channels_last)
    optimizer = training.SGD(model.parameters(), rate)
    assert lean_step.covers(model, optimizer)
    training.fit(
        model,
        optimizer,
        images.x.contiguous(memory_format=torch.channels_last),
        images.y,
        epochs=1,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
        step_at=lambda t: lean_step.step,
    )


def _pool(processes: int, settings: dict[str, str]) -> Any:
    context = multiprocessing.get_context("spawn")
    with workers.environment(settings):
        return context.Pool(processes)


def _row(work: str, peer: str, mine: list[float], theirs: list[float], goal: float):
    ratios = np.array(theirs) / np.array(mine)
    low, high = np.quantile(ratios, [0.25, 0.75])
    ratio = float(np.median(theirs) / np.median(mine))
    return {
        "work": work,
        "peer": peer,
        "seconds": round(float(np.median(mine)), 4),
        "peer_seconds": round(float(np.median(theirs)), 4),
        "ratio": round(ratio, 2),
        "ratio_q25": round(float(low), 2),
        "ratio_q75": round(float(high), 2),
        "goal": goal,
        "met": ratio >= goal,
        "note": "wall time",
    }


def grids():
    """Yield a row per batch size and peer."""
    cores = workers.cores()
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(_pool(1, {}))
        each = stack.enter_context(_pool(cores, {"OMP_NUM_THREADS": "1"}))
        fast = stack.enter_context(_pool(cores, workers.SETTINGS))
        for batch_size in SAMPLES:
            tasks = [(batch_size, rate, seed) for rate, seed in GRID]
            ways = {
                "what a user writes": (one, naive),
                "the same, one process per core": (each, naive),
                "ours": (fast, ours),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for round_ in range(ROUNDS + 1):
                for name, (pool, work) in ways.items():
                    started = time.perf_counter()
                    pool.map(work, tasks, chunksize=1)
                    if round_:  # the first warms up
                        seconds[name].append(time.perf_counter() - started)
            own = seconds.pop("ours")
            work_name = f"grid of {len(GRID)} M1, batch {batch_size}, {cores} cores"
            goals = (GOALS[batch_size], 1.0)
            for (peer, theirs), goal in zip(seconds.items(), goals, strict=True):
                yield _row(work_name, peer, own, theirs, goal)


@dataclass(frozen=True)
class Second:
    """A recipe of one second's work."""

    number: int
    work: float = 1.0

    @property
    def key(self) -> str:
        return f"second{self.number}"


def _second(recipe: Second) -> list[dict[str, Any]]:
    started = time.time()
    time.sleep(1.0)
    row = {"number": recipe.number, "pid": os.getpid()}
    return [row | {"started": started, "ended": time.time()}]


def overhead():
    """Return the row of the runner's own time between runs of a second, two workers."""
    recipes = [Second(number) for number in range(60)]
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        table = results.collect(recipes, _second, Path(folder), workers=2)
    whole = time.time() - started
    by = table.groupby("pid")
    spent = float((by["ended"].max() - by["started"].min()).sum())
    runs = float((table["ended"] - table["started"]).sum())
    name = "60 runs of a second, 2 workers"
    note = (
        f"start of workers and reading included: {100 * (2 * whole / runs - 1):.1f} %"
    )
    return _row(name, "the runs alone", [spent], [runs], 0.98) | {"note": note}


def loading():
    """Return the row of reading 10,000 rows of 1,000 runs."""
    recipes = [Second(number) for number in range(1_000)]
    columns = {f"column{i}": i / 7 for i in range(60)}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes:
            rows = [{"number": recipe.number, "epoch": e} | columns for e in range(10)]
            results.write(Path(folder), recipe.key, rows)
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            assert len(results.table_of(recipes, Path(folder))) == 10_000
            seconds.append(time.perf_counter() - started)
    return _row(
        "10,000 rows of 1,000 runs read", "a second", seconds, [1.0] * ROUNDS, 1.0
    )
