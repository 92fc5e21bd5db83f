"""Small convolutional networks trained fast: one leanly, many as one computation.

One family is covered, M1 of Kamath et al. with its pools: convolution, pool, ReLU,
convolution, pool, ReLU, two fully connected layers. Its gradient is written down by
hand, so that nothing is recorded; what is computed is what autograd computes, up to
rounding. Other networks take the ordinary loop of `training`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.training import SGD, Optimizer

_LAYERS = [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * 2
_LAYERS += [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
_TWO, _ONE, _ZERO = [2, 2], [1, 1], [0, 0]
_convolution_backward = torch.ops.aten.convolution_backward.default
_pool = torch.ops.aten.max_pool2d_with_indices.default
_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
_relu_backward = torch.ops.aten.threshold_backward.default


def covers(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether `step` computes what `training.train_step` would.

    >>> from widemin.models import build
    >>> def descends(name):
    ...     model = build(name, torch.Generator().manual_seed(0))
    ...     return covers(model, SGD(model.parameters(), 0.1))
    >>> descends("m1"), descends("m1-unpooled")
    (True, False)
    """
    if not isinstance(model, nn.Sequential) or not isinstance(optimizer, SGD):
        return False
    if [type(layer) for layer in model] != _LAYERS:
        return False
    as_written = all(_is_plain(layer) for layer in model)
    return as_written and all(p.requires_grad for p in model.parameters())


