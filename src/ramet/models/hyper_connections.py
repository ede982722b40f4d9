"""Manifold-constrained hyper-connections: N residual streams in place of one, side by side in rows of N * hidden."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ramet import kernels
from ramet.models.layers import Layer


class HyperConnection(Layer):
    """How the streams go into a block and the block's output into them.

    With the coefficients `collapse, expand, mix = weights(streams)`: the block's input is the sum of the streams by
    `collapse`, and stream i becomes `expand[i] * output + sum over j of mix[j, i] * stream j`. The matrix `mix` is
    doubly stochastic. Behind the last block there is only a collapse (`head`).
    """

    def __init__(
        self, streams: int, hidden: int, *, norm_eps: float, eps: float, iterations: int, head: bool = False
    ) -> None:
        super().__init__()
        self.streams, self.norm_eps, self.eps, self.iterations = streams, norm_eps, eps, iterations
        outputs = streams if head else (2 + streams) * streams
        self.fn: Tensor | None = nn.Parameter(torch.empty(outputs, streams * hidden))
        self.base = nn.Parameter(torch.empty(outputs))
        self.scale = nn.Parameter(torch.empty(1 if head else 3))
        self.packed: kernels.PackedLinear | None = None

    def pack(self) -> None:
        assert self.fn is not None
        self.packed, self.fn = kernels.PackedLinear(self.fn), None
        self.base = nn.Parameter(self.base.detach().float().contiguous(), requires_grad=False)
        self.scale = nn.Parameter(self.scale.detach().float().contiguous(), requires_grad=False)

    def initialise(self, generator: torch.Generator, std: float) -> None:
        super().initialise(generator, std)
        self.scale.fill_(1.0)

    def collapse(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        """`[T, N * hidden]` -> the block's input `[T, hidden]`, and the coefficients for `expand`."""
        assert self.packed is not None
        weights = kernels.hyper_weights(
            streams, self.packed(streams), self.scale, self.base, count=self.streams, norm_eps=self.norm_eps,
            eps=self.eps, iterations=self.iterations,
        )  # fmt: skip
        return kernels.hyper_collapse(streams, weights, count=self.streams), weights

    def expand(self, streams: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """The streams after a block that gave y `[T, hidden]`."""
        return kernels.hyper_expand(streams, y, weights, count=self.streams)
