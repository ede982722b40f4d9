"""Multi-head latent attention over pages, whole or sparse, and the indexer that says which rows a token attends to."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows
from ramet.kernels.spans import Spans


def latent_attention(
    q: Tensor,
    q_rope: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    spans: Spans,
    offset: int,
    *,
    heads: int,
    scale: float,
    chosen: Tensor | None = None,
) -> Tensor:
    """Write the new rows `[latent | rope_key]` into the sessions' pages, then attend causally: `[T, heads * L]`.

    latent `[T, L]` and rope_key `[T, R]` are one row per token for all heads: the key is the whole row, the value its
    latent. q `[T, heads * L]` are the queries in latent space; q_rope `[T, heads * S]` holds, in the last R columns of
    each head's S, their rotated part. A page holds its rows at `offset` as `[64, L + R]`, in the pages' dtype.

    `chosen`, int32 `[T, top_k]` from `index_rows`: a token that sees more than top_k rows attends to its chosen ones
    alone, and reads no other. Without it, every token attends to all rows up to its own. The softmax runs block by
    block of 64 rows, in order of position, and a token's blocks do not depend on the tokens that it came with.
    """
    count, latent_size, rope_size = spans.rows, latent.shape[-1], rope_key.shape[-1]
    if heads < 1 or q_rope.shape[-1] % heads or q_rope.shape[-1] // heads < rope_size:
        raise ValueError(f"q_rope has {q_rope.shape[-1]} columns: no {heads} heads of at least {rope_size} each")
    slot = q_rope.shape[-1] // heads
    at, stride = rows("q_rope", q_rope, heads * slot, count)
    top_k = 0 if chosen is None else chosen.shape[-1]
    out = torch.empty(count, heads * latent_size, dtype=torch.float32)
    _ramet.latent_attention(
        *rows("q", q, heads * latent_size, count), at + 4 * (slot - rope_size), stride, slot,
        *rows("latent", latent, latent_size, count), *rows("rope_key", rope_key, rope_size, count),
        heads, latent_size, rope_size, scale,
        0 if chosen is None else contiguous("chosen", chosen, (count, top_k), torch.int32), top_k,
        spans.native, offset, out.data_ptr(),
    )  # fmt: skip
    return out


def index_rows(q: Tensor, k: Tensor, weights: Tensor, spans: Spans, offset: int, *, heads: int, top_k: int) -> Tensor:
    """Write the new indexer keys into the sessions' pages, then choose each token's rows: int32 `[T, top_k]`.

    q `[T, heads * D]`, k `[T, D]`, weights `[T, heads]`. Row s scores `sum over heads of weight * max(0, q . k_s)` for
    the tokens at or after it. A token that sees more than `top_k` rows gets the positions of the `top_k` with the
    highest scores, of equal ones the earliest, in rising order; what the others get is undefined, as they need no
    choice. A page holds its keys at `offset` as `[D, 64]`, in the pages' dtype. Memory is that of the scores of 64
    tokens.
    """
    count, dim = spans.rows, k.shape[-1]
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    chosen = torch.empty((count, top_k), dtype=torch.int32)
    _ramet.indexer(
        *rows("q", q, heads * dim, count), *rows("k", k, dim, count), *rows("weights", weights, heads, count),
        heads, dim, top_k, spans.native, offset, chosen.data_ptr(),
    )  # fmt: skip
    return chosen
