"""Qwen3.5's `config.json`; what it says of the vision tower is read in `vision_qwen3_5.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ramet.models.errors import CheckpointError
from ramet.models.fields import Fields
from ramet.models.vision_qwen3_5 import Qwen3_5VisionConfig

LINEAR, FULL = "linear_attention", "full_attention"


@dataclass(frozen=True)
class MoEConfig:
    """The mixture of experts in place of each layer's MLP."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int


@dataclass(frozen=True)
class Qwen3_5Config:
    """Sizes of a Qwen3.5, under the names of `config.json`. `moe` is None for dense ones, `vision` for text alone."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    intermediate_size: int = 0
    moe: MoEConfig | None = None
    linear_conv_kernel_dim: int = 4
    layer_types: tuple[str, ...] = ()
    """`linear_attention` or `full_attention` per layer; if empty, every fourth layer is full."""
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 262144
    rope_theta: float = 10_000_000.0
    partial_rotary_factor: float = 0.25
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    mrope_section: tuple[int, ...] = ()
    """How many frequencies go by time, height and width; if empty, a third each."""
    vision: Qwen3_5VisionConfig | None = None

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", _every(4, self.num_hidden_layers))
        if not self.mrope_section:
            object.__setattr__(self, "mrope_section", tuple(_mrope_section(self.rotary_dim // 2)))
        problem = self._problem()
        if problem:
            raise CheckpointError(f"this Qwen3.5 config does not fit together: {problem}")

    def _problem(self) -> str | None:
        if len(self.layer_types) != self.num_hidden_layers:
            return f"layer_types has {len(self.layer_types)} entries, num_hidden_layers is {self.num_hidden_layers}"
        if unknown := set(self.layer_types) - {LINEAR, FULL}:
            return f"layer_types has {sorted(unknown)}; known are {LINEAR!r} and {FULL!r}"
        if self.num_attention_heads % self.num_key_value_heads:
            return (
                f"num_attention_heads {self.num_attention_heads} is no multiple of {self.num_key_value_heads} kv heads"
            )
        if self.linear_num_value_heads % self.linear_num_key_heads:
            return f"linear_num_value_heads {self.linear_num_value_heads} is no multiple of {self.linear_num_key_heads}"
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            return f"partial_rotary_factor {self.partial_rotary_factor} of head_dim {self.head_dim} is no even size"
        if len(self.mrope_section) != 3:
            return f"mrope_section {list(self.mrope_section)} is not for time, height and width"
        if self.vision and self.vision.out_hidden_size != self.hidden_size:
            return f"the vision tower's out_hidden_size {self.vision.out_hidden_size} is not {self.hidden_size}"
        if self.moe and self.moe.num_experts_per_tok > self.moe.num_experts:
            return f"num_experts_per_tok {self.moe.num_experts_per_tok} is more than num_experts {self.moe.num_experts}"
        if not self.moe and self.intermediate_size < 1:
            return "intermediate_size is missing"
        return None

    @property
    def rotary_dim(self) -> int:
        """How many of a head's dimensions are rotated."""
        return int(self.head_dim * self.partial_rotary_factor)

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str, refused: list[str] | None = None) -> Qwen3_5Config:
        """Read a parsed `config.json`, nested (`text_config`) or flat; `source` names it in errors.

        Raises CheckpointError for sizes that are missing, of the wrong kind or contradictory, and for what the family
        could say but this implementation does not compute (biases, other activations, scaled rotary embeddings);
        the latter is put in `refused` instead, if that is a list.
        """
        outer = Fields(config, source, refused)
        text = outer.object("text_config") if "text_config" in config else outer
        for name, value in (("hidden_act", "silu"), ("attention_bias", False), ("attn_output_gate", True)):
            text.must_be(name, value)
        if text.get("mlp_only_layers"):
            text.refuse("mlp_only_layers", "no layer of Qwen3.5 is an exception")
        # Newer configs keep the rotary embedding's fields in rope_parameters, older ones beside the sizes.
        rope = text.object("rope_parameters") if text.get("rope_parameters") else text
        if rope is not text and (kind := _scaled(rope.values)) != "default":
            rope.refuse("rope_type", f"{kind!r}; only 'default' is supported")
        if text.get("rope_scaling") and _scaled(text.object("rope_scaling").values) != "default":
            text.refuse("rope_scaling", "only unscaled rotary embeddings are supported")
        layers = text.integer("num_hidden_layers")
        kinds = text.words("layer_types") or _every(text.integer("full_attention_interval", 4), layers)
        moe = None
        if text.get("num_experts"):
            moe = MoEConfig(
                num_experts=text.integer("num_experts"),
                num_experts_per_tok=text.integer("num_experts_per_tok"),
                moe_intermediate_size=text.integer("moe_intermediate_size"),
                shared_expert_intermediate_size=text.integer("shared_expert_intermediate_size"),
            )
        try:
            return cls(
                vocab_size=text.integer("vocab_size"),
                hidden_size=text.integer("hidden_size"),
                num_hidden_layers=layers,
                num_attention_heads=text.integer("num_attention_heads"),
                num_key_value_heads=text.integer("num_key_value_heads"),
                head_dim=text.integer("head_dim"),
                linear_num_key_heads=text.integer("linear_num_key_heads"),
                linear_num_value_heads=text.integer("linear_num_value_heads"),
                linear_key_head_dim=text.integer("linear_key_head_dim"),
                linear_value_head_dim=text.integer("linear_value_head_dim"),
                intermediate_size=0 if moe else text.integer("intermediate_size"),
                moe=moe,
                linear_conv_kernel_dim=text.integer("linear_conv_kernel_dim", 4),
                layer_types=kinds,
                tie_word_embeddings=outer.flag("tie_word_embeddings", text.flag("tie_word_embeddings", False)),
                max_position_embeddings=text.integer("max_position_embeddings"),
                rope_theta=rope.number("rope_theta"),
                partial_rotary_factor=rope.number("partial_rotary_factor", 0.25),
                rms_norm_eps=text.number("rms_norm_eps", 1e-6),
                initializer_range=text.number("initializer_range", 0.02),
                mrope_section=_listed_section(text, rope),
                vision=Qwen3_5VisionConfig.from_json(outer) if outer.get("vision_config") else None,
            )
        except CheckpointError as error:
            raise CheckpointError(str(error).replace("this Qwen3.5 config", source, 1)) from None

    def to_json(self, dtype: str, *, nested: bool = True) -> dict[str, Any]:
        """A `config.json` in the published form: `text_config` inside, or (not nested) the text model alone."""
        family = "qwen3_5_moe" if self.moe else "qwen3_5"
        classes = "Qwen3_5Moe" if self.moe else "Qwen3_5"
        text: dict[str, Any] = {
            "model_type": f"{family}_text",
            "dtype": dtype,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "layer_types": list(self.layer_types),
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "attn_output_gate": True,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "linear_num_key_heads": self.linear_num_key_heads,
            "linear_num_value_heads": self.linear_num_value_heads,
            "linear_key_head_dim": self.linear_key_head_dim,
            "linear_value_head_dim": self.linear_value_head_dim,
            "linear_conv_kernel_dim": self.linear_conv_kernel_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "initializer_range": self.initializer_range,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self.rope_theta,
                "partial_rotary_factor": self.partial_rotary_factor,
                "mrope_interleaved": True,
                "mrope_section": list(self.mrope_section),
            },
            "tie_word_embeddings": self.tie_word_embeddings,
        }
        text |= vars(self.moe) if self.moe else {"intermediate_size": self.intermediate_size}
        if not nested:
            return {"architectures": [f"{classes}ForCausalLM"]} | text
        return {
            "architectures": [f"{classes}ForConditionalGeneration"],
            "model_type": family,
            "tie_word_embeddings": self.tie_word_embeddings,
            "text_config": text,
            **(self.vision.to_json(family) if self.vision else {}),
        }


