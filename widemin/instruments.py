"""What is measured of a trained network: accuracies, curvature, widths, lines."""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from widemin import (
    attacks,
    data,
    evaluation,
    hessian,
    implicit,
    landscape,
    masking,
)
from widemin.attacks import Ball, parse_ball
from widemin.fitting import images, share
from widemin.models import Normalise
from widemin.recipes import OTHER, Recipe, stream

GAPS = (0.1, 1.0)  # heights of the levels above a network's own loss, for widths
ADAPTIVE_RADIUS = 0.5  # of adaptive sharpness, in units of each weight
FACTORS = (1, 2, 4, 8, 16, 32, 64)  # of the logits
WEIGHT_LINE, IMAGE_LINE = 1.0, 16 / 255  # how far the loss is followed
POINTS = 17  # of each line
IMPLICIT_RHO = 0.2  # of SAM, whose step in the first layer is answered in pixels


def measure(
    model: nn.Module,
    recipe: Recipe,
    device: str,
    brief: nn.Module | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
) -> list[dict[str, Any]]:
    """Return a row per test set, with every instrument's number.

    Args:
        model: The recipe's network, trained.
        recipe: How to measure.
        device: cpu or cuda.
        brief: A briefly trained network, whose adversarial images are tried as well.
        surrogates: Networks by kind, on which Wang et al.'s attacks are made as well.
    """
    x, y = images(recipe, "test", recipe.test_size, device)
    common = _logits(model, x, y) | _curvature(model, recipe, device)
    common |= _widths(model, recipe, device) | _implicit(model, recipe, device)
    rows = []
    for test in recipe.tests:
        ball = parse_ball(test)
        row = {"test": test, "images": len(x)} | common
        right = _survivors(model, x, y, ball, recipe)
        row |= {f"{name}_accuracy": share(mask) for name, mask in right.items()}
        row["worst_accuracy"] = share(torch.stack(list(right.values())).all(0))
        row |= _strong(model, x, y, ball, recipe, right["pgd"])
        row |= _other_statistics(model, x, y, ball, recipe)
        if brief is not None:
            # All steps: an image that just fools its own network fools few others.
            attack = _pgd(
                ball, recipe, "transfer", loss=attacks.margin, until_fooled=False
            )
            moved = evaluation.transfer(brief, model, x, y, attack)
            row["transfer_accuracy"] = share(moved)
        if recipe.white_box:
            row |= _wang(model, x, y, ball, recipe, surrogates or {})
        rows.append(row)
    return rows


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


