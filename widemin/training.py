"""Training as one step with arguments: what perturbs the images, how far weights climb.

Standard, adversarial, SAM and dynamic training differ in two arguments of
`train_step`, `perturb` and `rho`; `fit` repeats the step over epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from widemin.attacks import Loss, NonFiniteError, clean, inference
from widemin.batches import restored, trainable
from widemin.names import check, check_choice, check_counts, check_sizes

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
    """Stochastic gradient descent: v <- m v + g + decay w, w <- w - lr v.

    The update of torch.optim.SGD, bit for bit (in bfloat16, of its foreach=True), with
    its `param_groups`. Importing torch's takes longer than training a small network.
    Parameters without a gradient stay where they are.

    Raises:
        ValueError: No parameter, or a number below 0 or not finite.

    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> w.grad = torch.tensor([2.0])
    >>> SGD([w], lr=0.25).step()
    >>> w.item()
    0.5
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """Start with zero velocity."""
        check_sizes(lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.parameters: list[Tensor] = list(parameters)
        check(self.parameters, "parameters must hold at least one", "none")
        self.velocities: dict[int, Tensor] = {}  # by the place of the parameter
        self.momentum, self.weight_decay = momentum, weight_decay
        self.param_groups = [{"lr": lr}]

    def state_dict(self) -> dict[str, list[Tensor | None]]:
        """Return the velocities, which an interrupted run needs to go on."""
        velocities = map(self.velocities.get, range(len(self.parameters)))
        return {"velocities": list(velocities)}

    def load_state_dict(self, state: dict[str, list[Tensor | None]]) -> None:
        """Go on from the velocities of `state_dict`."""
        kept = enumerate(state["velocities"])
        self.velocities = {i: velocity for i, velocity in kept if velocity is not None}

    def step(self) -> None:
        """Move the parameters along the gradients they hold."""
        self.descend([p.grad for p in self.parameters])

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor | None]) -> None:
        """Move the parameters along gradients, one for each; None moves nothing."""
        held = {i: g for i, g in enumerate(gradients) if g is not None}
        if not held:
            return
        weights, update = [self.parameters[i] for i in held], list(held.values())
        if self.weight_decay:
            update = list(torch._foreach_add(update, weights, alpha=self.weight_decay))
        if self.momentum:
            for i in held.keys() - self.velocities.keys():
                self.velocities[i] = torch.zeros_like(self.parameters[i])
            velocities = [self.velocities[i] for i in held]
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, update)
            update = velocities
        torch._foreach_add_(weights, update, alpha=-self.param_groups[0]["lr"])


Optimizer = SGD | torch.optim.Optimizer
Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, x, y) -> images
# (model, optimizer, images, labels) -> loss, shape ()
Step = Callable[[nn.Module, Optimizer, Tensor, Tensor], Tensor]


