"""The runs of chapter 2: SAM and adversarial training, and their controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from widemin.attacks import Ball, parse_ball
from widemin.experiments.recipe import Recipe, grid


def _balls(*texts: str) -> tuple[Ball, ...]:
    return tuple(map(parse_ball, texts))


# The paper's.
TEST_BALLS = _balls("linf 1/255", "linf 2/255", "l2 16/255", "l2 32/255")


def plan(
    *,
    dataset: str,
    model: str,
    attack: str,
    width: int,
    train_size: int,
    epochs: int,
    rhos: list[float],
    attack_steps: int,
    batch_size: int,
    augments: list[str],
    seeds: int,
    table_network: tuple[int, int],
    table_seeds: tuple[int, int, int],
    table_balls: list[str],
    test_size: int,
    strong_size: int,
    hessian_size: int,
    **_: object,
) -> dict[str, Any]:
    """Return the chapter's lists of runs by name, from the numbers of its page.

    `recipes` is all of them; `printed`, which is `table_recipes`, stands in the paper's
    tables; `control_recipes` holds a list a control.
    """
    base = Recipe(
        dataset=dataset,
        model=model,
        own_attack=attack,
        width=width,
        epochs=epochs,
        train_size=train_size,
        batch_size=batch_size,
        test_size=test_size,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="drop-75-90",
        augment=augments[0],
        attack_steps=attack_steps,
        tests=TEST_BALLS,
        hessian_size=hessian_size,
    )
    rho = rhos[len(rhos) // 2]
    other = replace(base, augment=augments[-1], epochs=epochs + epochs // 3)
    others = grid(other, seed=range(seeds), rho=[0.0, rho])
    first_recipes = grid(base, seed=range(seeds), rho=[0.0, *rhos])
    first_recipes += grid(base, seed=range(seeds), attack=[TEST_BALLS[1]])

    small_width, small_epochs = table_network
    balls = _balls(*table_balls)
    plain_seeds, attacked_seeds, sure_seeds = table_seeds
    small = replace(base, width=small_width, epochs=small_epochs)
    small = replace(small, test_size=-(-test_size // 2))
    plain = replace(
        small,
        tests=(*TEST_BALLS, *_balls("linf 4/255", "linf 8/255")),
        strong_attacks=("restarts",),
        strong_steps=50,
        strong_size=strong_size,
        autoattack_size=strong_size // 4,
        width_size=hessian_size // 5 if strong_size else 0,
        line_size=hessian_size // 5,
        other_statistics=dataset.startswith("cifar"),
    )
    # AutoAttack, the dearest, looks into the first seeds alone.
    watched = replace(plain, watch=TEST_BALLS[1], validation_size=min(500, test_size))
    sure = replace(watched, strong_attacks=("restarts", "autoattack"))
    looked_at = [sure if seed < sure_seeds else watched for seed in range(plain_seeds)]
    table_recipes = []
    for seed, run in enumerate(looked_at):
        table_recipes += grid(run, seed=[seed], rho=[0.0, *rhos])
    for seed in range(attacked_seeds):
        run = sure if seed < sure_seeds else watched
        table_recipes += [replace(run, seed=seed, attack=balls[0])]
        table_recipes += grid(replace(plain, seed=seed), attack=balls[1:2])

    sam = replace(small, rho=rho)
    both = replace(sam, attack=TEST_BALLS[1])
    controls = {
        "SGD, twice the epochs": replace(small, epochs=2 * small_epochs),
        "SGD, label smoothing 0.1": replace(small, label_smoothing=0.1),
        "SAM, statistics of both passes": replace(sam, second_pass_statistics=True),
        "AT and SAM": both,
        "AT and SAM, gradients leak": replace(both, gradient_leak=True),
    }
    control_recipes = {
        k: [run] if attacked_seeds else [] for k, run in controls.items()
    }
    recipes = first_recipes + (others if len(augments) > 1 else [])
    recipes = sorted(recipes, key=lambda run: run.seed) + table_recipes
    recipes += [run for runs in control_recipes.values() for run in runs]
    # The first two sets come first, then the others; the controls have one seed.
    softer = grid(plain, seed=range(attacked_seeds), attack=balls[2:])
    table_recipes = table_recipes + softer
    return {
        "recipes": recipes + softer,
        "first": [],
        "printed": table_recipes,
        "table_recipes": table_recipes,
        "first_recipes": first_recipes,
        "others": others,
        "control_recipes": control_recipes,
    }
