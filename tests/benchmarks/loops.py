"""Recipes of the papers against the same recipes in the loop that a tutorial shows.

Both train the same network from scratch on the same real images, once through; a plain
loop has torchvision's data set behind a DataLoader and torch.optim.SGD.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from widemin.experiments import train
from widemin.experiments.recipe import Recipe

RECIPES = {
    "StdCNN on MNIST, batch 64": Recipe(
        dataset="mnist", train_size=4_096, model="stdcnn", learning_rate=0.01
    ),
    "C1 on CIFAR-10, crops and flips, batch 64": Recipe(
        dataset="cifar10",
        train_size=512,
        model="c1",
        augment="crop+flip",
        learning_rate=0.01,
    ),
    "adversarial training of the 4-layer CNN on MNIST, PGD-10, batch 128": Recipe(
        dataset="mnist",
        train_size=512,
        model="cnn4",
        batch_size=128,
        learning_rate=0.01,
        momentum=0.9,
        attack="linf 0.3",
    ),
}


def _dataset(recipe: Recipe):
    from torchvision import datasets, transforms

    steps = [transforms.ToTensor()]
    if recipe.augment:
        crop = transforms.RandomCrop(32, 4, padding_mode="reflect")
        steps = [crop, transforms.RandomHorizontalFlip(), *steps]
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[recipe.dataset]
    images = kind(os.environ["WIDEMIN_DATA"], transform=transforms.Compose(steps))
    return torch.utils.data.Subset(images, range(recipe.train_size))


def _attacked(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, epsilon: float, steps: int
) -> torch.Tensor:
    start = x + torch.empty_like(x).uniform_(-epsilon, epsilon)
    moved = start.clamp(0, 1)
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        loss = F.cross_entropy(model(moved), y)
        gradient = torch.autograd.grad(loss, moved)[0]
        moved = moved.detach() + epsilon / 4 * gradient.sign()
        moved = x + (moved - x).clamp(-epsilon, epsilon)
        moved = moved.clamp(0, 1)
    return moved.detach()


def plain_loop(recipe: Recipe) -> None:
    """Train a recipe's network as a tutorial does."""
    model = train.build(recipe)
    images = torch.utils.data.DataLoader(
        _dataset(recipe), batch_size=recipe.batch_size, shuffle=True
    )
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.learning_rate, momentum=recipe.momentum
    )
    for x, y in images:
        if recipe.attack:
            model.eval()
            radius = recipe.attack.epsilon
            x = _attacked(model, x, y, radius, recipe.attack_steps)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def ours(recipe: Recipe) -> None:
    """Train a recipe's network as a run does."""
    model = train.build(recipe).to(memory_format=torch.channels_last)
    train.train(model, recipe, "cpu")


def pairs() -> dict[str, tuple[int, Callable[[], None], Callable[[], None]]]:
    """Return for each recipe its images, our training and the plain loop."""
    return {
        name: (recipe.train_size, partial(ours, recipe), partial(plain_loop, recipe))
        for name, recipe in RECIPES.items()
    }