def _is_plain(layer: nn.Module) -> bool:
    """Return whether a layer of the family does what this module writes down."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if isinstance(layer, nn.Conv2d):
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return options == ((1, 1), (0, 0), (1, 1), 1) and layer.bias is not None
    if isinstance(layer, nn.MaxPool2d):
        bare = (layer.padding, layer.dilation, layer.ceil_mode) == (0, 1, False)
        return bare and layer.kernel_size == layer.stride == 2
    return not isinstance(layer, nn.Linear) or layer.bias is not None


@torch.no_grad()
def step(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """Take one step of SGD; return the loss before it, shape ().

    Arguments as of `training.train_step`. The weights reached differ from those of
    that step by rounding alone.

    >>> from widemin.models import build
    >>> model = build("m1", torch.Generator().manual_seed(0))
    >>> x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    >>> optimizer = SGD(model.parameters(), 0.1)
    >>> losses = [step(model, optimizer, x, y).item() for _ in range(20)]
    >>> losses[-1] < losses[0]
    True
    """
    if not isinstance(optimizer, SGD):
        raise ValueError(f"optimizer must be a training.SGD; got {optimizer}")
    with _few_images() if len(x) <= 3 else nullcontext():
        loss, inner, outer = _gradients(optimizer.parameters, x, y)
    if optimizer.momentum or optimizer.weight_decay:
        full = [(d.t() @ a, d.sum(0)) for d, a in outer]
        optimizer.descend([*inner, *itertools.chain(*full)])
        return loss
    # Without a velocity the largest gradients need not be written down at all.
    rate = optimizer.param_groups[0]["lr"]
    torch._foreach_add_(optimizer.parameters[:4], inner, alpha=-rate)
    for (d, a), (w, b) in zip(
        outer, (optimizer.parameters[4:6], optimizer.parameters[6:]), strict=True
    ):
        w.addmm_(d.t(), a, alpha=-rate)
        b.add_(d.sum(0), alpha=-rate)
    return loss


@contextmanager
def _few_images() -> Iterator[None]:
    """Leave oneDNN aside: its own overhead exceeds the work of a few images."""
    before = torch._C._get_mkldnn_enabled()
    # What torch.backends.mkldnn.flags sets, but for a warning on TF32.
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _gradients(
    weights: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return the mean loss and its gradients in the parameters of one network.

    Those of a full layer are d^T a and the column sums of d, for the pair (d, a): the
    gradient in its outputs and its inputs.
    """
    k1, b1, k2, b2, w3, b3, w4, b4 = weights
    z1 = F.conv2d(x, k1, b1)
    p1, i1 = _pool(z1, _TWO, _TWO)
    a1 = p1.relu_()
    z2 = F.conv2d(a1, k2, b2)
    p2, i2 = _pool(z2, _TWO, _TWO)
    a2 = p2.relu_()
    a3 = torch.addmm(b3, a2.flatten(1), w3.t()).relu_()
    loss, d4 = _loss(torch.addmm(b4, a3, w4.t()), y)
    d3 = _relu_backward(d4 @ w4, a3, 0)
    d2 = _relu_backward((d3 @ w3).view(a2.shape), a2, 0)

    def through(
        d: Tensor, z: Tensor, index: Tensor, a: Tensor, k: Tensor, deeper: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        d = _pool_backward(d, z, _TWO, _TWO, _ZERO, _ONE, False, index)
        common = (_ONE, _ZERO, _ONE, False, _ZERO, 1)  # stride, padding, dilation, ...
        asked = [deeper, True, True]
        return _convolution_backward(d, a, k, [len(k)], *common, asked)

    d1, gk2, gb2 = through(d2, z2, i2, a1, k2, True)
    _, gk1, gb1 = through(_relu_backward(d1, a1, 0), z1, i1, x, k1, False)
    return loss, [gk1, gb1, gk2, gb2], [(d3, a2.flatten(1)), (d4, a3)]


def _loss(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss over the last batch axis and its gradient in the logits."""
    log = logits.log_softmax(-1)
    picked = log.gather(-1, y[..., None])
    gradient = log.exp().scatter_add_(-1, y[..., None], -torch.ones_like(picked))
    return -picked.mean((-2, -1)), gradient / y.shape[-1]


class Together:
    """Networks of one shape whose weights lie in one tensor, trained side by side.

    Convolutions are matrix products over unfolded images, batched over the networks:
    few kernels, no autograd, and on CUDA whole stretches of steps are replayed as one
    graph. The parameters of the networks become views of the tensor, so that each is
    up to date after every epoch. A network that diverges disturbs no other.

    Args:
        models: Networks that `covers` accepts, of equal shapes, on one device.
        learning_rates: One for each.
        momenta: One for each.
        weight_decays: One for each.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        learning_rates: Sequence[float],
        momenta: Sequence[float],
        weight_decays: Sequence[float],
    ) -> None:
        """Gather the weights; start with zero velocity."""
        rows = [[p.detach() for p in model.parameters()] for model in models]
        flat = [torch.cat([p.reshape(-1) for p in row]) for row in rows]
        self.weights = torch.stack(flat)
        self.velocity = torch.zeros_like(self.weights)
        self.parts = self._views(self.weights, rows[0])
        self.graph: torch.cuda.CUDAGraph | None = None
        self.x = self.y = self.order = self.factors = torch.empty(0)
        self.counter = torch.zeros(1, dtype=torch.int64, device=self.weights.device)
        self.total = self.weights.new_zeros(len(models))
        for i, model in enumerate(models):
            for parameter, part in zip(model.parameters(), self.parts, strict=True):
                parameter.data = part[i]

        def column(values: Sequence[float]) -> Tensor:
            return self.weights.new_tensor(values)[:, None]

        self.rates = column(learning_rates)
        self.momenta = column(momenta)
        self.weight_decays = column(weight_decays)

    @staticmethod
    def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
        pieces = flat.split([p.numel() for p in like], dim=1)
        return [
            piece.view(len(flat), *p.shape)
            for piece, p in zip(pieces, like, strict=True)
        ]

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """Take one step with every network on its own batch.

        Args:
            x: Images, shape (networks, batch, channels, height, width).
            y: Labels, shape (networks, batch).
            factor: On every learning rate.

        Returns:
            The loss of each network before the step, shape (networks,).
        """
        loss, gradients = self._gradients(x, y)
        update = torch.cat([g.flatten(1) for g in gradients], 1)
        update.addcmul_(self.weights, self.weight_decays)
        self.velocity.mul_(self.momenta).add_(update)
        self.weights.addcmul_(self.velocity, self.rates * -factor)
        return loss

    def _gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return every network's loss and gradients, (M, ...) for M networks."""
        k1, b1, k2, b2, w3, b3, w4, b4 = self.parts
        m, b = y.shape
        one = F.unfold(x.flatten(0, 1), k1.shape[-2:])  # (M B, patch, L)
        c1 = one.view(m, b, *one.shape[1:]).transpose(1, 2).flatten(2)
        z1 = torch.baddbmm(b1[..., None], k1.flatten(2), c1)
        side = [n - k + 1 for n, k in zip(x.shape[-2:], k1.shape[-2:], strict=True)]
        z1 = z1.view(-1, b, *side)  # (M channels, B, height, width)
        p1, i1 = _pool(z1, _TWO, _TWO)
        a1 = p1.relu_()
        kernel = k2.shape[-2:]
        patches = a1.view(m, -1, *a1.shape[1:])  # (M, channels, B, height, width)
        patches = patches.unfold(3, kernel[0], 1).unfold(4, kernel[1], 1)
        inner = patches.shape[3:5]
        c2 = patches.permute(0, 1, 5, 6, 2, 3, 4).reshape(m, k2[0, 0].numel(), -1)
        z2 = torch.baddbmm(b2[..., None], k2.flatten(2), c2).view(-1, b, *inner)
        p2, i2 = _pool(z2, _TWO, _TWO)
        a2 = p2.relu_()
        features = a2.view(m, -1, b, *a2.shape[2:]).transpose(1, 2).flatten(2)
        a3 = torch.baddbmm(b3[:, None], features, w3.mT).relu_()
        loss, d4 = _loss(torch.baddbmm(b4[:, None], a3, w4.mT), y)
        d3 = _relu_backward(d4 @ w4, a3, 0)
        d2 = (d3 @ w3).view(m, b, -1, *a2.shape[2:]).transpose(1, 2).reshape(a2.shape)
        d2 = _pool_backward(
            _relu_backward(d2, a2, 0), z2, _TWO, _TWO, _ZERO, _ONE, False, i2
        ).view(m, k2.shape[1], -1)
        d1 = k2.flatten(2).mT @ d2  # (M, patch, B L)
        d1 = d1.view(m, -1, b, inner[0] * inner[1]).transpose(1, 2).flatten(0, 1)
        d1 = F.fold(d1, a1.shape[2:], kernel).view(m, b, -1, *a1.shape[2:])
        d1 = _relu_backward(d1.transpose(1, 2).reshape(a1.shape), a1, 0)
        d1 = _pool_backward(d1, z1, _TWO, _TWO, _ZERO, _ONE, False, i1)
        d1 = d1.view(m, k1.shape[1], -1)
        return loss, [
            d1 @ c1.mT,
            d1.sum(2),
            d2 @ c2.mT,
            d2.sum(2),
            d3.mT @ features,
            d3.sum(1),
            d4.mT @ a3,
            d4.sum(1),
        ]

    @torch.no_grad()
    def epoch(
        self,
        x: Tensor,
        y: Tensor,
        orders: Tensor,
        batch_size: int,
        factors: Tensor,
        stretch: int = 50,
    ) -> Tensor:
        """Pass once over the images, every network in its own order.

        Args:
            x: Images, shape (images, channels, height, width).
            y: Labels, shape (images,).
            orders: Indices, shape (networks, images).
            batch_size: Images a step; the last batch may be smaller.
            factors: On the learning rates, one a step, shape (steps,).
            stretch: Steps in a CUDA graph.

        Returns:
            The mean loss of each network, shape (networks,).
        """
        full = x.shape[0] // batch_size
        whole = orders[:, : full * batch_size].view(len(orders), full, batch_size)
        self._bind(x, y, whole, factors)
        done = 0
        if x.is_cuda and full >= stretch:
            graph = self._captured(stretch)
            for _ in range(full // stretch):
                graph.replay()
            done = full - full % stretch
        for _ in range(full - done):
            self._advance()
        if full * batch_size < len(x):
            rest = orders[:, full * batch_size :]
            loss = self.step(x[rest], y[rest], factors[-1])
            self.total += loss * rest.shape[1]
        return self.total / len(x)

    def _bind(self, x: Tensor, y: Tensor, order: Tensor, factors: Tensor) -> None:
        """Keep an epoch's inputs where a graph finds them, the counter among them."""
        if x is not self.x or order.shape != self.order.shape:
            self.graph, self.x, self.y = None, x, y
            self.order, self.factors = order.clone(), factors.clone()
        self.order.copy_(order)
        self.factors.copy_(factors)
        self.counter.zero_()
        self.total.zero_()

    def _advance(self) -> None:
        """Take the step that the counter, on the device, names."""
        index = self.order.index_select(1, self.counter)[:, 0]
        factor = self.factors.index_select(0, self.counter)
        self.total += self.step(self.x[index], self.y[index], factor) * index.shape[1]
        self.counter += 1

    def _captured(self, stretch: int) -> torch.cuda.CUDAGraph:
        """Return a graph of that many steps; capturing it moves nothing."""
        if self.graph is None:
            state = (self.weights, self.velocity, self.counter, self.total)
            before = [tensor.clone() for tensor in state]
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # libraries set themselves up
                for _ in range(3):
                    self._advance()
            torch.cuda.current_stream().wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                for _ in range(stretch):
                    self._advance()
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        return self.graph
