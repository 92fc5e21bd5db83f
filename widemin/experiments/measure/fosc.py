"""FOSC as a measure of how strong an attack is (Wang et al. 2019, section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from widemin import attacks
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.recipe import Recipe, stream
from widemin.models import fuse

# Columns of the quartiles over images, by what they are of.
QUARTILES = {
    "loss": ("loss_q25", "loss_q50", "loss_q75"),
    "fosc": ("fosc_q25", "fosc_q50", "fosc_q75"),
    "normalised_fosc": (
        "normalised_fosc_q25",
        "normalised_fosc_q50",
        "normalised_fosc_q75",
    ),
    "normalised_fosc_box": (
        "normalised_fosc_box_q25",
        "normalised_fosc_box_q50",
        "normalised_fosc_box_q75",
    ),
}
# Sizes of a step, in radii, with 10 steps; numbers of steps, of a quarter of a radius.
SIZES, NUMBERS = (1.0, 1 / 2, 1 / 4, 1 / 6, 1 / 8), (10, 20, 30, 40)


def climb(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return quartiles of loss and FOSC along the training attack, on test images."""
    path = _ascend(model, recipe, device, recipe.attack_steps, recipe.attack_step)
    return [
        {"step": step, "images": recipe.test_size} | _quartiles(taken)
        for step, taken in enumerate(path)
    ]


def by_fosc(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return accuracy and mean loss by FOSC bin, one row per equal-sized bin.

    Test images on their way up the training attack: all its steps together ("all"),
    and where it ends alone ("last"). Bins are by FOSC, and by FOSC divided by the
    largest first-order gain (`by`); `value` is their mean.
    """
    path = _ascend(model, recipe, device, recipe.attack_steps, recipe.attack_step)
    rows = []
    for pool, steps in (("all", path[1:]), ("last", path[-1:])):
        joined = {k: torch.cat([taken[k] for taken in steps]) for k in path[-1]}
        for by in ("fosc", "normalised_fosc"):
            order = joined[by].argsort()
            for index, members in enumerate(order.tensor_split(recipe.fosc_bins)):
                row: dict[str, Any] = {"pool": pool, "by": by, "bin": index}
                row |= {
                    "images": len(members),
                    "value": float(joined[by][members].mean()),
                }
                row["accuracy"] = 1 - share(joined["fooled"][members])
                rows.append(row | {"loss": float(joined["loss"][members].mean())})
    return rows


def by_strength(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return accuracy, loss and FOSC where attacks of other strengths end, a row each.

    PGD from a random start on test images, over sizes and over numbers of its steps.
    """
    tried = [(10, size) for size in SIZES] + [(steps, 1 / 4) for steps in NUMBERS[1:]]
    rows = []
    for steps, size in tried:
        end = _ascend(model, recipe, device, steps, size)[-1]
        row: dict[str, Any] = {"steps_taken": steps, "step_radii": size}
        row |= {"images": recipe.test_size, "accuracy": 1 - share(end["fooled"])}
        rows.append(row | _quartiles(end))
    return rows


def _ascend(
    model: nn.Module, recipe: Recipe, device: str, steps: int, size: float
) -> list[dict[str, Tensor]]:
    """Return the records of PGD on test images, at the start and after each step."""
    ball = recipe.attack
    assert ball
    path: list[dict[str, Tensor]] = []
    attacks.pgd_path(
        fuse(model),
        *images(recipe.dataset, "test", recipe.test_size, device),
        ball,
        steps=steps + 1,  # the last gradient is taken after the last step
        step_size=ball.epsilon * size,
        generator=stream(recipe.seed, "ascent"),
        record=path,
    )
    for taken in path:
        for name, reach in (("fosc", "reach"), ("fosc_box", "reach_box")):
            if name in taken:
                most = taken[reach].where(taken[reach] > 0, 1.0)  # 0 where it is 0
                taken[f"normalised_{name}"] = taken[name] / most
        del taken["at"]
    return path


def _quartiles(taken: dict[str, Tensor]) -> dict[str, float]:
    """Return quartiles of loss and FOSC over images."""
    row: dict[str, float] = {}
    for name, columns in QUARTILES.items():
        if name in taken:
            at = taken[name].new_tensor([0.25, 0.5, 0.75])
            row |= zip(columns, taken[name].quantile(at).tolist(), strict=True)
    return row
