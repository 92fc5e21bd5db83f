"""Small convolutional networks trained fast: one leanly, many as one computation.

One family is covered, M1 of Kamath et al. with its pools: convolution, pool, ReLU,
convolution, pool, ReLU, two fully connected layers. Its gradient is written down by
hand, so that nothing is recorded; it is autograd's, up to rounding. Other networks take
the ordinary loop of `training`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.attacks import Loss
from widemin.models import is_plain
from widemin.training import SGD, Optimizer

AT_ONCE = {"cpu": 60, "cuda": 6_000}  # images unfolded by one copy, of all networks
_CAPTURING = threading.Lock()  # one graph at a time, whatever other threads do

_LAYERS = [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * 2
_LAYERS += [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
_OPTIONS: dict[type[nn.Module], dict[str, object]] = {
    nn.Conv2d: {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    nn.MaxPool2d: dict(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False),
}

# PyTorch's own kernels, called without autograd.
_TWO, _ONE, _ZERO = [2, 2], [1, 1], [0, 0]
_convolution_backward = torch.ops.aten.convolution_backward.default
_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
_relu_backward = torch.ops.aten.threshold_backward.default


def _pool(z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.max_pool2d_with_indices.default(z, _TWO, _TWO)


def _unpool(d: Tensor, z: Tensor, index: Tensor) -> Tensor:
    return _pool_backward(d, z, _TWO, _TWO, _ZERO, _ONE, False, index)


def covers(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return True where `step` computes what `training.train_step` would.

    >>> from widemin.models import build
    >>> def descends(name):
    ...     model = build(name, torch.Generator().manual_seed(0))
    ...     return covers(model, SGD(model.parameters(), 0.1))
    >>> descends("m1"), descends("m1-unpooled")
    (True, False)
    """
    if type(model) is not nn.Sequential or not isinstance(optimizer, SGD):
        return False
    weights = list(model.parameters())
    return (
        [type(layer) for layer in model] == _LAYERS
        and len(weights) == 8  # no bias is missing
        and all(is_plain(layer) for layer in (model, *model))
        and all(p.requires_grad and not p._backward_hooks for p in weights)
        and [id(p) for p in weights] == [id(p) for p in optimizer.parameters]
        and all(
            getattr(layer, name) == value
            for layer in model
            for name, value in _OPTIONS.get(type(layer), {}).items()
        )
    )


@torch.no_grad()
def step(
    model: nn.Module,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    loss: Loss | None = None,
) -> Tensor:
    """Take one step of SGD, as `training.train_step`; return the loss before it.

    The weights reached differ by rounding alone; no gradient is left in the parameters.

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
    weights = optimizer.parameters
    # oneDNN's own overhead exceeds the work of a few images. This is what
    # torch.backends.mkldnn.flags sets, but for a warning on TF32.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(before and len(x) > 3)
    try:
        mean, inner, outer = _gradients(weights, x, y, loss)
    finally:
        torch._C._set_mkldnn_enabled(before)
    if optimizer.momentum or optimizer.weight_decay:
        full = [(d.t() @ a, d.sum(0)) for d, a in outer]
        optimizer.descend([*inner, *itertools.chain(*full)])
        return mean
    # Without a velocity the largest gradients need not be written down at all.
    rate = optimizer.param_groups[0]["lr"]
    torch._foreach_add_(weights[:4], inner, alpha=-rate)
    for (d, a), w, b in zip(outer, weights[4::2], weights[5::2], strict=True):
        w.addmm_(d.t(), a, alpha=-rate)
        b.add_(d.sum(0), alpha=-rate)
    return mean


def _gradients(
    weights: Sequence[Tensor], x: Tensor, y: Tensor, own: Loss | None = None
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return the mean loss and its gradients in the parameters of one network.

    Those of a full layer are d^T a and the column sums of d, for the pair (d, a): the
    gradient in its outputs and its inputs.
    """
    k1, b1, k2, b2, w3, b3, w4, b4 = weights
    z1 = F.conv2d(x, k1, b1)
    p1, i1 = _pool(z1)
    a1 = p1.relu_()
    z2 = F.conv2d(a1, k2, b2)
    p2, i2 = _pool(z2)
    a2 = p2.relu_()
    a3 = torch.addmm(b3, a2.flatten(1), w3.t()).relu_()
    z4 = torch.addmm(b4, a3, w4.t())
    if own is None:
        log = z4.log_softmax(-1)
        picked = log.gather(-1, y[..., None])
        d4 = log.exp().scatter_add_(-1, y[..., None], -torch.ones_like(picked)) / len(y)
        loss = -picked.mean((-2, -1))
    else:
        with torch.enable_grad():
            loss = own(z4.requires_grad_(), y).mean()
            (d4,) = torch.autograd.grad(loss, z4)
        loss = loss.detach()
    d3 = _relu_backward(d4 @ w4, a3, 0)
    d2 = _relu_backward((d3 @ w3).view(a2.shape), a2, 0)

    common = _ONE, _ZERO, _ONE, False, _ZERO, 1  # stride, padding, dilation, ...
    d = _unpool(d2, z2, i2), a1, k2, [len(k2)]
    d1, gk2, gb2 = _convolution_backward(*d, *common, [True, True, True])
    d = _unpool(_relu_backward(d1, a1, 0), z1, i1), x, k1, [len(k1)]
    _, gk1, gb1 = _convolution_backward(*d, *common, [False, True, True])
    return loss, [gk1, gb1, gk2, gb2], [(d3, a2.flatten(1)), (d4, a3)]


