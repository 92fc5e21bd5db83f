"""Measure speed as a ratio against named peers: `make bench`.

Ours and the peer's turns alternate within one run, one thread each, so that a busy
machine slows both; the ratio is that of the medians of their process CPU times, its
spread the quartiles over rounds. Nothing else should run meanwhile. The table goes to
book/results/benchmarks.csv.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import foolbox
import numpy as np
import pandas as pd
import pyhessian
import torch
from torch import nn

from widemin import attacks, hessian, models, paths, results, training
from widemin.attacks import Linf

ROUNDS = 7


class Duel(NamedTuple):
    """One piece of work done by us and by a peer; goal is the least ratio."""

    work: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    goal: float


def _network(name: str, shape: tuple[int, int, int], batch: int, width: int | None):
    generator = torch.Generator().manual_seed(0)
    model = models.build(name, generator, shape=shape, width=width)
    model = model.to(memory_format=torch.channels_last)
    x = torch.rand(batch, *shape, generator=generator)
    y = torch.randint(10, (batch,), generator=generator)
    return model, x.contiguous(memory_format=torch.channels_last), y


def _pgd(name: str, shape: tuple[int, int, int], batch: int, goal: float) -> Duel:
    """PGD-10 against foolbox, which gets the same network in its own default layout."""
    model, x, y = _network(name, shape, batch, None)
    plain, _, _ = _network(name, shape, batch, None)
    plain = plain.to(memory_format=torch.contiguous_format).eval()
    there = x.contiguous(memory_format=torch.contiguous_format)
    peer = foolbox.PyTorchModel(plain, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.02, steps=10, random_start=False)
    return Duel(
        f"PGD-10, {name}, batch {batch}",
        f"foolbox {version('foolbox')}",
        lambda: attacks.pgd(model, x, y, Linf(0.1), steps=10, step_size=0.02),
        lambda: attack.run(peer, there, y, epsilon=0.1),
        goal,
    )


def _sam() -> Duel:
    """A step of SAM against two plain steps: its overhead beyond the two gradients."""
    model, x, y = _network("preactresnet18", (3, 32, 32), 64, 16)
    optimizer = training.SGD(model.parameters(), 0.01, 0.9, 5e-4)

    def step(rho: float) -> None:
        training.train_step(model, optimizer, x, y, rho=rho)

    return Duel(
        "a step of SAM",
        "two plain steps of ours",
        lambda: step(0.1),
        lambda: (step(0.0), step(0.0)),
        1.0,
    )


def _sgd() -> Duel:
    """A plain step on M1 at batch size 16 against torch.optim.SGD."""
    model, x, y = _network("m1", (1, 28, 28), 16, None)
    ours = training.SGD(model.parameters(), 0.01, 0.9)
    theirs = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def steps(optimizer: training.Optimizer) -> None:
        for _ in range(50):
            training.train_step(model, optimizer, x, y)

    return Duel(
        "50 steps of SGD, M1, batch 16",
        f"torch.optim.SGD {torch.__version__}",
        lambda: steps(ours),
        lambda: steps(theirs),
        1.0,
    )


def _eigenvalue() -> Duel:
    """The top eigenvalue on 1,000 images against PyHessian at its defaults."""
    model, x, y = _network("m1", (1, 28, 28), 1_000, None)
    model.eval()

    def ours() -> object:
        generator = torch.Generator().manual_seed(1)
        return hessian.top_eigenvalues(model, x, y, generator=generator)

    def theirs() -> object:
        model.zero_grad(set_to_none=True)
        peer = pyhessian.hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
        found = peer.eigenvalues(top_n=1)
        model.zero_grad(set_to_none=True)
        return found

    return Duel(
        "top eigenvalue, M1, 1,000 images",
        f"PyHessian {version('pyhessian')}",
        ours,
        theirs,
        1.6,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(duel: Duel) -> dict[str, object]:
    """Return a duel's row: medians, ratio, quartiles of the ratio, goal."""
    duel.ours(), duel.theirs()
    pairs = [(_seconds(duel.ours), _seconds(duel.theirs)) for _ in range(ROUNDS)]
    ours, theirs = np.array(pairs).T
    low, high = np.quantile(theirs / ours, [0.25, 0.75])
    ratio = float(np.median(theirs) / np.median(ours))
    return {
        "work": duel.work,
        "peer": duel.peer,
        "seconds": round(float(np.median(ours)), 4),
        "peer_seconds": round(float(np.median(theirs)), 4),
        "ratio": round(ratio, 2),
        "ratio_q25": round(float(low), 2),
        "ratio_q75": round(float(high), 2),
        "goal": duel.goal,
        "met": ratio >= duel.goal,
    }


def main() -> None:
    """Measure everything, print the table and write it."""
    torch.set_num_threads(1)
    facts = results.provenance("cpu")
    kept = {k: facts[k] for k in ("hardware", "torch", "source", "date")}
    duels = [
        _pgd("m1", (1, 28, 28), 256, 1.75),
        _pgd("preactresnet18", (3, 32, 32), 16, 1.9),
        _sam(),
        _sgd(),
        _eigenvalue(),
    ]
    table = pd.DataFrame([measure(duel) | kept for duel in duels])
    print(table.drop(columns=list(kept)).to_string(index=False))
    table.to_csv(paths.PUBLISHED / "benchmarks.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
