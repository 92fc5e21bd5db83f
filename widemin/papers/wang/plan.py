"""The runs of chapter 3: defences, switches of the dynamic one, sizes of a step."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from widemin.attacks import Linf
from widemin.experiments.recipe import grid
from widemin.papers.base import base_recipe


def plan(**values: Any) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `in_depth` is computed first and stands in the paper's
    tables; `turned` holds a list a switch.
    """
    p = SimpleNamespace(**values)
    ball, fixed = Linf(p.epsilon), dict[str, Any](momentum=0.9, weight_decay=1e-4)
    base = base_recipe(values, fosc_max=0.0, tests=(ball,), pgd_steps=20, **fixed)
    # Under the trapezoid epsilon grows to its value over a quarter of training.
    ramp = 0.25 if p.schedule == "trapezoid" else 0.0
    attacked = replace(base, attack=ball, ramp=ramp)
    dynamic = replace(attacked, fosc_max=p.fosc_max)
    curriculum = replace(attacked, step_schedule="rising")
    longer, longest = (sorted({p.epochs, more}) for more in p.longer_epochs)
    defences = grid(attacked, seed=range(p.seeds))
    defences += grid(dynamic, seed=range(p.seeds), epochs=longer)
    defences += grid(base, seed=range(p.seeds))  # the paper's "unsecured"
    defences += grid(curriculum, seed=range(p.seeds), epochs=longest)

    deep_seeds, switch_seeds, sweep_seeds = map(range, p.other_seeds)
    deep = dict[str, Any](white_box=True, strong_attacks=("restarts", "autoattack"))
    deep |= dict(strong_size=p.strong_size, strong_steps=50)
    deep |= dict(autoattack_size=max(1, p.strong_size // 4))
    watched = dict[str, Any](watch_fosc=True, validation_size=min(500, p.test_size))
    watched |= dict(fosc_bins=10, surrogate_epochs=p.epochs)
    in_depth = [
        replace(run, **deep, **(watched if run.attack else {}))
        for trained in (attacked, dynamic, curriculum, base)
        for run in grid(trained, seed=deep_seeds)
    ]
    weighted = replace(dynamic, loss_weighted=True)
    decaying = replace(dynamic, weight_decay=0.0, rate_decay=1e-4)
    switches = {
        "FOSC from the random start": replace(dynamic, fosc_from_start=True),
        "loss weighted by itself": weighted,
        "both, as the released code": replace(weighted, fosc_from_start=True),
        "decay of the learning rate": decaying,
        "random number of steps": replace(attacked, step_schedule="random"),
        "one big step, then PGD": replace(attacked, step_schedule="weak-first"),
        "PGD, then one big step": replace(attacked, step_schedule="weak-last"),
    }
    turned = {name: grid(run, seed=switch_seeds) for name, run in switches.items()}
    sizes = [1.0, 1 / 2, 1 / 4, 1 / 6, 1 / 8]
    by_size = grid(attacked, seed=sweep_seeds, attack_step=sizes)
    by_number = grid(attacked, seed=sweep_seeds, attack_steps=[10, 20, 30, 40])
    recipes = defences[: (2 + len(longer)) * p.seeds] + in_depth + defences
    recipes += [run for runs in turned.values() for run in runs] + by_size + by_number
    lists = dict(recipes=recipes, defences=defences, turned=turned)
    lists |= dict.fromkeys(("first", "printed", "in_depth"), in_depth)
    return lists | dict(by_size=by_size, by_number=by_number)
