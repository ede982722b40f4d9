"""Gates: elementwise, with one exponential for every column."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import rows


def swiglu(gate_up: Tensor, *, limit: float = math.inf) -> Tensor:
    """`silu(min(gate, limit)) * clamp(up, -limit, limit)` for `gate_up` `[T, 2 I]` (gate | up) -> `[T, I]`."""
    count, width = gate_up.shape
    if width % 2:
        raise ValueError(f"gate_up must have an even number of columns, not {width}")
    out = torch.empty(count, width // 2, dtype=torch.float32)
    _ramet.swiglu(*rows("gate_up", gate_up), count, width // 2, limit, out.data_ptr())
    return out


def sigmoid_gate(x: Tensor, gate: Tensor, *, heads: int) -> Tensor:
    """`x * sigmoid(gate)` head by head, `[T, heads * D]`.

    `gate` is `[T, heads * S]` with S >= D; the last D columns of each head's S are its gate, so the projection that
    holds `[query | gate]` per head is passed whole.
    """
    count, width = x.shape
    if heads < 1 or width % heads or gate.shape[1] % heads or gate.shape[1] < width:
        raise ValueError(f"x has {width} columns and gate {gate.shape[1]}: no {heads} heads of [.. | gate] each")
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.sigmoid_gate(
        *rows("x", x), *rows("gate", gate, None, count),
        count, heads, width // heads, gate.shape[1] // heads, out.data_ptr(),
    )  # fmt: skip
    return out


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its usual approximation, `x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`: `[T, C]`."""
    count, width = x.shape
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.gelu_tanh(*rows("x", x), count, width, out.data_ptr())
    return out


def add_gated(base: Tensor, x: Tensor, gate: Tensor) -> Tensor:
    """`base + sigmoid(gate) * x` with one gate per row: base and x `[T, H]`, gate `[T, 1]` -> `[T, H]`."""
    count, width = x.shape
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.add_gated(
        *rows("base", base, width, count), *rows("x", x),
        *rows("gate", gate, 1, count), count, width, out.data_ptr(),
    )  # fmt: skip
    return out
