"""Many networks as one computation."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.experiments.side_by_side.kernels import (
    ONE,
    TWO,
    ZERO,
    pool,
    pool_backward,
    relu_backward,
)

AT_ONCE = {"cpu": 60, "cuda": 6_000}  # images unfolded by one copy, of all networks
_CAPTURING = threading.Lock()  # one graph at a time, whatever other threads do


class Together:
    """Networks of one shape whose weights lie in one tensor, trained side by side.

    Convolutions are matrix products over unfolded images, batched over the networks:
    few kernels, no autograd, and on CUDA a stretch of steps is replayed as one graph,
    on a stream of its own. Biases are the last column of the matrices, learning rates
    part of the gradient in the logits. The parameters of the networks become views of
    the tensor, so that each is up to date after every epoch. A network that diverges
    disturbs no other.

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
        layers = [list(model.parameters()) for model in models]
        pairs = [list(zip(p[::2], p[1::2], strict=True)) for p in layers]
        self.weights = torch.stack(
            [
                torch.cat([_matrix(*pair).flatten() for pair in own]).detach()
                for own in pairs
            ]
        )
        self.velocity = torch.zeros_like(self.weights)
        self.kernels = [w.shape[1:] for w, _ in pairs[0][:2]]
        sizes = [_matrix(*pair).shape for pair in pairs[0]]
        pieces = self.weights.split([size.numel() for size in sizes], 1)
        self.matrices = [
            piece.view(len(models), *size)
            for piece, size in zip(pieces, sizes, strict=True)
        ]
        for i, own in enumerate(pairs):
            for (weight, bias), matrix in zip(own, self.matrices, strict=True):
                weight.data = matrix[i, :, :-1].view(weight.shape)
                bias.data = matrix[i, :, -1]

        def column(values: Sequence[float]) -> Tensor:
            return self.weights.new_tensor(values)[:, None]

        self.rates = column(learning_rates)
        self.momenta = column(momenta)
        self.weight_decays = column(weight_decays)
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
        """Pass once over the images, every network in its own order.

        Args:
            x: Images, shape (images, channels, height, width).
            y: Labels, shape (images,).
            orders: Indices, shape (networks, images).
            batch_size: Images a step; the last batch may be smaller.
            factors: On the learning rates, one a step, shape (steps,).
            stretch: Steps at most whose images are unfolded at once.

        Returns:
            The mean loss of each network, shape (networks,).
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
                    total += self._stretch(x, len(now), index.shape[1]).take(
                        x[index], y[index], now
                    )
                    taken += len(now)
        if self.stream:
            torch.cuda.current_stream().wait_stream(self.stream)
        return total / images

    def logits(self, x: Tensor) -> Tensor:
        """Return each network's logits of images of its own, differentiable in them.

        Args:
            x: Images, shape (networks, images, channels, height, width).

        Returns:
            Logits, shape (networks, images, classes).
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

    def _stretch(self, x: Tensor, steps: int, images: int) -> _Stretch:
        """Return the stretch of so many steps over so many images, made once."""
        size = steps, images // steps
        if size not in self.stretches:
            self.stretches[size] = _Stretch(self, x.shape[1:], *size)
        return self.stretches[size]


def _matrix(weight: Tensor, bias: Tensor) -> Tensor:
    """Return a layer's weights with its bias as the last column."""
    return torch.cat([weight.flatten(1), bias[:, None]], 1)


class _Stretch:
    """Steps of a group: where their images, labels and products lie, and their graph.

    Args:
        group: The networks.
        shape: Of an image.
        steps: How many.
        batch: Images of each network in one.
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
        self.patches = new(steps, m * batch, k1.shape[2], h1 * w1)
        self.inner = new(m * batch, k2.shape[2], h2 * w2)
        self.features = new(m, batch, w3.shape[2])
        self.hidden = new(m, batch, w4.shape[2])
        self.log = new(steps, m, batch, w4.shape[1])
        self.target = torch.zeros_like(self.log)
        self.scale = new(steps, m, 1, 1)
        self.rates = new(steps, m, 1)
        self.labels = torch.zeros(
            steps, m, batch, 1, dtype=torch.int64, device=k1.device
        )
        self.graph: torch.cuda.CUDAGraph | None = None

    def take(self, x: Tensor, y: Tensor, factors: Tensor) -> Tensor:
        """Take all steps; return the sum of the losses before each, (networks,).

        Args:
            x: Images of all steps, shape (networks, steps x batch, ...).
            y: Their labels.
            factors: On the learning rates, one a step.
        """
        steps, m, b, _ = self.labels.shape
        channels, *kernel = self.group.kernels[0]
        x = x.unflatten(1, (steps, b)).unfold(4, kernel[0], 1).unfold(5, kernel[1], 1)
        self.patches[:, :, :-1].view(
            steps, m, b, channels, *kernel, *self.sides[0]
        ).copy_(x.permute(1, 0, 2, 3, 6, 7, 4, 5))
        self.labels.copy_(y.view(m, steps, b, 1).transpose(0, 1))
        self.rates.copy_(self.group.rates * factors[:, None, None])
        # Without a velocity the gradient in the logits is the step itself.
        self.scale.fill_(1 / b)
        if self.group.plain:
            self.scale.mul_(-self.rates[..., None])
        self.target.zero_().scatter_(
            -1, self.labels, -self.scale.expand_as(self.labels)
        )
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
        p1, i1 = pool(z1, TWO, TWO)
        a1 = p1.relu_()
        windows = a1.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1)
        windows = windows.permute(0, 1, 4, 5, 2, 3)
        inner[:, :-1].view(windows.shape).copy_(windows)
        wide = each(k2)
        z2 = torch.bmm(wide, inner).unflatten(2, self.sides[1])
        p2, i2 = pool(z2, TWO, TWO)
        torch.clamp_min(p2.view(m, b, -1), 0, out=features[..., :-1])
        torch.clamp_min(torch.bmm(features, w3.mT), 0, out=hidden[..., :-1])
        torch.ops.aten._log_softmax.out(
            torch.bmm(hidden, w4.mT), -1, False, out=self.log[i]
        )
        d4 = torch.addcmul(self.target[i], self.log[i].exp(), self.scale[i])
        d3 = relu_backward(torch.bmm(d4, w4[..., :-1]), hidden[..., :-1], 0)
        d2 = relu_backward(torch.bmm(d3, w3[..., :-1]), features[..., :-1], 0)
        d2 = pool_backward(d2.view(p2.shape), z2, TWO, TWO, ZERO, ONE, False, i2)
        d2 = d2.flatten(2)
        d1 = torch.bmm(wide[..., :-1].mT, d2)
        d1 = relu_backward(F.fold(d1, a1.shape[2:], kernel), a1, 0)
        d1 = pool_backward(d1, z1, TWO, TWO, ZERO, ONE, False, i1).flatten(2)
        found = [torch.bmm(d1, patches.mT), torch.bmm(d2, inner.mT)]
        if b > 1:
            found = [g.view(m, b, channels, -1).sum(1) for g in found]
        if group.plain:
            w4.baddbmm_(d4.mT, hidden)
            w3.baddbmm_(d3.mT, features)
            k2.add_(found[1])
            k1.add_(found[0])
            return
        found += [torch.bmm(d3.mT, features), torch.bmm(d4.mT, hidden)]
        update = torch.cat([g.flatten(1) for g in found], 1)
        update.addcmul_(group.weights, group.weight_decays)
        group.velocity.mul_(group.momenta).add_(update)
        group.weights.addcmul_(group.velocity, self.rates[i], value=-1)
