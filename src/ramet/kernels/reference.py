"""The mathematics of every op in torch: differentiable, over `[batch, length, ...]`.

Training runs on these, and the tests hold the compiled ops against them. A row of a batch may hold several documents
one after the other; `segments`, int64 `[batch, length]`, names the document of each token. Where it changes, recurrent
states start from zero, convolutions see no earlier input, and attention is blocked. `segments=None` means one document
per row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ramet.kernels.coded import CodedMatrix

_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
CHUNK = 64
"""Tokens per chunk of `delta_rule_chunked`."""


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, zero_centred: bool) -> Tensor:
    """`x / rms(x) * weight` over the last dimension, in float32; the factor is `1 + weight` if `zero_centred`."""
    scale = weight.float() + 1.0 if zero_centred else weight.float()
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * scale).to(x.dtype)


def gated_rms_norm(x: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight * x / rms(x) * silu(z)` over the last dimension, in float32. `x` and `z` have the same shape."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (normed * weight.float() * F.silu(z.float())).to(x.dtype)


def swiglu(gate_up: Tensor, limit: float = math.inf) -> Tensor:
    """`silu(min(gate, limit)) * clamp(up, -limit, limit)` for the two halves of the last dimension."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)


def causal_conv(x: Tensor, weight: Tensor, segments: Tensor | None = None) -> Tensor:
    """Depthwise causal convolution, then silu.

    `x` is `[B, L, C]`; `weight` is `[C, K]`, its last column meeting the current token. Inputs before a document are 0.
    """
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    out = F.conv2d(padded.mT.unsqueeze(2), weight[:, None, None], groups=weight.shape[0]).squeeze(2).mT
    if segments is not None:
        # A document's first tokens see less than a whole window: these few are computed by themselves.
        document = F.pad(_document(segments), (taps - 1, 0), value=-1).unfold(1, taps, 1)
        row, token = (document[..., 0] != document[..., -1]).nonzero(as_tuple=True)
        seen = document[row, token] == document[row, token, -1:]
        window = padded[row.unsqueeze(-1), token.unsqueeze(-1) + torch.arange(taps, device=x.device)]
        first = (window * seen.unsqueeze(-1) * weight.t()).sum(1)
        out = out.index_put((row, token), first.to(out.dtype))
    return F.silu(out)


def _document(segments: Tensor) -> Tensor:
    """Consecutive numbers for the documents of each row, from 0: an id may come again later for another document."""
    return F.pad((segments[:, 1:] != segments[:, :-1]).cumsum(1), (1, 0))


def delta_gates(a: Tensor, b: Tensor, a_log: Tensor, dt_bias: Tensor) -> tuple[Tensor, Tensor]:
    """The delta rule's log-decay `-exp(A_log) * softplus(a + dt_bias)` and step size `sigmoid(b)`.

    All `[B, L, v_heads]`, but `a_log` and `dt_bias` `[v_heads]`; the results are float32.
    """
    return -a_log.float().exp() * F.softplus(a.float() + dt_bias.float()), b.float().sigmoid()


def _unit(x: Tensor) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + 1e-6)


