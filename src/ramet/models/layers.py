"""Weights in their two forms: parameters to train, or packed for serving.

Every class holds ordinary `nn.Parameter`s under the published names until `pack()` is called, which builds the compiled
ops' form and frees the parameters. Calling it works before (differentiable, `[..., features]`) and after (`[T,
features]`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramet import kernels
from ramet.kernels import reference


class Layer(nn.Module):
    """A module whose call gives one tensor."""

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor: ...


class Linear(Layer):
    """`x @ weight.T`, no bias; with `add`, `add + x @ weight.T`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight: Tensor | None = nn.Parameter(torch.empty(outputs, inputs))
        self.packed: kernels.PackedLinear | None = None

    def pack(self) -> None:
        if self.weight is not None:
            self.packed, self.weight = kernels.PackedLinear(self.weight), None

    def forward(self, x: Tensor, *, add: Tensor | None = None) -> Tensor:
        if self.packed is not None:
            return self.packed(x, add=add)
        assert self.weight is not None
        out = F.linear(x, self.weight)
        return out if add is None else add + out


class GateUp:
    """Two linear maps of the same input, run as one: `[gate(x) | up(x)]`. Belongs to the module that holds the two."""

    def __init__(self, gate: Linear, up: Linear) -> None:
        self.gate, self.up = gate, up
        self.packed: kernels.PackedLinear | None = None

    def pack(self) -> None:
        assert self.gate.weight is not None and self.up.weight is not None
        self.packed = kernels.PackedLinear(torch.cat([self.gate.weight.detach(), self.up.weight.detach()]))
        self.gate.weight = self.up.weight = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.packed(x) if self.packed is not None else torch.cat([self.gate(x), self.up(x)], dim=-1)


class Embedding(Layer):
    """Rows of `weight` `[vocab, hidden]` by token; if `tied`, the output layer too, packed once for both."""

    def __init__(self, vocab: int, hidden: int, *, tied: bool) -> None:
        super().__init__()
        self.tied = tied
        self.weight: Tensor | None = nn.Parameter(torch.empty(vocab, hidden))
        self.packed: kernels.PackedLinear | None = None
        self.table: Tensor | None = None

    def pack(self) -> None:
        assert self.weight is not None
        if self.tied:
            self.packed = kernels.PackedLinear(self.weight)
        else:
            self.table = self.weight.detach()
        self.weight = None

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 `[...]` -> `[..., hidden]`."""
        if self.packed is not None:
            return self.packed.embed(tokens)
        if self.table is not None:
            return kernels.embed(self.table, tokens)
        assert self.weight is not None
        return F.embedding(tokens, self.weight)

    def logits(self, x: Tensor) -> Tensor:
        """`[..., hidden]` -> `[..., vocab]`, where the weight is tied."""
        if self.packed is not None:
            return self.packed(x)
        assert self.weight is not None
        return F.linear(x, self.weight)


class Vector(nn.Module):
    """A weight of one dimension under the name `weight`, as norms have; float32 for serving."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))

    def pack(self) -> None:
        self.weight = nn.Parameter(self.weight.detach().float().contiguous(), requires_grad=False)


class ConvWeight(nn.Module):
    """A depthwise convolution's weight, published `[channels, 1, kernel]`; served float32 as `[kernel, channels]`."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight: Tensor | None = nn.Parameter(torch.empty(channels, 1, kernel))
        self.taps: Tensor | None = None

    def pack(self) -> None:
        assert self.weight is not None
        self.taps, self.weight = self.weight.detach().float().squeeze(1).t().contiguous(), None


class Experts(Layer):
    """Every expert's SwiGLU, fused: `gate_up_proj` `[E, 2 I, H]` and `down_proj` `[E, H, I]`."""

    def __init__(self, experts: int, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_up_proj: Tensor | None = nn.Parameter(torch.empty(experts, 2 * intermediate, hidden))
        self.down_proj: Tensor | None = nn.Parameter(torch.empty(experts, hidden, intermediate))
        self.packed: kernels.PackedExperts | None = None

    def pack(self) -> None:
        assert self.gate_up_proj is not None and self.down_proj is not None
        self.packed = kernels.PackedExperts(self.gate_up_proj, self.down_proj)
        self.gate_up_proj = self.down_proj = None

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        if self.packed is not None:
            return self.packed(x, chosen, weights)
        assert self.gate_up_proj is not None and self.down_proj is not None
        return reference.experts(x, self.gate_up_proj, self.down_proj, chosen, weights)
