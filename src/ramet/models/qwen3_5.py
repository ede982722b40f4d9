"""Qwen3.5, text, dense and mixture of experts: gated delta-rule layers, every fourth (by default) gated attention.

The layers are written once. `train_forward` runs them differentiably over packed rows; `forward`, after `pack()`, runs
them over the spans of a step on the compiled ops. All modules and parameters carry the names of the published
checkpoints below `model.language_model.`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ramet.models.errors import ContextLengthError
from ramet.models.layers import ConvWeight, Embedding, Experts, GateUp, Layer, Linear, Vector
from ramet.models.qwen3_5_config import FULL, MoEConfig, Qwen3_5Config
from ramet.models.run import AttentionHeads, DeltaHeads, Run, ServingRun, TrainingRun, last_rows
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, Span, StateLayout, Window


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
        self.eps = config.rms_norm_eps
        self.in_proj_qkv = Linear(config.hidden_size, 2 * keys + values)
        self.in_proj_z = Linear(config.hidden_size, values)
        self.in_proj_b = Linear(config.hidden_size, self.heads.values)
        self.in_proj_a = Linear(config.hidden_size, self.heads.values)
        self.conv1d = ConvWeight(2 * keys + values, config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.empty(self.heads.values))
        self.dt_bias = nn.Parameter(torch.empty(self.heads.values))
        self.norm = Vector(self.heads.value_dim)
        self.out_proj = Linear(values, config.hidden_size)
        self.conv_state = Window(f"layers.{layer}.conv", (config.linear_conv_kernel_dim - 1, 2 * keys + values))
        self.delta_state = Recurrent(
            f"layers.{layer}.delta", (self.heads.values, self.heads.key_dim, self.heads.value_dim)
        )

    def pack(self) -> None:
        self.A_log = nn.Parameter(self.A_log.detach().float().contiguous(), requires_grad=False)
        self.dt_bias = nn.Parameter(self.dt_bias.detach().float().contiguous(), requires_grad=False)

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        qkv = run.causal_conv(self.in_proj_qkv(x), self.conv1d, self.conv_state.name)
        a, b = self.in_proj_a(x), self.in_proj_b(x)
        out = run.delta_rule(qkv, a, b, self.A_log, self.dt_bias, self.heads, self.delta_state.name)
        out = run.gated_rms_norm(out, self.in_proj_z(x), self.norm.weight, self.eps)
        return self.out_proj(out, add=residual)


class GatedAttention(Layer):
    """Grouped-query attention with normed queries and keys, a partial rotation, and a gate on each head's output."""

    def __init__(self, config: Qwen3_5Config, layer: int) -> None:
        super().__init__()
        self.heads = AttentionHeads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        queries, key_values, dim = self.heads.queries, self.heads.key_values, self.heads.dim
        self.eps = config.rms_norm_eps
        self.q_proj = Linear(config.hidden_size, queries * 2 * dim)  # [query | gate] per head
        self.k_proj = Linear(config.hidden_size, key_values * dim)
        self.v_proj = Linear(config.hidden_size, key_values * dim)
        self.o_proj = Linear(queries * dim, config.hidden_size)
        self.q_norm = Vector(dim)
        self.k_norm = Vector(dim)
        self.keys = Rows(f"layers.{layer}.keys", (key_values, dim, PAGE_TOKENS))
        self.values = Rows(f"layers.{layer}.values", (key_values, PAGE_TOKENS, dim))

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        query_gate = self.q_proj(x)
        q = run.norm_rope(query_gate, self.q_norm.weight, self.eps, self.heads.queries)
        k = run.norm_rope(self.k_proj(x), self.k_norm.weight, self.eps, self.heads.key_values)
        out = run.attention(q, k, self.v_proj(x), self.heads, self.keys.name, self.values.name)
        return self.o_proj(run.sigmoid_gate(out, query_gate, self.heads.queries), add=residual)


