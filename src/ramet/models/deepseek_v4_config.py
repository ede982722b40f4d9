"""DeepSeek V4's `config.json`, in the published form and in that of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ramet.models.errors import CheckpointError
from ramet.models.fields import Fields
from ramet.models.states import PAGE_TOKENS
from ramet.models.yarn import Yarn

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
HASH, ROUTED = "hash_moe", "moe"
_BY_RATIO = {"0": SLIDING, "4": SPARSE, "128": HEAVY}


@dataclass(frozen=True)
class DeepseekV4Config:
    """Sizes of a DeepSeek V4 model, under the names of `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    moe_intermediate_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    layer_types: tuple[str, ...]
    mlp_layer_types: tuple[str, ...]
    sparse_ratio: int = 4
    """Tokens per entry of a compressed sparse layer, and of a heavily compressed one."""
    heavy_ratio: int = 128
    sliding_window: int = 128
    routed_scaling_factor: float = 1.5
    swiglu_limit: float = 10.0
    hc_mult: int = 4
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6
    rope_theta: float = 10_000.0
    compress_rope_theta: float = 160_000.0
    yarn: Yarn | None = None
    """Of the layers with a compressor."""
    max_position_embeddings: int = 1_048_576
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise CheckpointError(f"this DeepSeek V4 config does not fit together: {problem}")

    def _problem(self) -> str | None:
        for name, known in (("layer_types", {SLIDING, SPARSE, HEAVY}), ("mlp_layer_types", {HASH, ROUTED})):
            kinds = getattr(self, name)
            if len(kinds) != self.num_hidden_layers:
                return f"{name} has {len(kinds)} entries, num_hidden_layers is {self.num_hidden_layers}"
            if unknown := set(kinds) - known:
                return f"{name} has {sorted(unknown)}; known are {sorted(known)}"
        if self.yarn and self.compress_rope_theta <= 1:
            return f"compress_rope_theta {self.compress_rope_theta} leaves rope_scaling no frequencies to stretch"
        if self.num_attention_heads % self.o_groups:
            return f"num_attention_heads {self.num_attention_heads} are no {self.o_groups} o_groups"
        for name in ("head_dim", "index_head_dim"):
            if self.qk_rope_head_dim % 2 or self.qk_rope_head_dim > getattr(self, name):
                return f"{self.qk_rope_head_dim} rotated dimensions: not even, or more than {name}"
        for ratio in (self.sparse_ratio, self.heavy_ratio):
            if PAGE_TOKENS % ratio and ratio % PAGE_TOKENS:
                return f"a compression rate of {ratio} neither divides {PAGE_TOKENS} nor is a multiple of it"
        if self.num_experts_per_tok > self.n_routed_experts:
            return f"num_experts_per_tok {self.num_experts_per_tok} is more than n_routed_experts"
        return None

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str, refused: list[str] | None = None) -> DeepseekV4Config:
        """Read a parsed `config.json`; `source` names it in errors.

        Raises CheckpointError for sizes that are missing, of the wrong kind or contradictory, and for what is not
        computed here: biases, other scores or activations, rope scaling other than YaRN; the latter is put in `refused`
        instead, if that is a list.
        """
        fields = Fields(config, source, refused)
        for name, value in (
            ("hidden_act", "silu"),
            ("attention_bias", False),
            ("mlp_bias", False),
            ("scoring_func", "sqrtsoftplus"),
            ("tie_word_embeddings", False),
            ("num_key_value_heads", 1),
            ("n_shared_experts", 1),
            ("norm_topk_prob", True),
        ):
            fields.must_be(name, value)
        layers = fields.integer("num_hidden_layers")
        head_dim = fields.integer("head_dim")
        sparse, heavy, kinds = _compression(fields, layers)
        main, compressed = _ropes(fields)
        share = fields.number("partial_rotary_factor", main.number("partial_rotary_factor", 0.125))
        rotary = fields.integer("qk_rope_head_dim", int(head_dim * share))
        hashed = fields.count("num_hash_layers", 3)
        mlps = fields.words("mlp_layer_types") or [HASH if layer < hashed else ROUTED for layer in range(layers)]
        sizes: dict[str, Any] = {name: fields.integer(name) for name in _SIZES}
        sizes |= {name: fields.integer(name, default) for name, default in _INTEGERS.items()}
        sizes |= {name: fields.number(name, default) for name, default in _NUMBERS.items()}
        try:
            return cls(
                layer_types=kinds,
                mlp_layer_types=tuple(mlps[:layers]),
                head_dim=head_dim,
                num_hidden_layers=layers,
                qk_rope_head_dim=rotary,
                sparse_ratio=sparse,
                heavy_ratio=heavy,
                rope_theta=main.number("rope_theta"),
                compress_rope_theta=compressed.number("rope_theta"),
                yarn=_yarn(compressed, fields.integer("max_position_embeddings")),
                **sizes,
            )
        except CheckpointError as error:
            raise CheckpointError(str(error).replace("this DeepSeek V4 config", source, 1)) from None

    def to_json(self, dtype: str, *, nested: bool = True) -> dict[str, Any]:
        """A `config.json` that transformers reads too; there is one form only."""
        main = {
            "rope_type": "default",
            "rope_theta": self.rope_theta,
            "partial_rotary_factor": self.qk_rope_head_dim / self.head_dim,
        }
        compressed: dict[str, Any] = main | {"rope_theta": self.compress_rope_theta}
        if self.yarn:
            compressed |= self.yarn.to_json() | {"rope_type": "yarn"}
        own = {"layer_types", "mlp_layer_types", "sparse_ratio", "heavy_ratio", "yarn"}
        return {
            "architectures": ["DeepseekV4ForCausalLM"],
            "model_type": "deepseek_v4",
            "dtype": dtype,
            **{name: value for name, value in asdict(self).items() if name not in own},
            "num_key_value_heads": 1,
            "n_shared_experts": 1,
            "scoring_func": "sqrtsoftplus",
            "norm_topk_prob": True,
            "hidden_act": "silu",
            "layer_types": list(self.layer_types),
            "mlp_layer_types": list(self.mlp_layer_types),
            "compress_rates": {SPARSE: self.sparse_ratio, HEAVY: self.heavy_ratio},
            "rope_parameters": {"main": main, "compress": compressed},
            "tie_word_embeddings": False,
        }


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "q_lora_rank",
    "o_groups",
    "o_lora_rank",
    "moe_intermediate_size",
    "n_routed_experts",
    "num_experts_per_tok",
    "index_n_heads",
    "index_head_dim",
    "index_topk",
    "max_position_embeddings",
)
_INTEGERS = {"sliding_window": 128, "hc_mult": 4, "hc_sinkhorn_iters": 20}
_NUMBERS = {
    "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0,
    "hc_eps": 1e-6,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
}


def _compression(fields: Fields, layers: int) -> tuple[int, int, tuple[str, ...]]:
    """The two compression rates and the kind of each layer."""
    rates = fields.object("compress_rates") if fields.get("compress_rates") else fields
    named = rates is not fields
    sparse = rates.integer(SPARSE if named else "compress_rate_csa", 4)
    heavy = rates.integer(HEAVY if named else "compress_rate_hca", 128)
    if kinds := fields.words("layer_types"):
        return sparse, heavy, kinds[:layers]
    # Published configs give each layer's rate, those of the prediction layers behind the others.
    if ratios := fields.words("compress_ratios"):
        if len(ratios) < layers:
            raise CheckpointError(
                f"{fields.source}: compress_ratios has {len(ratios)} entries, num_hidden_layers is {layers}"
            )
        if unknown := set(ratios[:layers]) - set(_BY_RATIO):
            known = ", ".join(_BY_RATIO)
            raise CheckpointError(f"{fields.source}: compress_ratios: {', '.join(sorted(unknown))}; known are {known}")
        return sparse, heavy, tuple(_BY_RATIO[ratio] for ratio in ratios[:layers])
    return sparse, heavy, tuple(SPARSE if layer > 1 and layer % 2 else HEAVY for layer in range(layers))


def _ropes(fields: Fields) -> tuple[Fields, Fields]:
    """The rope parameters of sliding layers and of those with a compressor."""
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    given = fields.object(name) if fields.get(name) else Fields({}, fields.source)
    if given.get("main") is not None and given.get("compress") is not None:
        return given.object("main"), given.object("compress")
    scaling = dict(given.values)
    main = {"rope_theta": fields.number("rope_theta", 10_000.0)}
    compressed = scaling | {"rope_theta": fields.number("compress_rope_theta", 160_000.0)}
    return Fields(main, fields.source), Fields(compressed, f"{fields.source}: rope_scaling", fields.refused)


def _yarn(rope: Fields, longest: int) -> Yarn | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "yarn":
        rope.refuse("rope_type", f"{kind!r}; only 'default' and 'yarn' are supported")
        return None
    # DeepSeek V4 stretches the frequencies and leaves the cosines and sines as long as they are.
    return Yarn.from_fields(Fields({"attention_factor": 1.0} | dict(rope.values), rope.source, rope.refused), longest)
