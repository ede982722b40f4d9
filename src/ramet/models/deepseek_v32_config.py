"""The `config.json` of DeepSeek V3.2 and of GLM-5: DeepSeek V3's, and an indexer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ramet.models.deepseek_v3_config import DeepseekV3Config, wrong_kinds
from ramet.models.fields import Fields

FULL, SHARED = "full", "shared"


@dataclass(frozen=True, kw_only=True)
class DeepseekV32Config(DeepseekV3Config):
    """Sizes of a DeepSeek V3.2, under the names of `config.json`."""

    model_type: ClassVar[str] = "deepseek_v32"
    architecture: ClassVar[str] = "DeepseekV32ForCausalLM"
    indexer_interleaved: ClassVar[bool] = False
    """How the indexer pairs the columns that it rotates; the attention's are interleaved."""

    index_n_heads: int
    index_head_dim: int
    index_topk: int
    """How many rows a token attends to."""
    indexer_types: tuple[str, ...] = ()
    """Per layer `full`, an indexer of its own, or `shared`, the choice of the last that had one; if empty, all full."""

    def __post_init__(self) -> None:
        if not self.indexer_types:
            object.__setattr__(self, "indexer_types", (FULL,) * self.num_hidden_layers)
        super().__post_init__()

    def _problem(self) -> str | None:
        if self.q_lora_rank is None:
            return "q_lora_rank is null; the indexer's queries are made from the low-rank ones"
        if self.index_head_dim < self.qk_rope_head_dim:
            return f"index_head_dim {self.index_head_dim} is less than the {self.qk_rope_head_dim} rotated columns"
        if problem := wrong_kinds("indexer_types", self.indexer_types, {FULL, SHARED}, self.num_hidden_layers):
            return problem
        if self.indexer_types[0] != FULL:
            return "indexer_types begins with 'shared'; there is no earlier layer whose choice it could share"
        return super()._problem()

    @classmethod
    def _read(cls, fields: Fields) -> dict[str, Any]:
        names = ("index_n_heads", "index_head_dim", "index_topk")
        return super()._read(fields) | {name: fields.integer(name) for name in names}

    def to_json(self, dtype: str, *, nested: bool) -> dict[str, Any]:
        written = super().to_json(dtype, nested=nested)
        del written["indexer_types"], written["rope_interleave"]
        return written


@dataclass(frozen=True, kw_only=True)
class GlmMoeDsaConfig(DeepseekV32Config):
    """Sizes of a GLM-5, under the names of `config.json`."""

    model_type: ClassVar[str] = "glm_moe_dsa"
    architecture: ClassVar[str] = "GlmMoeDsaForCausalLM"
    indexer_interleaved: ClassVar[bool] = True

    @classmethod
    def _read(cls, fields: Fields) -> dict[str, Any]:
        fields.must_be("indexer_rope_interleave", True)
        return super()._read(fields) | {"indexer_types": _indexer_types(fields)}

    def to_json(self, dtype: str, *, nested: bool) -> dict[str, Any]:
        written = super().to_json(dtype, nested=nested)
        del written["rope_theta"], written["rope_scaling"]
        yarn = {"rope_type": "yarn", **self.yarn.to_json()} if self.yarn else {"rope_type": "default"}
        rope = {"rope_theta": self.rope_theta, **yarn}
        return written | {"rope_parameters": rope, "indexer_types": list(self.indexer_types)}


def _indexer_types(fields: Fields) -> tuple[str, ...]:
    """The list itself, or a pattern of F and S, or every so many layers from an offset on."""
    if listed := fields.words("indexer_types"):
        return listed
    pattern = fields.get("index_topk_pattern")
    if kinds := pattern if isinstance(pattern, str) else fields.words("index_topk_pattern"):
        return tuple({"F": FULL, "S": SHARED}.get(kind, kind) for kind in kinds)
    every, offset = fields.integer("index_topk_freq", 1), fields.count("index_skip_topk_offset", 2)
    layers = range(fields.integer("num_hidden_layers"))
    return tuple(FULL if max(layer - offset + 1, 0) % every == 0 else SHARED for layer in layers)
