"""Rotary position embedding, with the per-head norm in front of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows


def rope_table(positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Cosines and sines of `positions * inv_freq`: int64 `[T]`, float32 `[R / 2]` -> `[T, R]` (cosines | sines)."""
    count, half = positions.numel(), inv_freq.numel()
    table = torch.empty(count, 2 * half, dtype=torch.float32)
    _ramet.rope_table(
        contiguous("positions", positions, (count,), torch.int64), contiguous("inv_freq", inv_freq, (half,)),
        count, half, table.data_ptr(),
    )  # fmt: skip
    return table


def norm_rope(x: Tensor, weight: Tensor, eps: float, table: Tensor, *, heads: int, zero_centred: bool) -> Tensor:
    """Each head's rms norm, then the rotation of its first R columns (column i with column i + R / 2).

    x `[T, heads * S]`, weight float32 `[D]` with D <= S, table `[T, R]` from `rope_table` with R <= D ->
    `[T, heads * D]`. The first D columns of each head's S are read, so a projection that holds `[query | gate]` per
    head is passed whole.
    """
    count, width = x.shape
    size, rotary = weight.numel(), table.shape[1]
    if heads < 1 or width % heads or size > width // heads:
        raise ValueError(f"x has {width} columns: no {heads} heads of at least {size} each")
    if rotary > size or rotary % 2:
        raise ValueError(f"the table rotates {rotary} columns; it must be even and at most the head's {size}")
    out = torch.empty(count, heads * size, dtype=torch.float32)
    _ramet.norm_rope(
        *rows("x", x), contiguous("weight", weight, (size,)), eps, zero_centred,
        contiguous("table", table, (count, rotary)), rotary, count, heads, size, width // heads, out.data_ptr(),
    )  # fmt: skip
    return out
