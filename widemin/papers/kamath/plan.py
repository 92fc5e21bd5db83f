"""The runs of chapter 4: batch sizes by setting, controls, spectra."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from widemin.attacks import Linf
from widemin.experiments.recipe import grid
from widemin.papers.base import base_recipe

DECISIVE = ["LR", "LR/BS", "LR, other"]


def plan(**values: Any) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `first` is computed first, `printed` stands in the paper's
    figures; `settings` holds a list a setting, `order` the names of those shown.
    """
    p = SimpleNamespace(**values)
    tests, first = tuple(map(Linf, p.epsilons)), p.batch_sizes[0]
    base = base_recipe(values, batch_size=first, tests=tests)
    axes: dict[str, Any] = dict(seed=range(p.seeds), batch_size=p.batch_sizes)
    steady = grid(base, **axes)
    halved = replace(base, momentum=0.9, schedule="halve-20")
    settings = {"LR": steady, "Benchmark": grid(halved, **axes)}
    for m in p.momenta:
        settings[f"LR, m={m}"] = [replace(run, momentum=m) for run in steady]
    rates = {size: p.learning_rate / 64 * size for size in p.batch_sizes}
    scaled = [replace(run, learning_rate=rates[run.batch_size]) for run in steady]
    other = replace(base, dataset=p.other_dataset, model=p.other_model)
    settings |= {"LR/BS": scaled, "LR, other": grid(other, **axes)}
    order = DECISIVE + [name for name in settings if name not in DECISIVE]
    for m in p.momenta:  # controls
        settings[f"LR/BS, m={m}"] = [replace(run, momentum=m) for run in scaled]
        rate = round(p.learning_rate / (1 - m), 6)
        faster = [replace(run, learning_rate=rate) for run in steady]
        settings[f"LR/(1-m), m={m}"] = faster
    settings["LR, equal sum"] = [
        replace(run, epochs=max(1, round(p.epochs * run.batch_size / 64)))
        for run in steady
        if run.batch_size <= 512
    ]
    changed = dict[str, Any](optimizer="algorithm1", momentum=p.momenta[-1])
    of_64 = [replace(run, **changed) for run in steady if run.batch_size == 64]
    settings["Algorithm 1"] = of_64
    images, last = min(p.train_size, 5 * p.hessian_size), p.batch_sizes[-1]
    looked = [run for run in steady if run.batch_size in (first, last)]
    looked += [run for run in scaled if run.batch_size == last]
    looked = [replace(r, spectrum_size=images) for r in looked if r.seed == 0]
    far = dict[str, Any](strong_attacks=("distance",), tests=tests[:1])
    far |= dict(strong_size=p.strong_size)
    distant = [replace(run, **far) for run in steady + scaled if p.strong_size]
    controls = [name for name in settings if name not in order]
    plotted = order + [name for name in controls if name.startswith("LR/BS")]
    recipes = [run for name in order for run in settings[name]]
    recipes.sort(key=lambda run: run.seed)
    recipes += looked + distant
    lists = dict(settings=settings, order=order, looked=looked, distant=distant)
    return lists | {
        "recipes": recipes + [run for name in controls for run in settings[name]],
        "first": [run for name in DECISIVE for run in settings[name]],
        "printed": [run for name in plotted for run in settings[name]],
    }
