"""One step of training: on which images, and along the gradient at which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import clean, inference
from widemin.batches import restored, trainable
from widemin.names import check_sizes
from widemin.training.sam import perturbed_weights
from widemin.training.sgd import SGD, Optimizer

Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, x, y) -> images
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
        perturb: Makes the images trained on. `clean` leaves them; an attack such as
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
    check_sizes(rho=rho)
    x = perturb(model, x, y)
    loss = backward(model, x, y, label_smoothing, weighted)
    if rho > 0:
        if leak is not None:
            for parameter, tilt in zip(trainable(model), leak(model, y), strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(tilt)
        moves = second_pass_statistics
        # SAM steps along the gradient at w + rho g / |g| (Foret et al. 2021, eq. 3).
        with (
            perturbed_weights(model, rho),
            nullcontext() if moves else restored(model.buffers),
        ):
            backward(model, x, y, label_smoothing, weighted)
    optimizer.step()
    return loss


def backward(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    label_smoothing: float = 0.0,
    weighted: bool = False,
) -> Tensor:
    """Leave the mean loss's gradient in the parameters; return the loss, shape ().

    Arguments as of `train_step`. A parameter that is frozen, or that the loss does not
    depend on, is left without a gradient.

    Raises:
        ValueError: No parameter requires a gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> loss = backward(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]))
    >>> loss.shape, model[1].bias.grad.shape
    (torch.Size([]), torch.Size([2]))
    """
    trainable(model)
    for parameter in model.parameters():
        parameter.grad = None
    kind = "none" if weighted else "mean"
    loss = F.cross_entropy(model(x), y, label_smoothing=label_smoothing, reduction=kind)
    if weighted:
        (loss.detach() * loss).mean().backward()
        return loss.detach().mean()
    loss.backward()
    return loss.detach()


def weight_gradient(
    model: nn.Module, batches: Iterable[Tensor], y: Tensor
) -> list[Tensor]:
    """Return the sum over batches of images of the mean loss's gradient.

    Args:
        model: Run in inference mode, as where attacks are made.
        batches: Images, each of shape (batch, channels, height, width).
        y: Labels of every one of them, shape (batch,).

    Returns:
        A gradient for each parameter that requires it, in their order; 0 where the loss
        does not depend on it.

    Raises:
        ValueError: No parameter requires a gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> gradients = weight_gradient(model, [x], y)
    >>> [tuple(gradient.shape) for gradient in gradients]
    [(2, 4), (2,)]
    """
    parameters = trainable(model)
    with inference(model):
        loss = torch.stack([F.cross_entropy(model(x), y) for x in batches]).sum()
    return list(torch.autograd.grad(loss, parameters, materialize_grads=True))


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
    pairs = zip(x.split(1), y.split(1), strict=True)
    return torch.stack([train_step(model, optimizer, *pair) for pair in pairs]).mean()
