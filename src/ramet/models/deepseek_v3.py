"""DeepSeek V3 and Kimi K2.5's text model: multi-head latent attention, and experts behind a router with groups.

Of each token a layer keeps one latent and one rotated key for all heads. Attention runs in latent space: a head's
queries are taken there by the matrix that would have made its keys from latents, and the result comes back by the one
that would have made its values. Modules and parameters carry the names of the published checkpoints.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from torch import Tensor, nn

from ramet import kernels
from ramet.models.decoder import Ahead, Config, Decoder
from ramet.models.deepseek_v3_config import SPARSE, DeepseekV3Config, KimiK25Config
from ramet.models.layers import MLP, Experts, Layer, Linear, RMSNorm
from ramet.models.published import Names, Published
from ramet.models.rope import Rope
from ramet.models.run import LatentHeads, Routing, Run
from ramet.models.states import PAGE_TOKENS, Rows
from ramet.models.vision_kimi import KimiVision

LATENT_EPS = 1e-6
"""Of the norms inside the attention, whatever `rms_norm_eps` is."""


class KeyValueUp(Layer):
    """Each head's keys and values from a latent, `[keys | values]` per head; run from the other side."""

    def __init__(self, heads: int, keys: int, values: int, latent: int) -> None:
        super().__init__()
        self.heads, self.sizes = heads, [keys, values]
        self.weight: Tensor | None = nn.Parameter(torch.empty(heads * (keys + values), latent))
        self.coded: kernels.CodedMatrix | None = None
        self.packed: tuple[kernels.PackedHeads | kernels.CodedHeads, ...] | None = None

    def pack(self) -> None:
        if self.coded is not None:
            (keys_size, values_size), matrix = self.sizes, self.coded
            self.packed = (
                kernels.CodedHeads(matrix, self.heads, 0, keys_size, transposed=True),
                kernels.CodedHeads(matrix, self.heads, keys_size, values_size),
            )
            self.coded = None
            return
        keys, values = self._by_head()
        self.packed, self.weight = (kernels.PackedHeads(keys.mT), kernels.PackedHeads(values)), None

    def queries(self, q: Tensor) -> Tensor:
        """The first columns of each head's query, into latent space: `[..., heads * S] -> [..., heads * latent]`."""
        if self.packed is not None:
            return self.packed[0](q)
        q = q.reshape(*q.shape[:-1], self.heads, -1)[..., : self.sizes[0]]
        return torch.einsum("...hk,hkc->...hc", q, self._by_head()[0]).flatten(-2)

    def values(self, out: Tensor) -> Tensor:
        """Each head's sum of latents, out of latent space: `[..., heads * latent] -> [..., heads * values]`."""
        if self.packed is not None:
            return self.packed[1](out)
        out = out.reshape(*out.shape[:-1], self.heads, -1)
        return torch.einsum("...hc,hvc->...hv", out, self._by_head()[1]).flatten(-2)

    def _by_head(self) -> tuple[Tensor, Tensor]:
        assert self.weight is not None
        weight = self.weight.view(self.heads, sum(self.sizes), -1)
        keys, values = torch.split(weight, self.sizes, dim=1)
        return keys, values


class LatentAttention(Layer):
    """Multi-head latent attention; with an indexer, or after one, only over the rows that it chose."""

    def __init__(self, config: DeepseekV3Config, layer: int, rope: Rope, indexer: Layer | None = None) -> None:
        super().__init__()
        heads, latent, hidden = config.num_attention_heads, config.kv_lora_rank, config.hidden_size
        nope, rotary, values = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.rope, self.nope = rope, nope
        self.heads = LatentHeads(heads, latent, rotary, config.scale)
        self.q_lora_rank = config.q_lora_rank
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, heads * (nope + rotary))
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_EPS)
            self.q_b_proj = Linear(config.q_lora_rank, heads * (nope + rotary))
        self.kv_a_proj_with_mqa = Linear(hidden, latent + rotary)
        self.kv_a_layernorm = RMSNorm(latent, LATENT_EPS)
        self.kv_b_proj = KeyValueUp(heads, nope, values, latent)
        self.o_proj = Linear(heads * values, hidden)
        self.indexer = indexer
        self.rows = Rows(f"layers.{layer}.latents", (PAGE_TOKENS, latent + rotary))

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        if self.q_lora_rank is None:
            q = self.q_proj(x)
        else:
            low_rank = self.q_a_layernorm(self.q_a_proj(x), run)
            q = self.q_b_proj(low_rank)
            if self.indexer is not None:
                run.chosen = self.indexer(x, low_rank, run)
        q = run.rope(q, self.heads.count, self.rope, start=self.nope)
        latent, rope_key = torch.split(self.kv_a_proj_with_mqa(x), [self.heads.latent, self.heads.rotary], dim=-1)
        latent, rope_key = self.kv_a_layernorm(latent, run), run.rope(rope_key, 1, self.rope)
        out = run.latent_attention(self.kv_b_proj.queries(q), q, latent, rope_key, self.heads, self.rows.name)
        return self.o_proj(self.kv_b_proj.values(out), add=residual)


