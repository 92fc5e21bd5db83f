"""Recipes in, tidy rows out: one experiment is trained, then measured."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin import attacks, evaluation, hessian, masking
from widemin.attacks import Ball, parse_ball
from widemin.data import check_choice
from widemin.fitting import images, share, spent_seconds
from widemin.networks import trained
from widemin.recipes import Recipe, stream


def pick_device(name: str) -> str:
    """Return cpu or cuda for auto; cpu, cuda and none, where nothing runs, stay.

    Raises:
        ValueError: Another name, or cuda where there is no GPU.
    """
    check_choice("device", name, ("auto", "cpu", "cuda", "none"))
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be one that is there; got 'cuda' without a GPU")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def runner(
    device: str, folder: Path, recipes: Sequence[Recipe] = ()
) -> Callable[[Recipe], list[dict[str, Any]]]:
    """Return `run` on a device, for some recipes, networks kept in a results folder."""
    peers = tuple(recipes) if device == "cuda" else ()
    return partial(run, device=device, weights=folder / "weights", peers=peers)


def run(
    recipe: Recipe, *, device: str, weights: Path, peers: Sequence[Recipe] = ()
) -> list[dict[str, Any]]:
    """Train (or load) one network and measure it; return its rows.

    Args:
        recipe: What to do.
        device: cpu or cuda.
        weights: Folder of trained networks; a network found there is not trained
            again.
        peers: Recipes that may be trained side by side with this one.

    Returns:
        A row per epoch (`measured` is "epoch") with train_loss and, where `watch` is
        set, natural_accuracy and fgsm_accuracy; for adversarial training a row per
        step of its attack on test images ("step"); then a row per test set ("final")
        with every instrument. Accuracies are fractions of `images`.
    """
    model, curve, facts = trained(recipe, device, weights, peers)
    rows = [{"measured": "epoch", **row} for row in curve]
    started = spent_seconds(device)
    if facts["diverged"]:
        final: list[dict[str, Any]] = [{"test": test} for test in recipe.tests]
    else:
        final = measure(model, recipe, device)
        if recipe.attack:
            ascent = climb(model, recipe, device)
            rows += [{"measured": "step", **row} for row in ascent]
    facts["measure_seconds"] = spent_seconds(device) - started
    rows += [
        {"measured": "final", "epoch": recipe.epochs, **facts, **row} for row in final
    ]
    return [{**dataclasses.asdict(recipe), "method": recipe.method} | r for r in rows]


def measure(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return a row per test set, with every instrument's number."""
    x, y = images(recipe, "test", recipe.test_size, device)
    common = _logits(model, x, y) | _curvature(model, recipe, device)
    return [
        {"test": test, "images": len(x)}
        | common
        | _robustness(model, x, y, parse_ball(test), recipe)
        | _strong(model, x, y, parse_ball(test), recipe)
        for test in recipe.tests
    ]


