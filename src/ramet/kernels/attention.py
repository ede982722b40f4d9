"""Attention: causal over pages, and among all rows of a segment."""

from __future__ import annotations

from collections.abc import Sequence

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


def segment_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, heads: int, scale: float) -> Tensor:
    """Attention in which all rows of a segment see each other, and none outside it: `[T, heads * D]` each.

    `lengths` are those of the segments, T in all. A running softmax goes over blocks of 128 keys, in order, so a row's
    bits depend on its segment alone.
    """
    count, width = q.shape
    if heads < 1 or width == 0 or width % heads:
        raise ValueError(f"q has {width} columns: no {heads} heads")
    if min(lengths, default=0) < 0 or sum(lengths) != count:
        raise ValueError(f"q has {count} rows, but the segments {list(lengths)} have {sum(lengths)}")
    out = torch.empty(count, width, dtype=torch.float32)
    _ramet.segment_attention(
        *rows("q", q), *rows("k", k, width, count), *rows("v", v, width, count),
        heads, width // heads, scale, [length for length in lengths if length], out.data_ptr(),
    )  # fmt: skip
    return out
