"""Attacks on a trained network: the papers', stronger ones, and what they make."""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from widemin import attacks, data, evaluation, landscape
from widemin.attacks import Ball
from widemin.batches import at_once
from widemin.data import images
from widemin.evaluation import Attack, share
from widemin.experiments import own
from widemin.experiments.measure.parts import Part
from widemin.experiments.recipe import OTHER, Recipe, stream
from widemin.models import Normalise, fuse

FACTORS = (1, 2, 4, 8, 16, 32, 64)  # of the logits


@dataclass(frozen=True)
class Target:
    """A trained network, the set in which it is attacked and the test images."""

    model: nn.Module
    recipe: Recipe
    ball: Ball
    x: Tensor
    y: Tensor

    def left(self, attack: Attack, source: nn.Module | None = None) -> Tensor:
        """Return a mask of the images right after an attack, on the source if given."""
        if source is not None:
            return evaluation.transfer(source, self.model, self.x, self.y, attack)
        return evaluation.robust_mask(self.model, self.x, self.y, {"": attack})[""]


def one_step_attacks(model: nn.Module, ball: Ball) -> dict[str, Attack]:
    """Return FGSM computed in five ways, by the column of what each leaves."""
    fgsm = partial(attacks.fgsm, ball=ball)
    double = partial(evaluation.fgsm_float64, ball=ball)
    return {
        "fgsm_accuracy": fgsm,
        "fgsm_clipped_accuracy": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "fgsm_float64_accuracy": lambda _, x, y: double(model, x, y),
        "fgsm_margin_accuracy": partial(fgsm, loss=attacks.margin),
        "fgsm_rescaled_accuracy": partial(fgsm, loss=attacks.rescaled_cross_entropy),
    }


def pgd_attack(
    ball: Ball, recipe: Recipe, draws: str, *, steps: int = 0, **options: Any
) -> Attack:
    """Return the recipe's PGD in a set, which draws its starts from a named stream."""
    steps = steps or recipe.pgd_steps
    return partial(
        attacks.pgd,
        ball=ball,
        steps=steps,
        step_size=2.5 * ball.epsilon / steps,  # Madry et al. 2018
        generator=stream(recipe.seed, draws),
        **{"until_fooled": True} | options,
    )


def surviving(t: Target, part: Part) -> dict[str, Tensor]:
    """Return masks of the images right after each attack, shape (images,)."""
    pgd = partial(pgd_attack, t.ball, t.recipe, "test")
    ways = one_step_attacks(t.model, t.ball)
    ways["pgd_accuracy"], ways["pgd_margin_accuracy"] = pgd(), pgd(loss=attacks.margin)
    if own_loss := t.recipe.own_loss:
        ways["fgsm_own_accuracy"] = partial(attacks.fgsm, ball=t.ball, loss=own_loss)
        ways["pgd_own_accuracy"] = pgd(loss=own_loss)
    if t.recipe.own_attack:
        draws = stream(t.recipe.seed, "own attack")
        ways["own_accuracy"] = own.attack(t.recipe.own_attack, t.ball, draws)
    return evaluation.robust_mask(t.model, t.x, t.y, ways, each=part)


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
    t: Target, surrogates: Mapping[str, nn.Module], part: Part
) -> dict[str, float]:
    """Return accuracy under the attacks of Wang et al.'s tables 1 and 2.

    FGSM; PGD-10 and PGD-20 from a random start, in steps of a quarter of the radius;
    C&W: 30 steps on the margin, of a tenth of the radius, as the released code takes
    them but with a proper mask. Then the same made on each surrogate.
    """

    def accuracies(kind: str, source: nn.Module | None = None) -> dict[str, float]:
        draws = stream(t.recipe.seed, "white box")
        pgd = partial(attacks.pgd, ball=t.ball, generator=draws)
        quarter = partial(pgd, step_size=t.ball.epsilon / 4)
        tenth = partial(pgd, step_size=t.ball.epsilon / 10)
        ways: dict[str, Attack] = {
            "fgsm": partial(attacks.fgsm, ball=t.ball),
            "pgd10": partial(quarter, steps=10),
            "pgd20": partial(quarter, steps=20),
            "cw": partial(tenth, steps=30, loss=attacks.margin),
        }
        return {_WANG[kind][n]: share(t.left(way, source)) for n, way in ways.items()}

    values: dict[str, float] = part("white box", partial(accuracies, "wang"))
    for kind, source in surrogates.items():
        values |= part(f"from the {kind} one", partial(accuracies, kind, source))
    return values


