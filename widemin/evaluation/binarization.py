"""The binarization test: does an attack find an example that is surely there?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from widemin.attacks import Ball, check_images, inference, logits_of
from widemin.evaluation.accuracy import Attack, robust_mask, within
from widemin.evaluation.gradient_masking import random_signs
from widemin.names import check_counts

# Inner points lie within this share of the radius; the threshold lies this share of the
# way from the highest of them to the lowest boundary point, as in the authors' code.
INSIDE, CLOSE = 0.95, 0.999
RIDGE = 1.0  # of the discriminant, in mean variances of the features


class Binarized(NamedTuple):
    """Masks of images, bool, shape (images,); False where a readout separates nothing.

    Only separable images say anything of attacks.
    """

    found: dict[str, Tensor]  #: by attack, those where it finds a point of class 1
    random: Tensor  #: one of the random tries is of class 1
    separable: Tensor  #: the boundary points alone are of class 1, so one exists


def binarization(
    model: nn.Module,
    x: Tensor,
    ball: Ball,
    attacks: Mapping[str, Attack],
    *,
    generator: torch.Generator,
    inner: int = 100,
    boundary: int = 1,
) -> Binarized:
    """Return masks of the images at which attacks find an example known to exist.

    The test of Zimmermann et al. (2022) builds a binary classifier for each image. Its
    features are the network's; its linear readout, a regularised discriminant, tells
    random points on the ball's boundary (class 1) from the image and random points
    inside (class 0). At the image the margin is the network's own, and so is the first
    logit everywhere: what confidence masks stays masked. (The paper takes a logistic
    regression, its two logits opposite, and matches the logits' range.)

    Args:
        model: An nn.Sequential that ends in nn.Linear.
        x: Images in [0, 1], shape (images, channels, height, width).
        ball: The set in which points are drawn.
        attacks: Name to (model, x, y) -> images in the ball, asked an image at a time.
            There are two logits, and y is 0.
        generator: Draws the points.
        inner: Points inside, besides the image; and random tries, half of them inside
            and half on the boundary.
        boundary: Points on the boundary.

    Raises:
        ValueError: Another kind of network, images outside [0, 1], an attack that
            leaves the ball; logits not finite (`NonFiniteError`).

    >>> from widemin.attacks import Linf, clean
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> x, draws = torch.rand(2, 1, 8, 8), torch.Generator().manual_seed(0)
    >>> binarization(model, x, Linf(0.1), {"none": clean}, generator=draws).found
    {'none': tensor([False, False])}
    """
    layers = list(model) if isinstance(model, nn.Sequential) else []
    last, kind = layers.pop() if layers else None, type(model).__name__
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"model must be an nn.Sequential ending in nn.Linear; got {kind}"
        )
    check_counts(inner=inner, boundary=boundary)
    y = x.new_zeros(len(x), dtype=torch.int64)
    check_images(x, y)
    held = {name: within(attack, ball, name) for name, attack in attacks.items()}
    found = {name: torch.zeros_like(y, dtype=torch.bool) for name in attacks}
    random, separable = (torch.zeros_like(y, dtype=torch.bool) for _ in range(2))

    def drawn(image: Tensor, inside: int, outside: int) -> tuple[Tensor, Tensor]:
        low, high = (image.expand(n, -1, -1, -1) for n in (inside, outside))
        low = (low + ball.scaled(INSIDE).sample(low, generator)).clamp(0, 1)
        return low, random_signs(model, high, y, ball, generator)

    parts = [1 + inner, boundary, inner]
    for i, image in enumerate(x.split(1)):
        low, high = drawn(image, inner, boundary)
        tries = torch.cat(drawn(image, inner // 2, inner - inner // 2))
        with inference(model), torch.no_grad():
            features = nn.Sequential(*layers)(torch.cat([image, low, high, tries]))
            below, above, _ = features.split(parts)
            logits = logits_of(model, image, y[:1])[0]
            readout = _readout(last, logits, below, above)
            of_low, of_high, of_tries = readout(features).argmax(1).split(parts)
        separable[i] = of_high.all() and not of_low.any()
        random[i] = separable[i] and of_tries.any()
        if separable[i]:
            binary = nn.Sequential(*layers, readout)
            for name, mask in robust_mask(binary, image, y[:1], held).items():
                found[name][i] = ~mask
    return Binarized(found, random, separable)


def _readout(last: nn.Linear, logits: Tensor, low: Tensor, high: Tensor) -> nn.Linear:
    """Return a readout of two logits that tells features of low points from high ones.

    At the first low point, of which the network's logits are given, the two differ by
    its margin.
    """
    below, above = low.double(), high.double()
    (first, second), (answer, _) = logits.double().topk(2)
    centred = below - below.mean(0)
    spread = centred.T @ centred / len(below)
    ridge = RIDGE * spread.diagonal().mean() + torch.finfo(spread.dtype).tiny
    spread.diagonal().add_(ridge)
    direction = torch.linalg.solve(spread, above.mean(0) - below.mean(0))
    below, above = below @ direction, above @ direction
    threshold = below.max() + CLOSE * (above.min() - below.max())
    scale = (first - second) / (threshold - below[0])
    # The first logit is the network's own: what float32 loses of the network's loss, it
    # loses here. A pair of opposite logits keeps its gradient up to margins of 87.
    bias = 0.0 if last.bias is None else last.bias[answer]
    own, readout = last.weight[answer], nn.Linear(len(direction), 2).to(low)
    readout.weight.copy_(torch.stack([own, own + scale * direction]))
    readout.bias.copy_(torch.stack([bias, bias - scale * threshold]))
    return readout
