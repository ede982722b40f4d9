"""Qwen3.5, text, dense and mixture of experts: gated delta-rule layers, every fourth (by default) gated attention.

Modules and parameters carry the names of the published checkpoints below `model.language_model.`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ramet.models.decoder import Ahead, Config, Decoder
from ramet.models.layers import MLP, ConvWeight, Experts, Layer, Linear, RMSNorm
from ramet.models.published import Names, Published
from ramet.models.qwen3_5_config import FULL, MoEConfig, Qwen3_5Config
from ramet.models.rope import Rope
from ramet.models.run import AttentionHeads, DeltaHeads, Run
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, Window
from ramet.models.vision_qwen3_5 import Qwen3_5Vision


class GatedDeltaNet(Layer):
    """A recurrent layer: what a head has stored is a matrix that decays and is corrected by each token."""

    def __init__(self, config: Qwen3_5Config, layer: int) -> None:
        super().__init__()
        self.heads = DeltaHeads(
            config.linear_num_key_heads,
            config.linear_num_value_heads,
            config.linear_key_head_dim,
            config.linear_value_head_dim,
        )
        keys, values = self.heads.keys * self.heads.key_dim, self.heads.values * self.heads.value_dim
        self.in_proj_qkv = Linear(config.hidden_size, 2 * keys + values)
        self.in_proj_z = Linear(config.hidden_size, values)
        self.in_proj_b = Linear(config.hidden_size, self.heads.values)
        self.in_proj_a = Linear(config.hidden_size, self.heads.values)
        self.conv1d = ConvWeight(2 * keys + values, config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.empty(self.heads.values))
        self.dt_bias = nn.Parameter(torch.empty(self.heads.values))
        self.norm = RMSNorm(self.heads.value_dim, config.rms_norm_eps)
        self.out_proj = Linear(values, config.hidden_size)
        self.conv_state = Window(f"layers.{layer}.conv", (config.linear_conv_kernel_dim - 1, 2 * keys + values))
        self.delta_state = Recurrent(
            f"layers.{layer}.delta", (self.heads.values, self.heads.key_dim, self.heads.value_dim)
        )

    def pack(self) -> None:
        self.A_log = nn.Parameter(self.A_log.detach().float().contiguous(), requires_grad=False)
        self.dt_bias = nn.Parameter(self.dt_bias.detach().float().contiguous(), requires_grad=False)

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """Time steps, which are `softplus(dt_bias)`, log-uniform from 1 ms to 100 ms of decay."""
        self.A_log.copy_(torch.empty(self.A_log.shape).uniform_(1, 16, generator=generator).log_())
        step = torch.empty(self.dt_bias.shape)
        step.uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp_()
        self.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        qkv = run.causal_conv(self.in_proj_qkv(x), self.conv1d, self.conv_state.name)
        a, b = self.in_proj_a(x), self.in_proj_b(x)
        out = run.delta_rule(qkv, a, b, self.A_log, self.dt_bias, self.heads, self.delta_state.name)
        out = run.gated_rms_norm(out, self.in_proj_z(x), self.norm)
        return self.out_proj(out, add=residual)


class GatedAttention(Layer):
    """Grouped-query attention with normed queries and keys, a partial rotation, and a gate on each head's output."""

    def __init__(self, config: Qwen3_5Config, layer: int, rope: Rope) -> None:
        super().__init__()
        self.rope = rope
        self.heads = AttentionHeads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        queries, key_values, dim = self.heads.queries, self.heads.key_values, self.heads.dim
        self.q_proj = Linear(config.hidden_size, queries * 2 * dim)  # [query | gate] per head
        self.k_proj = Linear(config.hidden_size, key_values * dim)
        self.v_proj = Linear(config.hidden_size, key_values * dim)
        self.o_proj = Linear(queries * dim, config.hidden_size)
        self.q_norm = RMSNorm(dim, config.rms_norm_eps, zero_centred=True)
        self.k_norm = RMSNorm(dim, config.rms_norm_eps, zero_centred=True)
        self.keys = Rows(f"layers.{layer}.keys", (key_values, dim, PAGE_TOKENS))
        self.values = Rows(f"layers.{layer}.values", (key_values, PAGE_TOKENS, dim))

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        query_gate = self.q_proj(x)
        q = run.norm_rope(query_gate, self.q_norm, self.heads.queries, self.rope)
        k = run.norm_rope(self.k_proj(x), self.k_norm, self.heads.key_values, self.rope)
        out = run.attention(q, k, self.v_proj(x), self.heads, self.keys.name, self.values.name)
        return self.o_proj(run.sigmoid_gate(out, query_gate, self.heads.queries), add=residual)


