"""DeepSeek V4: attention over a window and compressed entries, several residual streams, experts by score or by token.

Serving only. Modules and parameters carry the published names, but for the hyper-connections (`hc_attn.fn` here,
`hc_attn_fn` there) and the experts, which are fused. The equations: docs/models.md.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ramet import kernels
from ramet.errors import RametError
from ramet.models.decoder import Ahead, Config, Decoder
from ramet.models.deepseek_v4_config import HASH, HEAVY, SLIDING, SPARSE, DeepseekV4Config
from ramet.models.errors import CheckpointError
from ramet.models.hyper_connections import HyperConnection
from ramet.models.layers import Experts, GateUp, Layer, Linear, RMSNorm
from ramet.models.published import Names, Published
from ramet.models.rope import Rope
from ramet.models.run import Routing, Run, ServingRun
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, Window


class Compressor(Layer):
    """Pools each group of `ratio` tokens into an entry; with two `series`, together with the group before."""

    def __init__(self, config: DeepseekV4Config, name: str, ratio: int, series: int, size: int, rope: Rope) -> None:
        super().__init__()
        self.ratio, self.rope = ratio, rope
        self.wkv = Linear(config.hidden_size, series * size)
        self.wgate = Linear(config.hidden_size, series * size)
        self.ape = nn.Parameter(torch.empty(ratio, series * size))
        self.norm = RMSNorm(size, config.rms_norm_eps)
        self.pool = Recurrent(f"{name}.pool", (series, 3, size))
        self.entries = Rows(f"{name}.entries", (max(PAGE_TOKENS // ratio, 1), size), ratio)

    def pack(self) -> None:
        self.ape = nn.Parameter(self.ape.detach().float().contiguous(), requires_grad=False)

    def compress(self, x: Tensor, run: ServingRun) -> int:
        """Writes the entries that the new tokens finish; gives where a page holds them."""
        offset = run.layout.row_offsets[self.entries.name]
        kernels.compress(
            self.wkv(x), self.wgate(x), self.ape, self.norm.weight, self.norm.eps, run.table(self.rope, self.ratio),
            run.spans, run.layout.fixed_offsets[self.pool.name], offset,
        )  # fmt: skip
        return offset


class Indexer(Layer):
    """Chooses the entries that each token attends to, by small compressed keys of its own."""

    def __init__(self, config: DeepseekV4Config, name: str, rope: Rope) -> None:
        super().__init__()
        self.heads, self.size, self.top_k = config.index_n_heads, config.index_head_dim, config.index_topk
        self.rope, self.start = rope, self.size - config.qk_rope_head_dim
        self.wq_b = Linear(config.q_lora_rank, self.heads * self.size)
        self.weights_proj = Linear(config.hidden_size, self.heads)
        self.compressor = Compressor(config, f"{name}.indexer", config.sparse_ratio, 2, self.size, rope)

    def forward(self, x: Tensor, q_latent: Tensor, run: ServingRun) -> Tensor:
        """int32 `[T, top_k]`."""
        offset = self.compressor.compress(x, run)
        q = run.rope(self.wq_b(q_latent), self.heads, self.rope, start=self.start)
        return kernels.select_entries(
            q, self.weights_proj(x), run.spans, offset,
            ratio=self.compressor.ratio, top_k=self.top_k, scale=(self.size * self.heads) ** -0.5,
        )  # fmt: skip


class GroupedLinear(Layer):
    """Each group of inputs has a matrix of its own: weight `[groups * outputs, inputs]`."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight: Tensor | None = nn.Parameter(torch.empty(groups * outputs, inputs))
        self.coded: kernels.CodedMatrix | None = None
        self.packed: kernels.PackedHeads | kernels.CodedHeads | None = None

    def pack(self) -> None:
        if self.coded is not None:
            size = self.coded.outputs // self.groups
            self.packed, self.coded = kernels.CodedHeads(self.coded, self.groups, 0, size), None
            return
        assert self.weight is not None
        grouped = self.weight.detach().view(self.groups, -1, self.weight.shape[1])
        self.packed, self.weight = kernels.PackedHeads(grouped), None

    def forward(self, x: Tensor) -> Tensor:
        assert self.packed is not None
        return self.packed(x)


