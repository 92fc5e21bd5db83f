"""Logits rescaled, and pictures of what an attack made."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from widemin import attacks, evaluation, landscape
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.measure.attacked import one_step_attacks, pgd_attack
from widemin.experiments.recipe import Recipe
from widemin.models import fuse

FACTORS = (1, 2, 4, 8, 16, 32, 64)  # of the logits


def scaled(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return FGSM's answers for a network whose logits are multiplied, a row a factor.

    Predictions, and so the true robustness, are the same in every row.
    """
    x, y = images(recipe.dataset, "test", recipe.test_size, device)
    rows = []
    for ball in recipe.tests:
        ways = {"natural_accuracy": attacks.clean} | one_step_attacks(model, ball)
        strong = pgd_attack(ball, recipe, "test", loss=attacks.margin)
        ways["pgd_margin_accuracy"] = strong
        for factor in FACTORS:
            with landscape.logit_scale(model, factor):
                right = evaluation.robust_mask(model, x, y, ways)
                margin = evaluation.margins(model, x, y)
            row = {"test": str(ball), "factor": factor, "images": len(x)}
            row |= {column: share(mask) for column, mask in right.items()}
            row["masked_share"] = share(margin > evaluation.MASKED_MARGIN)
            rows.append(row | {"median_margin": float(margin.median())})
    return rows


def pictures(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return the first test images and what attacks make of them, as PNG in base64."""
    x, y = images(recipe.dataset, "test", recipe.pictures, device)
    ball = recipe.tests[0]
    ways = {"natural": attacks.clean} | one_step_attacks(model, ball)
    ways["pgd_margin"] = pgd_attack(ball, recipe, "pictures", loss=attacks.margin)
    rows, fast = [], fuse(model)
    for way, attack in ways.items():
        with attacks.inference(model):
            moved = attack(fast, x, y)
            with torch.no_grad():
                answers = model(moved).argmax(1)
        size = (moved - x).abs().flatten(1).amax(1)
        for index, image in enumerate(moved):
            row = {"image": index, "way": way.removesuffix("_accuracy")}
            row["png"] = _png(image)
            row |= {"label": int(y[index]), "answer": int(answers[index])}
            rows.append(row | {"moved": float(size[index])})
    return rows


def _png(image: Tensor) -> str:
    """Return an image in [0, 1], shape (channels, height, width), as PNG in base64."""
    shades = (255 * image).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(shades.squeeze()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
