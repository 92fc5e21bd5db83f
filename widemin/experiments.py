"""Recipes in, tidy rows out: one experiment is trained, then measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widemin.choices import check_choice
from widemin.instruments import Parts, lines, measure, pictures, scaled, spectrum
from widemin.networks import shared, trained
from widemin.recipes import Recipe
from widemin.strength import by_fosc, by_strength, climb


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
    model, curve, facts = trained(recipe, device, weights, peers)
    rows = [{"measured": "epoch", **row} for row in curve]
    parts = Parts(weights / f"{recipe.key}.measured", device)
    final: list[dict[str, Any]] = [{"test": test} for test in recipe.tests]
    seconds = 0.0
    if not facts["diverged"]:
        brief, surrogates = None, {}
        if recipe.brief_epochs:
            brief, _, about = trained(recipe.brief, device, weights)
            seconds = about["train_seconds"]
        if recipe.surrogate_epochs:
            surrogates = {
                kind: shared(other, device, weights)
                for kind, other in recipe.surrogates.items()
            }
        final = measure(model, recipe, device, brief, surrogates, parts)
        rows += _asked_for(model, recipe, device, brief, parts)
    facts["measure_seconds"] = seconds + parts.seconds
    rows += [
        {"measured": "final", "epoch": recipe.epochs, **facts, **row} for row in final
    ]
    parts.forget()
    return [{**dataclasses.asdict(recipe), "method": recipe.method} | r for r in rows]


def _asked_for(
    model: nn.Module,
    recipe: Recipe,
    device: str,
    brief: nn.Module | None,
    parts: Parts,
) -> list[dict[str, Any]]:
    """Return the rows of the instruments that a recipe asks for beside the numbers."""
    bins = recipe.attack and recipe.fosc_bins
    wanted = {
        "scale": (scaled, brief),
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