def delta_rule_recurrent(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, segments: Tensor | None = None
) -> Tensor:
    """The gated delta rule, token by token, in float32. For each head, with unit `q` and `k`:

        S = exp(log_decay) * S;    S = S + k (beta * (v - S^T k))^T;    o = S^T q / sqrt(k_dim)

    `q`, `k`: `[B, L, k_heads, k_dim]`; `v`: `[B, L, v_heads, v_dim]`; `log_decay`, `beta`: `[B, L, v_heads]`. Each key
    head serves `v_heads / k_heads` consecutive value heads. Returns `[B, L, v_heads, v_dim]` in the dtype of `v`.
    """
    repeats = v.shape[2] // k.shape[2]
    q, k = (_unit(x).repeat_interleave(repeats, dim=2) for x in (q, k))
    q = q * q.shape[-1] ** -0.5
    decay, value = log_decay.exp(), v.float()
    state = value.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1])
    outputs = []
    for t in range(v.shape[1]):
        keep = decay[:, t]
        if segments is not None and t > 0:
            keep = keep * (segments[:, t] == segments[:, t - 1]).unsqueeze(-1)
        state = state * keep[..., None, None]
        k_t = k[:, t].unsqueeze(-1)
        step = beta[:, t].unsqueeze(-1) * (value[:, t] - (state * k_t).sum(-2))
        state = state + k_t * step.unsqueeze(-2)
        outputs.append((state * q[:, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outputs, dim=1).to(v.dtype)


def delta_rule_chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, segments: Tensor | None = None
) -> Tensor:
    """The same as `delta_rule_recurrent`, as a few large matrix products per chunk of 64 tokens.

    Inside a chunk the steps depend on one another through a unit lower triangular system, which is solved at once for
    all chunks; from chunk to chunk the state moves by an affine map, `S' = M S + C`, one product per chunk. Where a
    document begins, the decay between tokens on either side is exactly zero, and sums of log-decays within a document
    are untouched. All of it is float32, under autocast too: the solution of the system amplifies rounding.
    """
    with torch.autocast(v.device.type, enabled=False):
        return _delta_rule_chunked(q, k, v, log_decay, beta, segments)


def _delta_rule_chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, segments: Tensor | None
) -> Tensor:
    batch, length, v_heads, v_dim = v.shape
    k_dim, dtype = k.shape[-1], v.dtype
    repeats = v_heads // k.shape[2]
    chunks = -(-length // CHUNK)
    pad = chunks * CHUNK - length

    def chunked(x: Tensor) -> Tensor:
        """`[B, L, heads, ...]` -> `[chunks, B, heads, CHUNK, ...]`."""
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, pad))
        return x.reshape(batch, chunks, CHUNK, *x.shape[2:]).movedim((1, 3), (0, 2)).contiguous()

    q = chunked((_unit(q) * k_dim**-0.5).repeat_interleave(repeats, dim=2))
    k = chunked(_unit(k).repeat_interleave(repeats, dim=2))
    v, beta = chunked(v.float()), chunked(beta.float()).unsqueeze(-1)
    total = chunked(log_decay.float()).cumsum(-1)  # log-decay from the chunk's beginning through each token

    causal = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=v.device).tril()
    if segments is None:
        pairs = causal
        reads, writes, carries = total.exp(), (total[..., -1:] - total).exp(), total[..., -1].exp()
    else:
        document = F.pad(_document(segments).unsqueeze(1), (0, pad), mode="replicate")
        document = document.reshape(batch, 1, chunks, CHUNK).movedim(2, 0)
        last = document[..., -1:]
        before = torch.cat([document[:1, ..., :1], last[:-1]])  # the document that the chunk's incoming state is of
        pairs = causal & (document.unsqueeze(-1) == document.unsqueeze(-2))
        reads = total.exp() * (document == before)
        writes = (total[..., -1:] - total).exp() * (document == last)
        carries = total[..., -1].exp() * (before == last).squeeze(-1)

    decay = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~pairs, -torch.inf).exp()
    beta_k = beta * k
    system = (beta_k @ k.mT) * decay
    right = torch.cat([beta * v, beta_k * reads.unsqueeze(-1)], dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    values, erases = solved.split([v_dim, k_dim], dim=-1)  # what the chunk writes, less `erases @ S` already there

    write_k = (k * writes.unsqueeze(-1)).mT
    eye = torch.eye(k_dim, device=v.device)
    maps = (carries[..., None, None] * eye - write_k @ erases).flatten(1, 2)
    adds = (write_k @ values).flatten(1, 2)
    states = [torch.zeros_like(adds[0])]
    for n in range(chunks - 1):
        states.append(torch.baddbmm(adds[n], maps[n], states[-1]))
    state = torch.stack(states).reshape(chunks, batch, v_heads, k_dim, v_dim)

    attend = (q @ k.mT) * decay
    out: Tensor = (q * reads.unsqueeze(-1) - attend @ erases) @ state + attend @ values
    return out.movedim((0, 2), (1, 3)).flatten(1, 2)[:, :length].to(dtype)


def rope_table(positions: Tensor, inv_freq: Tensor, scale: float = 1.0) -> Tensor:
    """Cosines and sines of `positions * inv_freq`, times `scale`.

    int64 `[B, L]`, float32 `[R / 2]` -> `[B, L, R]` (cosines | sines).
    """
    angles = positions.unsqueeze(-1).float() * inv_freq
    return torch.cat([angles.cos(), angles.sin()], dim=-1) * scale


def rope(x: Tensor, table: Tensor, *, start: int = 0, interleaved: bool = False, inverse: bool = False) -> Tensor:
    """Rotate R of the last dimension from `start` on, column i with column i + R / 2; the rest passes.

    `x` is `[B, L, heads, D]`; `table` is `[B, L, R]` from `rope_table`. If `interleaved`, column 2 i is paired with
    column 2 i + 1. `inverse` turns the other way.
    """
    cos, sin = table.to(x.dtype).unsqueeze(-2).chunk(2, dim=-1)
    sin = -sin if inverse else sin
    before, turned, after = x.tensor_split([start, start + table.shape[-1]], dim=-1)
    left, right = _pairs(turned) if interleaved else turned.chunk(2, dim=-1)
    pair = left * cos - right * sin, right * cos + left * sin
    turned = torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)
    return torch.cat([before, turned, after], dim=-1)


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """The even and the odd columns of the last dimension."""
    return x[..., 0::2], x[..., 1::2]


