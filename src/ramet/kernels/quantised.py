"""Matrix products with weights that stay in the few bits of their files, decoded a tile at a time.

A tile is decoded to float32 and multiplied by the kernel for float32 weights. Its outputs do not depend on what else is
in a tile, so the result has the bits of `PackedLinear` on the whole decoded matrix, for any number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ramet.kernels.activations import swiglu
from ramet.kernels.linear import PackedHeads, PackedLinear

_TILE = 1 << 20  # decoded numbers at a time: 4 MB
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


@dataclass(frozen=True)
class Quantised:
    """A matrix `[outputs, inputs]` in codes, and scales that each hold for a block of `block` outputs and inputs.

    `fp8`: codes e4m3 `[outputs, inputs]`. `fp4`: e2m1, two to a byte, int8 `[outputs, inputs / 2]`. `int4`: the number
    plus 8, eight to an int32, `[outputs, inputs / 8]`. The first of several is in the lowest bits. Scales are of any
    float dtype, e8m0 included; the last block of a row or a column may be partial. Tensors may be mapped from a file.
    """

    coding: Literal["fp8", "fp4", "int4"]
    codes: Tensor
    scales: Tensor
    outputs: int
    inputs: int
    block: tuple[int, int]

    def rows(self, begin: int, end: int) -> Tensor:
        """Outputs `begin` to `end`, decoded: float32 `[end - begin, inputs]`, code times scale, rounded once."""
        codes = self.codes[begin:end]
        match self.coding:
            case "fp8":
                values = codes.float()
            case "fp4":
                bits = codes.view(torch.uint8)
                values = _E2M1[torch.stack([bits & 15, bits >> 4], dim=-1).flatten(1).int()]
            case "int4":
                shifts = torch.arange(0, 32, 4, dtype=torch.int32)
                values = ((codes.unsqueeze(-1) >> shifts & 15) - 8).flatten(1).float()
        scales = self.scales[begin // self.block[0] : -(-end // self.block[0])].float()
        of_row = torch.arange(begin, end) // self.block[0] - begin // self.block[0]
        of_column = torch.arange(self.inputs) // self.block[1]
        return values[:, : self.inputs] * scales[of_row][:, of_column]


class QuantisedLinear:
    """`y = x @ weight.T` like `PackedLinear`; `parts` are matrices of the same inputs, one above the other."""

    def __init__(self, *parts: Quantised) -> None:
        self.parts = parts
        self.out_features, self.in_features = sum(part.outputs for part in parts), parts[0].inputs
        if any(part.inputs != self.in_features for part in parts):
            raise ValueError(f"matrices run as one have different inputs: {[part.inputs for part in parts]}")

    def __call__(self, x: Tensor, *, add: Tensor | None = None) -> Tensor:
        """`[T, in] -> [T, out]`; with `add` `[T, out]`, `add + x @ weight.T`."""
        out = torch.empty(x.shape[0], self.out_features)
        at, tile = 0, max(1, _TILE // self.in_features)
        for part in self.parts:
            for begin in range(0, part.outputs, tile):
                end = min(begin + tile, part.outputs)
                here = slice(at + begin, at + end)
                added = None if add is None else add[:, here]
                out[:, here] = PackedLinear(part.rows(begin, end))(x, add=added)
            at += part.outputs
        return out


class QuantisedHeads:
    """A matrix for each head, like `PackedHeads`: rows `first` to `first + size` of each head's share of the matrix.

    With `transposed` a head's matrix is those rows' transpose.
    """

    def __init__(self, matrix: Quantised, heads: int, first: int, size: int, *, transposed: bool = False) -> None:
        self.matrix, self.heads, self.first, self.size, self.transposed = matrix, heads, first, size, transposed

    def __call__(self, x: Tensor) -> Tensor:
        """The first `in` columns of each head of x by that head's matrix: `[T, heads * S] -> [T, heads * out]`."""
        width, share = x.shape[1] // self.heads, self.matrix.outputs // self.heads
        out = []
        for head in range(self.heads):
            begin = head * share + self.first
            weight = self.matrix.rows(begin, begin + self.size)
            weight = weight.mT if self.transposed else weight
            out.append(PackedHeads(weight.unsqueeze(0))(x[:, head * width : (head + 1) * width]))
        return torch.cat(out, dim=1)


class QuantisedExperts:
    """The experts of one layer, like `PackedExperts`: each expert's (gate, up) and down matrix."""

    def __init__(self, gate_up: Sequence[tuple[Quantised, Quantised]], down: Sequence[Quantised]) -> None:
        self.gate_up = [QuantisedLinear(*parts) for parts in gate_up]
        self.down = [QuantisedLinear(part) for part in down]

    def __call__(self, x: Tensor, chosen: Tensor, weights: Tensor, *, limit: float = math.inf) -> Tensor:
        """See `PackedExperts.__call__`: the same bits as it gives on the decoded matrices."""
        count, top_k = chosen.shape
        low, high = (int(chosen.min()), int(chosen.max())) if chosen.numel() else (0, 0)
        if low < 0 or high >= len(self.down):
            raise ValueError(f"expert {low if low < 0 else high} does not exist; there are {len(self.down)}")
        results = torch.empty(count * top_k, self.down[0].out_features)
        flat = chosen.flatten()
        for expert in sorted(set(flat.tolist())):
            at = (flat == expert).nonzero().flatten()
            results[at] = self.down[expert](swiglu(self.gate_up[expert](x[at // top_k]), limit=limit))
        if not count:
            return results.view(0, self.down[0].out_features)
        # A row's sum over its experts, in their order, is a product with a matrix of its own: the same fused steps.
        each = PackedHeads(results.view(count, top_k, -1).mT)(weights.reshape(1, -1))
        return each.view(count, -1)
