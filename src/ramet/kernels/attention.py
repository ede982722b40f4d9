"""Causal attention over pages."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import rows
from ramet.kernels.spans import Spans


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Spans,
    k_offset: int,
    v_offset: int,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    scale: float,
) -> Tensor:
    """Write the new keys and values into the sessions' pages, then attend causally: `[T, heads * head_dim]`.

    q `[T, heads * head_dim]`, k and v `[T, kv_heads * head_dim]`; query head h reads key head `h // (heads //
    kv_heads)`. A page holds its keys at `k_offset` as `[kv_heads, head_dim, 64]` and its values at `v_offset` as
    `[kv_heads, 64, head_dim]`. In bfloat16 pages the rows are rounded to the nearest, ties to even, when they are
    written; the new ones, too, are read from the page. The softmax runs page by page in order of position, so a row's
    bits do not depend on the rows it came with. Rows of a page at or after the session's end are never read.
    """
    if min(heads, kv_heads, head_dim) < 1 or heads % kv_heads:
        raise ValueError(f"{heads} query heads are no multiple of {kv_heads} key heads")
    out = torch.empty(spans.rows, heads * head_dim, dtype=torch.float32)
    _ramet.attention(
        *rows("q", q, heads * head_dim, spans.rows),
        *rows("k", k, kv_heads * head_dim, spans.rows),
        *rows("v", v, kv_heads * head_dim, spans.rows),
        heads, kv_heads, head_dim, scale, spans.native, k_offset, v_offset, out.data_ptr(),
    )  # fmt: skip
    return out
