"""Matrix products with weights in the codes of their files, mapped or not: nothing is packed, nothing decoded ahead.

The kernel decodes a panel of 32 outputs as it sums. Every product has the bits that the packed one has on the decoded
matrix, for any number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows

Coding = Literal["fp8", "fp4", "int4", "bf16", "f32"]
_PLAIN = {"bf16": torch.bfloat16, "f32": torch.float32}
_SCALES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.float8_e8m0fnu: "e8m0"}


@dataclass(frozen=True)
class CodedMatrix:
    """A matrix `[outputs, inputs]` in codes, and scales that each hold for a block of `block` outputs and inputs.

    `fp8`: codes e4m3 `[outputs, inputs]`. `fp4`: e2m1, two to a byte, 8-bit integers `[outputs, ceil(inputs / 2)]`.
    `int4`: the number plus 8, eight to an int32, `[outputs, ceil(inputs / 8)]`. The first of several is in the lowest
    bits. Scales `[ceil(outputs / block[0]), ceil(inputs / block[1])]` are float32, bfloat16, float16 or e8m0; the last
    block of a row or a column may be partial. A weight is its code times its scale, rounded once to float32.
    `bf16`, `f32`: the numbers themselves `[outputs, inputs]`, no scales.

    The tensors are contiguous, on the CPU, at any address, and may be mapped from a file. ValueError for anything else.
    """

    coding: Coding
    codes: Tensor
    scales: Tensor | None
    outputs: int
    inputs: int
    block: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.outputs < 1 or self.inputs < 1 or min(self.block) < 1:
            raise ValueError(f"a matrix [{self.outputs}, {self.inputs}] in blocks of {self.block} is empty")
        each, dtypes = {
            "fp8": (1, (torch.float8_e4m3fn,)),
            "fp4": (2, (torch.int8, torch.uint8)),
            "int4": (8, (torch.int32,)),
            "bf16": (1, (torch.bfloat16,)),
            "f32": (1, (torch.float32,)),
        }[self.coding]
        _check("codes", self.codes, (self.outputs, -(-self.inputs // each)), dtypes)
        if (self.scales is None) != (self.coding in _PLAIN):
            raise ValueError(f"{self.coding} has {'no scales' if self.coding in _PLAIN else 'scales'}")
        if self.scales is not None:
            blocks = (-(-self.outputs // self.block[0]), -(-self.inputs // self.block[1]))
            _check("scales", self.scales, blocks, tuple(_SCALES))

    @classmethod
    def plain(cls, weight: Tensor) -> CodedMatrix:
        """A bfloat16 or float32 matrix as it lies."""
        return cls("bf16" if weight.dtype is torch.bfloat16 else "f32", weight, None, *weight.shape)


def _check(name: str, x: Tensor, shape: tuple[int, int], dtypes: tuple[torch.dtype, ...]) -> None:
    if x.shape != shape or x.dtype not in dtypes or not x.is_contiguous() or not x.is_cpu:
        raise ValueError(
            f"{name} must be a contiguous CPU tensor {list(shape)} of {' or '.join(map(str, dtypes))}, "
            f"not {x.dtype} {list(x.shape)} with strides {list(x.stride())} on {x.device}"
        )


def _together(matrices: Sequence[CodedMatrix]) -> _ramet.CodedMatrices:
    """What the kernel is given; good for as long as the matrices are."""
    table = _ramet.CodedMatrices()
    for each in matrices:
        scale, at = ("", 0) if each.scales is None else (_SCALES[each.scales.dtype], each.scales.data_ptr())
        table.append(each.coding, each.codes.data_ptr(), scale, at, each.outputs, each.inputs, *each.block)
    return table


class CodedLinear:
    """`y = x @ weight.T` like `PackedLinear`; `parts` are matrices of the same inputs, one above the other."""

    def __init__(self, *parts: CodedMatrix) -> None:
        self.parts = parts
        self.out_features, self.in_features = sum(part.outputs for part in parts), parts[0].inputs
        if any(part.inputs != self.in_features for part in parts):
            raise ValueError(f"matrices run as one have different inputs: {[part.inputs for part in parts]}")
        self._table = _together(parts)

    def __call__(self, x: Tensor, *, add: Tensor | None = None) -> Tensor:
        """`[T, in] -> [T, out]`; with `add` `[T, out]`, `add + x @ weight.T`."""
        count = x.shape[0]
        added = (0, 0) if add is None else rows("add", add, self.out_features, count)
        out = torch.empty(count, self.out_features, dtype=torch.float32)
        _ramet.coded_linear(
            *rows("x", x, self.in_features), self._table, count, self.out_features, *added, out.data_ptr()
        )
        return out


class CodedHeads:
    """A matrix for each head, like `PackedHeads`: rows `first` to `first + size` of each head's share of the matrix.

    With `transposed` a head's matrix is those rows' transpose.
    """

    def __init__(self, matrix: CodedMatrix, heads: int, first: int, size: int, *, transposed: bool = False) -> None:
        if matrix.outputs % heads or first < 0 or size < 1 or first + size > matrix.outputs // heads:
            raise ValueError(f"{matrix.outputs} rows: no {heads} heads with rows {first} to {first + size} of each")
        self.matrix, self.heads, self.first, self.size, self.transposed = matrix, heads, first, size, transposed
        self.in_features, self.out_features = (size, matrix.inputs) if transposed else (matrix.inputs, size)
        self._table = _together([matrix])

    def __call__(self, x: Tensor) -> Tensor:
        """The first `in` columns of each head of x by that head's matrix: `[T, heads * S] -> [T, heads * out]`."""
        count, width = x.shape
        if width % self.heads or width // self.heads < self.in_features:
            raise ValueError(f"x has {width} columns: no {self.heads} heads of at least {self.in_features} each")
        out = torch.empty(count, self.heads * self.out_features, dtype=torch.float32)
        _ramet.coded_heads(
            *rows("x", x), width // self.heads, self._table, self.heads, self.first, self.size, self.transposed, count,
            out.data_ptr(),
        )  # fmt: skip
        return out


