"""The runs of chapter 2: SAM and adversarial training, and their controls."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from widemin.attacks import parse_ball
from widemin.experiments.recipe import grid
from widemin.papers.base import base_recipe
from widemin.papers.wei.claims import PAPER_SETS

TEST_BALLS = tuple(map(parse_ball, PAPER_SETS))
LARGER_BALLS = parse_ball("linf 4/255"), parse_ball("linf 8/255")


def plan(**values: Any) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `printed`, which is `table_recipes`, stands in the paper's
    tables; `control_recipes` holds a list a control.
    """
    p = SimpleNamespace(**values)
    fixed = dict[str, Any](momentum=0.9, weight_decay=5e-4, schedule="drop-75-90")
    base = base_recipe(values, augment=p.augments[0], tests=TEST_BALLS, **fixed)
    rho = p.rhos[len(p.rhos) // 2]
    other = replace(base, augment=p.augments[-1], epochs=p.epochs + p.epochs // 3)
    others = grid(other, seed=range(p.seeds), rho=[0.0, rho])
    first_recipes = grid(base, seed=range(p.seeds), rho=[0.0, *p.rhos])
    first_recipes += grid(base, seed=range(p.seeds), attack=TEST_BALLS[1:2])

    small_width, small_epochs = p.table_network
    plain_seeds, attacked_seeds, sure_seeds = p.table_seeds
    small = replace(base, width=small_width, epochs=small_epochs)
    small = replace(small, test_size=-(-p.test_size // 2))
    plain = replace(
        small,
        tests=TEST_BALLS + LARGER_BALLS,
        strong_attacks=("restarts",),
        strong_steps=50,
        strong_size=p.strong_size,
        autoattack_size=p.strong_size // 4,
        width_size=p.hessian_size // 5 if p.strong_size else 0,
        line_size=p.hessian_size // 5,
        other_statistics=p.dataset.startswith("cifar"),
    )
    watched = replace(plain, watch=TEST_BALLS[1], validation_size=min(500, p.test_size))

    def looked_into(seed: int) -> Any:
        # AutoAttack, the dearest, looks into the first seeds alone.
        attacks = ("restarts", "autoattack") if seed < sure_seeds else ("restarts",)
        return replace(watched, seed=seed, strong_attacks=attacks)

    table_recipes = []
    for seed in range(plain_seeds):
        table_recipes += grid(looked_into(seed), rho=[0.0, *p.rhos])
    for seed in range(attacked_seeds):
        table_recipes += grid(looked_into(seed), attack=p.table_balls[:1])
        table_recipes += grid(replace(plain, seed=seed), attack=p.table_balls[1:2])

    sam = replace(small, rho=rho)
    both = replace(sam, attack=TEST_BALLS[1])
    controls = {
        "SGD, twice the epochs": replace(small, epochs=2 * small_epochs),
        "SGD, label smoothing 0.1": replace(small, label_smoothing=0.1),
        "SAM, statistics of both passes": replace(sam, second_pass_statistics=True),
        "AT and SAM": both,
        "AT and SAM, gradients leak": replace(both, gradient_leak=True),
    }
    once = [0] if attacked_seeds else []  # the controls have one seed
    control_recipes = {name: grid(run, seed=once) for name, run in controls.items()}
    recipes = first_recipes + (others if len(p.augments) > 1 else [])
    recipes = sorted(recipes, key=lambda run: run.seed) + table_recipes
    recipes += [run for runs in control_recipes.values() for run in runs]
    # The first two sets come first, then the others.
    softer = grid(plain, seed=range(attacked_seeds), attack=p.table_balls[2:])
    lists = dict(first_recipes=first_recipes, others=others, first=[])
    lists |= dict.fromkeys(("printed", "table_recipes"), table_recipes + softer)
    return lists | dict(recipes=recipes + softer, control_recipes=control_recipes)