def climb(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return quartiles of loss and FOSC along the training attack, on test images."""
    x, y = images(recipe, "test", recipe.test_size, device)
    ball = parse_ball(recipe.attack)
    rows: list[dict[str, Any]] = []
    work: list[dict[str, Tensor]] = []
    attacks.pgd(
        model,
        x,
        y,
        ball,
        steps=recipe.attack_steps + 1,  # the last gradient is taken after the last step
        step_size=ball.epsilon / 4,
        generator=stream(recipe.seed, "ascent"),
        record=work,
    )
    quarters = torch.tensor([0.25, 0.5, 0.75], device=x.device)
    for step, found in enumerate(work):
        row: dict[str, Any] = {"step": step, "images": len(x)}
        names = ["loss", "fosc", "normalised_fosc"]
        found["normalised_fosc"] = _ratio(found["fosc"], found["reach"])
        if "fosc_box" in found:
            names.append("normalised_fosc_box")
            found["normalised_fosc_box"] = _ratio(found["fosc_box"], found["reach_box"])
        for name in names:
            for q, value in zip(
                (25, 50, 75), found[name].quantile(quarters), strict=True
            ):
                row[f"{name}_q{q}"] = float(value)
        rows.append(row)
    return rows


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where the whole is 0."""
    return part / whole.where(whole > 0, torch.ones_like(whole))


def _logits(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return natural accuracy and the signs that its gradients are masked."""
    margin = evaluation.margins(model, x, y)
    with torch.no_grad(), attacks.inference(model):
        answers = torch.cat([model(part).argmax(1) for part in x.split(500)])
    with attacks.inference(model):
        flat = torch.cat(
            [
                (attacks.input_gradient(model, a, b)[0] == 0).flatten(1).all(1)
                for a, b in zip(x.split(500), y.split(500), strict=True)
            ]
        )
    return {
        "natural_accuracy": share(margin > 0),
        "median_margin": float(margin.median()),
        "masked_share": share(margin > evaluation.MASKED_MARGIN),
        "zero_gradient_share": share(flat),
        "constant": bool((answers == answers[0]).all()),  # one answer to everything
    }


def _curvature(model: nn.Module, recipe: Recipe, device: str) -> dict[str, Any]:
    """Return training loss and accuracy, and the top Hessian eigenvalue."""
    size = min(recipe.hessian_size, recipe.train_size)
    x, y = images(recipe, "train", size, device)
    found = hessian.top_eigenvalues(
        model, x, y, generator=stream(recipe.seed, "probes")
    )
    with torch.no_grad(), attacks.inference(model):
        logits = torch.cat([model(part) for part in x.split(500)])
    return {
        "final_train_loss": float(F.cross_entropy(logits.double(), y)),
        "train_accuracy": share(logits.argmax(1) == y),
        "top_eigenvalue": float(found.values[0]),
        "eigenvalue_residual": float(found.residuals[0]),
        "hessian_products": found.products,
        "eigenvalue_converged": found.converged,
        "hessian_images": size,
    }


def _robustness(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe
) -> dict[str, float]:
    """Return the accuracy under each attack in one set, and under all together."""
    fgsm = partial(attacks.fgsm, ball=ball)
    pgd = partial(_pgd, ball, recipe)
    ways: dict[str, evaluation.Attack] = {
        "fgsm": fgsm,
        "fgsm_clipped": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "fgsm_float64": partial(masking.fgsm_float64, ball=ball),
        "fgsm_margin": partial(fgsm, loss=attacks.margin),
        "fgsm_rescaled": partial(fgsm, loss=attacks.rescaled_cross_entropy),
        "pgd": pgd("test"),
        "pgd_margin": pgd("test", loss=attacks.margin),
    }
    right = evaluation.survivors(model, x, y, ways)
    worst = torch.stack(list(right.values())).all(0)
    columns = {f"{name}_accuracy": share(mask) for name, mask in right.items()}
    return columns | {"worst_accuracy": share(worst)}


def _pgd(ball: Ball, recipe: Recipe, draws: str, **options: Any) -> evaluation.Attack:
    """Return the recipe's PGD in a set, which draws its starts from a named stream."""
    return partial(
        attacks.pgd,
        ball=ball,
        steps=recipe.pgd_steps,
        step_size=2.5 * ball.epsilon / recipe.pgd_steps,  # Madry et al. 2018
        until_fooled=True,
        generator=stream(recipe.seed, draws),
        **options,
    )


def _strong(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe
) -> dict[str, Any]:
    """Return what costs most, on the first images alone: nothing where there are none.

    Margin-loss PGD with five random starts; AutoAttack, where it is installed; the
    smallest radius that fools each image; and how far FGSM on clipped probabilities
    moves the images at all.
    """
    if not recipe.strong_size:
        return {}
    x, y = x[: recipe.strong_size], y[: recipe.strong_size]
    again = _pgd(ball, recipe, "restarts", loss=attacks.margin, restarts=5)
    norm = "linf" if isinstance(ball, attacks.Linf) else "l2"
    most = 1.0 if norm == "linf" else float(x[0].numel()) ** 0.5  # any image to any
    distance = evaluation.minimal_distance(model, x, y, norm=norm, most=most)
    step = attacks.fgsm(model, x, y, ball, loss=attacks.clipped_cross_entropy) - x
    moved = step.abs().flatten(1).amax(1)
    found: dict[str, Any] = {
        "strong_images": len(x),
        "restarts_accuracy": share(
            evaluation.survivors(model, x, y, {"restarts": again})["restarts"]
        ),
        "moved_share": share(moved > 0),
        "moved_mean": float(moved.mean()),
    }
    quarters = distance.new_tensor([0.25, 0.5, 0.75])
    for q, value in zip((25, 50, 75), distance.quantile(quarters), strict=True):
        found[f"distance_q{q}"] = float(value)
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask, heard = evaluation.autoattack(model, x, y, ball, seed=recipe.seed)
        found["autoattack_accuracy"] = share(mask)
        found["autoattack_warnings"] = len(heard)
    return found