class CodedExperts:
    """The experts of one layer, like `PackedExperts`: each expert's (gate, up) and down matrix, wherever they lie."""

    def __init__(self, gate_up: Sequence[tuple[CodedMatrix, CodedMatrix]], down: Sequence[CodedMatrix]) -> None:
        self.gate_up, self.down = list(gate_up), list(down)
        if not self.down or len(self.gate_up) != len(self.down):
            raise ValueError(f"{len(self.gate_up)} experts' gate and up, but {len(self.down)} experts' down")
        self.hidden, self.intermediate = self.down[0].outputs, self.down[0].inputs
        for pair, last in zip(self.gate_up, self.down, strict=True):
            shapes = [(each.outputs, each.inputs) for each in (*pair, last)]
            if shapes != [(self.intermediate, self.hidden)] * 2 + [(self.hidden, self.intermediate)]:
                raise ValueError(f"experts' gate, up and down do not fit each other: {shapes}")
        self._tables = (
            _together([gate for gate, _ in self.gate_up]),
            _together([up for _, up in self.gate_up]),
            _together(self.down),
        )

    def __call__(self, x: Tensor, chosen: Tensor, weights: Tensor, *, limit: float = math.inf) -> Tensor:
        """See `PackedExperts.__call__`: the same bits as it gives on the decoded matrices."""
        count, top_k = chosen.shape
        out = torch.empty(count, self.hidden, dtype=torch.float32)
        _ramet.coded_experts(
            *rows("x", x, self.hidden, count), contiguous("chosen", chosen, (count, top_k), torch.int32),
            contiguous("weights", weights, (count, top_k)), *self._tables, count, top_k, limit, out.data_ptr(),
        )  # fmt: skip
        return out