@contextmanager
def perturbed_weights(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by rho along their gradient; put them back exactly afterwards.

    w + rho g / |g|, with the L2 norm over all parameters jointly (Foret et al. 2021,
    eq. 2). Parameters without a gradient stay where they are.

    Raises:
        ValueError: A rho below 0 or not finite.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.grad = torch.ones(1, 1)
    >>> before = model.weight.item()
    >>> with perturbed_weights(model, 0.5):
    ...     round(model.weight.item() - before, 4)
    0.5
    """
    check_sizes(rho=rho)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    with restored(lambda: parameters):
        if parameters:
            norm = torch.stack([g.norm() for g in gradients]).norm()
            # 1e-12 as in the released code of Wei et al.: no direction, no step.
            step = torch._foreach_mul(gradients, rho / (norm + 1e-12))
            with torch.no_grad():
                torch._foreach_add_(parameters, list(step))
        yield


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    perturb: Perturb = clean,
    rho: float = 0.0,
    second_pass_statistics: bool = False,
    weighted: bool = False,
    leak: Callable[[nn.Module, Tensor], list[Tensor]] | None = None,
    loss: Loss | None = None,
) -> Tensor:
    """Take one step; return the loss at the unmoved weights, shape ().

    Args:
        model: In training mode.
        optimizer: Moves its parameters.
        x: Images, shape (batch, channels, height, width).
        y: Labels, shape (batch,).
        perturb: Makes the images trained on: an attack such as partial(pgd, ball=...,
            steps=...) is adversarial training (Madry et al. 2018), `pgd_path` with
            fosc_below dynamic training (Wang et al. 2019).
        rho: Radius of SAM's ascent in the weights; 0 is plain descent.
        second_pass_statistics: SAM's second pass updates batch norm's running
            statistics too (released code of Wei et al.).
        weighted: Each image's loss is multiplied by its own value, held fixed
            (released code of Wang et al.).
        leak: (model, labels) to gradients, one for each parameter that requires it,
            added to the one along which SAM climbs.
        loss: Logits and labels to the loss of each image, in place of the
            cross-entropy: one of `attacks.TRAINED` say, or of smoothed labels.

    Raises:
        ValueError: A wrong rho, or no parameter that requires a gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> x, y, weight = torch.ones(1, 1, 1, 1), torch.tensor([0]), model[1].weight
    >>> for rho in (0.0, 1.0):  # up the slope it is steeper: SAM's step is longer
    ...     _ = nn.init.zeros_(weight)
    ...     loss = train_step(model, SGD([weight], lr=1.0), x, y, rho=rho)
    ...     print(f"{loss:.4f} {weight[0, 0]:.4f}")
    0.6931 0.5000
    0.6931 0.8044
    """
    check_sizes(rho=rho)
    x = perturb(model, x, y)
    before = backward(model, x, y, weighted, loss)
    if rho > 0:
        if leak is not None:
            for parameter, tilt in zip(trainable(model), leak(model, y), strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(tilt)
        kept = nullcontext() if second_pass_statistics else restored(model.buffers)
        # SAM steps along the gradient at w + rho g / |g| (Foret et al. 2021, eq. 3).
        with perturbed_weights(model, rho), kept:
            backward(model, x, y, weighted, loss)
    optimizer.step()
    return before


def backward(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    weighted: bool = False,
    loss: Loss | None = None,
) -> Tensor:
    """Leave the mean loss's gradient in the parameters; return the loss, shape ().

    Arguments as of `train_step`. A parameter that is frozen, or unused, has none.

    >>> model = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> backward(model, torch.ones(1, 1), torch.tensor([0])), model.weight.grad[0]
    (tensor(0.6931), tensor([-0.5000]))
    """
    trainable(model)
    for parameter in model.parameters():
        parameter.grad = None
    if loss is None:
        loss = partial(F.cross_entropy, reduction="none" if weighted else "mean")
    each = loss(model(x), y)  # or their mean already
    (each.detach() * each if weighted else each).mean().backward()
    return each.detach().mean()


def weight_gradient(
    model: nn.Module, batches: Iterable[Tensor], y: Tensor
) -> list[Tensor]:
    """Return the sum over batches of images, all with labels y, of the loss's gradient.

    The loss is the mean one in inference mode, in which attacks are made. Each
    parameter that requires a gradient has one; it is 0 if the parameter is unused.

    >>> model = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> x, y = torch.ones(1, 1), torch.tensor([0])
    >>> weight_gradient(model, [x, 3 * x], y)[0].T
    tensor([[-2.,  2.]])
    """
    parameters = trainable(model)
    with inference(model):
        loss = torch.stack([F.cross_entropy(model(x), y) for x in batches]).sum()
    return list(torch.autograd.grad(loss, parameters, materialize_grads=True))


def algorithm_1(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """Take a step an image, from zero velocity; return the mean loss, shape ().

    Algorithm 1 of Kamath et al. as it is printed.

    Raises:
        ValueError: An optimiser that is no `SGD`.

    >>> model = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> x, y = torch.ones(2, 1), torch.tensor([0, 1])  # a step on both would not move
    >>> algorithm_1(model, SGD([model.weight], lr=1.0), x, y), model.weight.T
    (tensor(1.0032), tensor([[-0.2311,  0.2311]], grad_fn=<PermuteBackward0>))
    """
    if not isinstance(optimizer, SGD):
        raise ValueError(f"optimizer must be a training.SGD; got {optimizer}")
    optimizer.velocities.clear()
    pairs = zip(x.split(1), y.split(1), strict=True)
    return torch.stack([train_step(model, optimizer, *pair) for pair in pairs]).mean()


@dataclass
class Position:
    """Where `fit` stands; with weights, optimiser and generators enough to go on."""

    epoch: int = 0  #: finished
    order: Tensor | None = None  #: of the images in the epoch under way, if any
    batch: int = 0  #: steps of that epoch taken
    total: Tensor = field(default_factory=lambda: torch.zeros(()))  #: of its losses


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
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train; return the mean loss over the images in each epoch.

    Args:
        model: Left in training mode.
        optimizer: Its learning rate is put back at the end.
        x: Training images, shape (images, channels, height, width).
        y: Labels, shape (images,).
        epochs: Passes over the images.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        generator: Draws the order of the images.
        step_at: Fraction of training done, in [0, 1), to the step to take.
        schedule: Multiplies the learning rate; one of SCHEDULES.
        rate_decay: As Keras' `decay`: the rate is divided by 1 + it * steps taken.
        augment: Makes the images of a step, before they are perturbed.
        position: Where to start, kept up to date: with weights, optimiser and
            generators as they were then, training goes on exactly.
        pause: Called after each step, when position is up to date; it may raise.
        after_epoch: Called with the number of each epoch, from 1, and its mean loss.

    Raises:
        ValueError: No images, labels of another number, a wrong schedule, count or
            decay, or a batch of one image where batch norm cannot train on it.
        NonFiniteError: The mean loss of an epoch is NaN or infinite.

    >>> model, y = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), torch.arange(20) % 2
    >>> x = y.float().view(-1, 1, 1, 1)  # white or black, as the label says
    >>> losses = fit(model, SGD(model.parameters(), 1.0), x, y, epochs=50, batch_size=4,
    ...              schedule="trapezoid", generator=torch.Generator())
    >>> len(losses), losses[-1] < 0.1, bool((model(x).argmax(1) == y).all())
    (50, True, True)
    """
    check(len(x), "x must hold at least one image", "none")
    check(len(y) == len(x), f"y must be one label an image, {len(x)}", len(y))
    check_counts(epochs=epochs, batch_size=batch_size)
    check_choice("schedule", schedule, SCHEDULES)
    check_sizes(rate_decay=rate_decay)
    one = 1 in (batch_size, len(x) % batch_size) and x.is_floating_point()
    check(
        not one or takes_one(model.train(), x[:1]),
        "batch_size must leave no batch of one image, on which batch norm cannot train",
        f"{len(x)} images in batches of {batch_size}",
    )
    position, losses = position or Position(), []
    rates = [(group, group["lr"]) for group in optimizer.param_groups]
    updates = epochs * -(-len(x) // batch_size)
    try:
        while position.epoch < epochs:
            model.train()
            if position.order is None:
                position.order = torch.randperm(len(x), generator=generator)
                position.total = torch.zeros((), device=x.device)
            parts = position.order.to(x.device).split(batch_size)
            for index in parts[position.batch :]:
                taken = position.epoch * len(parts) + position.batch
                factor = SCHEDULES[schedule](taken / updates)
                for group, rate in rates:
                    group["lr"] = rate * factor / (1 + rate_decay * taken)
                step = step_at(taken / updates)
                loss = step(model, optimizer, augment(x[index]), y[index])
                position.total = position.total + loss * len(index)
                position.batch += 1
                pause()
            losses.append(float(position.total) / len(x))
            position.epoch, position.order, position.batch = position.epoch + 1, None, 0
            after_epoch(position.epoch, losses[-1])
            said = f"{losses[-1]} in epoch {position.epoch}"
            finite = math.isfinite(losses[-1])
            check(finite, "training loss must be finite", said, NonFiniteError)
    finally:
        for group, rate in rates:
            group["lr"] = rate
    return losses


def takes_one(model: nn.Module, x: Tensor) -> bool:
    """Return True if the network can be trained on one image, shape (1, ...).

    It cannot if batch norm is left with one value per channel.

    >>> takes_one(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), torch.rand(1, 2, 2))
    False
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    with inference(model), restored(model.buffers), torch.no_grad():
        for layer in layers:
            layer.training = True
        try:
            if layers:
                model(x)
        except ValueError as error:
            if "per channel" not in str(error):  # "Expected more than 1 value per ..."
                raise
            return False
    return True
