"""Relative flatness: the Hessian of the last layer, in units of its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from widemin.attacks import inference
from widemin.batches import Data, at_once, checked
from widemin.names import check


def relative_flatness(
    model: nn.Module, x: Data, y: Tensor | None = None, chunk: int | None = None
) -> float:
    """Return the relative flatness of the last layer, small where the loss is flat.

    The sum over rows s, t of the layer of w_s . w_t Tr(H_st), for the blocks H_st of
    the Hessian of the mean cross-entropy (Petzka et al. 2021), in inference mode. No
    label enters it; features scaled up and the layer down do not change it. Other
    arguments and errors as of `weight_landscape`.

    Raises:
        ValueError: A model that is no sequence ending in a linear layer.

    >>> network = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> network[0].weight.data = torch.tensor([[0.0, 3.0], [0.0, -3.0]])
    >>> relative_flatness(network, torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    36.0
    """
    layers: Any = model if isinstance(model, nn.Sequential) else []
    last: Any = layers[-1] if len(layers) else model
    ends = len(layers) > 0 and type(last) is nn.Linear
    expected = "model must be a sequence that ends in a linear layer"
    check(ends, expected, type(last).__name__)
    pairs = checked(model, x, y, at_once(model, chunk, 500))
    rows = last.weight.detach().double()
    apart = (rows[:, None] - rows).square().sum(-1)
    total, count = 0.0, 0
    with inference(model), torch.no_grad():
        for inputs, _ in pairs:
            features = layers[:-1](inputs.to(rows.device)).double()
            bias = 0 if last.bias is None else last.bias.double()
            p = (features @ rows.T + bias).softmax(1)
            # Tr(H_st) is the mean of |a|^2 (p_s [s = t] - p_s p_t) for features a.
            spread = ((p @ apart) * p).sum(1) / 2
            total += float((features.square().sum(1) * spread).sum())
            count += len(features)
    return total / count
