"""The mathematics of latent attention and its indexer in torch, over `[batch, length, ...]`, as in `reference`."""

from __future__ import annotations

import torch
from torch import Tensor


def latent_attention(q: Tensor, q_rope: Tensor, latent: Tensor, rope_key: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Softmax attention of all heads over one row per token, whose key is `[latent | rope_key]`, its value `latent`.

    `q`: `[B, L, heads, C]`; `q_rope`: `[B, L, heads, R]`; `latent`: `[B, L, C]`; `rope_key`: `[B, L, R]`; `mask`, bool
    `[B or 1, L, L]`, says which rows each token sees. Returns `[B, L, heads, C]`.
    """
    scores = torch.einsum("bthc,bsc->bhts", q, latent) + torch.einsum("bthr,bsr->bhts", q_rope, rope_key)
    weights = (scores * scale).masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
    return torch.einsum("bhts,bsc->bthc", weights, latent)


def index_rows(q: Tensor, k: Tensor, weights: Tensor, mask: Tensor, top_k: int) -> Tensor:
    """Which of the rows that it sees each token attends to, bool `[B, L, L]`: see `kernels.index_rows`.

    `q`: `[B, L, heads, D]`; `k`: `[B, L, D]`; `weights`: `[B, L, heads]`; `mask` as for `latent_attention`. No gradient
    flows through a choice.
    """
    with torch.no_grad():
        scores = torch.einsum("bthd,bsd->bths", q, k).relu()
        total = torch.einsum("bths,bth->bts", scores, weights).masked_fill(~mask, -torch.inf)
        best = total.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]
        return torch.zeros_like(total, dtype=torch.bool).scatter(-1, best, True) & mask
