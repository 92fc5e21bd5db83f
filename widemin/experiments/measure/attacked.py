"""Attacks on a trained network, the paper's and stronger ones."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from widemin import attacks, evaluation
from widemin.attacks import Ball
from widemin.evaluation import share
from widemin.experiments import own
from widemin.experiments.measure.parts import Part
from widemin.experiments.recipe import Recipe, stream
from widemin.models import fuse


def one_step_attacks(model: nn.Module, ball: Ball) -> dict[str, evaluation.Attack]:
    """Return FGSM computed in five ways, by the column of what each leaves."""
    fgsm = partial(attacks.fgsm, ball=ball)
    return {
        "fgsm_accuracy": fgsm,
        "fgsm_clipped_accuracy": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "fgsm_float64_accuracy": lambda _, x, y: evaluation.fgsm_float64(
            model, x, y, ball
        ),
        "fgsm_margin_accuracy": partial(fgsm, loss=attacks.margin),
        "fgsm_rescaled_accuracy": partial(fgsm, loss=attacks.rescaled_cross_entropy),
    }


def surviving(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe, parts: Part
) -> dict[str, Tensor]:
    """Return which images each attack leaves right, shape (images,), in one set."""
    pgd = partial(pgd_attack, ball, recipe)
    ways = one_step_attacks(model, ball)
    ways["pgd_accuracy"] = pgd("test")
    ways["pgd_margin_accuracy"] = pgd("test", loss=attacks.margin)
    if recipe.own_attack:
        draws = stream(recipe.seed, "own attack")
        ways["own_accuracy"] = own.attack(recipe.own_attack, ball, draws)
    return evaluation.robust_mask(model, x, y, ways, each=parts)


# By whose images they are: the network's own, or those of a surrogate.
_WANG = {
    "wang": {
        "fgsm": "wang_fgsm_accuracy",
        "pgd10": "wang_pgd10_accuracy",
        "pgd20": "wang_pgd20_accuracy",
        "cw": "wang_cw_accuracy",
    },
    "natural": {
        "fgsm": "natural_fgsm_accuracy",
        "pgd10": "natural_pgd10_accuracy",
        "pgd20": "natural_pgd20_accuracy",
        "cw": "natural_cw_accuracy",
    },
    "robust": {
        "fgsm": "robust_fgsm_accuracy",
        "pgd10": "robust_pgd10_accuracy",
        "pgd20": "robust_pgd20_accuracy",
        "cw": "robust_cw_accuracy",
    },
}


def wang_values(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    recipe: Recipe,
    surrogates: Mapping[str, nn.Module],
    parts: Part,
) -> dict[str, float]:
    """Return accuracy under the attacks of Wang et al.'s tables 1 and 2.

    FGSM; PGD-10 and PGD-20 from a random start, in steps of a quarter of the radius;
    C&W: 30 steps on the margin, of a tenth of the radius, as the released code takes
    them but with a proper mask. Then the same made on each surrogate.
    """
    pgd = partial(attacks.pgd, ball=ball)

    def ways() -> dict[str, evaluation.Attack]:
        draws = stream(recipe.seed, "white box")
        quarter = partial(pgd, step_size=ball.epsilon / 4, generator=draws)
        return {
            "fgsm": partial(attacks.fgsm, ball=ball),
            "pgd10": partial(quarter, steps=10),
            "pgd20": partial(quarter, steps=20),
            "cw": partial(
                pgd,
                steps=30,
                step_size=ball.epsilon / 10,
                generator=draws,
                loss=attacks.margin,
            ),
        }

    def from_itself() -> dict[str, float]:
        right = evaluation.robust_mask(model, x, y, ways())
        return {_WANG["wang"][name]: share(mask) for name, mask in right.items()}

    def from_another(kind: str) -> dict[str, float]:
        source, accuracies = surrogates[kind], {}
        for name, attack in ways().items():
            mask = evaluation.transfer(source, model, x, y, attack)
            accuracies[_WANG[kind][name]] = share(mask)
        return accuracies

    found = parts("white box", from_itself)
    for kind in surrogates:
        found |= parts(f"from the {kind} one", partial(from_another, kind))
    return found


def pgd_attack(
    ball: Ball,
    recipe: Recipe,
    draws: str,
    *,
    until_fooled: bool = True,
    **options: Any,
) -> evaluation.Attack:
    """Return the recipe's PGD in a set, which draws its starts from a named stream."""
    return partial(
        attacks.pgd,
        ball=ball,
        steps=recipe.pgd_steps,
        step_size=2.5 * ball.epsilon / recipe.pgd_steps,  # Madry et al. 2018
        until_fooled=until_fooled,
        generator=stream(recipe.seed, draws),
        **options,
    )


