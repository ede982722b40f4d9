"""Weights in their two forms: parameters to train, or packed for serving.

Every class holds ordinary `nn.Parameter`s under the published names until `pack()` is called, which builds the compiled
ops' form and frees the parameters. Calling it works before (differentiable, `[..., features]`) and after (`[T,
features]`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramet import kernels
from ramet.kernels import reference

if TYPE_CHECKING:
    from ramet.models.run import Run


class Layer(nn.Module):
    """A module whose call gives one tensor."""

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor: ...

    def pack(self) -> None:
        """Bring the module's own weights, or those of children that it runs as one, into the compiled ops' form."""

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """Fresh values for the module's own parameters: normal matrices, vectors of zeros."""
        for weight in self.parameters(recurse=False):
            fresh = torch.zeros(weight.shape)
            weight.copy_(fresh.normal_(0.0, std, generator=generator) if weight.dim() > 1 else fresh)


def packed(*weights: Tensor | kernels.CodedMatrix) -> kernels.PackedLinear | kernels.CodedLinear:
    """The compiled ops' form of matrices `[out, in]` that are run as one, one above the other."""
    if any(isinstance(each, kernels.CodedMatrix) for each in weights):
        return kernels.CodedLinear(
            *(kernels.CodedMatrix.plain(each.detach()) if isinstance(each, Tensor) else each for each in weights)
        )
    plain = [each.detach() for each in weights if isinstance(each, Tensor)]
    return kernels.PackedLinear(plain[0] if len(plain) == 1 else torch.cat(plain))


class Linear(Layer):
    """`x @ weight.T`, no bias; with `add`, `add + x @ weight.T`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight: Tensor | None = nn.Parameter(torch.empty(outputs, inputs))
        self.coded: kernels.CodedMatrix | None = None
        self.packed: kernels.PackedLinear | kernels.CodedLinear | None = None

    def pack(self) -> None:
        if (weight := self.take()) is not None:
            self.packed = packed(weight)

    def take(self) -> Tensor | kernels.CodedMatrix | None:
        """The weight, in whichever form it was loaded; the module lets go of it."""
        weight = self.weight if self.coded is None else self.coded
        self.weight = self.coded = None
        return weight

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
        self.packed: kernels.PackedLinear | kernels.CodedLinear | None = None

    def pack(self) -> None:
        gate, up = self.gate.take(), self.up.take()
        assert gate is not None and up is not None
        self.packed = packed(gate, up)

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


class RMSNorm(Layer):
    """`x / rms(x) * weight`, or `* (1 + weight)` if `zero_centred`, in float32, over groups of `size` columns."""

    def __init__(self, size: int, eps: float, *, zero_centred: bool = False) -> None:
        super().__init__()
        self.eps, self.zero_centred = eps, zero_centred
        self.weight = nn.Parameter(torch.empty(size))

    def pack(self) -> None:
        self.weight = nn.Parameter(self.weight.detach().float().contiguous(), requires_grad=False)

    def initialise(self, generator: torch.Generator, std: float) -> None:
        self.weight.fill_(0.0 if self.zero_centred else 1.0)

    def forward(self, x: Tensor, run: Run) -> Tensor:
        return run.rms_norm(x, self)


class LayerNorm(Layer):
    """`(x - mean) / sqrt(variance + eps) * weight + bias`; without a run (a part that is only served) on the kernel."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size))

    def pack(self) -> None:
        self.weight = nn.Parameter(self.weight.detach().float().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(self.bias.detach().float().contiguous(), requires_grad=False)

    def initialise(self, generator: torch.Generator, std: float) -> None:
        self.weight.fill_(1.0)
        self.bias.fill_(0.0)

    def forward(self, x: Tensor, run: Run | None = None) -> Tensor:
        op = kernels.layer_norm if run is None else run.layer_norm
        return op(x, self.weight, self.bias, self.eps)


class ConvWeight(Layer):
    """A depthwise convolution's weight, published `[channels, 1, kernel]`; served float32 as `[kernel, channels]`."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight: Tensor | None = nn.Parameter(torch.empty(channels, 1, kernel))
        self.taps: Tensor | None = None

    def pack(self) -> None:
        assert self.weight is not None
        self.taps, self.weight = self.weight.detach().float().squeeze(1).t().contiguous(), None

    def initialise(self, generator: torch.Generator, std: float) -> None:
        assert self.weight is not None
        bound = self.weight.shape[-1] ** -0.5
        self.weight.copy_(torch.empty(self.weight.shape).uniform_(-bound, bound, generator=generator))


class Experts(Layer):
    """Every expert's SwiGLU, fused: `gate_up_proj` `[E, 2 I, H]`, `down_proj` `[E, H, I]`; `limit` as in `kernels`."""

    def __init__(self, experts: int, hidden: int, intermediate: int, limit: float = math.inf) -> None:
        super().__init__()
        self.limit = limit
        self.gate_up_proj: Tensor | None = nn.Parameter(torch.empty(experts, 2 * intermediate, hidden))
        self.down_proj: Tensor | None = nn.Parameter(torch.empty(experts, hidden, intermediate))
        self.coded_gate_up: list[tuple[kernels.CodedMatrix, kernels.CodedMatrix]] | None = None
        self.coded_down: list[kernels.CodedMatrix] | None = None
        self.packed: kernels.PackedExperts | kernels.CodedExperts | None = None

    def pack(self) -> None:
        gate_up, down = self.coded_gate_up, self.coded_down
        if gate_up is None and down is None:
            assert self.gate_up_proj is not None and self.down_proj is not None
            dtype = torch.promote_types(self.gate_up_proj.dtype, self.down_proj.dtype)
            self.packed = kernels.PackedExperts(self.gate_up_proj.to(dtype), self.down_proj.to(dtype))
        else:  # what the files have in a float dtype stays in it
            plain = kernels.CodedMatrix.plain
            if gate_up is None:
                assert self.gate_up_proj is not None
                pairs = (each.chunk(2) for each in self.gate_up_proj.detach())
                gate_up = [(plain(gate), plain(up)) for gate, up in pairs]
            if down is None:
                assert self.down_proj is not None
                down = [plain(each) for each in self.down_proj.detach()]
            self.packed = kernels.CodedExperts(gate_up, down)
        self.gate_up_proj = self.down_proj = self.coded_gate_up = self.coded_down = None

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        if self.packed is not None:
            return self.packed(x, chosen, weights, limit=self.limit)
        assert self.gate_up_proj is not None and self.down_proj is not None
        return reference.experts(x, self.gate_up_proj, self.down_proj, chosen, weights, self.limit)


class MLP(Layer):
    """SwiGLU."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, intermediate)
        self.up_proj = Linear(hidden, intermediate)
        self.down_proj = Linear(intermediate, hidden)
        self._gate_up = GateUp(self.gate_proj, self.up_proj)

    def pack(self) -> None:
        self._gate_up.pack()

    def forward(self, x: Tensor, residual: Tensor | None, run: Run) -> Tensor:
        return self.down_proj(run.swiglu(self._gate_up(x)), add=residual)
