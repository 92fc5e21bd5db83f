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
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    work = _ascend(model, x, y, recipe, recipe.attack_steps, recipe.attack_step)
    return [
        {"step": step, "images": len(x)} | _quartiles(found)
        for step, found in enumerate(work)
    ]


def by_fosc(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return what images of like FOSC have in common: a row a bin of as many images.

    Test images on their way up the training attack: all its steps together ("all"),
    and where it ends alone ("last"). Bins are by FOSC, and by FOSC divided by the
    largest first-order gain (`by`); each has its mean FOSC (`value`), the accuracy and
    the mean loss.
    """
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    work = _ascend(model, x, y, recipe, recipe.attack_steps, recipe.attack_step)
    rows = []
    for pool, steps in (("all", work[1:]), ("last", work[-1:])):
        joined = {k: torch.cat([found[k] for found in steps]) for k in work[-1]}
        for by in ("fosc", "normalised_fosc"):
            order = joined[by].argsort()
            for index, members in enumerate(order.tensor_split(recipe.fosc_bins)):
                row: dict[str, Any] = {"pool": pool, "by": by, "bin": index}
                row["images"] = len(members)
                row["value"] = float(joined[by][members].mean())
                row["accuracy"] = 1 - share(joined["fooled"][members])
                rows.append(row | {"loss": float(joined["loss"][members].mean())})
    return rows


def by_strength(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return accuracy, loss and FOSC where attacks of other strengths end, a row each.

    PGD from a random start on test images, over sizes and over numbers of its steps.
    """
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    tried = [(10, size) for size in SIZES] + [(steps, 1 / 4) for steps in NUMBERS[1:]]
    rows = []
    for steps, size in tried:
        found = _ascend(model, x, y, recipe, steps, size)[-1]
        row: dict[str, Any] = {"steps_taken": steps, "step_radii": size}
        row["images"] = len(x)
        row["accuracy"] = 1 - share(found["fooled"])
        rows.append(row | _quartiles(found))
    return rows


def _ascend(
    model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, steps: int, size: float
) -> list[dict[str, Tensor]]:
    """Return what PGD records in its set at the start and after each step."""
    ball = recipe.attack
    assert ball is not None
    work: list[dict[str, Tensor]] = []
    attacks.pgd_path(
        fuse(model),
        x,
        y,
        ball,
        steps=steps + 1,  # the last gradient is taken after the last step
        step_size=ball.epsilon * size,
        generator=stream(recipe.seed, "ascent"),
        record=work,
    )
    for found in work:
        found["normalised_fosc"] = _ratio(found["fosc"], found["reach"])
        if "fosc_box" in found:
            box = _ratio(found["fosc_box"], found["reach_box"])
            found["normalised_fosc_box"] = box
        del found["at"]
    return work


def _quartiles(found: dict[str, Tensor]) -> dict[str, float]:
    """Return quartiles of loss and FOSC over images."""
    row: dict[str, float] = {}
    for name, columns in QUARTILES.items():
        if name in found:
            at = found[name].new_tensor([0.25, 0.5, 0.75])
            row |= zip(columns, found[name].quantile(at).tolist(), strict=True)
    return row


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where the whole is 0."""
    return part / whole.where(whole > 0, torch.ones_like(whole))
