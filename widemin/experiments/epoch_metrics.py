"""What is measured of a network after each epoch of its training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from widemin import attacks, data, evaluation
from widemin.attacks import parse_ball
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.attack_schedule import attack_at, ball_at
from widemin.experiments.recipes import Recipe, stream

Watch = Callable[[nn.Module, int], dict[str, float | int]]  # (model, epoch) -> row


def held_out(recipe: Recipe, device: str) -> tuple[Tensor, Tensor]:
    """Return images to choose an epoch on, and their labels: training never sees them.

    They are the validation part, or the last test images where training takes that
    part as well.
    """
    found, size = data.DATASETS[recipe.dataset], recipe.validation_size
    if recipe.train_size <= found.train - found.held_out:
        return images(recipe.dataset, "validation", size, device)
    x, y = images(recipe.dataset, "test", found.test, device)
    return x[-size:], y[-size:]


def watcher(recipe: Recipe, device: str) -> Watch:
    """Return what looks at a network after each epoch, on test and held-out images.

    Of the test set these are the first 1,000, however many are measured in the end:
    the curve stays with the weights. Held-out images are for choosing an epoch.
    """
    looks = [_watch_fgsm(recipe, device)] if recipe.watch else []
    looks += [_watch_fosc(recipe, device)] if recipe.watch_fosc else []

    def watched(model: nn.Module, epoch: int) -> dict[str, float | int]:
        row: dict[str, float | int] = {}
        for look in looks:
            row |= look(model, epoch)
        return row

    return watched


def _watch_fgsm(recipe: Recipe, device: str) -> Watch:
    """Return what takes accuracies with and without FGSM, and margins."""
    size = min(1_000, data.DATASETS[recipe.dataset].test)
    x, y = images(recipe.dataset, "test", size, device)
    fgsm = partial(attacks.fgsm, ball=parse_ball(recipe.watch))
    ways: dict[str, evaluation.Attack] = {
        "natural": attacks.clean,
        "fgsm": fgsm,
        "fgsm_clipped": partial(fgsm, loss=attacks.clipped_cross_entropy),
        "fgsm_margin": partial(fgsm, loss=attacks.margin),
    }
    unseen = held_out(recipe, device) if recipe.validation_size else None

    def watched(model: nn.Module, _: int) -> dict[str, float | int]:
        right = evaluation.robust_mask(model, x, y, ways)
        margin = evaluation.margins(model, x, y)
        row = {f"{name}_accuracy": share(mask) for name, mask in right.items()}
        row["masked_share"] = share(margin > evaluation.MASKED_MARGIN)
        row |= {"median_margin": float(margin.median()), "images": len(x)}
        if unseen:
            chosen = {name: ways[name] for name in ("natural", "fgsm")}
            right = evaluation.robust_mask(model, *unseen, chosen)
            for name, mask in right.items():
                row[f"validation_{name}_accuracy"] = share(mask)
        return row

    return watched


def _watch_fosc(recipe: Recipe, device: str) -> Watch:
    """Return what takes FOSC and accuracy where the attack of training stops.

    FOSC by its definition, from the image, whatever stops the attack.
    """
    size = min(500, data.DATASETS[recipe.dataset].test)
    x, y = images(recipe.dataset, "test", size, device)
    unseen = held_out(recipe, device) if recipe.validation_size else None
    tenths = torch.linspace(0, 1, 11, device=x.device)

    def watched(model: nn.Module, epoch: int) -> dict[str, float | int]:
        t = epoch / recipe.epochs
        attack = attack_at(recipe, t, stream(recipe.seed, f"watch {epoch}"))
        with attacks.inference(model):
            moved = attack(model, x, y)
            gradient, _, logits = attacks.input_gradient(model, moved, y)
        found = attacks.fosc(ball_at(recipe, t), gradient, moved - x)
        row = {"fosc_mean": float(found.mean()), "fosc_variance": float(found.var())}
        for tenth, value in enumerate(found.quantile(tenths)):
            row[f"fosc_d{tenth}"] = float(value)
        row["attack_accuracy"] = share(logits.argmax(1) == y)
        if unseen:
            right = evaluation.robust_mask(model, *unseen, {"": attack})[""]
            row["validation_attack_accuracy"] = share(right)
        return row

    return watched
