"""Rotary position embedding, alone and with the per-head norm in front of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows


def rope_table(positions: Tensor, inv_freq: Tensor, scale: float = 1.0) -> Tensor:
    """Cosines and sines of `positions * inv_freq`, times `scale`.

    int64 `[T]`, float32 `[R / 2]` -> `[T, R]` (cosines | sines).
    """
    count, half = positions.numel(), inv_freq.numel()
    table = torch.empty(count, 2 * half, dtype=torch.float32)
    _ramet.rope_table(
        contiguous("positions", positions, (count,), torch.int64), contiguous("inv_freq", inv_freq, (half,)),
        count, half, table.data_ptr(),
    )  # fmt: skip
    return table if scale == 1.0 else table * scale


def rope(
    x: Tensor, table: Tensor, *, heads: int, start: int = 0, interleaved: bool = False, inverse: bool = False
) -> Tensor:
    """Rotate R columns of each head, from column `start` on; the others pass: `[T, heads * S] -> [T, heads * S]`.

    table `[T, R]` from `rope_table`. Column i is paired with column i + R / 2, or, `interleaved`, column 2 i with
    2 i + 1, and the results stay where the pair was. `inverse` turns the other way. Raises `ValueError` for columns
    that are not there.
    """
    count, width = x.shape
    rotary = table.shape[1]
    if heads < 1 or width % heads:
        raise ValueError(f"x has {width} columns: no {heads} heads")
    size = width // heads
    if rotary % 2 or not 0 <= start <= size - rotary:
        raise ValueError(f"the table rotates {rotary} columns from {start} on; a head has {size}")
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.rope(
        *rows("x", x), contiguous("table", table, (count, rotary)), rotary, count, heads, size, start,
        interleaved, inverse, out.data_ptr(),
    )  # fmt: skip
    return out


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
