"""A network whose logits are multiplied by a factor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from widemin.batches import restored
from widemin.models import InBfloat16, is_plain


@contextmanager
def logit_scale(model: nn.Module, factor: float) -> Iterator[None]:
    """Multiply a network's logits by a factor: same predictions, other margins.

    What moves with it does not measure robustness. Of a sequence that ends in a linear
    layer, that layer's weights are multiplied; of any other network, what it returns.

    Raises:
        ValueError: A factor that is not above 0 and finite.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.rand(1, 1, 2, 2)
    >>> before = network(x)
    >>> with logit_scale(network, 8.0):
    ...     bool(torch.allclose(network(x), 8 * before))
    True
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be above 0 and finite; got {factor}")
    parameters = _of_the_last_layer(model)
    hook = None
    if not parameters:
        hook = model.register_forward_hook(
            lambda _, inputs, logits: (
                factor * logits if isinstance(logits, Tensor) else None
            )
        )
    try:
        with restored(lambda: parameters):
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(factor)
            yield
    finally:
        if hook:
            hook.remove()


def _of_the_last_layer(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that scale a network's logits and nothing else, if any."""
    last = model
    while type(last) in (nn.Sequential, InBfloat16) and list(last.children()):
        if not is_plain(last):
            return []
        last = list(last.children())[-1]
    if type(last) is not nn.Linear or not is_plain(last):
        return []
    every = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    own = list(last.parameters())
    return own if all(every.count(id(p)) == 1 for p in own) else []
