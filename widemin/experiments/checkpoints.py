"""A recipe's network: found where it was kept, or trained and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from widemin import paths
from widemin.experiments import disk, pool
from widemin.experiments.columns import as_row
from widemin.experiments.recipe import Recipe
from widemin.experiments.train import (
    Trained,
    build,
    family,
    share_done,
    train,
    train_together,
)
from widemin.names import check_choice


def trained(
    recipe: Recipe, device: str, weights: Path, peers: Sequence[Recipe] = ()
) -> Trained:
    """Return a recipe's network, its learning curve and what training took.

    A network in the folder of weights, or in book/networks, is not trained again. Of
    peers, whose networks will be asked for too, those that can are trained side by side
    with this one. Where it raises Stopped, a checkpoint has all of it.
    """
    path, published = _path(recipe, weights), paths.NETWORKS / _file(recipe)
    kept = _kept(path, recipe) or _kept(published, recipe)
    if peers and kept is None and (own := family(recipe)):
        # One process trains them; others wait, then measure while it trains the next.
        with _waited(weights / f"{own.key}.lock"):
            group = [peer for peer in peers if family(peer) == own]
            group = [peer for peer in group if not _path(peer, weights).exists()]
            if len(group) > 1 and recipe in group:
                keep_together(group, device, weights)
        kept = _kept(path, recipe)
    if kept is not None:
        return _on(kept[0], device), *kept[1:]
    checkpoint = _checkpoint(recipe, weights)
    model = _on(build(recipe), device)
    curve, facts = train(model, recipe, device, checkpoint)
    _keep((model, curve, facts), recipe, path)
    checkpoint.unlink(missing_ok=True)
    return model, curve, facts


def _on(model: nn.Module, device: str) -> nn.Module:
    """Return a network where it is to work, laid out as convolutions are quickest."""
    return model.to(torch.device(device)).to(memory_format=torch.channels_last)


@contextmanager
def _waited(path: Path) -> Iterator[None]:
    """Hold a file's lock once other processes have let it go, or raise Stopped."""
    from filelock import Timeout

    lock = disk.lock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            if pool.stopping.is_set():
                raise pool.Stopped from None
    try:
        yield
    finally:
        lock.release()


def shared(recipe: Recipe, device: str, weights: Path) -> nn.Module:
    """Return a network that several runs ask for: one trains it, the others wait."""
    with _waited(_path(recipe, weights).with_suffix(".lock")):
        return trained(recipe, device, weights)[0]


def is_kept(recipe: Recipe, weights: Path) -> bool:
    """Return True for a recipe whose trained network is in a folder or the book."""
    places = _path(recipe, weights), paths.NETWORKS / _file(recipe)
    return any(_kept(path, recipe) for path in places)


def begun(recipes: Sequence[Recipe], weights: Path) -> tuple[list[float], int]:
    """Return the shares, in [0, 1), of trainings under way, and the number trained."""
    kept = {_checkpoint(recipe, weights): recipe for recipe in recipes}
    shares = [share_done(path, kept[path]) for path in kept if path.exists()]
    return shares, sum(_path(recipe, weights).exists() for recipe in recipes)


def keep_together(recipes: Sequence[Recipe], device: str, weights: Path) -> None:
    """Train the networks of recipes side by side, and keep each as if alone."""
    keys = "".join(recipe.training_key for recipe in recipes)
    digest = hashlib.sha256(keys.encode()).hexdigest()[:16]
    checkpoint = weights / f"{digest}.group"
    networks = train_together(recipes, device, checkpoint)
    for recipe, network in zip(recipes, networks, strict=True):
        _keep(network, recipe, _path(recipe, weights))
    checkpoint.unlink(missing_ok=True)


def published() -> list[str]:
    """Return the names of the networks in book/networks, which `load` takes."""
    disk.checkout()
    files = paths.NETWORKS.glob("[!.]*.safetensors")
    return sorted(path.stem for path in files if path.is_file())


def load(name: str, device: str = "cpu") -> nn.Module:
    """Return a network of book/networks, as `published` names it, in inference mode.

    Raises:
        ValueError: There is no such network, or its file is broken.

    >>> for name in published()[:1]:
    ...     print(type(load(name)).__name__)
    Sequential
    """
    check_choice("name", name, published())
    path = paths.NETWORKS / f"{name}.safetensors"
    try:
        model = _read(path)[0]
    except BROKEN as error:
        raise ValueError(f"{path} must be a network; got {error}") from error
    return model.to(torch.device(device)).eval().requires_grad_(False)


def publish(recipes: Sequence[Recipe], weights: Path) -> list[str]:
    """Copy networks into book/networks, those of them that are there; name them."""
    names = []
    for recipe in recipes:
        if _kept(_path(recipe, weights), recipe):
            with disk.atomic(paths.NETWORKS / _file(recipe)) as part:
                shutil.copyfile(_path(recipe, weights), part)
            names.append(_file(recipe))
    return names


def _file(recipe: Recipe) -> str:
    """Return the name of a network that people are to find."""
    how = f"{recipe.optimizer}-b{recipe.batch_size}-lr{recipe.learning_rate:g}"
    long = f"{recipe.train_size}x{recipe.epochs}-seed{recipe.seed}"
    return f"{recipe.dataset}-{recipe.model}-{how}-{long}.safetensors"


# What reading a network cut short, of another shape or by another version can raise.
BROKEN = (SafetensorError, RuntimeError, LookupError, TypeError, ValueError)


def _kept(path: Path, recipe: Recipe) -> Trained | None:
    """Return the network in a file, None without; one that is not it is set aside.

    In book/networks names leave much out: another recipe's network is left there.
    """
    if not path.exists():
        return None
    try:
        if path.is_dir():
            raise ValueError("it is a folder")
        said = _recipe(path)
        if said.training_key == recipe.training_key:
            return _read(path)
        if path.parent == paths.NETWORKS:
            return None
        raise ValueError(f"it is that of {said}")
    except BROKEN as error:
        disk.set_aside(path, f"the network of {recipe}", error)
        return None


def _read(path: Path) -> Trained:
    """Return the network in a file, with how its training went."""
    model = build(_recipe(path))
    model.load_state_dict(load_file(path))
    with safe_open(path, "pt") as file:
        training = json.loads(file.metadata()["training"])
    curve, facts = list(map(dict, training["curve"])), dict(training["facts"])
    if not {"diverged", "train_seconds"} <= facts.keys():
        raise ValueError(f"another version says of its training {facts}")
    return model, curve, facts


def _recipe(path: Path) -> Recipe:
    """Return the recipe in a network file, without fields unknown to this version."""
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["recipe"])
    names = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{name: said[name] for name in said if name in names})


def _checkpoint(recipe: Recipe, weights: Path) -> Path:
    return _path(recipe, weights).with_suffix(".checkpoint")


def _path(recipe: Recipe, weights: Path) -> Path:
    return weights / f"{recipe.training_key}.safetensors"


def _keep(trained: Trained, recipe: Recipe, path: Path) -> None:
    model, curve, facts = trained
    state = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
    note = {
        "training": json.dumps({"curve": curve, "facts": facts}),
        "recipe": json.dumps(as_row(recipe)),
    }
    with disk.atomic(path) as part:
        save_file(state, part, metadata=note)
