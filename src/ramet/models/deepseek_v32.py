"""DeepSeek V3.2 and GLM-5: DeepSeek V3 whose attention is sparse (DSA).

A small indexer scores the rows before a token, and the token attends to the best `index_topk` of them. The two differ
in how the indexer rotates, and some layers of a GLM-5 share the choice of the last layer that has an indexer.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ramet.models.decoder import Config
from ramet.models.deepseek_v3 import LATENT_EPS, DeepseekV3, rope_of
from ramet.models.deepseek_v3_config import DeepseekV3Config
from ramet.models.deepseek_v32_config import FULL, DeepseekV32Config, GlmMoeDsaConfig
from ramet.models.layers import Layer, LayerNorm, Linear
from ramet.models.rope import Rope
from ramet.models.run import IndexHeads, Run
from ramet.models.states import PAGE_TOKENS, Rows


class Indexer(Layer):
    """Row s scores `sum over heads of weight_h * max(0, q_h . k_s)` for a token, with weights of the token."""

    def __init__(self, config: DeepseekV32Config, layer: int, rope: Rope) -> None:
        super().__init__()
        assert config.q_lora_rank is not None
        heads, dim = config.index_n_heads, config.index_head_dim
        self.rope = rope
        self.heads = IndexHeads(heads, dim, config.index_topk)
        self.scale = heads**-0.5 * dim**-0.5
        self.wq_b = Linear(config.q_lora_rank, heads * dim)
        self.wk = Linear(config.hidden_size, dim)
        self.k_norm = LayerNorm(dim, LATENT_EPS)
        self.weights_proj = Linear(config.hidden_size, heads)
        self.keys = Rows(f"layers.{layer}.index_keys", (dim, PAGE_TOKENS))

    def forward(self, x: Tensor, low_rank: Tensor, run: Run) -> Tensor:
        q = run.rope(self.wq_b(low_rank), self.heads.count, self.rope)
        k = run.rope(self.k_norm(self.wk(x), run), 1, self.rope)
        return run.index_rows(q, k, self.weights_proj(x) * self.scale, self.heads, self.keys.name)


class DeepseekV32(DeepseekV3):
    """The model."""

    config_type: ClassVar[type[Config]] = DeepseekV32Config

    @staticmethod
    def indexer(config: DeepseekV3Config, layer: int) -> Layer | None:
        assert isinstance(config, DeepseekV32Config)
        if layer < config.num_hidden_layers and config.indexer_types[layer] != FULL:
            return None
        return Indexer(config, layer, rope_of(config, interleaved=config.indexer_interleaved))


class GlmMoeDsa(DeepseekV32):
    """A GLM-5."""

    config_type: ClassVar[type[Config]] = GlmMoeDsaConfig
