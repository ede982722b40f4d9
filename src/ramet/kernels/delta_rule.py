"""The gated delta rule, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from ramet import _ramet
from ramet.kernels.arrays import contiguous, rows
from ramet.kernels.spans import Spans


def delta_rule(
    qkv: Tensor,
    a: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    spans: Spans,
    state_offset: int,
    *,
    k_heads: int,
    v_heads: int,
    k_dim: int,
    v_dim: int,
) -> Tensor:
    """The gated delta rule over every session's rows: `[T, v_heads * v_dim]`.

    qkv `[T, 2 * k_heads * k_dim + v_heads * v_dim]` (queries | keys | values), a and b `[T, v_heads]`, A_log and
    dt_bias float32 `[v_heads]`. The state S `[v_heads, k_dim, v_dim]` is at `state_offset` of each session's state. Per
    token and value head, with q and k of key head `head // (v_heads // k_heads)`:

        q, k = q / sqrt(sum(q**2) + 1e-6) * k_dim**-0.5,  k / sqrt(sum(k**2) + 1e-6)
        S = exp(-exp(A_log) * softplus(a + dt_bias)) * S
        S = S + outer(k, sigmoid(b) * (v - k @ S))
        y = q @ S
    """
    if min(k_heads, v_heads, k_dim, v_dim) < 1 or v_heads % k_heads:
        raise ValueError(f"{v_heads} value heads are no multiple of {k_heads} key heads")
    out = torch.empty(spans.rows, v_heads * v_dim, dtype=torch.float32)
    _ramet.delta_rule(
        *rows("qkv", qkv, 2 * k_heads * k_dim + v_heads * v_dim, spans.rows),
        *rows("a", a, v_heads, spans.rows), *rows("b", b, v_heads, spans.rows),
        contiguous("A_log", A_log, (v_heads,)), contiguous("dt_bias", dt_bias, (v_heads,)),
        k_heads, v_heads, k_dim, v_dim, spans.native, state_offset, out.data_ptr(),
    )  # fmt: skip
    return out
