"""The short causal convolution in front of a recurrent layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows
from ramet.kernels.spans import Spans


def causal_conv(x: Tensor, weight: Tensor, spans: Spans, state_offset: int) -> Tensor:
    """Depthwise causal convolution, then silu: `[T, C] -> [T, C]`.

    `weight` is float32 `[K, C]`, the oldest tap first: a checkpoint's `[C, 1, K]` turned once at load. The window of
    the last K - 1 inputs, `[K - 1, C]` and oldest first, is at `state_offset` of each session's state and is moved on.
    """
    taps, width = weight.shape
    out = torch.empty(spans.rows, width, dtype=torch.float32)
    _ramet.causal_conv(
        *rows("x", x, width, spans.rows), contiguous("weight", weight, (taps, width)), taps, width,
        spans.native, state_offset, out.data_ptr(),
    )  # fmt: skip
    return out
