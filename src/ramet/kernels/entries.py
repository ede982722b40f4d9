"""Compressed entries: groups of tokens pooled into one key, chosen by an indexer, attended to beside a window.

An entry stands for `ratio` tokens, is key and value at once, and is written when its last token is run, into the page
that holds that token: at `entry_offset`, `[64 / ratio, size]`, or `[1, size]` where a group is longer than a page. The
ratio divides 64 or is a multiple of it. A token at position t sees the entries of the `(t + 1) // ratio` finished
groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows
from ramet.kernels.spans import Spans


def compress(
    kv: Tensor,
    gate: Tensor,
    bias: Tensor,
    norm: Tensor,
    eps: float,
    table: Tensor,
    spans: Spans,
    state_offset: int,
    entry_offset: int,
) -> None:
    """Pool the new tokens and write the entries that they finish into the sessions' pages.

    kv and gate `[T, S * D]`, bias float32 `[ratio, S * D]`, norm float32 `[D]`, S = 1 or 2. With S = 1 an entry is,
    column by column, the sum over its group's tokens of `softmax(gate + bias) * kv`; with S = 2, the softmax also runs
    over the group before: that group's first D columns, and the own group's last D. The entry is then rms-normed with
    the weight `norm`, and its last R columns are rotated in neighbouring pairs by the row's angles in `table` `[T, R]`,
    which belong to the position where the row's group begins. The sums under way are at `state_offset`, `[S, 3, D]`.
    """
    size = norm.numel()
    ratio, width = bias.shape
    if width not in (size, 2 * size):
        raise ValueError(f"bias has {width} columns; an entry of {size} has one or two series")
    rotary = table.shape[1]
    if rotary % 2 or rotary > size:
        raise ValueError(f"the table rotates {rotary} columns; it must be even and at most {size}")
    _ramet.compress(
        *rows("kv", kv, width, spans.rows), *rows("gate", gate, width, spans.rows),
        contiguous("bias", bias, (ratio, width)), contiguous("norm", norm, (size,)), eps,
        contiguous("table", table, (spans.rows, rotary)), rotary, ratio, width // size, size, spans.native,
        state_offset, entry_offset,
    )  # fmt: skip


def select_entries(
    q: Tensor, weights: Tensor, spans: Spans, entry_offset: int, *, ratio: int, top_k: int, scale: float
) -> Tensor:
    """The `top_k` entries that each row attends to, int32 `[T, top_k]`, ascending; -1 where it sees fewer.

    q `[T, heads * D]` and weights `[T, heads]` of the indexer, whose entries are at `entry_offset`. An entry's score is
    the sum over the heads of `weight * scale * relu(q . entry)`; of equal ones the lowest is chosen.
    """
    heads = weights.shape[1]
    if heads < 1 or q.shape[1] % heads or top_k < 1:
        raise ValueError(f"q has {q.shape[1]} columns: no {heads} heads; top_k is {top_k}")
    chosen = torch.empty((spans.rows, top_k), dtype=torch.int32)
    _ramet.select_entries(
        *rows("q", q, None, spans.rows), *rows("weights", weights, heads, spans.rows), heads, q.shape[1] // heads,
        ratio, top_k, scale, spans.native, entry_offset, chosen.data_ptr(),
    )  # fmt: skip
    return chosen


def entry_attention(
    q: Tensor,
    kv: Tensor,
    sinks: Tensor,
    spans: Spans,
    window_offset: int,
    *,
    window: int,
    scale: float,
    entry_offset: int = 0,
    ratio: int = 0,
    chosen: Tensor | None = None,
) -> Tensor:
    """Softmax attention over the last `window` tokens and over compressed entries: `[T, heads * D]`.

    q `[T, heads * D]`; kv `[T, D]`, keys and values at once, of the new tokens; sinks float32 `[heads]`, logits that
    take weight and give nothing. With a `ratio`, the entries at `entry_offset` as well: those that `chosen` from
    `select_entries` names, or all that the token sees. The window is at `window_offset` of the state, `[window, D]`,
    position p at `p % window`, and is moved on.
    """
    heads, size = sinks.numel(), kv.shape[1]
    if window < 1 or ratio < 0:
        raise ValueError(
            f"the window must hold at least one token, not {window}, and the ratio be positive, not {ratio}"
        )
    top_k = 0 if chosen is None else chosen.shape[1]
    out = torch.empty(spans.rows, heads * size, dtype=torch.float32)
    _ramet.entry_attention(
        *rows("q", q, heads * size, spans.rows), *rows("kv", kv, size, spans.rows),
        contiguous("sinks", sinks, (heads,)), heads, size, scale, window, ratio,
        0 if chosen is None else contiguous("chosen", chosen, (spans.rows, top_k), torch.int32), top_k, spans.native,
        window_offset, entry_offset, out.data_ptr(),
    )  # fmt: skip
    return out
