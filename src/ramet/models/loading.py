"""Published checkpoints of any family: which tensors make which parameter; loading to serve or to train; saving."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ramet import kernels
from ramet.models.checkpoint import Weights
from ramet.models.decoder import Decoder
from ramet.models.errors import CheckpointError
from ramet.models.families import family_of
from ramet.models.fields import read_json
from ramet.models.published import Published


def load(folder: Path) -> Decoder:
    """The model, packed for serving, its weights in the dtype they have in the files (float16 widened to float32)."""
    model, sources = _match(folder)
    config = [type(model.config).__name__, asdict(model.config)]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    digest.update(kernels.build_id().encode())
    for name, tensor in sources.tensors():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        _set(model, name, tensor.float() if tensor.dtype is torch.float16 else tensor, trainable=False)
    model.fingerprint = digest.hexdigest()
    return model.pack()


def load_trainable(folder: str | Path) -> Decoder:
    """The model with float32 parameters that take gradients."""
    model, sources = _match(Path(folder))
    for name, tensor in sources.tensors():
        _set(model, name, tensor.float() if tensor.is_floating_point() else tensor, trainable=True)
    return model


def check(folder: Path) -> None:
    """Check every tensor's presence, dtype and shape against the config, by headers alone. Raises CheckpointError."""
    _match(folder)


def save(model: Decoder, folder: str | Path, *, dtype: torch.dtype = torch.float32, nested: bool = True) -> None:
    """Write `config.json` and `model.safetensors` in the published layout (`nested`), or that of the text model alone.

    The model must not be packed. A family's wide parameters stay float32 whatever `dtype`. The weights are in place
    before the config: a folder with a config is whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    published = model.published
    names = published.names[0 if nested else -1]
    tensors: dict[str, Tensor] = {}
    for parameter, weight in model.named_parameters():
        if not nested and parameter.startswith("visual."):
            continue
        kept = (
            torch.float32
            if parameter.endswith(published.wide)
            else dtype
            if weight.is_floating_point()
            else weight.dtype
        )
        tensor = weight.detach().to("cpu", kept).contiguous()
        if not published.fused_experts and (each := _by_expert(model, names.of(parameter), tuple(weight.shape))):
            tensors |= zip(each, tensor.view(-1, *_part(each, weight.shape)), strict=True)
        else:
            tensors[names.of(parameter)] = tensor
    part = folder / "model.safetensors.part"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata={"format": "pt"})
    part.rename(folder / "model.safetensors")
    config = model.config.to_json(str(dtype).removeprefix("torch."), nested=nested)
    part = folder / "config.json.part"
    part.write_text(json.dumps(config, indent=2) + "\n")
    part.rename(folder / "config.json")


class _Sources:
    """For every parameter of the model, the tensor or tensors of the checkpoint that it is made of."""

    def __init__(self, model: Decoder, weights: Weights) -> None:
        self.model, self.weights = model, weights
        layouts = model.published.names
        embedding = "embed_tokens.weight"
        self.layout = next((layout for layout in layouts if layout.of(embedding) in weights), layouts[0])
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self.whole = {name for name, parameter in model.named_parameters() if not parameter.is_floating_point()}
        self.names = {name: self._find(name, shape) for name, shape in self.shapes.items()}
        used = {source for names in self.names.values() for source in names}
        if model.lm_head is None:
            used.add(self.layout.of("lm_head.weight"))  # tied: a copy of the embedding, where it is written at all
        for name, entry in weights.entries.items():
            if name not in used and not self._left_out(name):
                raise CheckpointError(
                    f"{entry.file}: tensor {name}, {entry.dtype} {list(entry.shape)}, is no part of the model that "
                    "config.json describes"
                )

    def _left_out(self, name: str) -> bool:
        published = self.model.published
        if name.endswith(".rotary_emb.inv_freq"):  # older files hold the frequencies, which config.json gives as well
            return True
        if published.predicts_ahead and (layer := re.match(rf"{re.escape(self.layout.body)}layers\.(\d+)\.", name)):
            return int(layer[1]) >= self.model.config.num_hidden_layers
        without = published.left_out + (published.tower if self.model.visual is None else ())
        return name.startswith(without) if without else False

    def _find(self, name: str, shape: tuple[int, ...]) -> list[str]:
        published = self.layout.of(name)
        each = [] if published in self.weights else _by_expert(self.model, published, shape)
        if not each or (self.model.published.fused_experts and each[0] not in self.weights):
            self.weights.expect(
                published, shape, whole=name in self.whole
            )  # of two layouts that are not there the error names the usual one
            return [published]
        for source in each:
            self.weights.expect(source, _part(each, shape))
        return each

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter's name and tensor, read one after the other."""
        for name, shape in self.shapes.items():
            sources = self.names[name]
            if len(sources) == 1 and self.weights.entries[sources[0]].shape == shape:
                yield name, self.weights.read(sources[0])
            else:  # one tensor per expert, or two: stacked, gate above up
                yield name, torch.cat([self.weights.read(source) for source in sources]).view(shape)


def _by_expert(model: Decoder, published: str, shape: tuple[int, ...]) -> list[str]:
    """The names of a fused parameter's parts, expert by expert, gate before up; empty for any other parameter."""
    stem, _, kind = published.rpartition(".")
    if not stem.endswith(".experts") or kind not in ("gate_up_proj", "down_proj"):
        return []
    gate, up, down = model.published.experts
    parts = (gate, up) if kind == "gate_up_proj" else (down,)
    return [f"{stem}.{expert}.{part}.weight" for expert in range(shape[0]) for part in parts]


def _part(names: list[str], shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of each of a fused parameter's parts."""
    experts, outputs, inputs = shape
    return outputs * experts // len(names), inputs


def _match(folder: Path) -> tuple[Decoder, _Sources]:
    path = folder / "config.json"
    config = read_json(path)
    family = family_of(config, path)
    _refuse_quantised(config, str(path))
    weights = Weights(folder)
    read = family.config_type.from_json(config, str(path))
    if getattr(read, "vision", None) is not None and not _has_tower(family.published, weights):
        read = replace(read, vision=None)  # a copy for text alone, whose config still tells of the tower
    with torch.device("meta"):
        model = family(read)
    return model, _Sources(model, weights)


def _has_tower(published: Published, weights: Weights) -> bool:
    return any(name.startswith(published.tower) for name in weights.entries)


def _refuse_quantised(config: dict[str, Any], source: str) -> None:
    inner = config.get("text_config")
    nested = inner.get("quantization_config") if isinstance(inner, dict) else None
    if quantised := config.get("quantization_config") or nested:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise CheckpointError(
            f"{source}: the weights are quantised ({method}), which is not supported yet; use the bfloat16 checkpoint"
        )


def _set(model: nn.Module, name: str, tensor: Tensor, *, trainable: bool) -> None:
    path, leaf = name.rsplit(".", 1)
    setattr(
        model.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=trainable and tensor.is_floating_point())
    )