class Router(Linear):
    """Scores of the experts, and a bias that helps to choose them."""

    def __init__(self, hidden: int, experts: int) -> None:
        super().__init__(hidden, experts)
        self.e_score_correction_bias = nn.Parameter(torch.empty(experts))

    def pack(self) -> None:
        super().pack()
        bias = self.e_score_correction_bias.detach().float().contiguous()
        self.e_score_correction_bias = nn.Parameter(bias, requires_grad=False)


class SparseMLP(Layer):
    """The best few of many experts, from the best groups, and shared ones that every token passes."""

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        self.routing = Routing(
            config.num_experts_per_tok,
            groups=config.n_group,
            groups_kept=config.topk_group,
            normalise=config.norm_topk_prob,
            scale=config.routed_scaling_factor,
        )
        self.gate = Router(config.hidden_size, config.n_routed_experts)
        self.experts = Experts(config.n_routed_experts, config.hidden_size, config.moe_intermediate_size)
        self.shared_experts = MLP(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)

    def forward(self, x: Tensor, residual: Tensor, run: Run) -> Tensor:
        chosen, weights = run.route_by_score(self.gate(x), self.gate.e_score_correction_bias, self.routing)
        return self.shared_experts(x, residual + self.experts(x, chosen, weights), run)


class DecoderLayer(Layer):
    """Attention and an MLP, each after a norm and added to the residual stream."""

    def __init__(self, config: DeepseekV3Config, layer: int, rope: Rope, indexer: Layer | None = None) -> None:
        super().__init__()
        self.self_attn = LatentAttention(config, layer, rope, indexer)
        # beyond the last layer: `PredictAhead`
        sparse = layer == config.num_hidden_layers or config.mlp_layer_types[layer] == SPARSE
        self.mlp = SparseMLP(config) if sparse else MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, run: Run) -> Tensor:
        x = self.self_attn(self.input_layernorm(x, run), x, run)
        return self.mlp(self.post_attention_layernorm(x, run), x, run)


class PredictAhead(Ahead):
    """A token's embedding and what is before it, each normed, as one through one more layer; a last norm of its own.

    The published files repeat the embedding and the output layer here; the model's own are used.
    """

    def __init__(self, config: DeepseekV3Config, rope: Rope, indexer: Layer | None) -> None:
        super().__init__(config.hidden_size)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.enorm, self.hnorm = RMSNorm(hidden, eps), RMSNorm(hidden, eps)
        self.eh_proj = Linear(2 * hidden, hidden)
        self.block = DecoderLayer(config, config.num_hidden_layers, rope, indexer)
        self.shared_head = nn.ModuleDict({"norm": RMSNorm(hidden, eps)})

    def forward(self, embedded: Tensor, before: Tensor, run: Run) -> Tensor:
        x = torch.cat([self.enorm(embedded, run), self.hnorm(before, run)], -1)
        return self.block(self.eh_proj(x), run)

    def normed(self, x: Tensor, run: Run) -> Tensor:
        normed: Tensor = self.shared_head["norm"](x, run)
        return normed


@functools.cache  # layers that share it share its table of a step
def rope_of(config: DeepseekV3Config, *, interleaved: bool) -> Rope:
    """The rotation of a layer's rotated columns."""
    rotary, theta = config.qk_rope_head_dim, config.rope_theta
    if config.yarn is None:
        return Rope.unscaled(rotary, theta, interleaved=interleaved)
    return config.yarn.rope(rotary, theta, interleaved=interleaved)


class DeepseekV3(Decoder):
    """The model."""

    config_type: ClassVar[type[Config]] = DeepseekV3Config
    published: ClassVar[Published] = Published(
        names=(Names("model.", ahead="model.layers.{layers}."),),
        predicts_ahead=True,
        wide=("e_score_correction_bias",),
    )

    def __init__(self, config: DeepseekV3Config) -> None:
        self.rope = rope = rope_of(config, interleaved=config.rope_interleave)
        layers = (DecoderLayer(config, i, rope, self.indexer(config, i)) for i in range(config.num_hidden_layers))
        super().__init__(config, layers)

    @staticmethod
    def indexer(config: DeepseekV3Config, layer: int) -> Layer | None:
        """What chooses rows in a layer (`num_hidden_layers`: the part that predicts ahead), if anything does."""
        return None

    def make_ahead(self) -> Ahead:
        config = self.config
        assert isinstance(config, DeepseekV3Config)
        return PredictAhead(config, self.rope, self.indexer(config, config.num_hidden_layers))


class KimiK25(DeepseekV3):
    """A Kimi K2.5: a DeepSeek V3 with a vision tower."""

    config_type: ClassVar[type[Config]] = KimiK25Config
    published: ClassVar[Published] = Published(
        names=(
            Names(
                "language_model.model.",
                "language_model.lm_head.",
                visual="",
                ahead="language_model.model.layers.{layers}.",
            ),
            Names("model.", ahead="model.layers.{layers}."),
        ),
        tower=("vision_tower.", "mm_projector."),
        predicts_ahead=True,
        wide=("e_score_correction_bias",),
    )

    def __init__(self, config: KimiK25Config) -> None:
        super().__init__(config)
        if config.vision is not None:
            self.visual = KimiVision(config.vision)