def spectrum(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return the Hessian's density on a grid, and what else is asked of it, in rows.

    A row a point of the grid ("density"); then one ("eigenvalue") for each way of
    finding the largest one: Lanczos on as many images as every network of the table,
    and on `spectrum_size` of them; PyHessian's power iteration on the latter; and the
    smallest one.
    """
    x, y = images(recipe, "train", recipe.spectrum_size, device)
    few = min(recipe.hessian_size, recipe.train_size)

    def draws() -> torch.Generator:
        return stream(recipe.seed, "probes")

    top = hessian.top_eigenvalues(model, x, y, generator=draws())
    low = hessian.bottom_eigenvalues(model, x, y, generator=draws())
    ways = {
        f"Lanczos, {few} images": hessian.top_eigenvalues(
            model, x[:few], y[:few], generator=draws()
        ),
        f"Lanczos, {len(x)} images": top,
        f"PyHessian, {len(x)} images": hessian.top_eigenvalues(
            model, x, y, generator=draws(), method="pyhessian"
        ),
        f"smallest, {len(x)} images": low,
    }
    rows: list[dict[str, Any]] = []
    for way, found in ways.items():
        row: dict[str, Any] = {"of": "eigenvalue", "way": way}
        row |= {"value": float(found.values[0]), "products": found.products}
        rows.append(row | {"residual": float(found.residuals[0])})
    ends = float(low.values[0]), float(top.values[0])
    grid = torch.linspace(1.1 * ends[0], 1.1 * ends[1], 101, dtype=torch.float64)
    values = hessian.density(model, x, y, grid, generator=draws(), probes=2, steps=60)
    for place, value in zip(grid.tolist(), values.tolist(), strict=True):
        rows.append({"of": "density", "place": place, "value": value})
    return rows


def _one_step(ball: Ball) -> dict[str, evaluation.Attack]:
    """Return FGSM computed in five ways."""
    fgsm = partial(attacks.fgsm, ball=ball)
    return {
        "fgsm": fgsm,
        "fgsm_clipped": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "fgsm_float64": partial(masking.fgsm_float64, ball=ball),
        "fgsm_margin": partial(fgsm, loss=attacks.margin),
        "fgsm_rescaled": partial(fgsm, loss=attacks.rescaled_cross_entropy),
    }


def scaled(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return FGSM's answers for a network whose logits are multiplied, a row a factor.

    Predictions, and so the true robustness, are the same in every row.
    """
    x, y = images(recipe, "test", recipe.test_size, device)
    rows = []
    for test in recipe.tests:
        ball = parse_ball(test)
        strong = {"pgd_margin": _pgd(ball, recipe, "test", loss=attacks.margin)}
        ways = {"natural": attacks.clean} | _one_step(ball) | strong
        for factor in FACTORS:
            with landscape.logit_scale(model, factor):
                right = evaluation.survivors(model, x, y, ways)
                margin = evaluation.margins(model, x, y)
            row = {"test": test, "factor": factor, "images": len(x)}
            row |= {f"{name}_accuracy": share(mask) for name, mask in right.items()}
            row["masked_share"] = share(margin > evaluation.MASKED_MARGIN)
            rows.append(row | {"median_margin": float(margin.median())})
    return rows


def pictures(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return the first test images and what attacks make of them, as PNG in base64."""
    x, y = images(recipe, "test", recipe.pictures, device)
    ball = parse_ball(recipe.tests[0])
    ways = {"natural": attacks.clean} | _one_step(ball)
    ways["pgd_margin"] = _pgd(ball, recipe, "pictures", loss=attacks.margin)
    rows = []
    for way, attack in ways.items():
        with attacks.inference(model):
            moved = attack(model, x, y)
            with torch.no_grad():
                answers = model(moved).argmax(1)
        size = (moved - x).abs().flatten(1).amax(1)
        for index, image in enumerate(moved):
            row = {"image": index, "way": way, "png": _png(image)}
            row |= {"label": int(y[index]), "answer": int(answers[index])}
            rows.append(row | {"moved": float(size[index])})
    return rows


def _png(image: Tensor) -> str:
    """Return an image in [0, 1], shape (channels, height, width), as PNG in base64."""
    shades = (255 * image).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(shades.squeeze()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _survivors(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe
) -> dict[str, Tensor]:
    """Return which images each attack leaves right, shape (images,), in one set."""
    pgd = partial(_pgd, ball, recipe)
    ways = _one_step(ball)
    ways |= {"pgd": pgd("test"), "pgd_margin": pgd("test", loss=attacks.margin)}
    return evaluation.survivors(model, x, y, ways)


def _wang(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    recipe: Recipe,
    surrogates: Mapping[str, nn.Module],
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

    right = evaluation.survivors(model, x, y, ways())
    found = {f"wang_{name}_accuracy": share(mask) for name, mask in right.items()}
    for kind, source in surrogates.items():
        for name, attack in ways().items():
            mask = evaluation.transfer(source, model, x, y, attack)
            found[f"{kind}_{name}_accuracy"] = share(mask)
    return found


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
    other = Normalise(data.STATISTICS[OTHER[recipe.dataset]]).to(x)
    attack = _pgd(ball, recipe, "test", until_fooled=False)
    moved = torch.cat(
        [attack(model, a, b) for a, b in zip(x.split(250), y.split(250), strict=True)]
    )
    found = {"all_steps_accuracy": share(evaluation.correct(model, moved, y))}
    kept = own.mean, own.std
    try:
        own.mean, own.std = other.mean, other.std
        found["other_natural_accuracy"] = share(evaluation.correct(model, x, y))
        found["other_statistics_accuracy"] = share(evaluation.correct(model, moved, y))
    finally:
        own.mean, own.std = kept
    return found


def lines(model: nn.Module, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """Return the mean loss along the steepest lines, in weights and in images.

    In the weights, on training images, along the gradient: the distance is L2 over all
    weights, as SAM's radius. In the images, test images, along the sign of each one's
    gradient: the distance is L-infinity, in pixels.
    """
    size = min(recipe.line_size, recipe.train_size)
    x, y = images(recipe, "train", size, device)
    rows = []
    with attacks.inference(model):
        landscape_, start = landscape.weight_landscape(model, x, y)
        distances = torch.linspace(0, WEIGHT_LINE, POINTS, dtype=torch.float64)
        values = landscape.along(landscape_, landscape_(start)[1], distances)
        for distance, value in zip(distances, values, strict=True):
            rows.append({"of": "weights", "distance": float(distance)})
            rows[-1]["loss"] = float(value)
        x, y = images(recipe, "test", recipe.line_size, device)
        sign = attacks.input_gradient(model, x, y)[0].sign()
        for distance in torch.linspace(0, IMAGE_LINE, POINTS):
            with torch.no_grad():
                logits = model((x + distance * sign).clamp(0, 1))
            row = {"of": "images", "distance": float(distance)}
            row["loss"] = float(F.cross_entropy(logits.double(), y))
            rows.append(row)
    return rows


def _implicit(model: nn.Module, recipe: Recipe, device: str) -> dict[str, float]:
    """Return what SAM's step in the first layer is worth in pixels."""
    if not recipe.line_size:
        return {}
    size = min(recipe.line_size, recipe.train_size)
    x, y = images(recipe, "train", size, device)
    return implicit.at_first_layer(model, x, y, IMPLICIT_RHO)


def _widths(model: nn.Module, recipe: Recipe, device: str) -> dict[str, Any]:
    """Return widths and adaptive sharpness on the first training images.

    Columns are named after what is moved and how far above the loss the level is. The
    last direction found is the first one tried at the next level.
    """
    if not recipe.width_size:
        return {}
    x, y = images(recipe, "train", recipe.width_size, device)
    found: dict[str, Any] = {"width_images": len(x)}
    for of in ("weights", "nodes", "inputs"):
        first = None
        for gap in GAPS:
            measured = landscape.width(
                model,
                x,
                y,
                gap=gap,
                of=of,
                generator=stream(recipe.seed, f"width of {of}"),
                starts=2 if first is None else 0,
                random_directions=1,
                first=first,
                tolerance=1e-3,
            )
            first = measured.direction
            found[f"width_{of}_{gap:g}"] = measured.width
    rise = landscape.adaptive_sharpness(model, x, y, rho=ADAPTIVE_RADIUS)
    return found | {"adaptive_sharpness": rise}


def _pgd(
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


def _strong(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe, pgd: Tensor
) -> dict[str, Any]:
    """Return what costs most, on the first images alone: nothing where there are none.

    As `strong_attacks` says: margin-loss PGD with five random starts, the same in
    float64, AutoAttack, where it is installed, and the smallest radius that fools each
    image, with how far FGSM on clipped probabilities moves the images at all. What
    `pgd` left of all images is given for just those, too.
    """
    if not recipe.strong_size:
        return {}
    x, y = x[: recipe.strong_size], y[: recipe.strong_size]
    wanted = recipe.strong_attacks
    found: dict[str, Any] = {"strong_images": len(x)}
    again = _pgd(
        ball,
        replace(recipe, pgd_steps=recipe.strong_steps or recipe.pgd_steps),
        "restarts",
        loss=attacks.margin,
        restarts=5,
    )
    if "restarts" in wanted:
        mask = evaluation.survivors(model, x, y, {"": again})[""]
        found["restarts_accuracy"] = share(mask)
        found["restarts_pgd_accuracy"] = share(pgd[: len(x)])
    if "float64" in wanted:
        with masking.in_float64(model):
            mask = evaluation.survivors(model, x.double(), y, {"": again})[""]
        found["restarts_float64_accuracy"] = share(mask)
    if "distance" in wanted:
        found |= _distances(model, x, y, ball)
    if "autoattack" in wanted:
        found |= _autoattack(model, x, y, ball, recipe, pgd)
    return found


def _distances(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> dict[str, float]:
    """Return quartiles of the smallest radius that fools, and how far FGSM moves."""
    norm = "linf" if isinstance(ball, attacks.Linf) else "l2"
    most = 1.0 if norm == "linf" else float(x[0].numel()) ** 0.5  # any image to any
    distance = evaluation.minimal_distance(model, x, y, norm=norm, most=most)
    step = attacks.fgsm(model, x, y, ball, loss=attacks.clipped_cross_entropy) - x
    moved = step.abs().flatten(1).amax(1)
    quarters = distance.quantile(distance.new_tensor([0.25, 0.5, 0.75]))
    found = {"moved_share": share(moved > 0), "moved_mean": float(moved.mean())}
    for q, value in zip((25, 50, 75), quarters, strict=True):
        found[f"distance_q{q}"] = float(value)
    return found


def _autoattack(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, recipe: Recipe, pgd: Tensor
) -> dict[str, Any]:
    """Return what AutoAttack leaves: nothing where it is not installed."""
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
