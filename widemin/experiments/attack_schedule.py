"""The inner problem of adversarial training: how strongly it is solved, and when."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from widemin import attacks, training
from widemin.experiments import lean_step
from widemin.experiments.recipe import Recipe
from widemin.models import fuse

Record = list[dict[str, Tensor]]


def ball_at(recipe: Recipe, t: float) -> attacks.Ball:
    """Return the set a recipe trains in after the fraction t of training."""
    assert recipe.attack is not None
    ball = recipe.attack
    return ball.scaled(min(1.0, t / recipe.ramp)) if recipe.ramp else ball


def attack_at(
    recipe: Recipe, t: float, generator: torch.Generator, record: Record | None = None
) -> training.Perturb:
    """Return the attack that a recipe trains on after the fraction t of training.

    Dynamic training stops an image once its FOSC is at most c_t, which falls linearly
    from fosc_max to 0 at 5/6 of training (Wang et al. 2019, section 4: 100 of 120
    epochs). The generator draws starts and numbers of steps; `record` is as of
    `attacks.pgd_path`.
    """
    grown = ball_at(recipe, t)
    if grown.epsilon == 0:
        return attacks.clean
    steps, size = _strength(recipe, t)
    threshold = recipe.fosc_max * max(0.0, 1 - t * 6 / 5)

    def perturb(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        each = None
        if recipe.step_schedule == "random":
            each = torch.randint(1, steps + 1, (len(x),), generator=generator)
        return attacks.pgd_path(
            fuse(model),
            x,
            y,
            grown,
            steps=steps,
            step_size=grown.epsilon * size,
            generator=generator,
            steps_each=each,
            fosc_below=threshold if recipe.fosc_max else None,
            fosc_from_start=recipe.fosc_from_start,
            record=record,
        )

    return perturb


def _strength(recipe: Recipe, t: float) -> tuple[int, float]:
    """Return number and size of the steps, in radii, at the fraction t of training."""
    steps, size = recipe.attack_steps, recipe.attack_step
    if recipe.step_schedule == "rising":  # 1, 2, ..., each for as long
        return min(steps, 1 + int(t * steps)), size
    weak_first = recipe.step_schedule == "weak-first" and t < 1 / 3
    weak_last = recipe.step_schedule == "weak-last" and t >= 2 / 3
    return (1, 1.0) if weak_first or weak_last else (steps, size)


def step_at(
    recipe: Recipe,
    model: nn.Module,
    optimizer: training.Optimizer,
    generator: torch.Generator,
    count: Callable[[int], None],
) -> Callable[[float], training.Step]:
    """Return the training step by progress, which is in [0, 1).

    `count` is told how many gradients of images were taken beside the step's own: by an
    attack, and in SAM's second pass.
    """
    if recipe.optimizer == "algorithm1":
        return lambda t: training.algorithm_1
    plain = recipe.method == "standard" and not recipe.loss_weighted
    if plain and lean_step.covers(model, optimizer):
        return lambda t: partial(lean_step.step, loss=recipe.own_loss)
    step = partial(
        training.train_step,
        second_pass_statistics=recipe.second_pass_statistics,
        loss=recipe.own_loss,
    )
    visited: list[Tensor] = []  # where the attack took gradients, in this step
    if recipe.gradient_leak:
        # The released code of Wei et al. clears no gradients between attack and SAM.
        step = partial(
            step, leak=lambda model, y: training.weight_gradient(model, visited, y)
        )

    def perturb(t: float, rho: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        count(len(x) if rho else 0)
        if not recipe.attack:
            return x
        work: Record = []
        moved = attack_at(recipe, t, generator, work)(model, x, y)
        count(sum(len(taken["images"]) for taken in work))
        visited[:] = [taken["at"] for taken in work] if recipe.gradient_leak else []
        return moved

    def at(t: float) -> training.Step:
        # The released code of Wang et al. weighs from the second epoch on.
        weighted = recipe.loss_weighted and t >= 1 / recipe.epochs
        rho = recipe.rho if t >= recipe.sam_from else 0.0
        how = {"perturb": partial(perturb, t, rho), "weighted": weighted, "rho": rho}
        return partial(step, **how)

    return at
