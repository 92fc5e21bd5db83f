"""Measure speed as a ratio against named peers: `make bench`.

Ours and the peer's turns alternate within one run, one thread each, so that a busy
machine slows both; the ratio is that of the medians of their process CPU times, its
spread the quartiles over rounds. Nothing else should run meanwhile. The table goes to
book/results/benchmarks.csv.

torchattacks pins an old requests and is no dependency: `make bench` puts it alone
into _build/peers. With MNIST at hand (WIDEMIN_DATA) the networks are trained on it, as
they must be for those rows in which images are fooled or stop.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import foolbox
import numpy as np
import pandas as pd
import pyhessian
import torch
import torchattacks
from torch import nn
from torch.nn import functional as F

from tests.benchmarks import grid, loops
from widemin import attacks, data, evaluation, hessian, models, paths, training
from widemin.attacks import Linf
from widemin.experiments.provenance import provenance

ROUNDS = 7
FOOLBOX = f"foolbox {version('foolbox')}"
TORCHATTACKS = f"torchattacks {torchattacks.__version__}"


class Duel(NamedTuple):
    """One piece of work done by us and by a peer; goal is the least ratio."""

    work: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    goal: float
    rounds: int = ROUNDS
    note: Callable[[], str] = str


def _network(name: str, shape: tuple[int, int, int], batch: int, width: int | None):
    generator = torch.Generator().manual_seed(0)
    model = models.build(name, generator, shape=shape, width=width)
    model = model.to(memory_format=torch.channels_last)
    x = torch.rand(batch, *shape, generator=generator)
    y = torch.randint(10, (batch,), generator=generator)
    return model, x.contiguous(memory_format=torch.channels_last), y


def _plain(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """Return a copy of the network and the images in the layout a user starts with."""
    import copy

    other = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    return other, x.contiguous(memory_format=torch.contiguous_format)


def _convolutions(work: Callable[[], object]) -> str:
    """Say how much of our time is inside the convolutions that every peer calls."""
    with torch.profiler.profile() as profiler:
        work()
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    inside = sum(
        event.self_cpu_time_total for event in events if "convolution" in event.key
    )
    return f"{100 * inside / whole:.0f} % of our time is inside PyTorch's convolutions"


def _pgd(
    name: str, shape: tuple[int, int, int], batch: int, goals: tuple[float, float]
):
    """Yield PGD-10 against torchattacks and foolbox, on the same network and images."""
    model, x, y = _network(name, shape, batch, None)
    plain, there = _plain(model, x)

    def ours() -> object:
        # As every attack of `evaluation` is asked: on the network fused.
        fast = models.fuse(model)
        return attacks.pgd(fast, x, y, Linf(0.1), steps=10, step_size=0.02)

    first = torchattacks.PGD(plain, eps=0.1, alpha=0.02, steps=10, random_start=False)
    yield Duel(
        f"PGD-10, {name}, batch {batch}",
        TORCHATTACKS,
        ours,
        lambda: first(there, y),
        goals[0],
        note=lambda: _convolutions(ours),
    )
    peer = foolbox.PyTorchModel(plain, bounds=(0, 1))
    second = foolbox.attacks.LinfPGD(abs_stepsize=0.02, steps=10, random_start=False)
    yield Duel(
        f"PGD-10, {name}, batch {batch}",
        FOOLBOX,
        ours,
        lambda: second.run(peer, there, y, epsilon=0.1),
        goals[1],
        note=lambda: _convolutions(ours),
    )


def _trained_m1() -> tuple[nn.Module, data.Images] | None:
    """Return M1 after two epochs on 10,000 MNIST images, or nothing without MNIST."""
    if not (paths.data() / "MNIST").is_dir():
        return None
    images = data.load("mnist", size=10_000)
    model, _, _ = _network("m1", (1, 28, 28), 1, None)
    x = images.x.contiguous(memory_format=torch.channels_last)
    training.fit(
        model,
        training.SGD(model.parameters(), 0.05),
        x,
        images.y,
        epochs=2,
        batch_size=32,
        generator=torch.Generator().manual_seed(0),
    )
    return model.eval(), data.Images(x, images.y, images.classes)


def _robust_accuracy(model: nn.Module, images: data.Images) -> Duel:
    """Robust accuracy of a natural network, in which most images fall at once."""
    x, y = images.x[:500], images.y[:500]
    plain, there = _plain(model, x)
    attack = torchattacks.PGD(plain, eps=0.2, alpha=0.02, steps=20, random_start=False)
    pgd = partial(
        attacks.pgd, ball=Linf(0.2), steps=20, step_size=0.02, until_fooled=True
    )

    def theirs() -> object:
        parts = zip(there.split(250), y.split(250), strict=True)
        return torch.cat([plain(attack(a, b)).argmax(1) == b for a, b in parts])

    return Duel(
        "robust accuracy, natural M1, 500 images, PGD-20",
        TORCHATTACKS,
        lambda: evaluation.robust_mask(model, x, y, {"pgd": pgd}),
        theirs,
        3.0,
    )


def _fosc_control(model: nn.Module, images: data.Images) -> Duel:
    """FOSC-controlled ascent whose stopped images leave, against a mask over them."""
    x, y, ball = images.x[:256], images.y[:256], Linf(0.3)
    record: list[dict[str, torch.Tensor]] = []
    attacks.pgd_path(model, x, y, ball, steps=2, step_size=0.075, record=record)
    threshold = float(record[1]["fosc"].quantile(0.8))

    def ours() -> object:
        fast = models.fuse(model)  # as adversarial training asks it
        return attacks.pgd_path(
            fast, x, y, ball, steps=10, step_size=0.075, fosc_below=threshold
        )

    def masked() -> object:
        moved, going = x.clone(), torch.ones(len(x), 1, 1, 1, dtype=torch.bool)
        for step in range(10):
            gradient, _, _ = attacks.input_gradient(model, moved, y)
            gap = attacks.fosc(ball, gradient, moved - x).view(-1, 1, 1, 1)
            going = going & (gap > threshold) if step else going
            further = ball.project(moved + 0.075 * gradient.sign() - x)
            moved = torch.where(going, (x + further).clamp(0, 1), moved)
        return moved

    active: list[dict[str, torch.Tensor]] = []
    attacks.pgd_path(
        model,
        x,
        y,
        ball,
        steps=10,
        step_size=0.075,
        fosc_below=threshold,
        record=active,
    )
    share = sum(len(step["images"]) for step in active) / (10 * len(x))
    return Duel(
        "FOSC-controlled PGD-10, M1, batch 256",
        "masking the stopped images",
        ours,
        masked,
        2.5,
        note=lambda: f"{100 * share:.0f} % of the gradients are still needed",
    )


class UsualSAM:
    """SAM as an optimiser's wrapper, written the usual way: loops over parameters."""

    def __init__(self, model: nn.Module, rho: float) -> None:
        self.model, self.rho = model, rho
        self.base = torch.optim.SGD(
            model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4
        )

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.base.zero_grad()
        F.cross_entropy(self.model(x), y).backward()
        parameters = list(self.model.parameters())
        norm = torch.stack([p.grad.norm(p=2) for p in parameters]).norm(p=2)
        moves = []
        with torch.no_grad():
            for p in parameters:
                moves.append(p.grad * (self.rho / (norm + 1e-12)))
                p.add_(moves[-1])
        self.base.zero_grad()
        F.cross_entropy(self.model(x), y).backward()
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p.sub_(move)
        self.base.step()


