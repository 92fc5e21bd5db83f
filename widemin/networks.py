"""A recipe's network: found where it was kept, or trained and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from widemin import paths
from widemin.fitting import Trained, build, side_by_side, train, train_together
from widemin.recipes import Recipe


def trained(
    recipe: Recipe, device: str, weights: Path, peers: Sequence[Recipe] = ()
) -> Trained:
    """Return a recipe's network, its learning curve and what training took.

    Args:
        recipe: Whose network.
        device: cpu or cuda.
        weights: Folder of trained networks; one found there is not trained again.
        peers: Recipes whose networks will be asked for, too: on CUDA those that can
            are trained side by side with this one.

    Raises:
        Stopped: Training was asked to stop; a checkpoint has all of it.
    """
    path = _path(recipe, weights)
    if device == "cuda" and not path.exists():
        group = [peer for peer in peers if side_by_side(peer, recipe)]
        group = [peer for peer in group if not _path(peer, weights).exists()]
        if len(group) > 1 and recipe in group:
            keep_together(group, device, weights)
    model = build(recipe).to(torch.device(device))
    model = model.to(memory_format=torch.channels_last)
    if path.exists():
        model.load_state_dict(load_file(path, device=device))
        with safe_open(path, "pt") as file:
            kept = json.loads(file.metadata()["training"])
        return model, kept["curve"], kept["facts"]
    checkpoint = path.with_suffix(".checkpoint")
    found = model, *train(model, recipe, device, checkpoint)
    _keep(found, recipe, path)
    checkpoint.unlink(missing_ok=True)
    return found


def keep_together(recipes: Sequence[Recipe], device: str, weights: Path) -> None:
    """Train the networks of recipes side by side, and keep each as if alone."""
    names = "".join(recipe.training_key for recipe in recipes)
    digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    checkpoint = weights / f"{digest}.group"
    found = train_together(recipes, device, checkpoint)
    for recipe, network in zip(recipes, found, strict=True):
        _keep(network, recipe, _path(recipe, weights))
    checkpoint.unlink(missing_ok=True)


def _path(recipe: Recipe, weights: Path) -> Path:
    return weights / f"{recipe.training_key}.safetensors"


def _keep(trained: Trained, recipe: Recipe, path: Path) -> None:
    model, curve, facts = trained
    state = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
    note = {
        "training": json.dumps({"curve": curve, "facts": facts}),
        "recipe": json.dumps(dataclasses.asdict(recipe)),
    }
    with paths.atomic(path) as part:
        save_file(state, part, metadata=note)
