"""Recipes in, tidy rows out: one experiment is trained, then measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from widemin.choices import check_choice
from widemin.fitting import spent_seconds
from widemin.instruments import lines, measure, pictures, scaled, spectrum
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
            again.
        peers: Recipes that may be trained side by side with this one.

    Returns:
        A row per epoch (`measured` is "epoch") with train_loss and what the watch saw;
        for adversarial training a row per step of its attack on test images ("step");
        a row per eigenvalue and point of the density ("spectrum"), per point of a line
        ("line") and per picture ("picture"), where they are
        asked for; where there is a briefly trained
        network beside, a row per scale of its logits ("scale"); then a row per test
        set ("final") with every instrument. Accuracies are fractions of `images`.
    """
    model, curve, facts = trained(recipe, device, weights, peers)
    rows = [{"measured": "epoch", **row} for row in curve]
    started = spent_seconds(device)
    if facts["diverged"]:
        final: list[dict[str, Any]] = [{"test": test} for test in recipe.tests]
    else:
        brief = None
        if recipe.brief_epochs:
            brief, _, _ = trained(recipe.brief, device, weights)
            rows += [{"measured": "scale", **r} for r in scaled(brief, recipe, device)]
        surrogates = {}
        if recipe.surrogate_epochs:
            surrogates = {
                kind: shared(other, device, weights)
                for kind, other in recipe.surrogates.items()
            }
        final = measure(model, recipe, device, brief, surrogates)
        if recipe.attack and recipe.fosc_bins:
            bins = by_fosc(model, recipe, device)
            rows += [{"measured": "bin", **row} for row in bins]
            tried = by_strength(model, recipe, device)
            rows += [{"measured": "strength", **row} for row in tried]
        if recipe.attack:
            rows += [{"measured": "step", **r} for r in climb(model, recipe, device)]
        if recipe.line_size:
            rows += [{"measured": "line", **r} for r in lines(model, recipe, device)]
        if recipe.spectrum_size:
            kept = spectrum(model, recipe, device)
            rows += [{"measured": "spectrum", **row} for row in kept]
        if recipe.pictures:
            kept = pictures(model, recipe, device)
            rows += [{"measured": "picture", **row} for row in kept]
    facts["measure_seconds"] = spent_seconds(device) - started
    rows += [
        {"measured": "final", "epoch": recipe.epochs, **facts, **row} for row in final
    ]
    return [{**dataclasses.asdict(recipe), "method": recipe.method} | r for r in rows]