def _sam():
    """Yield a step of SAM against two plain steps of ours and the usual wrapper."""
    model, x, y = _network("preactresnet18", (3, 32, 32), 64, 16)
    plain, there = _plain(model, x)
    wrapper = UsualSAM(plain.train(), 0.1)
    optimizer = training.SGD(model.parameters(), 0.01, 0.9, 5e-4)

    def step(rho: float) -> None:
        training.train_step(model, optimizer, x, y, rho=rho)

    name = "a step of SAM, PreActResNet-18 of width 16, batch 64"

    def twice() -> object:
        return step(0.0), step(0.0)

    yield Duel(name, "two plain steps of ours", lambda: step(0.1), twice, 1.0)
    yield Duel(
        name,
        "the usual wrapper",
        lambda: step(0.1),
        lambda: wrapper.step(there, y),
        1.3,
        note=lambda: _convolutions(lambda: step(0.1)),
    )


def _epoch(name: str) -> Duel:
    """A part of an epoch on CIFAR-10, crops and flips, against a DataLoader's loop.

    The loop has the plain network in float32, whatever ours computes in.
    """
    from torchvision import datasets, transforms

    images, batch = 256, 128
    folder = Path(os.environ["WIDEMIN_DATA"])
    x, y = (part := data.load("cifar10", "train", size=images)).x, part.y
    statistics = data.DATASETS["cifar10"].statistics
    model, plain = (
        _network(network, (3, 32, 32), 1, None)[0]
        for network in (name, "preactresnet18")
    )
    for network in (model, plain):
        network.insert(0, models.Normalise(statistics))
    plain, _ = _plain(plain, x[:1])
    ours = training.SGD(model.parameters(), 0.01, 0.9, 5e-4)
    theirs = torch.optim.SGD(plain.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    draws = torch.Generator().manual_seed(0)
    crops = [transforms.RandomCrop(32, 4, padding_mode="reflect")]
    usual = [*crops, transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    dataset = datasets.CIFAR10(str(folder), transform=transforms.Compose(usual))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, range(images)), batch, shuffle=True
    )
    x = x.contiguous(memory_format=torch.channels_last)

    def epoch() -> object:
        return training.fit(
            model.train(),
            ours,
            x,
            y,
            epochs=1,
            batch_size=batch,
            generator=draws,
            augment=partial(data.augment, generator=draws),
        )

    def loop() -> None:
        plain.train()
        for images, labels in loader:
            theirs.zero_grad()
            nn.functional.cross_entropy(plain(images), labels).backward()
            theirs.step()

    return Duel(
        f"{images} images of an epoch, {name}, batch {batch}",
        "a plain loop with a DataLoader, float32",
        epoch,
        loop,
        1.1,
        rounds=5,
        note=lambda: _convolutions(epoch),
    )


