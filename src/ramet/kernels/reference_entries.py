"""The mathematics of compressed entries and hyper-connections in torch, over one whole session `[L, features]`.

In the dtype of what is given, float64 included; differentiable but for the choice of entries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rope_pairs(x: Tensor, table: Tensor, *, inverse: bool = False) -> Tensor:
    """Rotate the last R columns in neighbouring pairs: x `[..., D]`, table `[..., R]` (cosines | sines)."""
    cos, sin = table.to(x.dtype).chunk(2, dim=-1)
    if inverse:
        sin = -sin
    rest, pairs = x[..., : x.shape[-1] - table.shape[-1]], x[..., x.shape[-1] - table.shape[-1] :]
    left, right = pairs[..., 0::2], pairs[..., 1::2]
    turned = torch.stack([left * cos - right * sin, right * cos + left * sin], dim=-1).flatten(-2)
    return torch.cat([rest, turned], dim=-1)


def compress(kv: Tensor, gate: Tensor, bias: Tensor, norm: Tensor, eps: float, table: Tensor) -> Tensor:
    """The entries of all finished groups, `[L // ratio, D]`; see `kernels.compress`.

    kv and gate `[L, S * D]`, bias `[ratio, S * D]`, norm `[D]`, table `[L // ratio, R]` at the groups' first positions.
    """
    ratio, size = bias.shape[0], norm.numel()
    groups = kv.shape[0] // ratio
    kv = kv[: groups * ratio].view(groups, ratio, -1)
    gate = gate[: groups * ratio].view(groups, ratio, -1) + bias
    if kv.shape[-1] == 2 * size:
        kv = torch.cat([F.pad(kv[:-1, :, :size], (0, 0, 0, 0, 1, 0)), kv[..., size:]], dim=1)
        earlier = F.pad(gate[:-1, :, :size], (0, 0, 0, 0, 1, 0), value=-torch.inf)
        gate = torch.cat([earlier, gate[..., size:]], dim=1)
    pooled = (gate.softmax(1) * kv).sum(1)
    normed = pooled * torch.rsqrt(pooled.square().mean(-1, keepdim=True) + eps) * norm
    return rope_pairs(normed, table)


def select_entries(q: Tensor, weights: Tensor, keys: Tensor, *, ratio: int, top_k: int, scale: float) -> Tensor:
    """The entries that each token attends to, bool `[L, L // ratio]`; see `kernels.select_entries`.

    q `[L, heads, D]`, weights `[L, heads]`, keys `[L // ratio, D]`.
    """
    scores = ((q @ keys.T).relu() * scale * weights.unsqueeze(-1)).sum(1)
    visible = _visible(len(q), ratio)
    order = scores.masked_fill(~visible, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    best = torch.zeros_like(visible).scatter(1, order[:, :top_k], value=True)
    return best & visible


def entry_attention(
    q: Tensor, kv: Tensor, sinks: Tensor, *, window: int, scale: float, entries: Tensor | None = None,
    ratio: int = 0, chosen: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention over the window, the entries and the sinks: q `[L, heads, D]`, kv `[L, D]` -> `[L, heads, D]`.

    entries `[L // ratio, D]`; `chosen` from `select_entries`, or None for all that a token sees.
    """
    length = len(q)
    back = torch.arange(length).unsqueeze(1) - torch.arange(length)
    seen = (back >= 0) & (back < window)
    if entries is not None:
        seen = torch.cat([seen, _visible(length, ratio) if chosen is None else chosen], dim=1)
        kv = torch.cat([kv, entries])
    scores = (q.transpose(0, 1) @ kv.T * scale).masked_fill(~seen, -torch.inf)  # [heads, L, keys]
    weights = torch.cat([scores, sinks.view(-1, 1, 1).expand(-1, length, 1)], dim=-1).softmax(-1)[..., :-1]
    return (weights @ kv).transpose(0, 1)


def _visible(length: int, ratio: int) -> Tensor:
    """Which finished groups each token sees, bool `[L, L // ratio]`."""
    return torch.arange(length // ratio) < (torch.arange(1, length + 1) // ratio).unsqueeze(1)


def hyper_weights(
    streams: Tensor, mixes: Tensor, scale: Tensor, base: Tensor, *, count: int, norm_eps: float, eps: float,
    iterations: int,
) -> Tensor:  # fmt: skip
    """The coefficients of a hyper-connection; shapes as in `kernels.hyper_weights`."""
    mixes = mixes * torch.rsqrt(streams.square().mean(-1, keepdim=True) + norm_eps)
    if scale.numel() == 1:
        return (mixes * scale + base).sigmoid() + eps
    widths = [count, count, count * count]
    parts = [
        part * factor + offset
        for part, factor, offset in zip(torch.split(mixes, widths, -1), scale, torch.split(base, widths), strict=True)
    ]
    mix = _square(parts[2], count).softmax(-1) + eps
    mix = mix / (mix.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        mix = mix / (mix.sum(-1, keepdim=True) + eps)
        mix = mix / (mix.sum(-2, keepdim=True) + eps)
    return torch.cat([parts[0].sigmoid() + eps, 2 * parts[1].sigmoid(), mix.flatten(-2)], dim=-1)


def hyper_collapse(streams: Tensor, weights: Tensor, *, count: int) -> Tensor:
    """`[..., N * H] -> [..., H]`; see `kernels.hyper_collapse`."""
    return (weights[..., :count, None] * _apart(streams, count)).sum(-2)


def hyper_expand(streams: Tensor, y: Tensor, weights: Tensor, *, count: int) -> Tensor:
    """`[..., N * H] -> [..., N * H]`; see `kernels.hyper_expand`."""
    expand, mix = weights[..., count : 2 * count], _square(weights[..., 2 * count :], count)
    mixed = mix.transpose(-1, -2) @ _apart(streams, count)
    return (expand.unsqueeze(-1) * y.unsqueeze(-2) + mixed).flatten(-2)


def weigh_experts(logits: Tensor, chosen: Tensor, *, scale: float = 1.0) -> Tensor:
    """See `kernels.weigh_experts`."""
    scores = F.softplus(logits).sqrt().gather(-1, chosen.long())
    return scores / (scores.sum(-1, keepdim=True) + 1e-20) * scale


def _square(x: Tensor, count: int) -> Tensor:
    return x.reshape(*x.shape[:-1], count, count)


def _apart(streams: Tensor, count: int) -> Tensor:
    return streams.reshape(*streams.shape[:-1], count, -1)