def _every(interval: int, layers: int) -> tuple[str, ...]:
    """Every `interval`-th layer full, the others linear."""
    return tuple(FULL if (layer + 1) % interval == 0 else LINEAR for layer in range(layers))


def _mrope_section(frequencies: int) -> list[int]:
    """How the frequencies are shared by time, height and width of an image; [11, 11, 10] for 32. Text has all equal."""
    third = -(-frequencies // 3)
    return [third, third, frequencies - 2 * third] if frequencies > 3 else [frequencies, 0, 0]


def _listed_section(text: Fields, rope: Fields) -> tuple[int, ...]:
    """`mrope_section`, which older configs keep in rope_scaling."""
    scaling = text.object("rope_scaling") if text.get("rope_scaling") else rope
    listed = rope.get("mrope_section") or scaling.get("mrope_section") or ()
    for fields in (rope, scaling):
        fields.must_be("mrope_interleaved", True)
    if not isinstance(listed, list | tuple) or not all(type(size) is int and size >= 0 for size in listed):
        rope.refuse("mrope_section", f"{listed!r} is no list of numbers")
        return ()
    return tuple(listed)


def _scaled(rope: Mapping[str, Any]) -> str:
    """How a rotary embedding is scaled; older configs call it `type`."""
    return str(rope.get("rope_type") or rope.get("type") or "default")
