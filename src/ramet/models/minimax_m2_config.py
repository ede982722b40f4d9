"""MiniMax M2's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ramet.models.errors import CheckpointError
from ramet.models.fields import Fields


@dataclass(frozen=True)
class MiniMaxM2Config:
    """Sizes of a MiniMax M2 or M2.5, under the names of `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Of each expert."""
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rotary_dim: int
    """How many of a head's dimensions are rotated."""
    num_local_experts: int
    num_experts_per_tok: int
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 196608
    rope_theta: float = 5_000_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise CheckpointError(f"this MiniMax M2 config does not fit together: {problem}")

    def _problem(self) -> str | None:
        if self.num_attention_heads % self.num_key_value_heads:
            return (
                f"num_attention_heads {self.num_attention_heads} is no multiple of {self.num_key_value_heads} kv heads"
            )
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            return f"rotary_dim {self.rotary_dim} is no even part of head_dim {self.head_dim}"
        if self.num_experts_per_tok > self.num_local_experts:
            return f"num_experts_per_tok {self.num_experts_per_tok} is more than the {self.num_local_experts} experts"
        return None

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str, refused: list[str] | None = None) -> MiniMaxM2Config:
        """Read a parsed `config.json`; `source` names it in errors.

        Raises CheckpointError for sizes that are missing, of the wrong kind or contradictory, and for what the config
        could say but this implementation does not compute (linear attention, a softmax router, shared experts);
        the latter is put in `refused` instead, if that is a list.
        """
        fields = Fields(config, source, refused)
        for name, value in (
            ("hidden_act", "silu"),
            ("scoring_func", "sigmoid"),
            ("use_routing_bias", True),
            ("use_qk_norm", True),
            ("qk_norm_type", "per_layer"),
            ("shared_intermediate_size", 0),
        ):
            fields.must_be(name, value)
        if set(fields.words("attn_type_list")) - {"1"}:
            fields.refuse("attn_type_list", "only layers of type 1, softmax attention, are supported")
        if fields.get("sliding_window"):
            fields.refuse("sliding_window", "only full attention is supported")
        # Published configs have rope_theta and rotary_dim; those that transformers writes have rope_parameters.
        rope = fields.object("rope_parameters") if fields.get("rope_parameters") else fields
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if (scaling := fields.get("rope_scaling")) or kind != "default":
            fields.refuse("rope_scaling", f"{scaling or kind!r}; only 'default' is supported")
        head_dim = fields.integer("head_dim")
        share = rope.number("partial_rotary_factor", 1.0)
        try:
            return cls(
                vocab_size=fields.integer("vocab_size"),
                hidden_size=fields.integer("hidden_size"),
                intermediate_size=fields.integer("intermediate_size"),
                num_hidden_layers=fields.integer("num_hidden_layers"),
                num_attention_heads=fields.integer("num_attention_heads"),
                num_key_value_heads=fields.integer("num_key_value_heads"),
                head_dim=head_dim,
                rotary_dim=fields.integer("rotary_dim", int(head_dim * share)),
                num_local_experts=fields.integer("num_local_experts"),
                num_experts_per_tok=fields.integer("num_experts_per_tok"),
                tie_word_embeddings=fields.flag("tie_word_embeddings", False),
                max_position_embeddings=fields.integer("max_position_embeddings"),
                rope_theta=rope.number("rope_theta"),
                rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
                initializer_range=fields.number("initializer_range", 0.02),
            )
        except CheckpointError as error:
            raise CheckpointError(str(error).replace("this MiniMax M2 config", source, 1)) from None

    def to_json(self, dtype: str, *, nested: bool) -> dict[str, Any]:
        """A `config.json` in the published form; a MiniMax M2 is text alone, so `nested` makes no difference."""
        return {
            "architectures": ["MiniMaxM2ForCausalLM"],
            "model_type": "minimax_m2",
            "dtype": dtype,
            **vars(self),
            "hidden_act": "silu",
            "attn_type_list": [1] * self.num_hidden_layers,
            "scoring_func": "sigmoid",
            "use_routing_bias": True,
            "use_qk_norm": True,
            "qk_norm_type": "per_layer",
            "shared_intermediate_size": 0,
        }
