"""The `config.json` of DeepSeek V3, and of Kimi K2.5, whose text model it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

from ramet.models.errors import CheckpointError
from ramet.models.fields import Fields
from ramet.models.vision_kimi import KimiVisionConfig
from ramet.models.yarn import Yarn

DENSE, SPARSE = "dense", "sparse"


@dataclass(frozen=True, kw_only=True)
class DeepseekV3Config:
    """Sizes of a DeepSeek V3, under the names of `config.json`."""

    model_type: ClassVar[str] = "deepseek_v3"
    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Of the layers without experts."""
    moe_intermediate_size: int
    """Of each expert."""
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int | None
    """Rank of the queries' projection; None: it is one whole matrix."""
    kv_lora_rank: int
    """Size of a token's latent."""
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    """Experts are taken from the best so many of the `n_group` groups."""
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = True
    first_k_dense_replace: int = 0
    """The first so many layers have no experts."""
    mlp_layer_types: tuple[str, ...] = ()
    """`dense` or `sparse` (experts) per layer; if empty, `first_k_dense_replace` says which."""
    rope_theta: float = 10_000.0
    yarn: Yarn | None = None
    rope_interleave: bool = True
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 163840
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if not self.mlp_layer_types:
            dense = min(self.first_k_dense_replace, self.num_hidden_layers)
            kinds = (DENSE,) * dense + (SPARSE,) * (self.num_hidden_layers - dense)
            object.__setattr__(self, "mlp_layer_types", kinds)
        if problem := self._problem():
            raise CheckpointError(f"this {self.model_type} config does not fit together: {problem}")

    def _problem(self) -> str | None:
        if self.qk_rope_head_dim % 2:
            return f"qk_rope_head_dim {self.qk_rope_head_dim} is not even"
        if self.yarn and self.rope_theta <= 1:
            return f"rope_theta {self.rope_theta} leaves rope_scaling no frequencies to stretch"
        if problem := wrong_kinds("mlp_layer_types", self.mlp_layer_types, {DENSE, SPARSE}, self.num_hidden_layers):
            return problem
        if self.n_routed_experts % self.n_group or not self.topk_group <= self.n_group:
            return (
                f"n_routed_experts {self.n_routed_experts} in n_group {self.n_group} groups, of which topk_group "
                f"{self.topk_group} are taken"
            )
        each = self.n_routed_experts // self.n_group
        if self.topk_group < self.n_group and each < 2:
            return f"n_group {self.n_group} groups of {each} expert; a group is ranked by its best two"
        if self.num_experts_per_tok > self.topk_group * each:
            return (
                f"num_experts_per_tok {self.num_experts_per_tok} is more than the {self.topk_group * each} experts of "
                f"topk_group {self.topk_group} groups"
            )
        return None

    @property
    def scale(self) -> float:
        """Of the attention scores."""
        plain: float = (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5
        return plain * (self.yarn.softmax_factor() if self.yarn else 1.0)

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str, refused: list[str] | None = None) -> Self:
        """Read a parsed `config.json`; `source` names it in errors.

        Raises CheckpointError for sizes that are missing, of the wrong kind or contradictory, and for what the config
        could say but this implementation does not compute (biases, other activations, routers and rotary embeddings);
        the latter is put in `refused` instead, if that is a list.
        """
        fields = Fields(config, source, refused)
        for name, value in _ONLY:
            fields.must_be(name, value)
        try:
            return cls(**cls._read(fields))
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(f"this {cls.model_type} config", source, 1)) from None

    @classmethod
    def _read(cls, fields: Fields) -> dict[str, Any]:
        positions = fields.integer("max_position_embeddings")
        theta, yarn = _rope(fields, positions)
        return {
            **{name: fields.integer(name) for name in _SIZES},
            "q_lora_rank": None if fields.get("q_lora_rank") is None else fields.integer("q_lora_rank"),
            "n_shared_experts": fields.integer("n_shared_experts", 1),
            "n_group": fields.integer("n_group", 1),
            "topk_group": fields.integer("topk_group", 1),
            "routed_scaling_factor": fields.number("routed_scaling_factor", 1.0),
            "norm_topk_prob": fields.flag("norm_topk_prob", True),
            "first_k_dense_replace": fields.count("first_k_dense_replace"),
            "mlp_layer_types": fields.words("mlp_layer_types"),
            "rope_theta": theta,
            "yarn": yarn,
            "rope_interleave": fields.flag("rope_interleave", True),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", False),
            "max_position_embeddings": positions,
            "rms_norm_eps": fields.number("rms_norm_eps", 1e-6),
            "initializer_range": fields.number("initializer_range", 0.02),
        }  # fmt: skip

    def to_json(self, dtype: str, *, nested: bool) -> dict[str, Any]:
        """A `config.json` in the published form; a model of text alone is not nested in anything."""
        values = asdict(self)
        del values["yarn"]
        scaling = {"type": "yarn", **self.yarn.to_json()} if self.yarn else None
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "dtype": dtype,
            **values,
            "num_key_value_heads": self.num_attention_heads,
            "rope_scaling": scaling,
            **dict(_ONLY),
        }