def strong_values(
    t: Target, wanted: Collection[str], pgd: Tensor | None, part: Part
) -> dict[str, Any]:
    """Return the columns of the attacks wanted on the first images: the dearest ones.

    Of the mask that PGD left of all images, the share on just these is given, too.
    """
    size = t.recipe.strong_size
    if not size:
        return {}
    few = Target(t.model, t.recipe, t.ball, t.x[:size], t.y[:size])
    values: dict[str, Any] = {"strong_images": len(few.x)}
    if "restarts" in wanted and pgd is not None:
        values["restarts_pgd_accuracy"] = share(pgd[:size])
    if {"restarts", "float64"} & set(wanted):
        values |= part("restarts", lambda: _restarted(few, wanted))
    if "distance" in wanted:
        values |= part("distance", lambda: _distances(few))
    if "autoattack" in wanted and pgd is not None:
        values |= part("autoattack", lambda: _autoattack(few, pgd))
    return values


def _restarted(t: Target, wanted: Collection[str]) -> dict[str, float]:
    """Return accuracies after margin-loss PGD with restarts, in float32 and float64.

    One part of the measurement: the second draws on where the first left off.
    """
    steps, loss = t.recipe.strong_steps, attacks.margin
    again = pgd_attack(t.ball, t.recipe, "restarts", steps=steps, loss=loss, restarts=5)
    values = {}
    if "restarts" in wanted:
        values["restarts_accuracy"] = share(t.left(again))
    if "float64" in wanted:
        double = Target(t.model, t.recipe, t.ball, t.x.double(), t.y)
        with evaluation.in_float64(t.model):
            values["restarts_float64_accuracy"] = share(double.left(again))
    return values


def _distances(t: Target) -> dict[str, float]:
    """Return quartiles of the smallest radius that fools, and how far FGSM moves."""
    norm, most = "linf", 1.0
    if isinstance(t.ball, attacks.L2):
        norm, most = "l2", float(t.x[0].numel()) ** 0.5  # from any image to any
    distance = evaluation.minimal_distance(t.model, t.x, t.y, norm=norm, most=most)
    loss, fast = attacks.clipped_cross_entropy, fuse(t.model)
    moved = attacks.fgsm(fast, t.x, t.y, t.ball, loss=loss) - t.x
    moved = moved.abs().flatten(1).amax(1)
    quarters = distance.quantile(distance.new_tensor([0.25, 0.5, 0.75])).tolist()
    names = ("distance_q25", "distance_q50", "distance_q75")
    values = {"moved_share": share(moved > 0), "moved_mean": float(moved.mean())}
    return values | dict(zip(names, quarters, strict=True))


def _autoattack(t: Target, pgd: Tensor) -> dict[str, Any]:
    """Return the accuracy after AutoAttack: nothing where it is not installed."""
    size = t.recipe.autoattack_size or len(t.x)
    x, y, seed = t.x[:size], t.y[:size], t.recipe.seed
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask, heard = evaluation.autoattack(t.model, x, y, t.ball, seed=seed)
        return {
            "autoattack_accuracy": share(mask),
            "autoattack_pgd_accuracy": share(pgd[: len(x)]),
            "autoattack_warnings": len(heard),
            "autoattack_images": len(mask),
        }
    return {}


def transferred(t: Target, source: nn.Module) -> Tensor:
    """Return a mask of the images right after margin-loss PGD on another network."""
    # All steps: an image that just fools its own network fools few others.
    pgd = partial(pgd_attack, t.ball, t.recipe, "transfer")
    attack = pgd(loss=attacks.margin, until_fooled=False)
    return t.left(attack, source)


def other_statistics(t: Target) -> dict[str, float]:
    """Return accuracies after PGD, also with the statistics of the other CIFAR.

    The released evaluation of Wei et al. perturbs CIFAR-100 with the network's own
    statistics and classifies with CIFAR-10's.
    """
    first = next(layer for layer in t.model.modules() if isinstance(layer, Normalise))
    statistics = data.DATASETS[OTHER[t.recipe.dataset]].statistics
    assert statistics is not None
    other, kept = Normalise(statistics).to(t.x), (first.mean, first.std)
    attack = pgd_attack(t.ball, t.recipe, "test", until_fooled=False)
    fast = fuse(t.model)
    parts = zip(*(all.split(at_once(t.model)) for all in (t.x, t.y)), strict=True)
    moved = torch.cat([attack(fast, x, y) for x, y in parts])
    correct = partial(evaluation.correct, t.model)
    values = {"all_steps_accuracy": share(correct(moved, t.y))}
    try:
        first.mean, first.std = other.mean, other.std
        values["other_natural_accuracy"] = share(correct(t.x, t.y))
        values["other_statistics_accuracy"] = share(correct(moved, t.y))
    finally:
        first.mean, first.std = kept
    return values


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
            row |= {"png": _png(image), "label": int(y[index])}
            row |= {"answer": int(answers[index]), "moved": float(size[index])}
            rows.append(row)
    return rows


def _png(image: Tensor) -> str:
    """Return an image in [0, 1], shape (channels, height, width), as PNG in base64."""
    shades = (255 * image).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(shades.squeeze()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
