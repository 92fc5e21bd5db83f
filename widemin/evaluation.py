"""Accuracy under attacks, counted by predicting the attacked images again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from widemin.attacks import check_images, check_logits, inference, margin

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]

# float32 cross-entropy loses the true-class gradient beyond 24 ln 2 = 16.64.
MASKED_MARGIN = 16.635532


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500) -> Tensor:
    """Return which images the network classifies rightly, bool, shape (images,).

    Raises:
        ValueError: Images outside [0, 1], wrong labels or non-finite logits.
    """
    return margins(model, x, y, chunk) > 0


@torch.no_grad()
def margins(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 500) -> Tensor:
    """Return each image's true logit minus the best other one, shape (images,).

    Ties count as wrong: a constant network is right by accident only.
    """
    check_images(x, y)
    parts = []
    with inference(model):
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            logits = model(images)
            check_logits(logits, labels)
            parts.append(-margin(logits, labels))
    return torch.cat(parts)


def survivors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    chunk: int = 250,
) -> dict[str, Tensor]:
    """Return which images are classified rightly after each attack, on its own.

    Images that are wrong already are not attacked: every set contains the unmoved
    image. Accuracy is the mean of a mask, the worst case the mean of all of them.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1], shape (images, channels, height, width).
        y: Labels, shape (images,).
        attacks: Name to (model, x, y) -> adversarial images.
        chunk: Images attacked at a time.

    Returns:
        Name to mask, bool, shape (images,).

    >>> from functools import partial
    >>> from widemin.attacks import Linf, clean, fgsm
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> attacks = {"none": clean, "fgsm": partial(fgsm, ball=Linf(1))}
    >>> found = survivors(model, x, y, attacks)
    >>> bool((found["none"] == correct(model, x, y)).all())
    True
    """
    natural = correct(model, x, y)
    chunks = natural.nonzero()[:, 0].split(chunk) if natural.any() else ()
    found = {}
    for name, attack in attacks.items():
        right = natural.clone()
        for index in chunks:
            images, labels = x[index], y[index]
            right[index] = correct(model, attack(model, images, labels), labels)
        found[name] = right
    return found
