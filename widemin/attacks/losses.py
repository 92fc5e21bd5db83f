"""What an attack may climb: losses per image, from logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of the softmax; in float32 it loses margins > 16.64.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([0])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits, y, reduction="none")


def clipped_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of probabilities clipped to [1e-7, 1 - 1e-7], as Keras.

    Its gradient is exactly zero once the margin exceeds 16.1 (see the chapter on
    width): a network that is sure enough cannot be attacked through it.

    >>> z = torch.tensor([[20.0, 0.0]], requires_grad=True)
    >>> torch.autograd.grad(clipped_cross_entropy(z, torch.tensor([0])).sum(), z)[0]
    tensor([[0., 0.]])
    """
    probability = logits.softmax(1).gather(1, y[:, None])[:, 0]
    return -probability.clamp(1e-7, 1 - 1e-7).log()


def _needs_classes(loss: str, least: int, logits: Tensor) -> None:
    """Raise ValueError where a loss is a constant for want of classes."""
    if logits.shape[1] < least:
        raise ValueError(
            f"the {loss} loss needs at least {least} classes; got {logits.shape[1]}"
        )


def _true_and_best_other(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    _needs_classes("margin", 2, logits)
    true = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -float("inf"))
    return true, others.amax(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return best other logit minus true logit (Carlini and Wagner 2017, f6).

    Positive means misclassified; its gradient does not fade with confidence.

    >>> margin(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
    tensor([-2.])
    """
    true, other = _true_and_best_other(logits, y)
    return other - true


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce and Hein 2020, eq. 6).

    Raises:
        ValueError: Below 3 classes, of which it is a constant.

    >>> dlr(torch.tensor([[5.0, 4.0, 1.0]]), torch.tensor([0]))
    tensor([-0.2500])
    """
    _needs_classes("DLR", 3, logits)
    ordered = logits.sort(dim=1, descending=True).values
    spread = ordered[:, 0] - ordered[:, 2]
    return margin(logits, y) / spread.clamp_min(1e-12)


def rescaled_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy after dividing the logits by the image's own margin.

    >>> z, y = torch.tensor([[3.0, 1.0]]), torch.tensor([0])
    >>> bool(rescaled_cross_entropy(1000 * z, y) == rescaled_cross_entropy(z, y))
    True
    """
    size = margin(logits, y).abs().detach().clamp_min(1e-12)
    return cross_entropy(logits / size[:, None], y)


@dataclass(frozen=True)
class _Targeted:
    """The negative of a loss, and a type by which attacks know whose labels it has."""

    loss: Loss

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return -self.loss(logits, y)


def targeted(loss: Loss) -> Loss:
    """Return the loss of an attack towards a class: its labels are the classes wanted.

    `fgsm` and `pgd` with it take an image as fooled once it is put into the class
    wanted.

    >>> towards = targeted(cross_entropy)
    >>> wanted = torch.tensor([1])
    >>> sure, unsure = torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]])
    >>> bool(towards(sure, wanted) > towards(unsure, wanted))
    True
    """
    return _Targeted(loss)


def fooled(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:
    """Return a mask of the answers that an attack wants, bool, shape (batch,).

    Of a targeted loss those are the classes y, of any other all but y.

    >>> logits, y = torch.tensor([[0.0, 9.0]]), torch.tensor([1])
    >>> fooled(cross_entropy, logits, y), fooled(targeted(cross_entropy), logits, y)
    (tensor([False]), tensor([True]))
    """
    answers = logits.argmax(1)
    return answers == y if isinstance(loss, _Targeted) else answers != y
