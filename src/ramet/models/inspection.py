"""What a checkpoint is, from its config and its files' headers alone: sizes, formats, states. No weight is read.

A config.json without weights is enough, and a checkpoint that `load` would refuse is described as far as it goes,
with the reasons.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ramet.models import loading
from ramet.models.checkpoint import Entry, Weights
from ramet.models.decoder import Decoder
from ramet.models.errors import CheckpointError
from ramet.models.families import Family, family_of
from ramet.models.fields import read_json
from ramet.models.layers import Experts
from ramet.models.planned import TAGS, Planned, planned, quantised
from ramet.models.published import PREDICTION, VISION, Names
from ramet.models.quantization import is_quantised, quantization_of
from ramet.models.states import PAGE_TOKENS, Recurrent, Rows, StateLayout, Window

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class State:
    """One kind of layer state, of all layers that have it together."""

    name: str
    kind: str
    """`rows`, `recurrent` or `window`."""
    layers: int
    bytes: Fraction
    """Of rows: what one token adds. Of the others: what a session has, whatever its length."""


@dataclass(frozen=True)
class Format:
    """How some of the weights are written."""

    name: str
    """`FP8`, `FP4` or `INT4` of codes, else the dtype as safetensors calls it."""
    parameters: int | None
    """Without tables of integers and scales. None where it is not known which tensors are scales."""
    bytes: int


@dataclass(frozen=True)
class LeftOut:
    """A part of the checkpoint that is not counted: not loaded, or (multi-token prediction) only to guess ahead."""

    part: str
    bytes: int | None
    """None: config.json names it; the files would tell."""


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is. What could not be found out is None, or empty."""

    family: str
    """`GLM-5`; of an unknown one what config.json calls it."""
    model_type: str | None
    reasons: tuple[str, ...]
    """Why `load` would refuse it; empty if it would not, weights that are not there yet apart."""
    weights_here: bool
    """Whether weights are in the folder; if not, sizes are those that the config's fields come to."""
    layers: int | None = None
    vocab_size: int | None = None
    context_length: int | None = None
    parameters: int | None = None
    """Of what is loaded."""
    active_parameters: int | None = None
    """Of a model with experts what a token is multiplied by: not the experts that it is not sent to, nor the embedding,
    of which it takes one row, unless that is the output layer too. Of any other all."""
    weight_bytes: int | None = None
    """Of what is loaded, as it is in the files."""
    formats: tuple[Format, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    states: tuple[State, ...] = ()
    layout: StateLayout | None = None

    @property
    def state_bytes_per_token(self) -> Fraction | None:
        """What a token adds to a session's rows. A fraction, where it adds a part of a row."""
        return None if self.layout is None else sum((s.bytes for s in self.states if s.kind == "rows"), Fraction(0))

    @property
    def state_bytes_fixed(self) -> int | None:
        """What a session has whatever its length: recurrent states and windows."""
        return None if self.layout is None else int(sum(s.bytes for s in self.states if s.kind != "rows"))

    def context_bytes(self, tokens: int) -> int | None:
        """What a session of so many tokens takes up in memory: whole pages, and one state."""
        if self.layout is None:
            return None
        return -(-tokens // PAGE_TOKENS) * self.layout.page_bytes + self.layout.state_bytes

    @property
    def memory_bytes(self) -> int | None:
        """What loading takes at most: weights as they are, float16 ones widened to float32, and a tenth more."""
        if self.weight_bytes is None:
            return None
        widened = sum(each.bytes for each in self.formats if each.name == "F16")
        return (self.weight_bytes + widened) * 11 // 10


def inspect(path: Path) -> Inspection:
    """Describe the checkpoint in a folder, or the one that a `config.json` (`path` is a file) says it is.

    Raises CheckpointError if there is no config, or none that is JSON.
    """
    source = path / "config.json" if path.is_dir() else path
    config = read_json(source)
    weights, reasons = _weights(path)
    named, classes = config.get("model_type"), config.get("architectures")
    kind = named or (classes[0] if isinstance(classes, list) and classes else None)
    found = Inspection(str(kind or "unknown"), named if isinstance(named, str) else None, (), weights is not None)
    try:
        family = family_of(config, source)
    except CheckpointError as error:
        return _of_files(replace(found, reasons=(str(error), *reasons)), weights, is_quantised(config))
    found = replace(found, family=family.title)
    refused: list[str] = []
    model = _model(family, config, source, refused)
    try:
        loading.describe(source) if weights is None else loading.check(path)
    except CheckpointError as error:
        reasons.append(str(error))
    found = replace(found, reasons=tuple(dict.fromkeys(refused + reasons)))
    if model is None:
        return _of_files(found, weights, is_quantised(config))
    return _of_model(found, model, config, weights, trusted=not refused)


def _weights(path: Path) -> tuple[Weights | None, list[str]]:
    """The folder's weights if there are any, or why they cannot be read."""
    patterns = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.gguf", "*.pth")
    if not path.is_dir() or not any(True for pattern in patterns for _ in path.glob(pattern)):
        return None, []
    try:
        return Weights(path), []
    except CheckpointError as error:
        return None, [str(error)]


def _model(family: Family, config: dict[str, Any], source: Path, refused: list[str]) -> Decoder | None:
    """The model on the meta device, whatever its config asks for that is not computed here; None if it has no sizes."""
    cls = family.load()
    try:
        sizes = loading.without_tower(cls.config_type.from_json(config, str(source), refused))
        return loading.build(cls, sizes, source)  # figures are the language model's
    except CheckpointError as error:
        refused.append(str(error))
        return None


def _of_files(found: Inspection, weights: Weights | None, packed: bool) -> Inspection:
    """What the files alone tell of a model whose sizes are not known."""
    if weights is None:
        return found
    formats = _written(map(_planned, weights.entries.values()))
    if packed:
        formats = tuple(replace(each, parameters=None) for each in formats)
    return replace(
        found,
        parameters=None if packed else sum(each.parameters or 0 for each in formats),
        weight_bytes=sum(each.bytes for each in formats),
        formats=formats,
    )


def _of_model(
    found: Inspection, model: Decoder, config: dict[str, Any], weights: Weights | None, *, trusted: bool
) -> Inspection:
    total = sum(weight.numel() for weight in model.parameters() if weight.is_floating_point())
    dtype = _dtype(config)
    if weights is None:
        formats = _written(planned(model, dtype, config) or ())
        left_out = _named_in(config)
    else:
        names = model.published.layout_of(weights.entries, model.config.num_hidden_layers)
        here, left_out = _split(model, weights, names, config)
        formats = _written(here)
        embedding = weights.entries.get(names.of("embed_tokens.weight"))
        dtype = next((each for each, tag in TAGS.items() if embedding and tag == embedding.dtype), dtype)
        if not trusted and not is_quantised(config):  # what is refused may have weights of its own
            total = sum(each.parameters or 0 for each in formats)
    layout = replace(model.layout, row_dtype=torch.bfloat16 if dtype is torch.bfloat16 else torch.float32)
    return replace(
        found,
        layers=model.config.num_hidden_layers,
        vocab_size=model.config.vocab_size,
        context_length=model.config.max_position_embeddings,
        parameters=total,
        active_parameters=total - _idle(model),
        weight_bytes=sum(each.bytes for each in formats) or None,
        formats=formats,
        left_out=left_out,
        states=tuple(_states(layout)),
        layout=layout,
    )


def _idle(model: Decoder) -> int:
    """Parameters of a model with experts that a token is not multiplied by."""
    experts = [weight for module in model.modules() if isinstance(module, Experts) for weight in module.parameters()]
    if not experts:
        return 0
    chosen = getattr(getattr(model.config, "moe", None) or model.config, "num_experts_per_tok", 0)
    embedding = 0 if model.lm_head is None else model.get_parameter("embed_tokens.weight").numel()
    return embedding + sum(weight[0].numel() * (len(weight) - chosen) for weight in experts)


def _states(layout: StateLayout) -> Iterable[State]:
    """The layout's states, those of all layers together: `layers.3.keys` is of the kind `keys`."""
    each = [(state, layout.row_dtype.itemsize * state.elements_per_token) for state in layout.rows]
    both = [*each, *((state, Fraction(4 * math.prod(state.shape))) for state in layout.fixed)]
    kinds: dict[type[Rows | Recurrent | Window], str] = {Rows: "rows", Recurrent: "recurrent", Window: "window"}
    found: dict[tuple[str, str], list[Fraction]] = {}
    for state, size in both:
        name = re.sub(r"^layers\.\d+\.", "", state.name).replace("_", " ").replace(".", " ")
        found.setdefault((name, kinds[type(state)]), []).append(size)
    return (State(name, kind, len(sizes), sum(sizes, Fraction(0))) for (name, kind), sizes in found.items())


def _planned(entry: Entry) -> Planned:
    """A tensor of a file."""
    return entry.dtype, math.prod(entry.shape) if entry.dtype in _FLOATS else 0, entry.bytes


def _written(tensors: Iterable[Planned]) -> tuple[Format, ...]:
    """By format, the most bytes first."""
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for dtype, count, size in tensors:
        elements[dtype] += count
        sizes[dtype] += size
    return tuple(Format(dtype, elements[dtype], size) for dtype, size in sizes.most_common())


def _split(
    model: Decoder, weights: Weights, names: Names, config: dict[str, Any]
) -> tuple[list[Planned], tuple[LeftOut, ...]]:
    """The tensors that are loaded, and what the others are."""
    copy = names.of("lm_head.weight") if model.lm_head is None else None
    here, sizes = [], Counter[str]()
    coded: dict[str, Planned] = {}
    with contextlib.suppress(CheckpointError):  # a method that is not known: a reason already
        coded = quantised(model, names, quantization_of(config, "config.json"), weights.entries)
    for name, entry in weights.entries.items():
        part = model.published.part_left_out(name, names, model.config.num_hidden_layers)
        part = "a copy of the embedding" if name == copy else part
        if part is None:
            here.append(coded.get(name) or _planned(entry))
        else:
            sizes[part] += entry.bytes
    return here, tuple(LeftOut(part, size) for part, size in sizes.items())


def _named_in(config: dict[str, Any]) -> tuple[LeftOut, ...]:
    """The parts that config.json names and that are not loaded."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, Mapping) else config
    ahead = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")
    parts = [PREDICTION] if any(text.get(name) for name in ahead) else []
    return tuple(LeftOut(part, None) for part in parts + ([VISION] if config.get("vision_config") else []))


def _dtype(config: dict[str, Any]) -> torch.dtype:
    """Of the weights, by the config; bfloat16 if it does not say, which is what these families are published in."""
    inner = config.get("text_config")
    for each in (inner, config):
        if isinstance(each, Mapping) and (name := each.get("dtype") or each.get("torch_dtype")):
            return _DTYPES.get(str(name).removeprefix("torch."), torch.bfloat16)
    return torch.bfloat16
