"""One run of a model over tokens. A family's layers are written once, against `Run`; there are two kinds of run.

`TrainingRun` is differentiable, over `[batch, length, features]` with packed documents, on the reference ops.
`ServingRun` is over the rows `[T, features]` of a step's spans, on the compiled ops, and moves the sessions' states on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ramet import kernels
from ramet.kernels import reference, reference_latent
from ramet.models.layers import ConvWeight, RMSNorm
from ramet.models.rope import Rope
from ramet.models.states import Span, StateLayout


@dataclass(frozen=True)
class DeltaHeads:
    """The heads of a delta-rule layer; each key head serves `values / keys` consecutive value heads."""

    keys: int
    values: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class AttentionHeads:
    """The heads of an attention layer; each key-value head serves `queries / key_values` consecutive query heads."""

    queries: int
    key_values: int
    dim: int


@dataclass(frozen=True)
class LatentHeads:
    """The heads of a latent attention; all meet one row `[latent | rotated key]` per token."""

    count: int
    latent: int
    rotary: int
    scale: float
    """Of the scores."""


@dataclass(frozen=True)
class IndexHeads:
    """The heads of an indexer, which meet one key of size `dim` per token, and how many rows it chooses."""

    count: int
    dim: int
    top_k: int


@dataclass(frozen=True)
class Routing:
    """How a router by scores chooses and weighs: see `kernels.route_by_score`."""

    top_k: int
    score: kernels.Score = "sigmoid"
    groups: int = 1
    groups_kept: int = 1
    normalise: bool = True
    scale: float = 1.0


class Run(Protocol):
    """The ops of a run; `...` is `[batch, length]` in training and `[T]` in serving. Norms are in float32.

    `tokens`, int64 `[...]`, are those of the run. `conv_state`, `delta_state`, `keys` and `values` are the names of
    states in the model's `StateLayout`.
    """

    tokens: Tensor
    chosen: Tensor | None
    """What the last indexer of the run chose for each token: the next latent attentions are over those rows alone."""

    def seen(self, x: Tensor) -> Tensor:
        """The tokens' embeddings `x`, with those of pictures' rows in place."""
        ...

    def rms_norm(self, x: Tensor, norm: RMSNorm) -> Tensor:
        """`x / rms(x) * weight` over each group of as many columns as the weight has."""
        ...

    def gated_rms_norm(self, x: Tensor, z: Tensor, norm: RMSNorm) -> Tensor:
        """`x / rms(x) * weight * silu(z)` over each group of as many columns as the weight has."""
        ...

    def rope(self, x: Tensor, heads: int, rope: Rope, *, start: int = 0, inverse: bool = False) -> Tensor:
        """Each head's columns from `start` on rotated by the token's position (`inverse`: back); the rest passes."""
        ...

    def norm_rope(self, x: Tensor, norm: RMSNorm, heads: int, rope: Rope) -> Tensor:
        """`rms_norm` of the first columns of each head, as many as the weight has, D, then `rope`: `[..., heads * D]`.

        The rope is not interleaved.
        """
        ...

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """`silu(gate) * up` of `[gate | up]`."""
        ...

    def sigmoid_gate(self, x: Tensor, gate: Tensor, heads: int) -> Tensor:
        """`x * sigmoid(gate)`, the gate being the last columns of each head of `gate`."""
        ...

    def add_gated(self, base: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        """`base + sigmoid(gate) * x`, `gate` `[..., 1]`."""
        ...

    def causal_conv(self, x: Tensor, weight: ConvWeight, conv_state: str) -> Tensor:
        """Depthwise causal convolution over the session, then silu."""
        ...

    def delta_rule(
        self, qkv: Tensor, a: Tensor, b: Tensor, a_log: Tensor, dt_bias: Tensor, heads: DeltaHeads, delta_state: str
    ) -> Tensor:
        """The gated delta rule over `[queries | keys | values]`: `[..., values * value_dim]`."""
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: AttentionHeads, keys: str, values: str) -> Tensor:
        """Causal softmax attention over the session, scaled by `dim ** -0.5`: `[..., queries * dim]`."""
        ...

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """`(x - mean) / sqrt(variance + eps) * weight + bias`."""
        ...

    def latent_attention(
        self, q: Tensor, q_rope: Tensor, latent: Tensor, rope_key: Tensor, heads: LatentHeads, rows: str
    ) -> Tensor:
        """Causal attention of queries in latent space over the session's rows: see `kernels.latent_attention`.

        If `chosen` is set, over the chosen rows.
        """
        ...

    def index_rows(self, q: Tensor, k: Tensor, weights: Tensor, heads: IndexHeads, keys: str) -> Tensor:
        """The rows that each token attends to, in the form in which `latent_attention` takes them from `chosen`."""
        ...

    def route(self, router_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """The experts of each token and their weights by softmax, `[..., top_k]` each."""
        ...

    def route_by_score(self, router_logits: Tensor, bias: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        """The experts of each token by score plus bias and their weights by score, `[..., top_k]` each."""
        ...


class TrainingRun:
    """Differentiable, over packed rows: `segments` and `positions`, int64 `[batch, length]`."""

    def __init__(self, tokens: Tensor, segments: Tensor | None, positions: Tensor) -> None:
        self.tokens = tokens
        self.chosen: Tensor | None = None
        self.segments = segments
        self.positions = positions
        self.mask = reference.attention_mask(segments)
        self._tables: dict[Rope, Tensor] = {}

    def seen(self, x: Tensor) -> Tensor:
        return x

    def rms_norm(self, x: Tensor, norm: RMSNorm) -> Tensor:
        grouped = _by_head(x, x.shape[-1] // norm.weight.numel())
        return reference.rms_norm(grouped, norm.weight, norm.eps, zero_centred=norm.zero_centred).flatten(-2)

    def gated_rms_norm(self, x: Tensor, z: Tensor, norm: RMSNorm) -> Tensor:
        heads = x.shape[-1] // norm.weight.numel()
        return reference.gated_rms_norm(_by_head(x, heads), _by_head(z, heads), norm.weight, norm.eps).flatten(-2)

    def rope(self, x: Tensor, heads: int, rope: Rope, *, start: int = 0, inverse: bool = False) -> Tensor:
        x, table = _by_head(x, heads), self.table(rope)
        return reference.rope(x, table, start=start, interleaved=rope.interleaved, inverse=inverse).flatten(-2)

    def norm_rope(self, x: Tensor, norm: RMSNorm, heads: int, rope: Rope) -> Tensor:
        x = _by_head(x, heads)[..., : norm.weight.numel()]
        x = reference.rms_norm(x, norm.weight, norm.eps, zero_centred=norm.zero_centred)
        return reference.rope(x, self.table(rope)).flatten(-2)

    def table(self, rope: Rope) -> Tensor:
        """The cosines and sines of the run's positions, `[batch, length, R]`."""
        if rope not in self._tables:
            frequencies = rope.inv_freq.to(self.positions.device)
            self._tables[rope] = reference.rope_table(self.positions, frequencies, rope.scale)
        return self._tables[rope]

    def swiglu(self, gate_up: Tensor) -> Tensor:
        return reference.swiglu(gate_up)

    def sigmoid_gate(self, x: Tensor, gate: Tensor, heads: int) -> Tensor:
        x = _by_head(x, heads)
        gate = _by_head(gate, heads)[..., -x.shape[-1] :]
        return (x * gate.sigmoid()).flatten(-2)

    def add_gated(self, base: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        return base + gate.sigmoid() * x

    def causal_conv(self, x: Tensor, weight: ConvWeight, conv_state: str) -> Tensor:
        assert weight.weight is not None
        return reference.causal_conv(x, weight.weight.squeeze(1), self.segments)

    def delta_rule(
        self, qkv: Tensor, a: Tensor, b: Tensor, a_log: Tensor, dt_bias: Tensor, heads: DeltaHeads, delta_state: str
    ) -> Tensor:
        width = heads.keys * heads.key_dim
        q, k = _by_head(qkv[..., :width], heads.keys), _by_head(qkv[..., width : 2 * width], heads.keys)
        v = _by_head(qkv[..., 2 * width :], heads.values)
        log_decay, beta = reference.delta_gates(a, b, a_log, dt_bias)
        return reference.delta_rule_chunked(q, k, v, log_decay, beta, self.segments).flatten(-2)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: AttentionHeads, keys: str, values: str) -> Tensor:
        q, k, v = _by_head(q, heads.queries), _by_head(k, heads.key_values), _by_head(v, heads.key_values)
        return reference.attention(q, k, v, self.mask, heads.dim**-0.5).flatten(-2)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)

    def latent_attention(
        self, q: Tensor, q_rope: Tensor, latent: Tensor, rope_key: Tensor, heads: LatentHeads, rows: str
    ) -> Tensor:
        q, q_rope = _by_head(q, heads.count), _by_head(q_rope, heads.count)[..., -heads.rotary :]
        mask = self._seen() if self.chosen is None else self.chosen
        return reference_latent.latent_attention(q, q_rope, latent, rope_key, mask, heads.scale).flatten(-2)

    def index_rows(self, q: Tensor, k: Tensor, weights: Tensor, heads: IndexHeads, keys: str) -> Tensor:
        return reference_latent.index_rows(_by_head(q, heads.count), k, weights, self._seen(), heads.top_k)

    def _seen(self) -> Tensor:
        """Which rows each token sees, bool `[batch or 1, L, L]`."""
        if self.mask is not None:
            return self.mask.squeeze(1)
        length = self.tokens.shape[-1]
        return torch.ones(1, length, length, dtype=torch.bool, device=self.tokens.device).tril()

    def route(self, router_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        return reference.route(router_logits, top_k)

    def route_by_score(self, router_logits: Tensor, bias: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        return reference.route_by_score(router_logits, bias, **vars(routing))


class ServingRun:
    """Over the spans of one step, on the compiled ops; reads and writes the spans' pages and states."""

    def __init__(self, spans: Sequence[Span], layout: StateLayout) -> None:
        self.tokens = torch.cat([span.tokens for span in spans])
        self.chosen: Tensor | None = None
        self.layout = layout
        self._spans = spans
        self.spans = kernels.Spans(
            [span.tokens.numel() for span in spans],
            [span.position for span in spans],
            pages=[span.pages for span in spans] if layout.rows else (),
            states=[span.state for span in spans] if layout.fixed else (),
        )
        self._tables: dict[tuple[Rope, int], Tensor] = {}
        self._seen: list[tuple[int, Tensor]] = []
        self._positions: Tensor | None = None
        if any(span.seen or span.positions is not None for span in spans):
            self._look(spans)

    def _look(self, spans: Sequence[Span]) -> None:
        """Pictures' rows among the step's, and the positions on three axes of all its rows."""
        self._positions = self.spans.position_ids()[:, None].repeat(1, 3)
        start = 0
        for span in spans:
            self._seen += [(start + first, rows) for first, rows in span.seen]
            end = start + span.tokens.numel()
            if span.positions is not None:
                self._positions[start:end] = span.positions
            start = end

    def seen(self, x: Tensor) -> Tensor:
        for first, rows in self._seen:
            x[first : first + rows.shape[0]] = rows
        return x

    def before(self, x: Tensor, last: str) -> Tensor:
        """For each row of `x` the one before it in its session; the state `last` carries it from span to span."""
        at, width = self.layout.fixed_offsets[last], x.shape[-1]
        shifted = x.roll(1, 0)
        end = 0
        for span, state in zip(self._spans, (span.state[at : at + width] for span in self._spans), strict=True):
            shifted[end] = state
            end += len(span.tokens)
            state.copy_(x[end - 1])
        return shifted

    def rms_norm(self, x: Tensor, norm: RMSNorm) -> Tensor:
        return kernels.rms_norm(x, norm.weight, norm.eps, zero_centred=norm.zero_centred)

    def gated_rms_norm(self, x: Tensor, z: Tensor, norm: RMSNorm) -> Tensor:
        return kernels.gated_rms_norm(x, z, norm.weight, norm.eps)

    def rope(self, x: Tensor, heads: int, rope: Rope, *, start: int = 0, inverse: bool = False) -> Tensor:
        table = self.table(rope)
        return kernels.rope(x, table, heads=heads, start=start, interleaved=rope.interleaved, inverse=inverse)

    def norm_rope(self, x: Tensor, norm: RMSNorm, heads: int, rope: Rope) -> Tensor:
        table = self.table(rope)
        return kernels.norm_rope(x, norm.weight, norm.eps, table, heads=heads, zero_centred=norm.zero_centred)

    def table(self, rope: Rope, group: int = 1) -> Tensor:
        """The cosines and sines of the rows' positions, or of where their groups of tokens begin, `[T, R]`."""
        if (rope, group) not in self._tables:
            if rope.axes is not None and self._positions is not None:
                table = self._table_of_axes(rope.inv_freq, rope.axes, self._positions) * rope.scale
            else:
                positions = self.spans.position_ids() // group * group
                table = kernels.rope_table(positions, rope.inv_freq, rope.scale)
            self._tables[rope, group] = table
        return self._tables[rope, group]

    @staticmethod
    def _table_of_axes(inv_freq: Tensor, axes: Tensor, positions: Tensor) -> Tensor:
        """Each frequency by the position on its axis."""
        each = [kernels.rope_table(positions[:, axis].contiguous(), inv_freq) for axis in range(3)]
        columns = torch.cat([axes, axes])
        return torch.stack(each)[columns, :, torch.arange(columns.numel())].t().contiguous()

    def swiglu(self, gate_up: Tensor) -> Tensor:
        return kernels.swiglu(gate_up)

    def sigmoid_gate(self, x: Tensor, gate: Tensor, heads: int) -> Tensor:
        return kernels.sigmoid_gate(x, gate, heads=heads)

    def add_gated(self, base: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        return kernels.add_gated(base, x, gate)

    def causal_conv(self, x: Tensor, weight: ConvWeight, conv_state: str) -> Tensor:
        assert weight.taps is not None
        return kernels.causal_conv(x, weight.taps, self.spans, self.layout.fixed_offsets[conv_state])

    def delta_rule(
        self, qkv: Tensor, a: Tensor, b: Tensor, a_log: Tensor, dt_bias: Tensor, heads: DeltaHeads, delta_state: str
    ) -> Tensor:
        offset = self.layout.fixed_offsets[delta_state]
        return kernels.delta_rule(
            qkv, a, b, a_log, dt_bias, self.spans, offset,
            k_heads=heads.keys, v_heads=heads.values, k_dim=heads.key_dim, v_dim=heads.value_dim,
        )  # fmt: skip

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: AttentionHeads, keys: str, values: str) -> Tensor:
        return kernels.attention(
            q, k, v, self.spans, self.layout.row_offsets[keys], self.layout.row_offsets[values],
            heads=heads.queries, kv_heads=heads.key_values, head_dim=heads.dim, scale=heads.dim**-0.5,
        )  # fmt: skip

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return kernels.layer_norm(x, weight, bias, eps)

    def latent_attention(
        self, q: Tensor, q_rope: Tensor, latent: Tensor, rope_key: Tensor, heads: LatentHeads, rows: str
    ) -> Tensor:
        return kernels.latent_attention(
            q, q_rope, latent, rope_key, self.spans, self.layout.row_offsets[rows],
            heads=heads.count, scale=heads.scale, chosen=self.chosen,
        )  # fmt: skip

    def index_rows(self, q: Tensor, k: Tensor, weights: Tensor, heads: IndexHeads, keys: str) -> Tensor:
        offset = self.layout.row_offsets[keys]
        return kernels.index_rows(q, k, weights, self.spans, offset, heads=heads.count, top_k=heads.top_k)

    def route(self, router_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        return kernels.route(router_logits, top_k)

    def route_by_score(self, router_logits: Tensor, bias: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        return kernels.route_by_score(router_logits, bias, **vars(routing))


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], heads, -1)


def last_rows(spans: Sequence[Span]) -> Tensor:
    """Which rows of a step want logits, int64: the last `span.logits` of each span."""
    wanted, end = [], 0
    for span in spans:
        end += span.tokens.numel()
        wanted.append(torch.arange(end - span.logits, end))
    return torch.cat(wanted)