def attention_mask(segments: Tensor | None) -> Tensor | None:
    """Which key each query sees: bool `[B, 1, L, L]`, causal and within the document; None if causal is all it is."""
    if segments is None:
        return None
    document = _document(segments)
    return (document.unsqueeze(-1) == document.unsqueeze(-2)).tril().unsqueeze(1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax attention. `q`: `[B, L, heads, D]`; `k`, `v`: `[B, L, kv_heads, D]`; `mask` from `attention_mask`.

    Each key head serves `heads / kv_heads` consecutive query heads. Returns `[B, L, heads, D]`.
    """
    repeats = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)))
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale).transpose(1, 2)


def route(router_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The `top_k` experts of largest logits (of equal ones the lowest index) and their weights, `[..., top_k]` each.

    The weights, float32, are the softmax over all experts divided by its sum over the chosen ones.
    """
    best, chosen = router_logits.float().sort(dim=-1, descending=True, stable=True)
    return chosen[..., :top_k], best[..., :top_k].softmax(-1)


def route_by_score(
    router_logits: Tensor,
    bias: Tensor,
    top_k: int,
    *,
    score: str = "sigmoid",
    groups: int = 1,
    groups_kept: int = 1,
    normalise: bool = True,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The `top_k` experts by score + bias and their weights by score alone: see `kernels.route_by_score`."""
    logits = router_logits.float()
    scores = logits.sigmoid() if score == "sigmoid" else F.softplus(logits).sqrt()
    ranked = scores.detach() + bias.float()
    if groups_kept < groups:
        grouped = ranked.reshape(*ranked.shape[:-1], groups, -1)
        totals = grouped.topk(2, dim=-1).values.sum(-1)
        left_out = totals.sort(dim=-1, descending=True, stable=True).indices[..., groups_kept:]
        masked = torch.zeros_like(totals, dtype=torch.bool).scatter(-1, left_out, True)
        ranked = grouped.masked_fill(masked.unsqueeze(-1), -torch.inf).flatten(-2)
    chosen = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]
    weights = scores.gather(-1, chosen)
    if normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return chosen, weights * scale


def experts(
    x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor, limit: float = math.inf
) -> Tensor:
    """Each token through its experts' SwiGLU, summed by weight.

    `x`: `[..., H]`; `gate_up`: `[E, 2I, H]`; `down`: `[E, H, I]`; `chosen`, `weights`: `[..., top_k]` from `route`.
    Returns `[..., H]`.
    """
    rows = x.flatten(0, -2)
    weights, chosen = weights.flatten(0, -2).to(x.dtype), chosen.flatten(0, -2)
    out = torch.zeros_like(rows)
    for expert in torch.unique(chosen).tolist():
        token, place = (chosen == expert).nonzero(as_tuple=True)
        hidden = F.linear(swiglu(F.linear(rows[token], gate_up[expert]), limit), down[expert])
        out = out.index_add(0, token, hidden * weights[token, place].unsqueeze(-1))
    return out.view_as(x)


def decoded(matrix: CodedMatrix) -> Tensor:
    """The numbers of a coded matrix: float32 `[outputs, inputs]`, code times scale, rounded once."""
    match matrix.coding:
        case "fp8" | "bf16" | "f32":
            values = matrix.codes.float()
        case "fp4":
            bits = matrix.codes.view(torch.uint8)
            values = _E2M1[torch.stack([bits & 15, bits >> 4], dim=-1).flatten(1).int()]
        case "int4":
            shifts = torch.arange(0, 32, 4, dtype=torch.int32)
            values = ((matrix.codes.unsqueeze(-1) >> shifts & 15) - 8).flatten(1).float()
    values = values[:, : matrix.inputs]
    if matrix.scales is None:
        return values
    rows, columns = torch.arange(matrix.outputs) // matrix.block[0], torch.arange(matrix.inputs) // matrix.block[1]
    return values * matrix.scales.float()[rows][:, columns]
