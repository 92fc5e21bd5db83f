"""Flatness of a network whose logits are divided by their median margin."""

from __future__ import annotations

from typing import Any

from torch import nn

from widemin import evaluation, hessian, landscape
from widemin.data import images
from widemin.experiments.measure.curvature import ADAPTIVE_RADIUS, widths
from widemin.experiments.recipe import Recipe, stream

CHUNK = 250  # images at a time: on a CPU faster than twice as many
_PLAIN = "width_weights_0.1", "width_weights_1"  # at each of GAPS
_SCALE_FREE = "scale_free_width_nodes_0.1", "scale_free_width_nodes_1"


def scale_free_values(model: nn.Module, recipe: Recipe, device: str) -> dict[str, Any]:
    """Return flatness on the first training images, at a median margin of 1 there.

    And, unless `width_size` asks for them, the widths in weights as the network is. No
    number of a network whose median margin is not above 0.
    """
    size = min(recipe.scale_free_size, recipe.train_size)
    if not size:
        return {}
    x, y = images(recipe.dataset, "train", size, device)
    median = float(evaluation.margins(model, x, y).median())
    if median <= 0:
        return {}
    plain = {}
    if not recipe.width_size:
        plain = widths(model, x, y, "weights", _PLAIN, recipe, _search)
    batch = min(recipe.batch_size, recipe.train_size)
    many = images(recipe.dataset, "train", max(size, batch), device)
    with landscape.logit_scale(model, 1 / median):
        draws = stream(recipe.seed, "probes")
        top = hessian.top_eigenvalues(model, x, y, generator=draws, tolerance=3e-2)
        draws = stream(recipe.seed, "batch sharpness")
        return plain | {
            "scale_free_images": size,
            "scale_free_adaptive_sharpness": landscape.adaptive_sharpness(
                model, x, y, rho=ADAPTIVE_RADIUS, chunk=CHUNK
            ),
            "scale_free_relative_flatness": landscape.relative_flatness(model, x, y),
            "scale_free_top_eigenvalue": float(top.values[0]),
            "scale_free_batch_sharpness": hessian.batch_sharpness(
                model, *many, batch, generator=draws
            ),
            **widths(model, x, y, "nodes", _SCALE_FREE, recipe, _search),
        }


def _search(below: landscape.Width | None) -> dict[str, Any]:
    """Return the options of a search that starts in few directions.

    From the gradient; at the next level, which may have several near ways, from the way
    to the level below, both ways, and from a random direction.
    """
    start: dict[str, Any] = {"uphill": True, "starts": 0, "reach": 0.05}
    if below:
        start = {"first": below.direction, "starts": 1, "reach": 3 * below.distance}
    return start | {"random_directions": 0, "tolerance": 5e-3, "chunk": CHUNK}
