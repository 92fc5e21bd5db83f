"""What is measured of a network after each epoch of its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from widemin import attacks, data, evaluation
from widemin.data import images
from widemin.evaluation import share
from widemin.experiments.attack_schedule import attack_at, ball_at
from widemin.experiments.recipe import Recipe, stream
from widemin.experiments.side_by_side import Together

Row = dict[str, float | int]
Watch = Callable[[nn.Module, int], Row]  # (model, epoch) -> row
WatchTogether = Callable[[Together], list[Row | None]]

_LOSSES = {
    "fgsm_accuracy": attacks.cross_entropy,
    "fgsm_clipped_accuracy": attacks.clipped_cross_entropy,
    "fgsm_margin_accuracy": attacks.margin,
}
_HELD_OUT = {  # columns on held-out images, by those on test images
    "natural_accuracy": "validation_natural_accuracy",
    "fgsm_accuracy": "validation_fgsm_accuracy",
}
_DECILES = ["fosc_d0", "fosc_d1", "fosc_d2", "fosc_d3", "fosc_d4", "fosc_d5"]
_DECILES += ["fosc_d6", "fosc_d7", "fosc_d8", "fosc_d9", "fosc_d10"]


def _first(recipe: Recipe, device: str, most: int) -> tuple[Tensor, Tensor]:
    size = min(most, data.DATASETS[recipe.dataset].test)
    return images(recipe.dataset, "test", size, device)


def held_out(recipe: Recipe, device: str) -> tuple[Tensor, Tensor] | None:
    """Return images, if any, to choose an epoch on: training never sees them.

    They are the validation part or, where training takes it too, the last test images.
    """
    record, size = data.DATASETS[recipe.dataset], recipe.validation_size
    if not size:
        return None
    if recipe.train_size <= record.train - record.held_out:
        return images(recipe.dataset, "validation", size, device)
    x, y = images(recipe.dataset, "test", record.test, device)
    return x[-size:], y[-size:]


def watcher(recipe: Recipe, device: str) -> Watch:
    """Return a callback (model, epoch) -> metrics, on test and held-out images.

    Of the test set these are the first, however many are measured in the end: the curve
    stays with the weights.
    """
    looks = [_watch_fgsm(recipe, device, recipe.watch)] if recipe.watch else []
    looks += [_watch_fosc(recipe, device)] if recipe.watch_fosc else []

    def watched(model: nn.Module, epoch: int) -> Row:
        return {k: value for look in looks for k, value in look(model, epoch).items()}

    return watched


def _watch_fgsm(recipe: Recipe, device: str, ball: attacks.Ball) -> Watch:
    """Return the watch of accuracies with and without FGSM, and of margins."""
    (x, y), unseen = _first(recipe, device, 1_000), held_out(recipe, device)
    fgsm = partial(attacks.fgsm, ball=ball)
    ways: dict[str, evaluation.Attack] = {"natural_accuracy": attacks.clean}
    ways |= {name: partial(fgsm, loss=loss) for name, loss in _LOSSES.items()}

    def watched(model: nn.Module, _: int) -> Row:
        right = evaluation.robust_mask(model, x, y, ways)
        margin = evaluation.margins(model, x, y)
        row = {column: share(mask) for column, mask in right.items()}
        row["masked_share"] = share(margin > evaluation.MASKED_MARGIN)
        row |= {"median_margin": float(margin.median()), "images": len(x)}
        if unseen:
            chosen = {column: ways[column] for column in _HELD_OUT}
            right = evaluation.robust_mask(model, *unseen, chosen)
            row |= {_HELD_OUT[name]: share(mask) for name, mask in right.items()}
        return row

    return watched


def watcher_together(recipe: Recipe, device: str) -> WatchTogether:
    """Return `watcher` for networks side by side: one pass for all, a gradient a loss.

    None is the row of a network with logits or gradients that are not finite.
    """
    ball = recipe.watch
    if ball is None:
        return lambda group: [{} for _ in group.weights]
    seen, unseen = _first(recipe, device, 1_000), held_out(recipe, device)

    def watched(group: Together) -> list[Row | None]:
        right, margin, sound = _right(group, *seen, ball, _LOSSES)
        columns = right | {"masked_share": margin > evaluation.MASKED_MARGIN}
        if unseen:
            cross_entropy = {"fgsm_accuracy": attacks.cross_entropy}
            right, _, also = _right(group, *unseen, ball, cross_entropy)
            columns |= {_HELD_OUT[name]: mask for name, mask in right.items()}
            sound &= also
        shares = {name: mask.double().mean(1) for name, mask in columns.items()}
        shares["median_margin"] = margin.median(1).values
        table = zip(*(values.tolist() for values in shares.values()), strict=True)
        size = {"images": len(seen[0])}
        rows = [dict(zip(shares, row, strict=True)) | size for row in table]
        pairs = zip(rows, sound.tolist(), strict=True)
        return [row if finite else None for row, finite in pairs]

    return watched


def _right(
    group: Together,
    x: Tensor,
    y: Tensor,
    ball: attacks.Ball,
    losses: Mapping[str, attacks.Loss],
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return masks of images right after FGSM on each loss, margins, and finiteness.

    Masks and margins have the shape (networks, images), the last (networks,).
    """
    networks = len(group.weights)

    def logits(x: Tensor) -> Tensor:
        return group.logits(x.unflatten(0, (networks, -1))).flatten(0, 1)

    x = x.repeat(networks, 1, 1, 1).requires_grad_()
    y = y.repeat(networks)
    answers = logits(x)
    gradient = partial(torch.autograd.grad, inputs=x, retain_graph=True)
    slopes = [gradient(loss(answers, y).sum())[0] for loss in losses.values()]
    with torch.no_grad():
        margin, finite = -attacks.margin(answers, y), answers.isfinite().all(1)
        right = {"natural_accuracy": margin > 0}
        for name, slope in zip(losses, slopes, strict=True):
            moved = logits((x + ball.epsilon * ball.steepest(slope)).clamp(0, 1))
            right[name] = right["natural_accuracy"] & (attacks.margin(moved, y) < 0)
            fine = slope.flatten(1).isfinite().all(1) & moved.isfinite().all(1)
            finite &= fine | ~right["natural_accuracy"]  # what is wrong is not attacked

    shape = networks, -1
    masks = {name: mask.view(shape) for name, mask in right.items()}
    return masks, margin.view(shape), finite.view(shape).all(1)


def _watch_fosc(recipe: Recipe, device: str) -> Watch:
    """Return the watch of accuracy and FOSC where the attack of training stops.

    FOSC by its definition, from the image, whatever stops the attack.
    """
    (x, y), unseen = _first(recipe, device, 500), held_out(recipe, device)
    tenths = torch.linspace(0, 1, 11, device=x.device)

    def watched(model: nn.Module, epoch: int) -> Row:
        t = epoch / recipe.epochs
        attack = attack_at(recipe, t, stream(recipe.seed, f"watch {epoch}"))
        with attacks.inference(model):
            moved = attack(model, x, y)
            gradient, _, logits = attacks.input_gradient(model, moved, y)
        fosc = attacks.fosc(ball_at(recipe, t), gradient, moved - x)
        row = {"fosc_mean": float(fosc.mean()), "fosc_variance": float(fosc.var())}
        row |= zip(_DECILES, fosc.quantile(tenths).tolist(), strict=True)
        row["attack_accuracy"] = share(logits.argmax(1) == y)
        if unseen:
            right = evaluation.robust_mask(model, *unseen, {"": attack})[""]
            row["validation_attack_accuracy"] = share(right)
        return row

    return watched
