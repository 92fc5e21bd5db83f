"""What is measured of every trained network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from widemin import attacks, data, evaluation
from widemin.attacks import Ball
from widemin.batches import at_once
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.measure.attacked import (
    pgd_attack,
    strong_values,
    surviving,
    wang_values,
)
from widemin.experiments.measure.curvature import (
    curvature_values,
    implicit_values,
    width_values,
)
from widemin.experiments.measure.parts import Parts
from widemin.experiments.measure.revisions import REVISIONS, state
from widemin.experiments.recipe import Recipe
from widemin.experiments.recipe_checks import OTHER
from widemin.models import Normalise, fuse


def measure(
    model: nn.Module,
    recipe: Recipe,
    device: str,
    brief: nn.Module | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
    parts: Parts | None = None,
    only: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Return a row per test set, with every instrument's number.

    Args:
        model: The recipe's network, trained.
        recipe: How to measure.
        device: cpu or cuda.
        brief: A briefly trained network, whose adversarial images are tried as well.
        surrogates: Networks by kind, on which Wang et al.'s attacks are made as well.
        parts: What has been measured already, and where the rest is kept.
        only: Instruments, of `revisions.REVISIONS`, that measure; by default all.

    Raises:
        Stopped: Asked to stop; the parts that are done are kept.
    """
    parts = parts or Parts()
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    chosen = set(REVISIONS) if only is None else set(only)
    common = {}
    if "answers" in chosen:
        common = parts("answers", lambda: _logits(model, x, y))
    of_training = {
        "curvature": curvature_values,
        "widths": width_values,
        "implicit": implicit_values,
    }
    for name, instrument in of_training.items():
        if name in chosen:
            work = partial(instrument, model, recipe, device)
            common = common | parts(instrument.__name__, work)
    rows = []
    for ball in recipe.tests:
        mine = parts.of(str(ball))
        row = {"test": str(ball), "images": len(x)} | common
        right: dict[str, Tensor] = {}
        if chosen & {"attacks", "restarts", "autoattack"}:
            right = surviving(model, x, y, ball, recipe, mine)
        if "attacks" in chosen:
            row |= {column: share(mask) for column, mask in right.items()}
            row["worst_accuracy"] = share(torch.stack(list(right.values())).all(0))
        strong = {n: n if n != "float64" else "restarts" for n in recipe.strong_attacks}
        asked = tuple(name for name, of in strong.items() if of in chosen)
        again = replace(recipe, strong_attacks=asked)
        row |= strong_values(model, x, y, ball, again, right.get("pgd_accuracy"), mine)
        if "other statistics" in chosen:
            work = partial(_other_statistics, model, x, y, ball, recipe)
            row |= mine("other statistics", work)
        if "transfer" in chosen and brief is not None:
            # All steps: an image that just fools its own network fools few others.
            attack = pgd_attack(
                ball, recipe, "transfer", loss=attacks.margin, until_fooled=False
            )
            moved = partial(evaluation.transfer, brief, model, x, y, attack)
            row["transfer_accuracy"] = share(mine("transfer", moved))
        if "white box" in chosen and recipe.white_box:
            row |= wang_values(model, x, y, ball, recipe, surrogates or {}, mine)
        rows.append(state(row, chosen))
    return rows


def _logits(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return natural accuracy and the signs that its gradients are masked."""
    margin, size = evaluation.margins(model, x, y), at_once(model, cpu=500)
    with torch.no_grad(), attacks.inference(model):
        answers = torch.cat([model(part).argmax(1) for part in x.split(size)])
    with attacks.inference(model):
        flat = torch.cat(
            [
                (attacks.input_gradient(model, a, b)[0] == 0).flatten(1).all(1)
                for a, b in zip(x.split(size), y.split(size), strict=True)
            ]
        )
    return {
        "natural_accuracy": share(margin > 0),
        "median_margin": float(margin.median()),
        "masked_share": share(margin > evaluation.MASKED_MARGIN),
        "zero_gradient_share": share(flat),
        "constant": bool((answers == answers[0]).all()),  # one answer to everything
    }


def _other_statistics(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe
) -> dict[str, float]:
    """Return what PGD leaves, classified rightly and with the other CIFAR's statistics.

    The released evaluation of Wei et al. perturbs CIFAR-100 with the network's own
    statistics and classifies with CIFAR-10's.
    """
    if not recipe.other_statistics:
        return {}
    own = next(layer for layer in model.modules() if isinstance(layer, Normalise))
    statistics = data.DATASETS[OTHER[recipe.dataset]].statistics
    assert statistics is not None
    other = Normalise(statistics).to(x)
    attack = pgd_attack(ball, recipe, "test", until_fooled=False)
    fast = fuse(model)
    parts = zip(*(t.split(at_once(model)) for t in (x, y)), strict=True)
    moved = torch.cat([attack(fast, a, b) for a, b in parts])
    found = {"all_steps_accuracy": share(evaluation.correct(model, moved, y))}
    kept = own.mean, own.std
    try:
        own.mean, own.std = other.mean, other.std
        found["other_natural_accuracy"] = share(evaluation.correct(model, x, y))
        found["other_statistics_accuracy"] = share(evaluation.correct(model, moved, y))
    finally:
        own.mean, own.std = kept
    return found
