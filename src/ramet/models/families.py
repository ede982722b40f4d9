"""Which family a checkpoint is of."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ramet.models.errors import CheckpointError

if TYPE_CHECKING:
    from ramet.models.decoder import Config, Decoder
    from ramet.models.published import Published

    class DecoderType(Protocol):
        """A `Decoder` class that is built from its config alone."""

        config_type: type[Config]
        published: Published

        def __call__(self, config: Config) -> Decoder: ...


@dataclass(frozen=True)
class Family:
    """A family as `config.json` names it, and where its model is."""

    title: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    """Class names of a config that has no `model_type`."""
    module: str
    model: str

    def load(self) -> DecoderType:
        """The model's class."""
        return cast("DecoderType", getattr(import_module(self.module), self.model))


FAMILIES = (
    Family(
        "Qwen3.5",
        ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
        (
            "Qwen3_5ForCausalLM",
            "Qwen3_5ForConditionalGeneration",
            "Qwen3_5MoeForCausalLM",
            "Qwen3_5MoeForConditionalGeneration",
        ),
        "ramet.models.qwen3_5",
        "Qwen3_5",
    ),
    Family("DeepSeek V4", ("deepseek_v4",), ("DeepseekV4ForCausalLM",), "ramet.models.deepseek_v4", "DeepseekV4"),
    Family("MiniMax M2", ("minimax_m2",), ("MiniMaxM2ForCausalLM",), "ramet.models.minimax_m2", "MiniMaxM2"),
    Family(
        "DeepSeek V3", ("deepseek_v3", "kimi_k2"), ("DeepseekV3ForCausalLM",), "ramet.models.deepseek_v3", "DeepseekV3"
    ),
    Family(
        "Kimi K2.5",
        ("kimi_k25",),
        ("KimiK25ForConditionalGeneration",),
        "ramet.models.deepseek_v3",
        "KimiK25",
    ),
    Family("DeepSeek V3.2", ("deepseek_v32",), ("DeepseekV32ForCausalLM",), "ramet.models.deepseek_v32", "DeepseekV32"),
    Family("GLM-5", ("glm_moe_dsa",), ("GlmMoeDsaForCausalLM",), "ramet.models.deepseek_v32", "GlmMoeDsa"),
)


def family_of(config: dict[str, Any], path: Path) -> Family:
    """The family that a parsed `config.json` is of; `path` names it in errors. Raises CheckpointError."""
    kind, architectures = config.get("model_type"), config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    for family in FAMILIES:
        if kind in family.model_types if kind is not None else any(name in family.architectures for name in names):
            return family
    if kind is None and architectures is None:
        raise CheckpointError(f"{path}: names neither a model_type nor architectures: not the config.json of a model")
    found = f"model_type {kind!r}" if kind is not None else f"architectures {architectures!r} and no model_type"
    supported = "; ".join(f"{', '.join(family.model_types)} ({family.title})" for family in FAMILIES)
    raise CheckpointError(f"{path}: {found} is not supported; supported are {supported}")
