"""Many small convolutional networks trained as one computation.

They are of the family of `lean_step`, and so is the gradient, written down by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.experiments.lean_step import pool, relu_backward, unpool

AT_ONCE = {"cpu": 60, "cuda": 6_000}  # images unfolded by one copy, of all networks
IN_A_MATRIX = 4  # of them at most, side by side
_CAPTURING = threading.Lock()  # one graph at a time, whatever other threads do
_relu_backward_out = torch.ops.aten.threshold_backward.grad_input


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
    """Steps of a group: where images, labels and products lie, and their graph.

    Unfolded images lie in matrices that have a row for each weight of a kernel and a
    column for each of its places in `few` images; a batch takes `parts` of them.
    """

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
        few = max(n for n in range(1, IN_A_MATRIX + 1) if batch % n == 0)
        self.few, self.parts = few, batch // few
        rows = m * self.parts
        self.patches = new(steps, rows, k1.shape[2], few * h1 * w1)
        self.inner = new(rows, k2.shape[2], few * h2 * w2)
        self.features = new(m, batch, w3.shape[2])
        self.hidden = new(m, batch, w4.shape[2])
        self.deeper = new(m, self.parts, k2.shape[1], few, (h2 // 2) * (w2 // 2))
        # The second convolution's gradient in its inputs is a convolution of that in
        # its outputs, with a margin of zeros, by the kernel turned around.
        outputs, (inputs, *kernel) = k2.shape[1], group.kernels[1]
        h, w = (size - 1 for size in kernel)
        self.outer = new(rows, outputs, few, h2 + 2 * h, w2 + 2 * w).zero_()
        self.inside = self.outer[..., h : h + h2, w : w + w2]
        places = few * (h2 + h) * (w2 + w)
        self.spread = new(rows, outputs * kernel[0] * kernel[1], places)
        turned = torch.arange(k2[0].numel(), device=k2.device).view(outputs, -1)
        turned = turned[:, :-1].unflatten(1, (inputs, *kernel)).flip(2, 3)
        turned = turned.transpose(0, 1).flatten()
        self.turned = turned.expand(m, self.parts, -1)
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
        x = x.unflatten(1, (steps, self.parts, self.few))
        x = x.unfold(5, kernel[0], 1).unfold(6, kernel[1], 1)
        shape = steps, m, self.parts, channels, *kernel, self.few, *self.sides[0]
        windows = x.permute(1, 0, 2, 4, 7, 8, 3, 5, 6)
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
        group, parts, few = self.group, self.parts, self.few
        k1, k2, w3, w4 = group.matrices
        m, kernel = len(k1), group.kernels[1][1:]
        patches, inner = self.patches[i], self.inner
        features, hidden = self.features, self.hidden

        def each(matrix: Tensor) -> Tensor:
            """Return a network's matrix once for each part of its batch."""
            if parts == 1:
                return matrix
            return matrix[:, None].expand(-1, parts, -1, -1).flatten(0, 1)

        z1 = torch.bmm(each(k1), patches).view(m * parts, -1, *self.sides[0])
        p1, i1 = pool(z1)
        a1 = p1.relu_()
        _unfold(a1.unflatten(1, (-1, few)), kernel, inner[:, :-1])
        z2 = torch.bmm(each(k2), inner).view(m * parts, -1, *self.sides[1])
        p2, i2 = pool(z2)
        # Here the images of a batch come before their channels, above behind them.
        p2 = p2.view(self.deeper.shape).transpose(2, 3)
        deep = features[..., :-1].view(p2.shape)
        torch.clamp_min(p2, 0, out=deep)
        torch.clamp_min(torch.bmm(features, w3.mT), 0, out=hidden[..., :-1])
        logits = torch.bmm(hidden, w4.mT)
        torch.ops.aten._log_softmax.out(logits, -1, False, out=self.log[i])
        d4 = torch.addcmul(self.target[i], self.log[i].exp(), self.scale[i])
        d3 = relu_backward(torch.bmm(d4, w4[..., :-1]), hidden[..., :-1], 0)
        d2 = torch.bmm(d3, w3[..., :-1]).view(p2.shape).transpose(2, 3)
        d2 = _relu_backward_out(d2, deep.transpose(2, 3), 0, grad_input=self.deeper)
        d2 = unpool(d2.view(i2.shape), z2, i2)
        self.inside.copy_(d2.unflatten(1, (-1, few)))
        _unfold(self.outer, kernel, self.spread)
        turned = k2.flatten(1)[:, None].expand(-1, parts, -1).gather(2, self.turned)
        d1 = torch.bmm(turned.view(len(z1), -1, self.spread.shape[1]), self.spread)
        d1 = unpool(relu_backward(d1.view(a1.shape), a1, 0), z1, i1)
        pairs = [(d1, patches), (d2, inner)]
        pairs = [(d.view(m * parts, -1, a.shape[2]), a.mT) for d, a in pairs]
        if group.plain:
            w4.baddbmm_(d4.mT, hidden)
            w3.baddbmm_(d3.mT, features)
            if parts == 1:
                k2.baddbmm_(*pairs[1])
                k1.baddbmm_(*pairs[0])
                return
        kernels = [torch.bmm(d, a) for d, a in pairs]
        if parts > 1:
            kernels = [g.unflatten(0, (m, parts)).sum(1) for g in kernels]
        if group.plain:
            k1.add_(kernels[0])
            k2.add_(kernels[1])
            return
        outer = [torch.bmm(d3.mT, features), torch.bmm(d4.mT, hidden)]
        update = torch.cat([g.flatten(1) for g in kernels + outer], 1)
        update.addcmul_(group.weights, group.weight_decays)
        velocity = group.velocity
        torch.addcmul(update, velocity, group.momenta, out=velocity)
        group.weights.addcmul_(velocity, self.rates[i], value=-1)


def _unfold(x: Tensor, kernel: Sequence[int], rows: Tensor) -> None:
    """Write the windows of images, a row a weight of the kernel, by one copy.

    Images (matrices, channels, images of each, height, width).
    """
    windows = x.unfold(3, kernel[0], 1).unfold(4, kernel[1], 1)
    windows = windows.permute(0, 1, 5, 6, 2, 3, 4)
    rows.view(windows.shape).copy_(windows)
