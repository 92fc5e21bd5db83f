"""What is measured of every trained network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from widemin import attacks, evaluation
from widemin.batches import at_once
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.measure import attacked, binarized, curvature, fosc
from widemin.experiments.measure.parts import REVISIONS, Parts, state
from widemin.experiments.measure.scale_free import scale_free_values
from widemin.experiments.recipe import Recipe


def measure(
    model: nn.Module,
    recipe: Recipe,
    device: str,
    brief: nn.Module | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
    parts: Parts | None = None,
    only: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Return a row per test set, measured by all instruments or by `only` some.

    Brief is the recipe's `transfer_source`, trained, as are its surrogates; parts are
    what has been measured already, and where the rest is kept.
    """
    parts = parts or Parts()
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    chosen = set(REVISIONS) if only is None else set(only)
    strong = {n: n if n != "float64" else "restarts" for n in recipe.strong_attacks}
    wanted = [name for name, instrument in strong.items() if instrument in chosen]
    common: dict[str, Any] = {"images": len(x)}
    if "answers" in chosen:
        common |= parts("answers", lambda: _logits(model, x, y))
    of_training = {
        "curvature": curvature.curvature_values,
        "widths": curvature.width_values,
        "scale free": scale_free_values,
        "implicit": curvature.implicit_values,
    }
    for name, values in of_training.items():
        if name in chosen:
            common |= parts(values.__name__, partial(values, model, recipe, device))
    rows = []
    for ball in recipe.tests:
        part, row = parts.of(str(ball)), {"test": str(ball)} | common
        tested, right = attacked.Target(model, recipe, ball, x, y), dict[str, Tensor]()
        if chosen & {"attacks", "restarts", "autoattack"}:
            right = attacked.surviving(tested, part)
        if "attacks" in chosen:
            row |= {column: share(mask) for column, mask in right.items()}
            row["worst_accuracy"] = share(torch.stack(list(right.values())).all(0))
        row |= attacked.strong_values(tested, wanted, right.get("pgd_accuracy"), part)
        if "other statistics" in chosen and recipe.other_statistics:
            row |= part("other statistics", partial(attacked.other_statistics, tested))
        if "transfer" in chosen and brief is not None:
            moved = part("transfer", partial(attacked.transferred, tested, brief))
            row["transfer_accuracy"] = share(moved)
        if "white box" in chosen and recipe.white_box:
            row |= attacked.wang_values(tested, surrogates or {}, part)
        if "binarization" in chosen and recipe.binarized:
            row |= part("binarization", partial(binarized.binarized_values, tested))
        if "certificate" in chosen and recipe.certificate:
            row |= part("certificate", partial(fosc.certificate, tested))
        rows.append(state(row, chosen))
    return rows


def _logits(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return natural accuracy and the signs that its gradients are masked."""
    margin, size = evaluation.margins(model, x, y), at_once(model, cpu=500)
    flat, answers = [], []
    with attacks.inference(model):
        for images, labels in zip(x.split(size), y.split(size), strict=True):
            with torch.no_grad():
                answers.append(model(images).argmax(1))
            slope, _, _ = attacks.input_gradient(model, images, labels)
            flat.append((slope == 0).flatten(1).all(1))
    answer = torch.cat(answers)
    return {
        "natural_accuracy": share(margin > 0),
        "median_margin": float(margin.median()),
        "masked_share": share(margin > evaluation.MASKED_MARGIN),
        "zero_gradient_share": share(torch.cat(flat)),
        "constant": bool((answer == answer[0]).all()),  # one answer to everything
    }
