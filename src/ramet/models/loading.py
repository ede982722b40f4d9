"""Published checkpoints of any family: which tensors make which parameter; loading to serve or to train; saving."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ramet import kernels
from ramet.kernels.coded import Coding
from ramet.machine import memory
from ramet.models.checkpoint import Weights
from ramet.models.decoder import Config, Decoder
from ramet.models.errors import CheckpointError
from ramet.models.families import family_of
from ramet.models.fields import read_json
from ramet.models.published import VISION
from ramet.models.quantization import Format, Kind, Quantization, quantization_of

if TYPE_CHECKING:
    from ramet.models.families import DecoderType

_CODED = {"weight": "coded", "gate_up_proj": "coded_gate_up", "down_proj": "coded_down"}
"""Where a module keeps a parameter that is run as it is in the files."""
_CODINGS: dict[Kind, Coding] = {
    Kind.FP8: "fp8",
    Kind.FP8_E8M0: "fp8",
    Kind.FP4_E8M0: "fp4",
    Kind.INT4: "int4",
}


_log = logging.getLogger("ramet")
_SHARE = 0.8
"""Of the free memory, the most that packed weights may take; the rest is for sessions and for pages of the files."""


def load(folder: Path, *, ahead: bool = False, mapped: bool | None = None) -> Decoder:
    """The model, packed for serving, its weights in the dtype they have in the files (float16 widened to float32).

    With `ahead`, also the part that guesses one token further (MTP), if the files have it. Quantised matrices stay in
    the files, mapped. So do the others if `mapped`, or (None) if there is no memory for them: the logits have the same
    bits, and the system reads from the disk, each time, what it could not keep.
    """
    model, sources = _match(folder, ahead=ahead)
    model.mapped = _short_of_memory(folder, sources.float_bytes()) if mapped is None else mapped
    config = [type(model.config).__name__, asdict(model.config)]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    digest.update(kernels.build_id().encode())
    for name in sources.floats():
        if model.mapped and (matrices := sources.plain(name)):
            _hash(digest, name, *(matrix.codes for matrix in matrices), shape=sources.shapes[name])
            _set_coded(model, name, matrices)
        else:
            tensor = sources.tensor(name)
            _hash(digest, name, tensor, shape=tensor.shape)
            _set(model, name, tensor.float() if tensor.dtype is torch.float16 else tensor, trainable=False)
    for name, matrices in sources.matrices():
        for matrix in matrices:
            _hash(digest, f"{name} {matrix.coding} {matrix.block}", matrix.codes, shape=matrix.codes.shape)
            if matrix.scales is not None:
                _hash(digest, "scales", matrix.scales, shape=matrix.scales.shape)
        _set_coded(model, name, matrices)
    model.fingerprint = digest.hexdigest()
    try:
        return model.pack()
    except CheckpointError as error:  # of a tensor that is looked into there
        raise CheckpointError(f"{folder}: {error}") from None


def _short_of_memory(folder: Path, weights: int) -> bool:
    free = memory().available
    if weights <= _SHARE * free:
        return False
    _log.warning(
        "%s: the weights (%.1f GiB) do not fit into the memory that is free (%.1f GiB). They stay in the files and are "
        "read as they are used, with the same results, slowly.", folder, weights / 2**30, free / 2**30,
    )  # fmt: skip
    return True


def load_trainable(folder: str | Path) -> Decoder:
    """The model with float32 parameters that take gradients."""
    model, sources = _match(Path(folder))
    if sources.formats:
        raise CheckpointError(f"{folder}: the weights are quantised; only float checkpoints can be trained")
    for name in sources.floats():
        tensor = sources.tensor(name)
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
    names = published.names[0 if nested else -1].at(model.config.num_hidden_layers)
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
        if not published.fused_experts and (each := published.by_expert(names.of(parameter), tuple(weight.shape))):
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

    def __init__(self, model: Decoder, weights: Weights, quantization: Quantization | None) -> None:
        self.model, self.weights, self.quantization = model, weights, quantization
        self.formats: dict[str, tuple[Format, tuple[int, ...]]] = {}
        """The format and shape of each published matrix that is quantised."""
        self.layout = model.published.layout_of(weights.entries, model.config.num_hidden_layers)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self.whole = {name for name, parameter in model.named_parameters() if not parameter.is_floating_point()}
        self.names = {name: self._find(name, shape) for name, shape in self.shapes.items()}
        used = {source for names in self.names.values() for source in names}
        used |= {part.name for source, (form, shape) in self.formats.items() for part in form.parts(source, shape)}
        if model.lm_head is None:
            used.add(self.layout.of("lm_head.weight"))  # tied: a copy of the embedding, where it is written at all
        for name, entry in weights.entries.items():
            layers = model.config.num_hidden_layers
            part = model.published.part_left_out(name, self.layout, layers)
            if name not in used and (part is None or (part == VISION and model.visual is not None)):
                raise CheckpointError(
                    f"{entry.file}: tensor {name}, {entry.dtype} {list(entry.shape)}, is no part of the model that "
                    "config.json describes"
                )

    def _find(self, name: str, shape: tuple[int, ...]) -> list[str]:
        published = self.layout.of(name)
        each = [] if published in self.weights else self.model.published.by_expert(published, shape)
        if not each or (self.model.published.fused_experts and not self.weights.has_matrix(each[0])):
            # Of two layouts that are not there the error names the usual one.
            if each or not self._coded(name, published, shape):
                self.weights.expect(published, shape, whole=name in self.whole)
            return [published]
        for source in each:
            if not self._coded(name, source, _part(each, shape)):
                self.weights.expect(source, _part(each, shape))
        return each

    def _coded(self, name: str, source: str, shape: tuple[int, ...]) -> bool:
        """Whether a matrix is quantised in the files, by config.json and its tensor's dtype; checks its tensors."""
        form = self.quantization.format_of(source, shape) if self.quantization else None
        if form is None or not self._takes_codes(name):
            return False
        if (entry := self.weights.entries.get(source)) is not None and entry.dtype in ("F32", "BF16", "F16"):
            return False
        if len(shape) != 2:
            where = self.weights.folder if entry is None else entry.file
            raise CheckpointError(
                f"{where}: tensor {source} has all experts in one; quantised experts are read one by one, "
                "as they are published"
            )
        parts = form.parts(source, shape)
        for part in parts:
            self.weights.expect_part(part)
        if len(parts) == 3 and (written := self.weights.read(parts[2].name).tolist()) != list(shape):
            raise CheckpointError(
                f"{self.weights.entries[parts[2].name].file}: tensor {parts[2].name} says {written}; "
                f"config.json makes the matrix {list(shape)}"
            )
        self.formats[source] = form, shape
        return True

    def matrices(self) -> Iterator[tuple[str, list[kernels.CodedMatrix]]]:
        """Every quantised parameter's name and matrices, mapped; of experts some may be in a float dtype."""
        for name, sources in self.names.items():
            if self._quantised(sources):
                yield name, [self._matrix(source) for source in sources]

    def _quantised(self, sources: list[str]) -> bool:
        return any(source in self.formats for source in sources)

    def _matrix(self, source: str) -> kernels.CodedMatrix:
        if source not in self.formats:
            half = self.weights.entries[source].dtype == "F16"
            return kernels.CodedMatrix.plain(self.weights.read(source).float() if half else self.weights.map(source))
        form, shape = self.formats[source]
        codes, scales, *_ = (self.weights.map(part.name) for part in form.parts(source, shape))
        return kernels.CodedMatrix(_CODINGS[form.kind], codes, scales, shape[0], shape[1], form.block)

    def _takes_codes(self, name: str) -> bool:
        """Whether a parameter's module can run matrices as they are in the files."""
        path, _, leaf = name.rpartition(".")
        return leaf in _CODED and hasattr(self.model.get_submodule(path), _CODED[leaf])

    def floats(self) -> Iterator[str]:
        """The names of the parameters that are not quantised."""
        return (name for name, sources in self.names.items() if not self._quantised(sources))

    def float_bytes(self) -> int:
        """What the parameters that are not quantised take in memory."""
        wide = {"F16": 2}
        entries = (self.weights.entries[source] for name in self.floats() for source in self.names[name])
        return sum(entry.bytes * wide.get(entry.dtype, 1) for entry in entries)

    def plain(self, name: str) -> list[kernels.CodedMatrix]:
        """A float parameter's matrices, mapped; none if it has to be read: vectors, and what is in float16."""
        sources = self.names[name]
        dtypes = {self.weights.entries[source].dtype for source in sources}
        if not self._takes_codes(name) or not dtypes <= {"BF16", "F32"}:
            return []
        tensors = [self.weights.map(source) for source in sources]
        if tensors[0].dim() == 3:  # experts in one tensor: the two matrices of each, or the one
            each = 2 if name.endswith("gate_up_proj") else 1
            tensors = [matrix for expert in tensors[0] for matrix in expert.chunk(each)]
        return [kernels.CodedMatrix.plain(tensor) for tensor in tensors]

    def tensor(self, name: str) -> Tensor:
        """A float parameter's tensor, read."""
        sources, shape = self.names[name], self.shapes[name]
        if len(sources) == 1 and self.weights.entries[sources[0]].shape == shape:
            return self.weights.read(sources[0])
        # one tensor per expert, or two: stacked, gate above up
        return torch.cat([self.weights.read(source) for source in sources]).view(shape)


