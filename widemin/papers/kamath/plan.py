"""The runs of chapter 4: batch sizes by setting, controls, spectra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from widemin.attacks import Linf
from widemin.experiments.recipe import Recipe, grid

DECISIVE = ["LR", "LR/BS", "LR, other"]


def plan(
    *,
    dataset: str,
    model: str,
    attack: str,
    other_dataset: str,
    other_model: str,
    train_size: int,
    augment: str,
    epochs: int,
    batch_sizes: list[int],
    learning_rate: float,
    momenta: list[float],
    epsilons: list[float],
    seeds: int,
    strong_size: int,
    test_size: int,
    pgd_steps: int,
    hessian_size: int,
    **_: object,
) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `first` is computed first, `printed` stands in the paper's
    figures; `settings` holds a list a setting, `order` the names of those shown.
    """
    base = Recipe(
        dataset=dataset,
        model=model,
        own_attack=attack,
        epochs=epochs,
        train_size=train_size,
        batch_size=batch_sizes[0],
        test_size=test_size,
        tests=tuple(map(Linf, epsilons)),
        learning_rate=learning_rate,
        augment=augment,
        pgd_steps=pgd_steps,
        hessian_size=hessian_size,
    )
    halved = replace(base, momentum=0.9, schedule="halve-20")
    other = replace(base, dataset=other_dataset, model=other_model)
    axes: dict[str, Any] = dict(seed=range(seeds), batch_size=batch_sizes)
    steady = grid(base, **axes)
    settings = {"LR": steady, "Benchmark": grid(halved, **axes)}
    settings |= {f"LR, m={m}": grid(replace(base, momentum=m), **axes) for m in momenta}
    rates = {size: learning_rate / 64 * size for size in batch_sizes}
    scaled = [replace(run, learning_rate=rates[run.batch_size]) for run in steady]
    settings |= {"LR/BS": scaled, "LR, other": grid(other, **axes)}
    order = DECISIVE + [name for name in settings if name not in DECISIVE]
    for m in momenta:  # controls
        settings[f"LR/BS, m={m}"] = [replace(run, momentum=m) for run in scaled]
        rate = round(learning_rate / (1 - m), 6)
        faster = [replace(run, learning_rate=rate) for run in steady]
        settings[f"LR/(1-m), m={m}"] = faster
    settings["LR, equal sum"] = [
        replace(run, epochs=max(1, round(epochs * run.batch_size / 64)))
        for run in steady
        if run.batch_size <= 512
    ]
    settings["Algorithm 1"] = [
        replace(run, optimizer="algorithm1", momentum=momenta[-1])
        for run in steady
        if run.batch_size == 64
    ]
    ends = batch_sizes[0], batch_sizes[-1]
    looked = [run for run in steady if run.seed == 0 and run.batch_size in ends]
    looked += [run for run in scaled if run.seed == 0 and run.batch_size == ends[1]]
    images = min(train_size, 5 * hessian_size)
    looked = [replace(run, spectrum_size=images) for run in looked]
    far = dict[str, Any](strong_size=strong_size, strong_attacks=("distance",))
    far |= dict(tests=(Linf(epsilons[0]),))
    distant = [replace(run, **far) for run in steady + scaled if strong_size]
    controls = [name for name in settings if name not in order]
    plotted = order + [name for name in controls if name.startswith("LR/BS")]
    recipes = [run for name in order for run in settings[name]]
    recipes.sort(key=lambda run: run.seed)
    recipes += looked + distant
    recipes += [run for name in controls for run in settings[name]]
    return {
        "recipes": recipes,
        "first": [run for name in DECISIVE for run in settings[name]],
        "printed": [run for name in plotted for run in settings[name]],
        "settings": settings,
        "order": order,
        "looked": looked,
        "distant": distant,
    }
