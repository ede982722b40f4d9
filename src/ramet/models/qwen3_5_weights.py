"""Qwen3.5's published checkpoints: which tensor is which parameter; loading, to serve or to train, and saving."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ramet import kernels
from ramet.models.checkpoint import Weights, read_json
from ramet.models.errors import CheckpointError
from ramet.models.qwen3_5 import Qwen3_5
from ramet.models.qwen3_5_config import Qwen3_5Config

_PREFIXES = ("model.language_model.", "model.")
"""Where the text model is: in the published checkpoints, and in ones that are text alone."""
_OTHERS = ("mtp.", "model.visual.", "visual.")
"""Parts that text generation leaves out: multi-token prediction and the vision tower."""
_KEPT_WIDE = ("A_log", "dt_bias", "linear_attn.norm.weight")


def load(folder: Path, config: dict[str, Any]) -> Qwen3_5:
    """The model, packed for serving, its weights in the dtype they have in the files (float16 widened to float32)."""
    model, sources = _match(folder, config)
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    digest.update(kernels.build_id().encode())
    for name, tensor in sources.tensors():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        _set(model, name, tensor.float() if tensor.dtype is torch.float16 else tensor, trainable=False)
    model.fingerprint = digest.hexdigest()
    return model.pack()


def load_trainable(folder: str | Path) -> Qwen3_5:
    """The model with float32 parameters that take gradients."""
    folder = Path(folder)
    model, sources = _match(folder, read_json(folder / "config.json"))
    for name, tensor in sources.tensors():
        _set(model, name, tensor.float(), trainable=True)
    return model


def check(folder: Path, config: dict[str, Any]) -> None:
    """Check every tensor's presence, dtype and shape against the config, by headers alone. Raises CheckpointError."""
    _match(folder, config)


def save(model: Qwen3_5, folder: str | Path, *, dtype: torch.dtype = torch.float32, nested: bool = True) -> None:
    """Write `config.json` and `model.safetensors` in the published layout (`nested`), or that of the text model alone.

    The model must not be packed. Decays, time steps and the gated norms stay float32 whatever `dtype`. The weights are
    in place before the config: a folder with a config is whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = _PREFIXES[0] if nested else _PREFIXES[1]
    tensors = {}
    for name, weight in model.named_parameters():
        kept = torch.float32 if name.endswith(_KEPT_WIDE) else dtype
        published = name if name.startswith("lm_head.") else prefix + name
        tensors[published] = weight.detach().to("cpu", kept).contiguous()
    part = folder / "model.safetensors.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.rename(folder / "model.safetensors")
    config = model.config.to_json(str(dtype).removeprefix("torch."), nested=nested)
    part = folder / "config.json.part"
    part.write_text(json.dumps(config, indent=2) + "\n")
    part.rename(folder / "config.json")


class _Sources:
    """For every parameter of the model, the tensor or tensors of the checkpoint that it is made of."""

    def __init__(self, model: nn.Module, weights: Weights) -> None:
        self.weights = weights
        self.prefix = next((p for p in _PREFIXES if f"{p}embed_tokens.weight" in weights), _PREFIXES[0])
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self.names = {name: self._find(name, shape) for name, shape in self.shapes.items()}
        used = {source for names in self.names.values() for source in names}
        if "lm_head.weight" not in self.names:
            used.add("lm_head.weight")  # tied: a copy of the embedding, where it is written at all
        for name, entry in weights.entries.items():
            if name not in used and not name.startswith(_OTHERS):
                raise CheckpointError(
                    f"{entry.file}: tensor {name}, {entry.dtype} {list(entry.shape)}, is no part of the model that "
                    "config.json describes"
                )

    def _find(self, name: str, shape: tuple[int, ...]) -> list[str]:
        published = name if name.startswith("lm_head.") else self.prefix + name
        if ".experts." not in name or published in self.weights:
            self.weights.expect(published, shape)
            return [published]
        stem, kind = published.rsplit(".", 1)
        if f"{stem}.0.down_proj.weight" not in self.weights:
            self.weights.expect(published, shape)  # neither layout is there: the error names the fused one
        experts, outputs, inputs = shape
        parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
        names = [f"{stem}.{expert}.{part}.weight" for expert in range(experts) for part in parts]
        for each in names:
            self.weights.expect(each, (outputs // len(parts), inputs))
        return names

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter's name and tensor, read one after the other."""
        for name, shape in self.shapes.items():
            sources = self.names[name]
            if len(sources) == 1 and self.weights.entries[sources[0]].shape == shape:
                yield name, self.weights.read(sources[0])
            else:  # one tensor per expert, or two: stacked, gate above up
                yield name, torch.cat([self.weights.read(source) for source in sources]).view(shape)


def _match(folder: Path, config: dict[str, Any]) -> tuple[Qwen3_5, _Sources]:
    source = str(folder / "config.json")
    inner = config.get("text_config")
    nested = inner.get("quantization_config") if isinstance(inner, dict) else None
    if quantised := config.get("quantization_config") or nested:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise CheckpointError(
            f"{source}: the weights are quantised ({method}), which is not supported yet; use the bfloat16 checkpoint"
        )
    with torch.device("meta"):
        model = Qwen3_5(Qwen3_5Config.from_json(config, source))
    return model, _Sources(model, Weights(folder))


def _set(model: nn.Module, name: str, tensor: Tensor, *, trainable: bool) -> None:
    path, leaf = name.rsplit(".", 1)
    setattr(model.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=trainable))
