"""What an attack may climb: losses per image, from logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from widemin.names import check

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of the softmax; in float32 it loses margins > 16.64.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([0])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits, y, reduction="none")


def clipped_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of probabilities clipped to [1e-7, 1 - 1e-7], as Keras.

    Its gradient is exactly zero once the margin exceeds 16.1 (chapter 1).

    >>> z = torch.tensor([[20.0, 0.0]], requires_grad=True)
    >>> torch.autograd.grad(clipped_cross_entropy(z, torch.tensor([0])).sum(), z)[0]
    tensor([[0., 0.]])
    """
    probability = logits.softmax(1).gather(1, y[:, None])[:, 0]
    return -probability.clamp(1e-7, 1 - 1e-7).log()


def shifted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log(p + 1e-20), p the softmax: log safe from 0, as often written by hand.

    >>> shifted_cross_entropy(torch.tensor([[0.0, 200.0]]), torch.tensor([0]))
    tensor([46.0517])
    """
    return -(logits.softmax(1).gather(1, y[:, None])[:, 0] + 1e-20).log()


def float16_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of logits rounded to float16, in float16 all along.

    >>> float16_cross_entropy(torch.tensor([[20.0, 0.0]]), torch.tensor([0])) == 0
    tensor([True])
    """
    return cross_entropy(logits.half(), y).to(logits)


def bfloat16_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of logits rounded to bfloat16, in bfloat16 all along.

    >>> bfloat16_cross_entropy(torch.zeros(1, 4), torch.tensor([0]))
    tensor([1.3828])
    """
    return cross_entropy(logits.bfloat16(), y).to(logits)


def quarter_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy at temperature 1/4: of four times the logits.

    >>> quarter_cross_entropy(torch.tensor([[0.5, 0.25]]), torch.tensor([0])).exp()
    tensor([1.3679])
    """
    return cross_entropy(4 * logits, y)


def normalised_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of logits of norm 10 (LogitNorm, Wei et al. 2022).

    Its temperature is 0.1. No margin of theirs exceeds 14.1, which float32 resolves.

    >>> z, y = torch.tensor([[3.0, 4.0]]), torch.tensor([0])
    >>> bool(normalised_cross_entropy(z, y) == cross_entropy(2 * z, y))
    True
    """
    norm = logits.norm(dim=1, keepdim=True).clamp_min(1e-7)
    return cross_entropy(10 * logits / norm, y)


# By the name that a recipe and its table give the loss trained on.
TRAINED: dict[str, Loss] = {
    "logits": cross_entropy,
    "clipped": clipped_cross_entropy,
    "shifted": shifted_cross_entropy,
    "float16": float16_cross_entropy,
    "bfloat16": bfloat16_cross_entropy,
    "quarter": quarter_cross_entropy,
    "normalised": normalised_cross_entropy,
}


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return best other logit minus true logit (Carlini and Wagner 2017, f6).

    Positive means misclassified; its gradient does not fade with confidence.

    >>> margin(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
    tensor([-2.])
    """
    classes = logits.shape[1]
    check(classes > 1, "the margin loss needs at least 2 classes", classes)
    true = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -float("inf")).amax(1) - true


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce and Hein 2020, eq. 6).

    Below 3 classes it is a constant, and raises ValueError.

    >>> dlr(torch.tensor([[5.0, 4.0, 1.0]]), torch.tensor([0]))
    tensor([-0.2500])
    """
    classes = logits.shape[1]
    check(classes > 2, "the DLR loss needs at least 3 classes", classes)
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
class targeted:
    """The loss of an attack towards a class: its labels are the classes wanted.

    Attacks take an image as fooled once it is in the class wanted.

    >>> towards = targeted(cross_entropy)
    >>> wanted = torch.tensor([1])
    >>> sure, unsure = torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]])
    >>> bool(towards(sure, wanted) > towards(unsure, wanted))
    True
    """

    loss: Loss

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the negative of the loss, shape (batch,)."""
        return -self.loss(logits, y)


def fooled(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:
    """Return a mask of the answers that an attack wants, bool, shape (batch,).

    A `targeted` loss wants the classes y, any other loss all classes but y.

    >>> logits, y = torch.tensor([[0.0, 9.0]]), torch.tensor([1])
    >>> fooled(cross_entropy, logits, y), fooled(targeted(cross_entropy), logits, y)
    (tensor([False]), tensor([True]))
    """
    answers = logits.argmax(1)
    return answers == y if isinstance(loss, targeted) else answers != y
