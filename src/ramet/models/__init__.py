"""What a checkpoint computes: one file per family, from shared layers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramet.models.errors import CheckpointError, ContextLengthError

if TYPE_CHECKING:
    from ramet.models.base import Model

__all__ = ["CheckpointError", "ContextLengthError", "check", "load"]

_FAMILIES = {
    "qwen3_5": "ramet.models.qwen3_5_weights",
    "qwen3_5_text": "ramet.models.qwen3_5_weights",
    "qwen3_5_moe": "ramet.models.qwen3_5_weights",
    "qwen3_5_moe_text": "ramet.models.qwen3_5_weights",
}
_ARCHITECTURES = {
    "Qwen3_5ForCausalLM": "qwen3_5",
    "Qwen3_5ForConditionalGeneration": "qwen3_5",
    "Qwen3_5MoeForCausalLM": "qwen3_5_moe",
    "Qwen3_5MoeForConditionalGeneration": "qwen3_5_moe",
}


def load(path: str | Path) -> Model:
    """Load the checkpoint in a folder, ready to run; `config.json` says of which family it is.

    Raises CheckpointError, naming file, tensor and expectation, if it is damaged, contradicts itself or is of a kind
    that is not supported.
    """
    family, config = _family(Path(path))
    model: Model = family.load(Path(path), config)
    return model


def check(path: str | Path) -> None:
    """Check that a folder holds a whole checkpoint that `load` would take, by its config and headers alone."""
    family, config = _family(Path(path))
    family.check(Path(path), config)


def _family(folder: Path) -> tuple[Any, dict[str, Any]]:
    from ramet.models.checkpoint import read_json

    config = read_json(folder / "config.json")
    kind, architectures = config.get("model_type"), config.get("architectures")
    if kind is None and isinstance(architectures, list):
        kind = next((_ARCHITECTURES[name] for name in map(str, architectures) if name in _ARCHITECTURES), None)
    if not isinstance(kind, str) or kind not in _FAMILIES:
        found = f"model_type {kind!r}" if kind is not None else f"architectures {architectures!r} and no model_type"
        raise CheckpointError(
            f"{folder / 'config.json'}: {found} is not supported; supported are "
            f"{', '.join(sorted(_FAMILIES))} (Qwen3.5, dense and mixture of experts)"
        )
    return import_module(_FAMILIES[kind]), config