class MLP(Layer):
    """SwiGLU."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, intermediate)
        self.up_proj = Linear(hidden, intermediate)
        self.down_proj = Linear(intermediate, hidden)
        self._gate_up = GateUp(self.gate_proj, self.up_proj)

    def pack(self) -> None:
        self._gate_up.pack()

    def forward(self, x: Tensor, residual: Tensor | None, run: Run) -> Tensor:
        return self.down_proj(run.swiglu(self._gate_up(x)), add=residual)


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

    def __init__(self, config: Qwen3_5Config, layer: int) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.full = config.layer_types[layer] == FULL
        if self.full:
            self.self_attn = GatedAttention(config, layer)
        else:
            self.linear_attn = GatedDeltaNet(config, layer)
        self.mlp = (
            SparseMLP(config.hidden_size, config.moe)
            if config.moe
            else MLP(config.hidden_size, config.intermediate_size)
        )
        self.input_layernorm = Vector(config.hidden_size)
        self.post_attention_layernorm = Vector(config.hidden_size)

    def forward(self, x: Tensor, run: Run) -> Tensor:
        mixer = self.self_attn if self.full else self.linear_attn
        x = mixer(run.rms_norm(x, self.input_layernorm.weight, self.eps), x, run)
        return self.mlp(run.rms_norm(x, self.post_attention_layernorm.weight, self.eps), x, run)


class Qwen3_5(nn.Module):
    """The model. Fresh ones have uninitialised weights: `initialise` them, or load a checkpoint.

    To serve it, `pack()` it and set `fingerprint`, which `models.load` does. A packed model cannot be trained.
    """

    def __init__(self, config: Qwen3_5Config) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.context_length = config.max_position_embeddings
        self.fingerprint = ""
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, tied=config.tie_word_embeddings)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = Vector(config.hidden_size)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size)
        rotary = config.rotary_dim
        self.inv_freq = 1.0 / config.rope_theta ** (
            torch.arange(0, rotary, 2, dtype=torch.float32, device="cpu") / rotary
        )
        attention = [module for module in self.modules() if isinstance(module, GatedAttention)]
        delta = [module for module in self.modules() if isinstance(module, GatedDeltaNet)]
        self.layout = StateLayout(
            rows=tuple(rows for module in attention for rows in (module.keys, module.values)),
            fixed=tuple(state for module in delta for state in (module.conv_state, module.delta_state)),
        )

    def hidden(self, x: Tensor, run: Run) -> Tensor:
        """Embedded tokens through all layers, before the last norm."""
        for layer in self.layers:
            x = layer(x, run)
        return x

    def logits(self, x: Tensor, run: Run) -> Tensor:
        """The last norm and the output layer: `[..., hidden] -> [..., vocab]`."""
        x = run.rms_norm(x, self.norm.weight, self.config.rms_norm_eps)
        return self.embed_tokens.logits(x) if self.lm_head is None else self.lm_head(x)

    def train_forward(
        self, tokens: Tensor, segments: Tensor | None, positions: Tensor, *, at: Tensor | None = None
    ) -> Tensor:
        """Logits `[B, L, vocab]` with gradients, on whatever device the parameters are.

        `tokens`, `segments` and `positions` are int64 `[B, L]`; `segments` tells the documents packed into a row apart
        (None: one per row), `positions` count within each. `at`, bool `[B, L]`, chooses the places whose logits are
        wanted: `[at.sum(), vocab]`.
        """
        run = TrainingRun(segments, positions, self.inv_freq)
        x = self.hidden(self.embed_tokens(tokens), run)
        return self.logits(x if at is None else x[at], run)

    @torch.no_grad()
    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Run the spans one step on: see `models.base.Model.forward`. The model must be packed.

        Raises ContextLengthError, before anything is written, if a span goes past `context_length`.
        """
        for span in spans:
            self._check(span)
        run = ServingRun(spans, self.layout, self.inv_freq)
        x = self.hidden(self.embed_tokens(torch.cat([span.tokens for span in spans])), run)
        return self.logits(x[last_rows(spans)], run)

    def _check(self, span: Span) -> None:
        count = span.tokens.numel()
        end = span.position + count
        if count == 0 or span.position < 0 or not 0 <= span.logits <= count:
            raise ValueError(f"a span of {count} tokens at position {span.position} with {span.logits} logits")
        if end > self.context_length:
            raise ContextLengthError(
                f"the session would be {end} tokens long, but this model goes no further than {self.context_length}; "
                "start a new session or shorten the prompt"
            )
        low, high = int(span.tokens.min()), int(span.tokens.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"token {low if low < 0 else high} is not in the vocabulary of {self.vocab_size}")

    def pack(self) -> Qwen3_5:
        """Bring every weight into the compiled ops' form, for serving, module by module, freeing the parameters.

        Rows take the precision of the embedding, which is the checkpoint's.
        """
        assert self.embed_tokens.weight is not None
        self.layout = replace(self.layout, row_dtype=self.embed_tokens.weight.dtype)
        for module in self.modules():
            if isinstance(module, MLP):  # first, as it packs two of its children as one
                module.pack()
        for module in self.modules():
            if isinstance(module, GatedDeltaNet | Linear | Embedding | Vector | ConvWeight | Experts):
                module.pack()
        return self

    @torch.no_grad()
    def initialise(self, seed: int) -> Qwen3_5:
        """Weights to train from: normal matrices, identity norms, time steps from 1 ms to 100 ms of decay."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            kind = name.rsplit(".", 1)[-1]
            fresh = torch.empty(weight.shape)
            if kind == "A_log":
                fresh.uniform_(1, 16, generator=generator).log_()
            elif kind == "dt_bias":  # softplus(dt_bias) is log-uniform from 0.001 to 0.1
                step = fresh.uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp_()
                fresh = step + torch.log(-torch.expm1(-step))
            elif "conv1d" in name:
                bound = weight.shape[-1] ** -0.5
                fresh.uniform_(-bound, bound, generator=generator)
            elif weight.dim() == 1:
                fresh.fill_(1.0 if name.endswith("linear_attn.norm.weight") else 0.0)
            else:
                fresh.normal_(0.0, self.config.initializer_range, generator=generator)
            weight.copy_(fresh)
        return self