@dataclass(frozen=True, kw_only=True)
class KimiK25Config(DeepseekV3Config):
    """Sizes of a Kimi K2.5: a DeepSeek V3 inside `text_config`, a vision tower beside it."""

    vision: KimiVisionConfig | None = None

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str, refused: list[str] | None = None) -> Self:
        fields = Fields(config, source, refused)
        text = fields.object("text_config")
        tied = fields.flag("tie_word_embeddings", text.flag("tie_word_embeddings", False))
        read = super().from_json({**text.values, "tie_word_embeddings": tied}, text.source, refused)
        return replace(read, vision=KimiVisionConfig.from_json(fields)) if fields.get("vision_config") else read

    def to_json(self, dtype: str, *, nested: bool) -> dict[str, Any]:
        text = super().to_json(dtype, nested=False)
        del text["vision"]
        if not nested:
            return text
        return {
            "architectures": ["KimiK25ForConditionalGeneration"],
            "model_type": "kimi_k25",
            "dtype": dtype,
            "tie_word_embeddings": self.tie_word_embeddings,
            "text_config": text | {"model_type": "kimi_k2"},
            **(self.vision.to_json() if self.vision else {}),
        }


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "n_routed_experts",
    "num_experts_per_tok",
)
_ONLY: tuple[tuple[str, Any], ...] = (
    ("hidden_act", "silu"),
    ("attention_bias", False),
    ("mlp_bias", False),
    ("scoring_func", "sigmoid"),
    ("topk_method", "noaux_tc"),
    ("moe_layer_freq", 1),
)
"""Fields that say one thing in every published config."""


def wrong_kinds(name: str, kinds: tuple[str, ...], known: set[str], layers: int) -> str | None:
    """What is wrong with a list of one kind per layer."""
    if len(kinds) != layers:
        return f"{name} has {len(kinds)} entries, num_hidden_layers is {layers}"
    if unknown := set(kinds) - known:
        return f"{name} has {sorted(unknown)}; known are {sorted(known)}"
    return None


def _rope(fields: Fields, max_position_embeddings: int) -> tuple[float, Yarn | None]:
    """The base of the frequencies and how they are stretched: `rope_parameters`, or in older configs `rope_scaling`."""
    together = fields.object("rope_parameters") if fields.get("rope_parameters") else None
    scaling = together or (fields.object("rope_scaling") if fields.get("rope_scaling") else None)
    base = fields.number("rope_theta", 10_000.0)
    theta = together.number("rope_theta", base) if together else base
    kind = scaling.get("rope_type", scaling.get("type", "default")) if scaling else "default"
    if kind not in ("default", "yarn"):
        fields.refuse("rope_type", f"{kind!r}; only 'default' and 'yarn' are supported")
    return theta, Yarn.from_fields(scaling, max_position_embeddings) if scaling and kind == "yarn" else None
