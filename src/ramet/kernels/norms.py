"""Root-mean-square norms, over the whole row or over each group (head) of columns."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, zero_centred: bool) -> Tensor:
    """`x / sqrt(mean(x**2) + eps) * weight` (`1 + weight` if `zero_centred`), over each group of `len(weight)` columns.

    x `[T, n * D]`, weight float32 `[D]` -> `[T, n * D]`.
    """
    count, width = x.shape
    groups = _groups(width, weight)
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.rms_norm(
        *rows("x", x), contiguous("weight", weight, (weight.numel(),)), eps, zero_centred,
        count, groups, weight.numel(), out.data_ptr(),
    )  # fmt: skip
    return out


def gated_rms_norm(x: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight * x / sqrt(mean(x**2) + eps) * silu(z)` over each group of `len(weight)` columns.

    x and z `[T, n * D]`, weight float32 `[D]` -> `[T, n * D]`.
    """
    count, width = x.shape
    groups = _groups(width, weight)
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.gated_rms_norm(
        *rows("x", x), *rows("z", z, width, count),
        contiguous("weight", weight, (weight.numel(),)), eps, count, groups, weight.numel(), out.data_ptr(),
    )  # fmt: skip
    return out


def _groups(width: int, weight: Tensor) -> int:
    size = weight.numel()
    if size == 0 or width % size:
        raise ValueError(f"{width} columns are no multiple of the weight's {size}")
    return width // size


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`(x - mean) / sqrt(variance + eps) * weight + bias` over all columns: `[T, C]`, float32 `[C]` both."""
    count, size = x.shape
    out = torch.empty(count, size, dtype=torch.float32)
    _ramet.layer_norm(
        *rows("x", x), contiguous("weight", weight, (size,)), contiguous("bias", bias, (size,)), eps, count, size,
        out.data_ptr(),
    )  # fmt: skip
    return out
