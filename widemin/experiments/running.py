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
from widemin.experiments.measure import Parts, measure
from widemin.experiments.pool import Rows
from widemin.experiments.recipe import Recipe
from widemin.names import check, check_choice
from widemin.seeding import ALONE


def pick_device(name: str) -> str:
    """Return cpu or cuda for auto; cpu, cuda and none, where nothing runs, stay.

    Raises:
        ValueError: Another name, or cuda where there is no GPU.
    """
    check_choice("device", name, ("auto", "cpu", "cuda", "none"))
    there = torch.cuda.is_available()
    wanted = "device must be one that is there"
    check(there or name != "cuda", wanted, "'cuda' without a GPU")
    return name if name != "auto" else "cuda" if there else "cpu"


def runner(
    device: str, folder: Path, recipes: Sequence[Recipe] = ()
) -> Callable[[Recipe], Rows]:
    """Return `run` on a device, for some recipes, networks kept in a results folder."""
    peers = tuple(recipes) if device == "cuda" else ()
    return partial(run, device=device, weights=folder / "weights", peers=peers)


def renewer(
    device: str, folder: Path, known: Mapping[str, Rows]
) -> Callable[[Recipe], Rows]:
    """Return `renew` on a device, for the rows there are and the networks kept."""
    return partial(renew, device=device, weights=folder / "weights", known=known)


def outdated(
    recipes: Iterable[Recipe], known: Mapping[str, Rows], folder: Path
) -> list[Recipe]:
    """Return the recipes whose network is kept and rows an older instrument made."""
    unique = {recipe.key: recipe for recipe in recipes if recipe.key in known}
    old = [unique[key] for key in unique if instruments.outdated(known[key])]
    return [recipe for recipe in old if is_kept(recipe, folder / "weights")]


def renew(
    recipe: Recipe, *, device: str, weights: Path, known: Mapping[str, Rows]
) -> Rows:
    """Return a run's rows with the columns of revised instruments measured again.

    All other columns, and where they were computed, stay as they are.
    """
    own.check(recipe)
    rows = known[recipe.key]
    only = instruments.outdated(rows)
    with ALONE:  # as for a whole run: threads of one process take turns
        model, _, _ = trained(recipe, device, weights)
        brief, surrogates = None, {}
        if "transfer" in only:
            brief, _, _ = trained(recipe.transfer_source, device, weights)
        if "white box" in only:
            surrogates = _surrogates(recipe, device, weights)
        again = measure(model, recipe, device, brief, surrogates, only=only)
    measured = {row["test"]: row for row in again}

    def renewed(row: dict[str, Any]) -> dict[str, Any]:
        row = row | measured[row["test"]] | {"revisions": row.get("revisions")}
        return instruments.state(row, only)

    return [renewed(row) if row["measured"] == "final" else row for row in rows]


def _surrogates(recipe: Recipe, device: str, weights: Path) -> dict[str, nn.Module]:
    others = recipe.surrogates if recipe.surrogate_epochs else {}
    return {kind: shared(other, device, weights) for kind, other in others.items()}


def run(
    recipe: Recipe, *, device: str, weights: Path, peers: Sequence[Recipe] = ()
) -> Rows:
    """Train (or load) one network and measure it; return its rows.

    They are of the kinds that `columns.KINDS` explains: one per epoch, those that the
    recipe asks for beside, and last a "final" one per test set. Networks and parts of
    measurements found in the folder of weights are not made again; where it raises
    Stopped, they are kept there. Peers may be trained side by side with this one.
    """
    own.check(recipe)
    with ALONE:  # in a worker with several threads they take turns
        model, curve, facts = trained(recipe, device, weights, peers)
        # The last step of training can overflow weights behind a finite loss.
        finite = all(bool(p.isfinite().all()) for p in model.parameters())
        facts["diverged"] = facts["diverged"] or not finite
        rows = [{"measured": "epoch", **row} for row in curve]
        parts = Parts(weights / f"{recipe.key}.measured", device)
        final: Rows = [{"test": str(test)} for test in recipe.tests]
        seconds = 0.0
        if not facts["diverged"]:
            brief, surrogates = None, _surrogates(recipe, device, weights)
            if recipe.brief_epochs:
                brief, _, took = trained(recipe.transfer_source, device, weights)
                seconds = took["train_seconds"]
            final = measure(model, recipe, device, brief, surrogates, parts)
            binned = recipe.attack and recipe.fosc_bins
            asked: dict[str, tuple[Any, Any]] = {
                "scale": (instruments.scaled, brief),
                "bin": (instruments.by_fosc, binned),
                "strength": (instruments.by_strength, binned),
                "step": (instruments.climb, recipe.attack),
                "line": (instruments.lines, recipe.line_size),
                "spectrum": (instruments.spectrum, recipe.spectrum_size),
                "picture": (instruments.pictures, recipe.pictures),
            }
            for name, (instrument, wanted) in asked.items():
                if wanted:
                    network = brief if name == "scale" else model
                    work = partial(instrument, network, recipe, device)
                    rows += [{"measured": name, **row} for row in parts(name, work)]
        facts["measure_seconds"] = seconds + parts.seconds
        about = {"measured": "final", "epoch": recipe.epochs, **facts}
        rows += [{**about, **row} for row in final]
        parts.forget()
    return [{**as_row(recipe), "method": recipe.method} | r for r in rows]
