"""Mixture of experts: run each expert on the rows that chose it, and combine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows


class PackedExperts:
    """The experts of one layer: `down @ (silu(gate @ x) * (up @ x))` each, packed like `PackedLinear`.

    gate_up `[E, 2 I, H]` (gate | up) and down `[E, H, I]`, both float32 or both bfloat16.
    """

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        if gate_up.dim() != 3 or down.dim() != 3 or gate_up.dtype is not down.dtype:
            raise ValueError(f"experts must be two 3-D tensors of one dtype, not {gate_up.shape} and {down.shape}")
        if gate_up.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"experts must be float32 or bfloat16, not {gate_up.dtype}")
        self.experts, double, self.hidden = gate_up.shape
        self.intermediate = double // 2
        if double % 2 or down.shape != (self.experts, self.hidden, self.intermediate):
            raise ValueError(f"gate_up {list(gate_up.shape)} and down {list(down.shape)} do not fit each other")
        if gate_up.numel() == 0:
            raise ValueError(f"experts must not be empty, but gate_up is {list(gate_up.shape)}")
        self.dtype = gate_up.dtype
        self._half = gate_up.dtype is torch.bfloat16
        self.gate_up = self._pack(gate_up)
        self.down = self._pack(down)

    def _pack(self, weight: Tensor) -> Tensor:
        experts, outputs, inputs = weight.shape
        panels = -(-outputs // _ramet.PANEL)
        packed = torch.empty((experts, panels * inputs * _ramet.PANEL), dtype=weight.dtype)
        for source, target in zip(weight.detach(), packed, strict=True):
            matrix = source.contiguous()
            _ramet.pack(matrix.data_ptr(), target.data_ptr(), outputs, inputs, self._half)
        return packed

    def __call__(self, x: Tensor, chosen: Tensor, weights: Tensor, *, limit: float = math.inf) -> Tensor:
        """The weighted sum of each row's chosen experts, `[T, H]`, summed in the order in which `route` chose them.

        chosen int32 `[T, top_k]` and weights float32 `[T, top_k]` from `route`; `limit` as in `swiglu`. `ValueError`
        for an expert that does not exist.
        """
        count, top_k = chosen.shape
        out = torch.empty(count, self.hidden, dtype=torch.float32)
        _ramet.experts(
            *rows("x", x, self.hidden, count), contiguous("chosen", chosen, (count, top_k), torch.int32),
            contiguous("weights", weights, (count, top_k)), self.gate_up.data_ptr(), self.down.data_ptr(), self._half,
            count, top_k, self.experts, self.hidden, self.intermediate, limit, out.data_ptr(),
        )  # fmt: skip
        return out