class Together:
    """Networks of one shape whose weights lie in one tensor, trained side by side.

    Convolutions are matrix products over unfolded images, batched over the networks;
    on CUDA a stretch of steps is replayed as one graph, on a stream of its own. Biases
    are the last column of the matrices. The parameters of the networks become views of
    the tensor. A network that diverges disturbs no other.

    The networks are such as `covers` accepts, of equal shapes, on one device; each has
    its learning rate, momentum and weight decay, as of `training.SGD`.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        learning_rates: Sequence[float],
        momenta: Sequence[float],
        weight_decays: Sequence[float],
    ) -> None:
        """Gather the weights; start with zero velocity."""
        layers = [list(model.parameters()) for model in models]
        pairs = [list(zip(own[::2], own[1::2], strict=True)) for own in layers]
        rows = [
            [torch.cat([w.flatten(1), b[:, None]], 1) for w, b in own] for own in pairs
        ]
        flat = [torch.cat([matrix.flatten() for matrix in own]) for own in rows]
        self.weights = torch.stack(flat).detach()
        self.velocity = torch.zeros_like(self.weights)
        self.kernels = [kernel.shape[1:] for kernel in layers[0][:4:2]]
        pieces = self.weights.split([matrix.numel() for matrix in rows[0]], 1)
        self.matrices = [
            piece.view(len(models), *matrix.shape)
            for piece, matrix in zip(pieces, rows[0], strict=True)
        ]
        for i, own in enumerate(pairs):
            for (w, b), matrix in zip(own, self.matrices, strict=True):
                w.data = matrix[i, :, :-1].view(w.shape)
                b.data = matrix[i, :, -1]

        def column(values: Sequence[float]) -> Tensor:
            return self.weights.new_tensor(values)[:, None]

        columns = map(column, (learning_rates, momenta, weight_decays))
        self.rates, self.momenta, self.weight_decays = columns
        self.plain = not any([*momenta, *weight_decays])
        self.stretches: dict[tuple[int, int], _Stretch] = {}
        self.stream = torch.cuda.Stream() if self.weights.is_cuda else None

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
        """Pass once over the images; return the mean losses, shape (networks,).

        Every network has its own order of the images, shape (networks, images); factors
        on the learning rates have shape (steps,). The last batch may be smaller. Of at
        most `stretch` steps the images are unfolded at once.
        """
        networks, images = orders.shape
        room = AT_ONCE[x.device.type] // (networks * batch_size)
        stretch = max(1, min(stretch, room, images // batch_size))
        total, taken = self.weights.new_zeros(networks), 0
        if self.stream:
            self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for part in orders.split(stretch * batch_size, 1):
                steps = part.shape[1] // (stretch * batch_size) * stretch
                for index in [part] if steps else part.split(batch_size, 1):
                    now = factors[taken : taken + max(steps, 1)]
                    size = len(now), index.shape[1] // len(now)
                    if size not in self.stretches:
                        self.stretches[size] = _Stretch(self, x.shape[1:], *size)
                    total += self.stretches[size].take(x[index], y[index], now)
                    taken += len(now)
        if self.stream:
            torch.cuda.current_stream().wait_stream(self.stream)
        return total / images

    def logits(self, x: Tensor) -> Tensor:
        """Return each network's logits of images of its own, differentiable in them.

        Images (networks, images, ...) to (networks, images, classes).
        """
        k1, k2, w3, w4 = self.matrices
        m, images = x.shape[:2]
        x = x.transpose(0, 1).flatten(1, 2)  # the networks are groups of channels
        for k, kernel in zip((k1, k2), self.kernels, strict=True):
            weight = k[..., :-1].reshape(-1, *kernel)
            x = F.conv2d(x, weight, k[..., -1].flatten(), groups=m)
            x = F.max_pool2d(x, 2).relu()
        x = x.view(images, m, -1).transpose(0, 1)
        x = torch.baddbmm(w3[:, None, :, -1], x, w3[..., :-1].mT).relu()
        return torch.baddbmm(w4[:, None, :, -1], x, w4[..., :-1].mT)


class _Stretch:
    """Steps of a group: where images, labels and products lie, and their graph."""

    def __init__(self, group: Together, shape: torch.Size, steps: int, batch: int):
        self.group, self.batch = group, batch
        k1, k2, w3, w4 = group.matrices
        m, new = len(k1), k1.new_ones  # what is never written multiplies the biases
        height, width = shape[1:]
        self.sides = []
        for _, *kernel in group.kernels:
            height, width = height - kernel[0] + 1, width - kernel[1] + 1
            self.sides.append((height, width))
            height, width = height // 2, width // 2
        (h1, w1), (h2, w2) = self.sides
        self.patches = new(steps, m * batch, k1.shape[2], h1 * w1)
        self.inner = new(m * batch, k2.shape[2], h2 * w2)
        self.features = new(m, batch, w3.shape[2])
        self.hidden = new(m, batch, w4.shape[2])
        self.log = new(steps, m, batch, w4.shape[1])
        self.target = torch.zeros_like(self.log)
        self.scale = new(steps, m, 1, 1)
        self.rates = new(steps, m, 1)
        self.labels = new(steps, m, batch, 1, dtype=torch.int64)
        self.graph: torch.cuda.CUDAGraph | None = None

    def take(self, x: Tensor, y: Tensor, factors: Tensor) -> Tensor:
        """Take all steps; return the sum of the losses before each, (networks,).

        The images of all steps have shape (networks, steps x batch, ...).
        """
        steps, m, b, _ = self.labels.shape
        channels, *kernel = self.group.kernels[0]
        x = x.unflatten(1, (steps, b)).unfold(4, kernel[0], 1).unfold(5, kernel[1], 1)
        shape = steps, m, b, channels, *kernel, *self.sides[0]
        windows = x.permute(1, 0, 2, 3, 6, 7, 4, 5)
        self.patches[:, :, :-1].view(shape).copy_(windows)
        self.labels.copy_(y.view(m, steps, b, 1).transpose(0, 1))
        self.rates.copy_(self.group.rates * factors[:, None, None])
        # Without a velocity the gradient in the logits is the step itself.
        self.scale.fill_(1 / b)
        if self.group.plain:
            self.scale.mul_(-self.rates[..., None])
        down = -self.scale.expand_as(self.labels)
        self.target.zero_().scatter_(-1, self.labels, down)
        if x.is_cuda:
            self._replay()
        else:
            for i in range(steps):
                self.step(i)
        return -self.log.gather(-1, self.labels).sum((0, 2, 3))

    def _replay(self) -> None:
        """Take all steps as one graph; capturing it first moves nothing."""
        if self.graph is None:
            state = self.group.weights, self.group.velocity
            before, here = [t.clone() for t in state], torch.cuda.current_stream()
            with _CAPTURING:
                for _ in range(2):  # libraries set themselves up
                    self.step(0)
                here.synchronize()
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    self.graph, stream=here, capture_error_mode="thread_local"
                ):
                    for i in range(len(self.labels)):
                        self.step(i)
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        self.graph.replay()

    def step(self, i: int) -> None:
        """Take one step with every network on its own batch."""
        group, b = self.group, self.batch
        k1, k2, w3, w4 = group.matrices
        m, channels, kernel = len(k1), k2.shape[1], group.kernels[1][1:]
        patches, inner = self.patches[i], self.inner
        features, hidden = self.features, self.hidden

        def each(matrix: Tensor) -> Tensor:
            """Return a network's matrix once for each of its images."""
            if b == 1:
                return matrix
            return matrix[:, None].expand(-1, b, -1, -1).flatten(0, 1)

        z1 = torch.bmm(each(k1), patches).unflatten(2, self.sides[0])
        p1, i1 = _pool(z1)
        a1 = p1.relu_()
        windows = a1.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1)
        windows = windows.permute(0, 1, 4, 5, 2, 3)
        inner[:, :-1].view(windows.shape).copy_(windows)
        wide = each(k2)
        z2 = torch.bmm(wide, inner).unflatten(2, self.sides[1])
        p2, i2 = _pool(z2)
        torch.clamp_min(p2.view(m, b, -1), 0, out=features[..., :-1])
        torch.clamp_min(torch.bmm(features, w3.mT), 0, out=hidden[..., :-1])
        logits = torch.bmm(hidden, w4.mT)
        torch.ops.aten._log_softmax.out(logits, -1, False, out=self.log[i])
        d4 = torch.addcmul(self.target[i], self.log[i].exp(), self.scale[i])
        d3 = _relu_backward(torch.bmm(d4, w4[..., :-1]), hidden[..., :-1], 0)
        d2 = _relu_backward(torch.bmm(d3, w3[..., :-1]), features[..., :-1], 0)
        d2 = _unpool(d2.view(p2.shape), z2, i2).flatten(2)
        d1 = torch.bmm(wide[..., :-1].mT, d2)
        d1 = _relu_backward(F.fold(d1, a1.shape[2:], kernel), a1, 0)
        d1 = _unpool(d1, z1, i1).flatten(2)
        kernels = [torch.bmm(d1, patches.mT), torch.bmm(d2, inner.mT)]
        if b > 1:
            kernels = [g.view(m, b, channels, -1).sum(1) for g in kernels]
        if group.plain:
            w4.baddbmm_(d4.mT, hidden)
            w3.baddbmm_(d3.mT, features)
            k2.add_(kernels[1])
            k1.add_(kernels[0])
            return
        outer = [torch.bmm(d3.mT, features), torch.bmm(d4.mT, hidden)]
        update = torch.cat([g.flatten(1) for g in kernels + outer], 1)
        update.addcmul_(group.weights, group.weight_decays)
        group.velocity.mul_(group.momenta).add_(update)
        group.weights.addcmul_(group.velocity, self.rates[i], value=-1)