def _part(names: list[str], shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of each of a fused parameter's parts."""
    experts, outputs, inputs = shape
    return outputs * experts // len(names), inputs


def describe(path: Path) -> Decoder:
    """The model, without weights, that a `config.json` describes. Raises CheckpointError if it cannot be loaded."""
    family, config, _ = _described(path)
    return build(family, config, path)


def _described(path: Path) -> tuple[DecoderType, Config, Quantization | None]:
    config = read_json(path)
    family = family_of(config, path).load()
    quantization = quantization_of(config, str(path))  # which may be of a kind that is not known
    return family, family.config_type.from_json(config, str(path)), quantization


def without_tower(config: Config) -> Config:
    """The config of the text model alone."""
    return config if getattr(config, "vision", None) is None else replace(config, vision=None)


def build(family: DecoderType, config: Config, path: Path) -> Decoder:
    """The model without weights, on the meta device; `path` names its config in errors. Raises CheckpointError."""
    try:
        with torch.device("meta"):
            return family(config)
    except RuntimeError as error:  # more elements than 64 bits count
        raise CheckpointError(f"{path}: no model is as large as these sizes make it ({error})") from error


def _match(folder: Path, *, ahead: bool = False) -> tuple[Decoder, _Sources]:
    path = folder / "config.json"
    (family, config, quantization), weights = _described(path), Weights(folder)
    if not family.published.has_tower(weights.entries):
        config = without_tower(config)  # a copy for text alone, whose config still tells of the tower
    model = build(family, config, path)
    prefix = model.published.layout_of(weights.entries, model.config.num_hidden_layers).ahead
    if ahead and prefix and any(name.startswith(prefix) for name in weights.entries):
        with torch.device("meta"):
            model.look_ahead()
    return model, _Sources(model, weights, quantization)


def _hash(digest: hashlib._Hash, name: str, *parts: Tensor, shape: Sequence[int]) -> None:
    """Take in a tensor of this shape, whole or in parts that follow each other in it."""
    digest.update(f"{name} {parts[0].dtype} {list(shape)}".encode())
    for part in parts:
        digest.update(part.reshape(-1).view(torch.uint8).numpy().data)


def _set_coded(model: nn.Module, name: str, matrices: list[kernels.CodedMatrix]) -> None:
    path, leaf = name.rsplit(".", 1)
    module = model.get_submodule(path)
    setattr(module, leaf, None)
    match leaf:
        case "gate_up_proj":
            setattr(module, _CODED[leaf], list(zip(matrices[::2], matrices[1::2], strict=True)))
        case "down_proj":
            setattr(module, _CODED[leaf], matrices)
        case _:
            setattr(module, _CODED[leaf], matrices[0])


def _set(model: nn.Module, name: str, tensor: Tensor, *, trainable: bool) -> None:
    path, leaf = name.rsplit(".", 1)
    setattr(
        model.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=trainable and tensor.is_floating_point())
    )
