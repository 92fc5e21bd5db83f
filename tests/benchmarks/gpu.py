"""A step of 45 M1 at batch size 1 on a GPU: `python -m tests.benchmarks.gpu`.

Nine learning rates times five seeds, as a row of the first paper's table, replayed as
CUDA graphs, against the same networks stepped one by one by torch.optim.SGD.
"""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

from widemin import models
from widemin.training.side_by_side import Together

NETWORKS, STEPS, ROUNDS = 45, 5_000, 5
GOAL_MICROSECONDS, GOAL_RATIO = 100, 150


def _networks(device: str):
    seeds = [torch.Generator().manual_seed(seed) for seed in range(NETWORKS)]
    return [models.build("m1", seed).to(device) for seed in seeds]


def _timed(work) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Print microseconds a step, and the ratio to eager steps one by one."""
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU; there is none")
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(STEPS, 1, 28, 28, generator=draw).cuda()
    y = torch.randint(10, (STEPS,), generator=draw).cuda()
    zeros = [0.0] * NETWORKS
    group = Together(_networks("cuda"), [0.01] * NETWORKS, zeros, zeros)
    order = torch.stack([torch.randperm(STEPS, generator=draw) for _ in zeros]).cuda()
    factors = torch.ones(STEPS, device="cuda")
    eager = _networks("cuda")
    optimizers = [torch.optim.SGD(model.parameters(), 0.01) for model in eager]

    def together() -> None:
        group.epoch(x, y, order, 1, factors)

    def one_by_one() -> None:
        for step in range(20):
            for model, optimizer in zip(eager, optimizers, strict=True):
                optimizer.zero_grad()
                F.cross_entropy(
                    model(x[step : step + 1]), y[step : step + 1]
                ).backward()
                optimizer.step()

    together(), one_by_one()
    rounds = [(_timed(together), _timed(one_by_one)) for _ in range(ROUNDS)]
    ours = sorted(a for a, _ in rounds)[ROUNDS // 2] / STEPS
    theirs = sorted(b for _, b in rounds)[ROUNDS // 2] / 20
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{1e6 * ours:.0f} µs a step of {NETWORKS} M1 (goal {GOAL_MICROSECONDS})")
    print(f"{theirs / ours:.0f} times eager one by one (goal {GOAL_RATIO})")


if __name__ == "__main__":
    main()
