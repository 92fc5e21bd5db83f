"""Many networks as one computation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from widemin.training.side_by_side.kernels import (
    ONE,
    TWO,
    ZERO,
    mean_loss,
    pool,
    pool_backward,
    relu_backward,
)


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
        p1, i1 = pool(z1, TWO, TWO)
        a1 = p1.relu_()
        kernel = k2.shape[-2:]
        patches = a1.view(m, -1, *a1.shape[1:])  # (M, channels, B, height, width)
        patches = patches.unfold(3, kernel[0], 1).unfold(4, kernel[1], 1)
        inner = patches.shape[3:5]
        c2 = patches.permute(0, 1, 5, 6, 2, 3, 4).reshape(m, k2[0, 0].numel(), -1)
        z2 = torch.baddbmm(b2[..., None], k2.flatten(2), c2).view(-1, b, *inner)
        p2, i2 = pool(z2, TWO, TWO)
        a2 = p2.relu_()
        features = a2.view(m, -1, b, *a2.shape[2:]).transpose(1, 2).flatten(2)
        a3 = torch.baddbmm(b3[:, None], features, w3.mT).relu_()
        loss, d4 = mean_loss(torch.baddbmm(b4[:, None], a3, w4.mT), y)
        d3 = relu_backward(d4 @ w4, a3, 0)
        d2 = (d3 @ w3).view(m, b, -1, *a2.shape[2:]).transpose(1, 2).reshape(a2.shape)
        d2 = pool_backward(
            relu_backward(d2, a2, 0), z2, TWO, TWO, ZERO, ONE, False, i2
        ).view(m, k2.shape[1], -1)
        d1 = k2.flatten(2).mT @ d2  # (M, patch, B L)
        d1 = d1.view(m, -1, b, inner[0] * inner[1]).transpose(1, 2).flatten(0, 1)
        d1 = F.fold(d1, a1.shape[2:], kernel).view(m, b, -1, *a1.shape[2:])
        d1 = relu_backward(d1.transpose(1, 2).reshape(a1.shape), a1, 0)
        d1 = pool_backward(d1, z1, TWO, TWO, ZERO, ONE, False, i1)
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
