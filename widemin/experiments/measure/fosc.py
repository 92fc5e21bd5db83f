"""FOSC as a measure of how strong an attack is (Wang et al. 2019, section 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from widemin import attacks, evaluation
from widemin.attacks import Ball
from widemin.batches import at_once
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.measure.attacked import Target, pgd_attack
from widemin.experiments.recipe import Recipe, stream
from widemin.models import fuse
from widemin.statistics import auroc

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
# Areas under the ROC curve, by the number that foretells.
AUROC = {
    "fosc_auroc": "fosc",
    "normalised_fosc_auroc": "normalised_fosc",
    "normalised_fosc_box_auroc": "normalised_fosc_box",
    "loss_auroc": "loss",
    "margin_auroc": "margin",  # of the best other logit minus the true one
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
        names = ("fosc", "normalised_fosc", "fooled", "loss")
        joined = {name: torch.cat([taken[name] for taken in steps]) for name in names}
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


def certificate(t: Target) -> dict[str, Any]:
    """Return areas by which numbers where PGD-10 ends foretell a stronger attack.

    Of each number the area under the ROC curve, over the images that PGD-10 leaves:
    above 1/2 where larger ones are broken more often. NaN where all are, or none. The
    stronger attack has 50 steps, on the margin from ten starts, on the loss from five.
    """
    draws, chunk, ends = stream(t.recipe.seed, "certificate"), at_once(t.model), []
    for x, y in zip(t.x.split(chunk), t.y.split(chunk), strict=True):
        end = _path(fuse(t.model), x, y, t.ball, 10, 1 / 4, draws)[-1]
        end["margin"] = -evaluation.margins(t.model, end.pop("at"), y)
        ends.append(end)
    joined = {name: torch.cat([end[name] for end in ends]) for name in ends[0]}
    survivors = evaluation.correct(t.model, t.x, t.y) & (joined["margin"] < 0)
    left = survivors.clone()
    for loss, restarts in ((attacks.margin, 10), (attacks.cross_entropy, 5)):
        how: dict[str, Any] = {"steps": 50, "loss": loss, "restarts": restarts}
        strong = pgd_attack(t.ball, t.recipe, "stronger", **how)
        if left.any():
            rest = replace(t, x=t.x[left], y=t.y[left])
            left[left.clone()] = rest.left(strong)
    broken = ~left[survivors]
    values: dict[str, Any] = {"certificate_survivors": len(broken)}
    values["certificate_broken"] = int(broken.sum())
    for column, name in AUROC.items():
        if name in joined:
            score = joined[name][survivors]
            values[column] = auroc(score.cpu().numpy(), broken.cpu().numpy())
    return values


def _ascend(
    model: nn.Module, recipe: Recipe, device: str, steps: int, size: float
) -> list[dict[str, Tensor]]:
    """Return `_path` in the training attack's set, on test images."""
    assert recipe.attack
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    draws = stream(recipe.seed, "ascent")
    return _path(fuse(model), x, y, recipe.attack, steps, size, draws)


def _path(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    steps: int,
    size: float,
    draws: torch.Generator,
) -> list[dict[str, Tensor]]:
    """Return the records of PGD, at the start and after each step of `size` radii."""
    path: list[dict[str, Tensor]] = []
    attacks.pgd_path(
        model,
        x,
        y,
        ball,
        steps=steps + 1,  # the last gradient is taken after the last step
        step_size=ball.epsilon * size,
        generator=draws,
        record=path,
    )
    for taken in path:
        for name, reach in (("fosc", "reach"), ("fosc_box", "reach_box")):
            if name in taken:
                most = taken[reach].where(taken[reach] > 0, 1.0)  # 0 where it is 0
                taken[f"normalised_{name}"] = taken[name] / most
    for taken in path[:-1]:
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