def _recipes():
    """Yield recipes of the papers against the same in a plain loop."""
    for name, (images, ours, theirs) in loops.pairs().items():

        def rate(images: int, ours: Callable[[], object]) -> str:
            return f"{images / _seconds(ours):,.0f} images a second on one core"

        yield Duel(
            f"{images:,} images of {name}",
            "the same recipe in a plain loop",
            ours,
            theirs,
            1.0,
            rounds=5,
            note=partial(rate, images, ours),
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


def _eigenvalue(model: nn.Module, images: data.Images) -> Duel:
    """The top eigenvalue on 10,000 images, each at its defaults, with their errors."""
    x, y = images.x, images.y
    plain, there = _plain(model, x)

    def ours() -> float:
        generator = torch.Generator().manual_seed(1)
        found = hessian.top_eigenvalues(model, x, y, generator=generator)
        return found.values.item()

    def theirs() -> float:
        plain.zero_grad(set_to_none=True)
        # Its own loader interface, for data that do not fit one batch.
        loader = list(zip(there.split(250), y.split(250), strict=True))
        loss = nn.CrossEntropyLoss()
        peer = pyhessian.hessian(plain, loss, dataloader=loader, cuda=False)
        [value], _ = peer.eigenvalues(top_n=1)
        plain.zero_grad(set_to_none=True)
        return value

    found: dict[str, float] = {}

    def keep(name: str, work: Callable[[], float]) -> None:
        found[name] = work()

    def errors() -> str:
        # The error goes with the square of the residual: 1e-3 leaves about 1e-6.
        other = torch.Generator().manual_seed(2)
        exact = hessian.top_eigenvalues(model, x, y, generator=other, tolerance=1e-3)
        wrong = {k: abs(v / exact.values.item() - 1) for k, v in found.items()}
        return f"relative errors {wrong['ours']:.1e}, {wrong['theirs']:.1e}"

    return Duel(
        "top eigenvalue, M1, 10,000 images",
        f"PyHessian {version('pyhessian')}",
        lambda: keep("ours", ours),
        lambda: keep("theirs", theirs),
        1.6,
        rounds=1,
        note=errors,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(duel: Duel) -> dict[str, object]:
    """Return a duel's row: medians, ratio, quartiles of the ratio, goal."""
    if duel.rounds > 2:  # warm up, but for work that takes a minute
        duel.ours(), duel.theirs()
    pairs = [(_seconds(duel.ours), _seconds(duel.theirs)) for _ in range(duel.rounds)]
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
        "note": duel.note(),
    }


def main(words: list[str]) -> None:
    """Measure everything, or what the words name; print the table and write it."""
    torch.set_num_threads(1)
    facts = provenance("cpu")
    kept = {k: facts[k] for k in ("hardware", "torch", "source", "date")}
    duels = [
        *_pgd("m1", (1, 28, 28), 256, (1.35, 1.75)),
        *_pgd("preactresnet18", (3, 32, 32), 16, (1.15, 1.9)),
        *_sam(),
        _sgd(),
    ]
    if trained := _trained_m1():
        makers = (_robust_accuracy, _fosc_control, _eigenvalue)
        duels += [make(*trained) for make in makers]
    else:
        print("Without MNIST in WIDEMIN_DATA the grids and three rows are left out.")
    if (Path(os.environ.get("WIDEMIN_DATA", "")) / "cifar-10-batches-py").is_dir():
        names = ("preactresnet18", "preactresnet18-bf16")
        duels += [*map(_epoch, names), *_recipes()]
    else:
        print("Without CIFAR-10 in WIDEMIN_DATA epochs are left out.")
    jobs: dict[str, Callable[[], Iterable[dict[str, object]]]] = {
        "runs": lambda: [grid.overhead()],
        "rows": lambda: [grid.loading()],
    }
    jobs |= {"grids": grid.grids} if trained else {}
    for duel in duels:
        jobs[f"{duel.work}, {duel.peer}"] = lambda duel=duel: [measure(duel)]
    path = paths.PUBLISHED / "benchmarks.csv"
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    if words and path.exists():  # the others stay as they were measured
        known = pd.read_csv(path, keep_default_na=False).to_dict("records")
        rows = {(row["work"], row["peer"]): row for row in known}
    for name, job in jobs.items():
        if words and not any(word in name for word in words):
            continue
        for row in job():
            rows[row["work"], row["peer"]] = row | kept
            shown = (row[k] for k in ("work", "peer", "ratio", "goal", "note"))
            print(*shown, sep=" | ", flush=True)
            # Written row by row: the last ones take minutes.
            pd.DataFrame(list(rows.values())).to_csv(path, index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
