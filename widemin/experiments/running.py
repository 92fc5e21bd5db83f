"""Recipes in, tidy rows out: one experiment is trained, then measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widemin.experiments import measure as instruments
from widemin.experiments import own
from widemin.experiments.checkpoints import is_kept, shared, trained
from widemin.experiments.columns import as_row
from widemin.experiments.measure import (
    Parts,
    by_fosc,
    by_strength,
    climb,
    lines,
    measure,
    pictures,
    scaled,
    spectrum,
)
from widemin.experiments.recipe import Recipe
from widemin.names import check_choice
from widemin.seeding import ALONE


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


def outdated(
    recipes: Iterable[Recipe], known: Mapping[str, list[dict[str, Any]]], folder: Path
) -> list[Recipe]:
    """Return the recipes whose rows an older instrument made and whose network is kept.

    Args:
        recipes: Which.
        known: Rows there are, by key.
        folder: Of results.
    """
    unique = {recipe.key: recipe for recipe in recipes}
    return [
        recipe
        for key, recipe in unique.items()
        if key in known
        and instruments.outdated(known[key])
        and is_kept(recipe, folder / "weights")
    ]


def renewer(
    device: str, folder: Path, known: Mapping[str, list[dict[str, Any]]]
) -> Callable[[Recipe], list[dict[str, Any]]]:
    """Return `renew` on a device, for the rows there are and the networks kept."""
    return partial(renew, device=device, weights=folder / "weights", known=known)


def renew(
    recipe: Recipe,
    *,
    device: str,
    weights: Path,
    known: Mapping[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Return a run's rows with the columns of revised instruments measured again.

    All other columns, and where they were computed, stay as they are.
    """
    own.check(recipe)
    with ALONE:  # as for a whole run: threads of one process take turns
        return _renewed(recipe, known[recipe.key], device, weights)


def _renewed(
    recipe: Recipe, rows: list[dict[str, Any]], device: str, weights: Path
) -> list[dict[str, Any]]:
    model, _, _ = trained(recipe, device, weights)
    only = instruments.outdated(rows)
    transfer_source, surrogates = None, {}
    if "transfer" in only:
        transfer_source, _, _ = trained(recipe.transfer_source, device, weights)
    if "white box" in only:
        surrogates = _surrogates(recipe, device, weights)
    again = {
        row["test"]: row
        for row in measure(
            model, recipe, device, transfer_source, surrogates, only=only
        )
    }
    return [
        instruments.state(
            row | again[row["test"]] | {"revisions": row.get("revisions")}, only
        )
        if row["measured"] == "final"
        else row
        for row in rows
    ]


def _surrogates(recipe: Recipe, device: str, weights: Path) -> dict[str, nn.Module]:
    if not recipe.surrogate_epochs:
        return {}
    return {
        kind: shared(other, device, weights)
        for kind, other in recipe.surrogates.items()
    }


def run(
    recipe: Recipe, *, device: str, weights: Path, peers: Sequence[Recipe] = ()
) -> list[dict[str, Any]]:
    """Train (or load) one network and measure it; return its rows.

    Args:
        recipe: What to do.
        device: cpu or cuda.
        weights: Folder of trained networks; a network found there is not trained
            again, nor a part of a measurement left off there measured again.
        peers: Recipes that may be trained side by side with this one.

    Returns:
        A row per epoch (`measured` is "epoch") with train_loss and what the watch saw;
        for adversarial training a row per step of its attack on test images ("step");
        a row per eigenvalue and point of the density ("spectrum"), per point of a line
        ("line") and per picture ("picture"), where they are asked for; where there is
        a briefly trained network beside, a row per scale of its logits ("scale"); then
        a row per test set ("final") with every instrument. Accuracies are fractions of
        `images`.

    Raises:
        Stopped: Asked to stop; what is trained and measured so far is kept.
    """
    own.check(recipe)
    with ALONE:  # in a worker with several threads they take turns
        return _run(recipe, device, weights, peers)


def _run(
    recipe: Recipe, device: str, weights: Path, peers: Sequence[Recipe]
) -> list[dict[str, Any]]:
    """Return the rows of `run`."""
    model, curve, facts = trained(recipe, device, weights, peers)
    # The last step of training can overflow weights behind a finite loss.
    finite = all(bool(p.isfinite().all()) for p in model.parameters())
    facts["diverged"] = facts["diverged"] or not finite
    rows = [{"measured": "epoch", **row} for row in curve]
    parts = Parts(weights / f"{recipe.key}.measured", device)
    final: list[dict[str, Any]] = [{"test": str(test)} for test in recipe.tests]
    seconds = 0.0
    if not facts["diverged"]:
        transfer_source, surrogates = None, _surrogates(recipe, device, weights)
        if recipe.brief_epochs:
            transfer_source, _, about = trained(recipe.transfer_source, device, weights)
            seconds = about["train_seconds"]
        final = measure(model, recipe, device, transfer_source, surrogates, parts)
        rows += _asked_for(model, recipe, device, transfer_source, parts)
    facts["measure_seconds"] = seconds + parts.seconds
    rows += [
        {"measured": "final", "epoch": recipe.epochs, **facts, **row} for row in final
    ]
    parts.forget()
    return [{**as_row(recipe), "method": recipe.method} | r for r in rows]


def _asked_for(
    model: nn.Module,
    recipe: Recipe,
    device: str,
    transfer_source: nn.Module | None,
    parts: Parts,
) -> list[dict[str, Any]]:
    """Return the rows of the instruments that a recipe asks for beside the numbers."""
    bins = recipe.attack and recipe.fosc_bins
    wanted = {
        "scale": (scaled, transfer_source),
        "bin": (by_fosc, model if bins else None),
        "strength": (by_strength, model if bins else None),
        "step": (climb, model if recipe.attack else None),
        "line": (lines, model if recipe.line_size else None),
        "spectrum": (spectrum, model if recipe.spectrum_size else None),
        "picture": (pictures, model if recipe.pictures else None),
    }
    rows = []
    for name, (instrument, network) in wanted.items():
        if network is not None:
            found = parts(name, partial(instrument, network, recipe, device))
            rows += [{"measured": name, **row} for row in found]
    return rows
