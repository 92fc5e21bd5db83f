"""Training as one step with arguments: what perturbs the images, how far weights climb.

Standard, adversarial, SAM and dynamic training differ in two arguments of
`train_step`, `perturb` and `rho`; `fit` repeats the step over epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from widemin.attacks import clean, inference

Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]
Leak = Callable[[nn.Module, Tensor], list[Tensor]]  # (model, labels) -> gradients

# The factor on the learning rate after the fraction t of training, t in [0, 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    # Wei et al.: a tenth at epochs 75 and 90 of 100.
    "drop-75-90": lambda t: 0.1 ** ((t >= 0.75) + (t >= 0.9)),
    # Wang et al.: a tenth at 20 and 40 of 50 (MNIST), at 60 and 100 of 120 (CIFAR-10).
    "drop-40-80": lambda t: 0.1 ** ((t >= 0.4) + (t >= 0.8)),
    "drop-50-83": lambda t: 0.1 ** ((t >= 0.5) + (t >= 5 / 6)),
    # Kamath et al., Benchmark: halved every 5 of 100 epochs.
    "halve-20": lambda t: 0.5 ** int(20 * t),
    # Up over the first fifth, flat to the half, linearly down to 0.
    "trapezoid": lambda t: min(5 * t, 1.0, 2 * (1 - t)),
}


class SGD:
    """Stochastic gradient descent: v <- m v + g + decay w, w <- w - rate v.

    The update of torch.optim.SGD, bit for bit; its import, with the compiler that it
    brings, takes longer than a small network takes to train. It is written down here
    with the same `param_groups`, so that either serves `fit`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """Start with zero velocity."""
        self.parameters: list[Tensor] = list(parameters)
        self.velocities: list[Tensor] = []
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.param_groups = [{"lr": lr}]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return what an interrupted run needs to go on: the velocities."""
        return {"velocities": self.velocities}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from the velocities of `state_dict`."""
        self.velocities = state["velocities"]

    def step(self) -> None:
        """Move the parameters along the gradients they hold."""
        self.descend([p.grad for p in self.parameters if p.grad is not None])

    @torch.no_grad()
    def descend(self, update: list[Tensor]) -> None:
        """Move the parameters along gradients, one for each."""
        if self.weight_decay:
            update = list(
                torch._foreach_add(update, self.parameters, alpha=self.weight_decay)
            )
        if self.momentum:
            if not self.velocities:
                self.velocities = [gradient.clone() for gradient in update]
            else:
                torch._foreach_mul_(self.velocities, self.momentum)
                torch._foreach_add_(self.velocities, update)
            update = self.velocities
        rate = self.param_groups[0]["lr"]
        torch._foreach_add_(self.parameters, update, alpha=-rate)


Optimizer = SGD | torch.optim.Optimizer
# (model, optimizer, images, labels) -> loss, shape ()
Step = Callable[[nn.Module, Optimizer, Tensor, Tensor], Tensor]


def backward(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    label_smoothing: float = 0.0,
    weighted: bool = False,
) -> Tensor:
    """Leave the gradient of the mean loss in the parameters; return the loss.

    Weighted, each image's loss counts as often as it is large: its own value, held
    fixed, multiplies it.
    """
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
    """Return the sum over batches of the mean loss's gradient, one a parameter.

    Args:
        model: Run in inference mode, as where attacks are made.
        batches: Images, each of shape (batch, channels, height, width).
        y: Labels of every one of them, shape (batch,).
    """
    parameters = list(model.parameters())
    with inference(model):
        loss = torch.stack([F.cross_entropy(model(x), y) for x in batches]).sum()
    return list(torch.autograd.grad(loss, parameters))


