"""What a GPU does here, in at most three minutes: `make gpu`.

The tests marked `gpu`; a step of nine M1 side by side at four batch sizes, as a row of
the first paper's table has nine learning rates; a small sweep, from recipes to rows.
What goes to stdout are rows for book/results/benchmarks.csv: against the goals, since
no peer trains networks side by side. `--device cpu --small` tries every part of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from widemin import data, models, paths
from widemin.experiments import results, running
from widemin.experiments.provenance import provenance
from widemin.experiments.recipe import Recipe, grid
from widemin.experiments.side_by_side import Together
from widemin.experiments.train import build

RATES = (0.003, 0.006, 0.01, 0.03, 0.06, 0.1, 0.3, 0.6, 1.0)
# Microseconds a step at most, by batch size; that of 32 lies between the others.
GOALS = {1: 120, 8: 120, 32: 216, 128: 600}
STEPS = {1: 2_000, 8: 1_000, 32: 300, 128: 100}
SWEEP_SECONDS = 60
ROUNDS = 5


def tests(device: str) -> bool:
    """Run the tests marked gpu, or, without one, find them; return whether all pass."""
    files = sorted((paths.ROOT / "tests").glob("test_*.py"))
    marked = [str(path) for path in files if "@pytest.mark.gpu" in path.read_text()]
    call = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *marked]
    call += ["--collect-only"] if device == "cpu" else []
    # To stderr: stdout has the rows alone.
    return subprocess.run(call, cwd=paths.ROOT, stdout=2).returncode == 0


def step(batch: int, device: str, steps: int, rounds: int = ROUNDS) -> list[float]:
    """Return the seconds of a step of the networks, in several rounds."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(steps * batch, 1, 28, 28, generator=draw).to(device)
    y = torch.randint(10, (len(x),), generator=draw).to(device)
    order = torch.stack([torch.randperm(len(x), generator=draw) for _ in RATES])
    order, factors = order.to(device), torch.ones(steps, device=device)
    seeds = (torch.Generator().manual_seed(seed) for seed in range(len(RATES)))
    networks = [models.build("m1", seed).to(device) for seed in seeds]
    zeros = [0.0] * len(RATES)
    group, found = Together(networks, [0.01] * len(RATES), zeros, zeros), []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        group.epoch(x, y, order, batch, factors).tolist()  # waits for the GPU
        found.append((time.perf_counter() - started) / steps)
    return found[1:]  # the first has made the graph


def sweep(device: str, small: bool) -> tuple[str, float]:
    """Return what a sweep of small runs is, and the seconds from recipes to rows."""
    sizes = (60, 100) if small else (6_000, 1_000)
    recipe = Recipe(
        dataset="mnist",
        model="m1",
        train_size=sizes[0],
        batch_size=32,
        epochs=2,
        watch="linf 0.3",
        tests=("linf 0.3",),
        test_size=sizes[1],
        hessian_size=sizes[0] // 6,
    )
    try:
        data.load("mnist", "test", size=1)
    except (data.DataError, ImportError):
        small_enough = {"dataset": "digits", "train_size": 60, "test_size": 100}
        recipe = Recipe(**small_enough, watch="linf 0.1", batch_size=32, epochs=2)
    recipes = grid(recipe, learning_rate=RATES[:2] if small else RATES)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = running.runner(device, Path(folder), recipes)
        table = results.collect(recipes, work, Path(folder), device=device, workers=1)
    assert table.attrs["done"] == len(recipes)
    about = f"{recipe.model} on {recipe.dataset}, {recipe.train_size:,} images"
    return f"{len(recipes)} runs of {about}, measured", time.perf_counter() - started


def row(work: str, seconds: list[float], goal: float, note: str) -> dict[str, object]:
    """Return a row of the table: how far a time is below its goal."""
    ours = float(np.median(seconds))
    low, high = np.quantile(goal / np.array(seconds), [0.25, 0.75])
    said = f"{1e6 * goal:.0f} µs" if goal < 1 else f"{goal:.0f} s"
    return {
        "work": work,
        "peer": f"the goal, {said}",
        "seconds": float(f"{ours:.4g}"),
        "peer_seconds": goal,
        "ratio": round(goal / ours, 2),
        "ratio_q25": round(float(low), 2),
        "ratio_q75": round(float(high), 2),
        "goal": 1.0,
        "met": ours <= goal,
        "note": note,
    }


def main(words: list[str]) -> None:
    """Run everything; print the rows; end with status 1 where a test fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="just enough to try it")
    asked = parser.parse_args(words)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("make gpu needs a GPU that torch can use; there is none", file=sys.stderr)
        raise SystemExit(2)
    build(Recipe())  # sets the precision of runs
    passed, rows = tests(asked.device), []
    for batch, goal in GOALS.items():
        size = (2, 1) if asked.small else (STEPS[batch], ROUNDS)
        found = step(batch, asked.device, *size)
        work = f"a step of {len(RATES)} M1 side by side, batch {batch}"
        each = f"{1e6 * float(np.median(found)):.0f} µs a step"
        rows.append(row(work, found, goal / 1e6, each))
        print(work, each, f"goal {goal}", sep=" | ", file=sys.stderr, flush=True)
    work, seconds = sweep(asked.device, asked.small)
    rows.append(row(work, [seconds], SWEEP_SECONDS, "start of a worker included"))
    facts = provenance(asked.device)
    kept = {name: facts[name] for name in ("hardware", "torch", "source", "date")}
    print(pd.DataFrame([row | kept for row in rows]).to_csv(index=False), end="")
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
