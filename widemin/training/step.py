"""A step of training: what perturbs the images, how far the weights climb."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from widemin.attacks import clean
from widemin.batches import trainable
from widemin.training.gradients import backward
from widemin.training.sam import check_rho, climbed, frozen_statistics
from widemin.training.sgd import SGD, Optimizer

Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]
Leak = Callable[[nn.Module, Tensor], list[Tensor]]  # (model, labels) -> gradients
# (model, optimizer, images, labels) -> loss, shape ()
Step = Callable[[nn.Module, Optimizer, Tensor, Tensor], Tensor]


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    perturb: Perturb = clean,
    rho: float = 0.0,
    second_pass_statistics: bool = False,
    label_smoothing: float = 0.0,
    weighted: bool = False,
    leak: Leak | None = None,
) -> Tensor:
    """Take one step; return the loss at the unmoved weights, shape ().

    Args:
        model: In training mode, on the device of the images.
        optimizer: Moves the model's parameters along their gradients.
        x: Images, shape (batch, channels, height, width); in [0, 1] if an attack
            perturbs them.
        y: Labels, shape (batch,).
        perturb: Makes the images trained on; `clean` leaves them, an attack such as
            partial(pgd, ball=..., steps=...) is adversarial training (Madry et al.
            2018), `pgd_path` with fosc_below dynamic training (Wang et al. 2019).
        rho: Radius of SAM's ascent in the weights; 0 is plain descent.
        second_pass_statistics: Whether SAM's second pass, at the moved weights, also
            updates the running statistics of batch norm (released code of Wei et
            al.) or leaves them alone (Foret et al.).
        label_smoothing: Share of each label that is spread over all classes.
        weighted: Whether each image's loss is multiplied by its own value, held fixed
            (released code of Wang et al.).
        leak: Returns gradients, one for each parameter that requires it, that are
            added to the one along which SAM climbs; None adds nothing.

    Raises:
        ValueError: A rho below 0 or not finite, or no parameter that requires a
            gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> optimizer = SGD(model.parameters(), lr=0.5)
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> losses = [train_step(model, optimizer, x, y, rho=0.05) for _ in range(50)]
    >>> bool(losses[-1] < losses[0])
    True
    """
    check_rho(rho)
    x = perturb(model, x, y)
    loss = backward(model, x, y, label_smoothing, weighted)
    if rho > 0:
        if leak is not None:
            for parameter, tilt in zip(trainable(model), leak(model, y), strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(tilt)
        # SAM steps along the gradient at w + rho g / |g| (Foret et al. 2021, eq. 3).
        with climbed(model, rho):
            if second_pass_statistics:
                backward(model, x, y, label_smoothing, weighted)
            else:
                with frozen_statistics(model):
                    backward(model, x, y, label_smoothing, weighted)
    optimizer.step()
    return loss


def algorithm_1(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """Take a step an image, from zero velocity; return the mean loss, shape ().

    Algorithm 1 of Kamath et al. as it is printed: the velocity starts anew with every
    batch, and the weights move after each of its images.

    Raises:
        ValueError: An optimiser that is no `SGD`.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> bool(algorithm_1(model, optimizer, x, y) > algorithm_1(model, optimizer, x, y))
    True
    """
    if not isinstance(optimizer, SGD):
        raise ValueError(f"optimizer must be a training.SGD; got {optimizer}")
    optimizer.velocities.clear()
    losses = [
        train_step(model, optimizer, image, label)
        for image, label in zip(x.split(1), y.split(1), strict=True)
    ]
    return torch.stack(losses).mean()