class SparseMLP(Layer):
    """The best few of many experts by a softmax router, and one shared expert behind a gate."""

    def __init__(self, hidden: int, config: MoEConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.gate = Linear(hidden, config.num_experts)
        self.experts = Experts(config.num_experts, hidden, config.moe_intermediate_size)
        self.shared_expert = MLP(hidden, config.shared_expert_intermediate_size)
        self.shared_expert_gate = Linear(hidden, 1)

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        chosen, weights = run.route(self.gate(x), self.top_k)
        routed = residual + self.experts(x, chosen, weights)
        return run.add_gated(routed, self.shared_expert(x, None, run), self.shared_expert_gate(x))


class DecoderLayer(Layer):
    """A mixer over the session and an MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: Qwen3_5Config, layer: int, rope: Rope) -> None:
        super().__init__()
        self.full = (
            layer == config.num_hidden_layers or config.layer_types[layer] == FULL
        )  # beyond them: `PredictAhead`
        if self.full:
            self.self_attn = GatedAttention(config, layer, rope)
        else:
            self.linear_attn = GatedDeltaNet(config, layer)
        self.mlp = (
            SparseMLP(config.hidden_size, config.moe)
            if config.moe
            else MLP(config.hidden_size, config.intermediate_size)
        )
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, zero_centred=True)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, zero_centred=True)

    def forward(self, x: Tensor, run: Run) -> Tensor:
        mixer = self.self_attn if self.full else self.linear_attn
        x = mixer(self.input_layernorm(x, run), x, run)
        return self.mlp(self.post_attention_layernorm(x, run), x, run)


class PredictAhead(Ahead):
    """A token's embedding and what is before it, each normed, as one through a layer of attention."""

    def __init__(self, config: Qwen3_5Config, rope: Rope) -> None:
        super().__init__(config.hidden_size)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.pre_fc_norm_embedding = RMSNorm(hidden, eps, zero_centred=True)
        self.pre_fc_norm_hidden = RMSNorm(hidden, eps, zero_centred=True)
        self.fc = Linear(2 * hidden, hidden)
        self.layers = nn.ModuleList([DecoderLayer(config, config.num_hidden_layers, rope)])
        self.norm = RMSNorm(hidden, eps, zero_centred=True)

    def forward(self, embedded: Tensor, before: Tensor, run: Run) -> Tensor:
        x = torch.cat([self.pre_fc_norm_embedding(embedded, run), self.pre_fc_norm_hidden(before, run)], -1)
        return self.norm(self.layers[0](self.fc(x), run), run)

    def normed(self, x: Tensor, run: Run) -> Tensor:
        return x


class Qwen3_5(Decoder):
    """The model."""

    config_type: ClassVar[type[Config]] = Qwen3_5Config
    published = Published(
        names=(Names("model.language_model.", ahead="mtp."), Names("model.", ahead="mtp.")),
        fused_experts=True,
        ahead="mtp.",
        tower=("model.visual.", "visual."),
        wide=("A_log", "dt_bias", "linear_attn.norm.weight"),
    )

    def __init__(self, config: Qwen3_5Config) -> None:
        rope = replace(
            Rope.unscaled(config.rotary_dim, config.rope_theta),
            axes=mrope_axes(config.rotary_dim // 2, config.mrope_section),
        )
        layers = (DecoderLayer(config, layer, rope) for layer in range(config.num_hidden_layers))
        super().__init__(config, layers, zero_centred_norm=True)
        self.rope = rope
        if config.vision is not None:
            self.visual = Qwen3_5Vision(config.vision)

    def make_ahead(self) -> Ahead:
        assert isinstance(self.config, Qwen3_5Config)
        return PredictAhead(self.config, self.rope)


def mrope_axes(frequencies: int, section: tuple[int, ...]) -> Tensor:
    """Which axis each frequency goes by, int64: height and width take every third, time what is left.

    `section` are the numbers for time, height and width.
    """
    axes = torch.zeros(frequencies, dtype=torch.int64, device="cpu")
    for axis in (1, 2):
        axes[axis : 3 * section[axis] : 3] = axis
    return axes