class Attention(Layer):
    """Many query heads on one head of keys, which are the values too: a window, sinks, and compressed entries."""

    def __init__(self, config: DeepseekV4Config, layer: int, plain: Rope, stretched: Rope) -> None:
        super().__init__()
        # beyond the last layer: `PredictAhead`
        kind = SLIDING if layer == config.num_hidden_layers else config.layer_types[layer]
        name, eps = f"layers.{layer}", config.rms_norm_eps
        hidden, self.heads, self.size = config.hidden_size, config.num_attention_heads, config.head_dim
        self.window = config.sliding_window
        self.rope, self.start = plain if kind == SLIDING else stretched, self.size - config.qk_rope_head_dim
        self.wq_a = Linear(hidden, config.q_lora_rank)
        self.q_norm = RMSNorm(config.q_lora_rank, eps)
        self.wq_b = Linear(config.q_lora_rank, self.heads * self.size)
        self.wkv = Linear(hidden, self.size)
        self.kv_norm = RMSNorm(self.size, eps)
        self.wo_a = GroupedLinear(config.o_groups, self.heads * self.size // config.o_groups, config.o_lora_rank)
        self.wo_b = Linear(config.o_groups * config.o_lora_rank, hidden)
        self.attn_sink = nn.Parameter(torch.empty(self.heads))
        self.compressor: Compressor | None = None
        self.indexer: Indexer | None = None
        if kind == SPARSE:
            self.compressor = Compressor(config, name, config.sparse_ratio, 2, self.size, stretched)
            self.indexer = Indexer(config, name, stretched)
        elif kind == HEAVY:
            self.compressor = Compressor(config, name, config.heavy_ratio, 1, self.size, stretched)
        self.recent = Window(f"{name}.window", (self.window, self.size))
        self.ones = torch.ones(self.size, dtype=torch.float32, device="cpu")

    def pack(self) -> None:
        self.attn_sink = nn.Parameter(self.attn_sink.detach().float().contiguous(), requires_grad=False)

    def forward(self, x: Tensor, run: ServingRun) -> Tensor:
        q_latent = self.q_norm(self.wq_a(x), run)
        q = kernels.rms_norm(self.wq_b(q_latent), self.ones, self.q_norm.eps, zero_centred=False)  # each head's
        q = run.rope(q, self.heads, self.rope, start=self.start)
        kv = run.rope(self.kv_norm(self.wkv(x), run), 1, self.rope, start=self.start)
        entries = 0 if self.compressor is None else self.compressor.compress(x, run)
        out = kernels.entry_attention(
            q, kv, self.attn_sink, run.spans, run.layout.fixed_offsets[self.recent.name],
            window=self.window, scale=self.size**-0.5, entry_offset=entries,
            ratio=0 if self.compressor is None else self.compressor.ratio,
            chosen=None if self.indexer is None else self.indexer(x, q_latent, run),
        )  # fmt: skip
        # The values are keys, rotated to their positions: turned back by the query's, they say how far away they are.
        return self.wo_b(self.wo_a(run.rope(out, self.heads, self.rope, start=self.start, inverse=True)))


class MLP(Layer):
    """Clamped SwiGLU: `w2(silu(w1 x) * w3 x)`."""

    def __init__(self, hidden: int, intermediate: int, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.w1 = Linear(hidden, intermediate)
        self.w2 = Linear(intermediate, hidden)
        self.w3 = Linear(hidden, intermediate)
        self._gate_up = GateUp(self.w1, self.w3)

    def pack(self) -> None:
        self._gate_up.pack()

    def forward(self, x: Tensor, *, add: Tensor) -> Tensor:
        return self.w2(kernels.swiglu(self._gate_up(x), limit=self.limit), add=add)


class Router(Linear):
    """Weighs experts by `sqrt(softplus(w x))`; chooses by that and a bias, or, in hashed layers, by the token alone."""

    def __init__(self, config: DeepseekV4Config, layer: int) -> None:
        super().__init__(config.hidden_size, config.n_routed_experts)
        self.name = f"layers.{layer}.ffn.gate"
        self.experts, top_k = config.n_routed_experts, config.num_experts_per_tok
        self.routing = Routing(top_k, score="sqrtsoftplus", scale=config.routed_scaling_factor)
        self.bias: Tensor | None = None
        self.tid2eid: Tensor | None = None
        if layer < config.num_hidden_layers and config.mlp_layer_types[layer] == HASH:
            table = torch.empty(config.vocab_size, top_k, dtype=torch.int64)
            self.tid2eid = nn.Parameter(table, requires_grad=False)
        else:
            self.bias = nn.Parameter(torch.empty(self.experts))

    def pack(self) -> None:
        super().pack()
        if self.tid2eid is not None:
            low, high = int(self.tid2eid.min()), int(self.tid2eid.max())
            if low < 0 or high >= self.experts:
                wrong = low if low < 0 else high
                raise CheckpointError(f"tensor {self.name}.tid2eid names expert {wrong}; there are {self.experts}")
            self.tid2eid = nn.Parameter(self.tid2eid.detach().int(), requires_grad=False)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach().float().contiguous(), requires_grad=False)

    def initialise(self, generator: torch.Generator, std: float) -> None:
        assert self.weight is not None
        self.weight.normal_(0.0, std, generator=generator)
        if self.bias is not None:
            self.bias.zero_()
        if self.tid2eid is not None:
            tokens, top_k = self.tid2eid.shape
            self.tid2eid.copy_(torch.rand(tokens, self.experts, generator=generator).argsort(dim=1)[:, :top_k])

    def route(self, x: Tensor, run: ServingRun) -> tuple[Tensor, Tensor]:
        """The experts of each token and their weights, `[T, top_k]` each."""
        logits = self(x)
        if self.tid2eid is not None:
            chosen = self.tid2eid[run.tokens]
            return chosen, kernels.weigh_experts(logits, chosen, scale=self.routing.scale)
        assert self.bias is not None
        return run.route_by_score(logits, self.bias, self.routing)


class SparseMLP(Layer):
    """A few of many experts, and one that all tokens go through."""

    def __init__(self, config: DeepseekV4Config, layer: int) -> None:
        super().__init__()
        hidden, inner, limit = config.hidden_size, config.moe_intermediate_size, config.swiglu_limit
        self.gate = Router(config, layer)
        self.experts = Experts(config.n_routed_experts, hidden, inner, limit)
        self.shared_experts = MLP(hidden, inner, limit)

    def forward(self, x: Tensor, run: ServingRun) -> Tensor:
        return self.shared_experts(x, add=self.experts(x, *self.gate.route(x, run)))


class DecoderLayer(Layer):
    """Attention and experts, each between a collapse of the residual streams and their expansion."""

    def __init__(self, config: DeepseekV4Config, layer: int, plain: Rope, stretched: Rope) -> None:
        super().__init__()
        self.attn = Attention(config, layer, plain, stretched)
        self.ffn = SparseMLP(config, layer)
        self.attn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hc_attn = _hyper_connection(config)
        self.hc_ffn = _hyper_connection(config)

    def forward(self, streams: Tensor, run: ServingRun) -> Tensor:
        x, weights = self.hc_attn.collapse(streams)
        streams = self.hc_attn.expand(streams, self.attn(self.attn_norm(x, run), run), weights)
        x, weights = self.hc_ffn.collapse(streams)
        return self.hc_ffn.expand(streams, self.ffn(self.ffn_norm(x, run), run), weights)


class PredictAhead(Ahead):
    """A token's embedding and the residual streams before it, each normed and mapped, through one more layer, whose
    attention has a window alone; then a collapse and a norm of its own. The streams are what a further guess begins
    from.

    The published files may repeat the embedding and the output layer here; the model's own are used.
    """

    def __init__(self, config: DeepseekV4Config, rope: Rope) -> None:
        super().__init__(config.hc_mult * config.hidden_size)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.streams = config.hc_mult
        self.enorm, self.hnorm = RMSNorm(hidden, eps), RMSNorm(hidden, eps)
        self.e_proj, self.h_proj = Linear(hidden, hidden), Linear(hidden, hidden)
        self.block = DecoderLayer(config, config.num_hidden_layers, rope, rope)
        self.hc_head = _hyper_connection(config, head=True)
        self.norm = RMSNorm(hidden, eps)

    def forward(self, embedded: Tensor, before: Tensor, run: Run) -> Tensor:
        streams = self.hnorm(before.reshape(-1, embedded.shape[1]), run)  # each stream by its own rms
        token = self.e_proj(self.enorm(embedded, run)).repeat_interleave(self.streams, 0)
        return self.block(self.h_proj(streams, add=token).view(before.shape), run)

    def normed(self, x: Tensor, run: Run) -> Tensor:
        return self.norm(self.hc_head.collapse(x)[0], run)


class DeepseekV4(Decoder):
    """The model."""

    config_type: ClassVar[type[Config]] = DeepseekV4Config
    published = Published(
        names=(
            Names(
                "",
                head="head.",
                embed="embed.",
                others=(("hc_attn.", "hc_attn_"), ("hc_ffn.", "hc_ffn_"), ("hc_head.", "hc_head_")),
                ahead="mtp.0.",
            ),
        ),
        experts=("w1", "w3", "w2"),
        ahead="mtp.",
        wide=(".fn", ".base", ".scale", "norm.weight", "attn_sink", ".ape", "gate.bias"),
    )

    def __init__(self, config: DeepseekV4Config) -> None:
        plain = Rope.unscaled(config.qk_rope_head_dim, config.rope_theta, interleaved=True)
        if config.yarn is None:
            stretched = Rope.unscaled(config.qk_rope_head_dim, config.compress_rope_theta, interleaved=True)
        else:
            stretched = config.yarn.rope(config.qk_rope_head_dim, config.compress_rope_theta, interleaved=True)
        layers = (DecoderLayer(config, layer, plain, stretched) for layer in range(config.num_hidden_layers))
        super().__init__(config, layers)
        self.streams = config.hc_mult
        self.hc_head = _hyper_connection(config, head=True)
        self.rope = plain

    def make_ahead(self) -> Ahead:
        assert isinstance(self.config, DeepseekV4Config)
        return PredictAhead(self.config, self.rope)

    def seen_ahead(self, x: Tensor, run: Run) -> Tensor:
        """The residual streams as they are."""
        return x

    def hidden(self, run: Run) -> Tensor:
        """The residual streams after all layers, `[T, streams * hidden]`."""
        if not isinstance(run, ServingRun):
            raise RametError("DeepSeek V4 can be served, but not trained yet")
        streams = self.embed_tokens(run.tokens).repeat(1, self.streams)
        for layer in self.layers:
            streams = layer(streams, run)
        return streams

    def logits(self, x: Tensor, run: Run) -> Tensor:
        """The last collapse, norm and the output layer: `[T, streams * hidden] -> [T, vocab]`."""
        return super().logits(self.hc_head.collapse(x)[0], run)


def _hyper_connection(config: DeepseekV4Config, *, head: bool = False) -> HyperConnection:
    return HyperConnection(
        config.hc_mult, config.hidden_size, norm_eps=config.rms_norm_eps, eps=config.hc_eps,
        iterations=config.hc_sinkhorn_iters, head=head,
    )  # fmt: skip
