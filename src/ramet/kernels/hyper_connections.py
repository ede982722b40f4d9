"""Manifold-constrained hyper-connections: N residual streams of H columns, side by side in a row of N * H."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows


def hyper_weights(
    streams: Tensor,
    mixes: Tensor,
    scale: Tensor,
    base: Tensor,
    *,
    count: int,
    norm_eps: float,
    eps: float,
    iterations: int,
) -> Tensor:
    """The coefficients of a hyper-connection, `[T, C]`, C = (2 + N) N: collapse (N) | expand (N) | mix (N x N).

    streams `[T, N * H]`, mixes `[T, C]` their projection, before any norm: it is divided by the row's rms here. scale
    float32 `[3]`, base float32 `[C]`. With m = mixes / rms(streams) * scale + base, part by part:

        collapse = sigmoid(m) + eps,    expand = 2 sigmoid(m),    mix = sinkhorn(softmax(m) + eps)

    Sinkhorn divides the columns by their sums (+ eps), then `iterations - 1` times the rows and the columns. With
    scale `[1]`, mixes `[T, N]` and base `[N]`, only the first part, `[T, N]`.
    """
    total, width = streams.shape
    head = scale.numel() == 1
    columns = count if head else (2 + count) * count
    if count < 1 or width % count:
        raise ValueError(f"{width} columns are no {count} streams")
    out = torch.empty(total, columns, dtype=torch.float32)
    _ramet.hyper_weights(
        *rows("streams", streams), *rows("mixes", mixes, columns, total),
        contiguous("scale", scale, (1 if head else 3,)), contiguous("base", base, (columns,)), norm_eps, eps, total,
        count, width // count, iterations, head, out.data_ptr(),
    )  # fmt: skip
    return out


def hyper_collapse(streams: Tensor, weights: Tensor, *, count: int) -> Tensor:
    """The streams' sum by the first N columns of `weights` from `hyper_weights`: `[T, N * H] -> [T, H]`."""
    total, width = streams.shape
    if count < 1 or width % count or weights.shape[1] < count:
        raise ValueError(f"{width} columns are no {count} streams, or weights {list(weights.shape)} are too few")
    out = torch.empty(total, width // count, dtype=torch.float32)
    _ramet.hyper_collapse(
        *rows("streams", streams), *rows("weights", weights, None, total), total, count, width // count, out.data_ptr()
    )
    return out


def hyper_expand(streams: Tensor, y: Tensor, weights: Tensor, *, count: int) -> Tensor:
    """Stream i becomes `expand[i] * y + sum over j of mix[j, i] * stream j`: `[T, N * H] -> [T, N * H]`.

    y `[T, H]` is the block's output, weights `[T, (2 + N) N]` from `hyper_weights`.
    """
    total, width = streams.shape
    if count < 1 or width % count:
        raise ValueError(f"{width} columns are no {count} streams")
    out = torch.empty(total, width, dtype=torch.float32)
    _ramet.hyper_expand(
        *rows("streams", streams), *rows("y", y, width // count, total),
        *rows("weights", weights, (2 + count) * count, total), total, count, width // count, out.data_ptr(),
    )  # fmt: skip
    return out