@contextmanager
def climbed(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by rho along their gradient; put them back exactly afterwards.

    The ball is Euclidean over all parameters jointly: w + rho g / |g| (Foret et al.
    2021, eq. 2).
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        # 1e-12 as in the released code of Wei et al.: no direction, no step.
        step = torch._foreach_mul(gradients, rho / (norm + 1e-12))
        torch._foreach_add_(parameters, list(step))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by batch statistics, but leave the running statistics alone."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    counts = [n for m in layers if (n := m.num_batches_tracked) is not None]
    before = [count.clone() for count in counts]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for count, value in zip(counts, before, strict=True):
            count.copy_(value)


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
        x: Images in [0, 1], shape (batch, channels, height, width).
        y: Labels, shape (batch,).
        perturb: Makes the images trained on; `clean` leaves them, an attack such as
            partial(pgd, ball=..., steps=...) is adversarial training (Madry et al.
            2018), with fosc_below dynamic adversarial training (Wang et al. 2019).
        rho: Radius of SAM's ascent in the weights; 0 is plain descent.
        second_pass_statistics: Whether SAM's second pass, at the moved weights, also
            updates the running statistics of batch norm (released code of Wei et
            al.) or leaves them alone (Foret et al.).
        label_smoothing: Share of each label that is spread over all classes.
        weighted: Whether each image's loss is multiplied by its own value, held fixed
            (released code of Wang et al.).
        leak: Returns gradients, one a parameter, that are added to the one along
            which SAM climbs; None adds nothing.
    """
    x = perturb(model, x, y)
    loss = backward(model, x, y, label_smoothing, weighted)
    if rho > 0:
        if leak is not None:
            held = [p.grad for p in model.parameters() if p.grad is not None]
            torch._foreach_add_(held, leak(model, y))
        # SAM steps along the gradient at w + rho g / |g| (Foret et al. 2021, eq. 3).
        with climbed(model, rho):
            if second_pass_statistics:
                backward(model, x, y, label_smoothing, weighted)
            else:
                with frozen_statistics(model):
                    backward(model, x, y, label_smoothing, weighted)
    optimizer.step()
    return loss


def algorithm_1(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    """Take a step an image, from zero velocity; return the mean loss, shape ().

    Algorithm 1 of Kamath et al. as it is printed: the velocity starts anew with every
    batch, and the weights move after each of its images. The optimiser is an `SGD`.
    """
    optimizer.velocities = []
    losses = [
        train_step(model, optimizer, image, label)
        for image, label in zip(x.split(1), y.split(1), strict=True)
    ]
    return torch.stack(losses).mean()


@dataclass
class Position:
    """Where `fit` stands: with weights, optimiser and generators enough to go on.

    Attributes:
        epoch: Epochs finished.
        order: Order of the images in the epoch under way, shape (images,), if any.
        batch: Steps of that epoch taken.
        total: Sum of the losses of the images seen in it, shape ().
    """

    epoch: int = 0
    order: Tensor | None = None
    batch: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    step_at: Callable[[float], Step] = lambda t: train_step,
    schedule: str = "constant",
    rate_decay: float = 0.0,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
    position: Position | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, float]]:
    """Train; yield (epoch, mean loss over its images) after each epoch, from 1.

    Args:
        model: Left in training mode.
        optimizer: Its learning rate at the start is multiplied by the schedule.
        x: Training images, shape (images, channels, height, width).
        y: Labels, shape (images,).
        epochs: Passes over the images.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        generator: Draws the order of the images.
        step_at: Given the fraction of training done, in [0, 1), returns the step to
            take: `train_step`, or a partial of it that perturbs images or climbs.
        schedule: One of SCHEDULES.
        rate_decay: The rate is also divided by 1 + rate_decay times the number of
            steps taken, as Keras' argument `decay` does.
        augment: Makes the images of a step, before they are perturbed.
        position: Where to start, and kept up to date after each step; with weights,
            optimiser and generators as they were then, training goes on exactly.
        pause: Called after each step, when position is up to date; it may raise.
    """
    position = position or Position()
    base = [group["lr"] for group in optimizer.param_groups]
    updates = epochs * -(-len(x) // batch_size)
    while position.epoch < epochs:
        model.train()
        if position.order is None:
            position.order = torch.randperm(len(x), generator=generator)
            position.total = torch.zeros((), device=x.device)
        parts = position.order.to(x.device).split(batch_size)
        for index in parts[position.batch :]:
            done = (position.epoch * len(parts) + position.batch) / updates
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                taken = position.epoch * len(parts) + position.batch
                slower = 1 + rate_decay * taken
                group["lr"] = rate * SCHEDULES[schedule](done) / slower
            loss = step_at(done)(model, optimizer, augment(x[index]), y[index])
            position.total = position.total + loss * len(index)
            position.batch += 1
            pause()
        mean = float(position.total) / len(x)
        position.epoch, position.order, position.batch = position.epoch + 1, None, 0
        yield position.epoch, mean
