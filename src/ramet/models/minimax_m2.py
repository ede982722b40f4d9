"""MiniMax M2 and M2.5: grouped-query attention throughout, and many small experts behind a sigmoid router.

Modules and parameters carry the names of the published checkpoints below `model.`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ramet.models.decoder import Config, Decoder
from ramet.models.layers import Experts, Layer, Linear, RMSNorm
from ramet.models.minimax_m2_config import MiniMaxM2Config
from ramet.models.published import Names, Published
from ramet.models.rope import Rope
from ramet.models.run import AttentionHeads, Routing, Run
from ramet.models.states import PAGE_TOKENS, Rows


class Attention(Layer):
    """Grouped-query attention; queries and keys are normed over all heads together, then partly rotated."""

    def __init__(self, config: MiniMaxM2Config, layer: int, rope: Rope) -> None:
        super().__init__()
        self.rope = rope
        self.heads = AttentionHeads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        queries, key_values, dim = self.heads.queries, self.heads.key_values, self.heads.dim
        self.q_proj = Linear(config.hidden_size, queries * dim)
        self.k_proj = Linear(config.hidden_size, key_values * dim)
        self.v_proj = Linear(config.hidden_size, key_values * dim)
        self.o_proj = Linear(queries * dim, config.hidden_size)
        self.q_norm = RMSNorm(queries * dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(key_values * dim, config.rms_norm_eps)
        self.keys = Rows(f"layers.{layer}.keys", (key_values, dim, PAGE_TOKENS))
        self.values = Rows(f"layers.{layer}.values", (key_values, PAGE_TOKENS, dim))

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        q = run.rope(self.q_norm(self.q_proj(x), run), self.heads.queries, self.rope)
        k = run.rope(self.k_norm(self.k_proj(x), run), self.heads.key_values, self.rope)
        out = run.attention(q, k, self.v_proj(x), self.heads, self.keys.name, self.values.name)
        return self.o_proj(out, add=residual)


class SparseMLP(Layer):
    """The best few of many experts: a bias helps to choose them, their scores alone weigh them."""

    def __init__(self, config: MiniMaxM2Config) -> None:
        super().__init__()
        self.routing = Routing(config.num_experts_per_tok)
        self.gate = Linear(config.hidden_size, config.num_local_experts)
        self.experts = Experts(config.num_local_experts, config.hidden_size, config.intermediate_size)
        self.e_score_correction_bias = nn.Parameter(torch.empty(config.num_local_experts))

    def pack(self) -> None:
        bias = self.e_score_correction_bias.detach().float().contiguous()
        self.e_score_correction_bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        chosen, weights = run.route_by_score(self.gate(x), self.e_score_correction_bias, self.routing)
        return residual + self.experts(x, chosen, weights)


class DecoderLayer(Layer):
    """Attention and experts, each after a norm and added to the residual stream."""

    def __init__(self, config: MiniMaxM2Config, layer: int, rope: Rope) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer, rope)
        self.block_sparse_moe = SparseMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, run: Run) -> Tensor:
        x = self.self_attn(self.input_layernorm(x, run), x, run)
        return self.block_sparse_moe(self.post_attention_layernorm(x, run), x, run)


class MiniMaxM2(Decoder):
    """The model."""

    config_type: ClassVar[type[Config]] = MiniMaxM2Config
    published = Published(
        names=(Names("model."),),
        experts=("w1", "w3", "w2"),
        predicts_ahead=True,
        wide=("e_score_correction_bias",),
    )

    def __init__(self, config: MiniMaxM2Config) -> None:
        rope = Rope.unscaled(config.rotary_dim, config.rope_theta)
        super().__init__(config, (DecoderLayer(config, layer, rope) for layer in range(config.num_hidden_layers)))
