"""What stands around a network: its normalisation, and the precision of its layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # means, standard deviations


class Normalise(nn.Module):
    """Subtract each channel's mean and divide by its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        """Keep means and standard deviations as constants that move with the model."""
        super().__init__()
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images, shape of x."""
        return (x - self.mean) / self.std


class InBfloat16(nn.Sequential):
    """Layers that training passes through in bfloat16, inference in float32.

    Weights, their gradients and the logits are float32 always, and so is all that is
    done in inference mode: bfloat16 flips the sign of small gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images, shape (batch, classes)."""
        # Entered anew by every pass: what is cast once is kept until it is left, and
        # SAM's second pass would meet the weights of the first.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training):
            return super().forward(x).to(x.dtype)
