"""The binarization test of the attacks that the book uses."""

from __future__ import annotations

from functools import partial
from typing import Any

from widemin import attacks, evaluation
from widemin.evaluation import Attack, share
from widemin.experiments.measure.attacked import Target, pgd_attack
from widemin.experiments.recipe import stream


def binarized_values(t: Target) -> dict[str, Any]:
    """Return the shares of images in which attacks find the guaranteed example.

    They are of the images whose readout separates; where there is none, of nothing.
    """
    fgsm = partial(attacks.fgsm, ball=t.ball)
    pgd = partial(pgd_attack, t.ball, t.recipe, "binarized attack")
    ways: dict[str, Attack] = {
        "binarized_fgsm": fgsm,
        "binarized_fgsm_clipped": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "binarized_fgsm_margin": partial(fgsm, loss=attacks.margin),
        "binarized_fgsm_rescaled": partial(fgsm, loss=attacks.rescaled_cross_entropy),
        "binarized_pgd": pgd(),
        "binarized_pgd_margin": pgd(loss=attacks.margin),
    }
    x, draws = t.x[: t.recipe.binarized], stream(t.recipe.seed, "binarized")
    masks = evaluation.binarization(t.model, x, t.ball, ways, generator=draws)
    separable = masks.separable
    if not separable.any():
        return {"binarized_images": 0}
    values = {"binarized_images": int(separable.sum())}
    found = {"binarized_random": masks.random} | masks.found
    return values | {name: share(mask[separable]) for name, mask in found.items()}