def strong_values(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    recipe: Recipe,
    pgd: Tensor | None,
    parts: Part,
) -> dict[str, Any]:
    """Return what costs most, on the first images alone: nothing where there are none.

    As `strong_attacks` says: margin-loss PGD with five random starts, the same in
    float64, AutoAttack, where it is installed, and the smallest radius that fools each
    image, with how far FGSM on clipped probabilities moves the images at all. What
    `pgd` left of all images is given for just those, too; the distance needs none.
    """
    if not recipe.strong_size:
        return {}
    x, y = x[: recipe.strong_size], y[: recipe.strong_size]
    wanted = recipe.strong_attacks
    found: dict[str, Any] = {"strong_images": len(x)}
    if "restarts" in wanted and pgd is not None:
        found["restarts_pgd_accuracy"] = share(pgd[: len(x)])
    ways = {
        "restarts": partial(_restarted, model, x, y, ball, recipe),
        "distance": partial(_distances, model, x, y, ball),
        "autoattack": partial(_autoattack, model, x, y, ball, recipe, pgd),
    }
    for name, work in ways.items():
        if name in wanted or (name == "restarts" and "float64" in wanted):
            found |= parts(name, work)
    return found


def _restarted(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe
) -> dict[str, float]:
    """Return what margin-loss PGD with restarts leaves, then the same in float64.

    One part of the measurement: the second draws on where the first left off.
    """
    again = pgd_attack(
        ball,
        replace(recipe, pgd_steps=recipe.strong_steps or recipe.pgd_steps),
        "restarts",
        loss=attacks.margin,
        restarts=5,
    )
    found = {}
    if "restarts" in recipe.strong_attacks:
        mask = evaluation.robust_mask(model, x, y, {"": again})[""]
        found["restarts_accuracy"] = share(mask)
    if "float64" in recipe.strong_attacks:
        with evaluation.in_float64(model):
            mask = evaluation.robust_mask(model, x.double(), y, {"": again})[""]
        found["restarts_float64_accuracy"] = share(mask)
    return found


def _distances(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> dict[str, float]:
    """Return quartiles of the smallest radius that fools, and how far FGSM moves."""
    norm = "linf" if isinstance(ball, attacks.Linf) else "l2"
    most = 1.0 if norm == "linf" else float(x[0].numel()) ** 0.5  # any image to any
    distance = evaluation.minimal_distance(model, x, y, norm=norm, most=most)
    moved = attacks.fgsm(fuse(model), x, y, ball, loss=attacks.clipped_cross_entropy)
    moved = (moved - x).abs().flatten(1).amax(1)
    quarters = distance.quantile(distance.new_tensor([0.25, 0.5, 0.75]))
    return {
        "moved_share": share(moved > 0),
        "moved_mean": float(moved.mean()),
        "distance_q25": float(quarters[0]),
        "distance_q50": float(quarters[1]),
        "distance_q75": float(quarters[2]),
    }


def _autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    recipe: Recipe,
    pgd: Tensor | None,
) -> dict[str, Any]:
    """Return what AutoAttack leaves: nothing where it is not installed."""
    if pgd is None:
        return {}
    size = recipe.autoattack_size or len(x)
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask, heard = evaluation.autoattack(
            model, x[:size], y[:size], ball, seed=recipe.seed
        )
        return {
            "autoattack_accuracy": share(mask),
            "autoattack_pgd_accuracy": share(pgd[:size]),
            "autoattack_warnings": len(heard),
            "autoattack_images": len(mask),
        }
    return {}
