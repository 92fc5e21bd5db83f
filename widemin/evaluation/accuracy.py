"""Answers of a network, image by image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from widemin.attacks import check_labels, inference, logits_of, margin
from widemin.batches import Data, at_once, each_batch

# float32 cross-entropy loses the true-class gradient beyond 24 ln 2 = 16.64.
MASKED_MARGIN = 16.635532


def correct(
    model: nn.Module, x: Data, y: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Return a mask of the inputs that are classified rightly, bool, shape (inputs,).

    Arguments and errors as of `margins`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> correct(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    return margins(model, x, y, chunk) > 0


@torch.no_grad()
def margins(
    model: nn.Module, x: Data, y: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Return each input's true logit minus the best other one, shape (inputs,).

    Ties count as wrong: a constant network is right by accident only.

    Args:
        model: Maps inputs to logits.
        x: Inputs of any kind, shape (inputs, ...), or batches of inputs and labels,
            such as a DataLoader.
        y: Labels, shape (inputs,); none beside batches.
        chunk: Inputs asked at a time, by default what suits the device.

    Raises:
        ValueError: Wrong labels, no input, a chunk below 1, or a network that does
            not take these inputs.
        NonFiniteError: NaN or infinite logits.

    >>> class Two(nn.Module):
    ...     def forward(self, x):
    ...         return x.flatten(1)
    >>> x = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    >>> margins(Two(), x, torch.tensor([0]))
    tensor([0.5000])
    """
    with inference(model):
        parts = []
        for inputs, labels in each_batch(x, y, at_once(model, chunk, 500)):
            check_labels(inputs, labels)
            parts.append(-margin(logits_of(model, inputs, labels), labels))
    return torch.cat(parts)


def share(mask: Tensor) -> float:
    """Return the fraction of True.

    >>> share(torch.tensor([True, False, False, True]))
    0.5
    """
    return float(mask.double().mean())
