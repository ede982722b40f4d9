"""What `quantization_config` says: which published tensors are written in few bits, how, and in how many bytes.

A matrix `[out, in]` (or each one of a fused `[experts, out, in]`) is a tensor of codes and one of scales. The size of
a block is a constant of the format, never inferred from shapes: the last block of a row or column may be partial.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from ramet.models.errors import CheckpointError


class Kind(Enum):
    """How the codes of a matrix are written; the value is what a user is told."""

    FP8 = "FP8"
    FP8_E8M0 = "FP8 (e8m0 scales)"
    FP4_E8M0 = "FP4"
    INT4 = "INT4"


@dataclass(frozen=True)
class Part:
    """One tensor that a quantised matrix is made of: its published name, the dtypes it may have, its shape."""

    name: str
    dtypes: tuple[str, ...]
    """As safetensors headers name them; the usual one first."""
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """In the usual dtype."""
        return prod(self.shape) * _SIZES[self.dtypes[0]]


@dataclass(frozen=True)
class Format:
    """A way to write a matrix; `block` is the outputs and inputs that share a scale."""

    kind: Kind
    block: tuple[int, int]

    def parts(self, name: str, shape: tuple[int, ...]) -> tuple[Part, ...]:
        """The tensors, codes first and scales second, that the matrix published as `name` (`....weight`) consists of.

        `shape` is `[..., out, in]` of the matrix itself. ValueError for fewer than two dimensions.
        """
        if len(shape) < 2:
            raise ValueError(f"{name}: a matrix has two dimensions at least, not {list(shape)}")
        *outer, outputs, inputs = shape
        scales = (*outer, -(-outputs // self.block[0]), -(-inputs // self.block[1]))
        stem = name.removesuffix(".weight")
        match self.kind:
            case Kind.FP8:
                return Part(name, ("F8_E4M3",), shape), Part(name + "_scale_inv", ("F32", "BF16"), scales)
            case Kind.FP8_E8M0:
                return Part(name, ("F8_E4M3",), shape), Part(stem + ".scale", ("F8_E8M0",), scales)
            case Kind.FP4_E8M0:
                codes = (*outer, outputs, -(-inputs // 2))
                return Part(name, ("I8", "U8"), codes), Part(stem + ".scale", ("F8_E8M0",), scales)
            case Kind.INT4:
                codes = (*outer, outputs, -(-inputs // 8))
                return (
                    Part(stem + ".weight_packed", ("I32",), codes),
                    Part(stem + ".weight_scale", ("BF16", "F16", "F32"), scales),
                    Part(stem + ".weight_shape", ("I32", "I64"), (2,)),
                )


_SIZES = {"F8_E4M3": 1, "F8_E8M0": 1, "I8": 1, "I32": 4, "F32": 4, "BF16": 2}
_PLAIN = (
    "embed_tokens", "embed", "lm_head", "head", "gate", "shared_expert_gate", "conv1d", "weights_proj",
    "compressor", "hc_attn", "hc_ffn", "hc_head", "visual", "vision_tower", "mm_projector", "eh_proj",
)  # fmt: skip
"""Modules whose weights are published unquantised whether or not the config lists them."""


@dataclass(frozen=True)
class Quantization:
    """The formats of a checkpoint; `experts` of routed experts' matrices, `dense` of all others."""

    method: str
    dense: Format | None
    experts: Format | None
    ignored: tuple[str, ...]
    """Modules left in a float dtype: names, whole or in part, or `re:` and a regular expression. May match nothing."""

    def format_of(self, name: str, shape: tuple[int, ...]) -> Format | None:
        """The format of the matrix with this published name; None for one in a float dtype, and for what is no matrix.

        By config alone. A file may hold a float tensor nevertheless; its header has the last word.
        """
        if len(shape) < 2 or not name.endswith((".weight", "gate_up_proj", "down_proj")):
            return None
        module = name.removesuffix(".weight")
        path = f".{module}."
        if any(f".{plain}." in path for plain in _PLAIN) or any(_matches(entry, module) for entry in self.ignored):
            return None
        return self.experts if ".experts." in path else self.dense


def _matches(entry: str, module: str) -> bool:
    if entry.startswith("re:"):
        return re.match(entry[3:], module) is not None
    return f".{entry}." in f".{module}."


def is_quantised(config: Mapping[str, Any]) -> bool:
    """Whether a parsed config.json says that weights are quantised, in whatever way."""
    return bool(_said(config)[1])


def _said(config: Mapping[str, Any]) -> tuple[str, Any]:
    """What a config says, and where: itself or in its `text_config`."""
    inner = config.get("text_config")
    nested = inner.get("quantization_config") if isinstance(inner, Mapping) else None
    own = config.get("quantization_config")
    return ("quantization_config", own) if own else ("text_config: quantization_config", nested)


def quantization_of(config: Mapping[str, Any], source: str) -> Quantization | None:
    """What a parsed config.json says, itself or in its `text_config`; None if the weights are plain.

    `source` names the file in errors. Raises CheckpointError for a method or form that is not read here.
    """
    where, found = _said(config)
    if not found:
        return None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{source}: {where} must be an object, not {found!r}")
    file, source = source, f"{source}: {where}"
    method = found.get("quant_method")
    if method == "fp8":
        return _fp8(config, found, file, source)
    if method == "compressed-tensors":
        return _compressed(found, source)
    raise CheckpointError(f"{source}: quant_method {method!r} is not supported; fp8 and compressed-tensors are")


def _fp8(config: Mapping[str, Any], found: Mapping[str, Any], file: str, source: str) -> Quantization:
    if (form := found.get("fmt") or "e4m3") not in ("e4m3", "float8_e4m3fn"):
        raise CheckpointError(f"{source}: fmt {form!r} is not supported; e4m3 is")
    block = found.get("weight_block_size")
    if not (
        isinstance(block, list | tuple)
        and len(block) == 2
        and all(type(size) is int and 0 < size < 1 << 31 for size in block)
    ):
        raise CheckpointError(f"{source}: weight_block_size must be two positive integers, not {block!r}")
    listed = "ignored_layers" if found.get("modules_to_not_convert") is None else "modules_to_not_convert"
    ignored = _names(found.get(listed), f"{source}: {listed}")
    size = (block[0], block[1])
    if config.get("model_type") != "deepseek_v4":
        both = Format(Kind.FP8, size)
        return Quantization("fp8", both, both, ignored)
    dense = Format(Kind.FP8_E8M0, size)
    match config.get("expert_dtype") or "fp4":
        case "fp4":
            return Quantization("fp8", dense, Format(Kind.FP4_E8M0, (1, 32)), ignored)
        case "fp8":
            return Quantization("fp8", dense, dense, ignored)
        case other:
            raise CheckpointError(f"{file}: expert_dtype {other!r} is not supported; fp4 and fp8 are")


def _compressed(found: Mapping[str, Any], source: str) -> Quantization:
    groups = found.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise CheckpointError(f"{source}: config_groups must be an object with one group, not {groups!r}")
    (name, group), = groups.items()  # fmt: skip
    if not isinstance(group, Mapping) or not isinstance(weights := group.get("weights"), Mapping):
        raise CheckpointError(f"{source}: config_groups: {name}: weights must be an object")
    form = found.get("format") or group.get("format")
    if form != "pack-quantized":
        raise CheckpointError(f"{source}: format {form!r} is not supported; 'pack-quantized' is")
    if (targets := group.get("targets")) != ["Linear"]:
        raise CheckpointError(f"{source}: config_groups: {name}: targets {targets!r}; only ['Linear'] is supported")
    wanted = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    for field, value in wanted.items():
        if (given := weights.get(field)) != value:
            raise CheckpointError(
                f"{source}: config_groups: {name}: weights: {field} is {given!r}; only {value!r} is supported"
            )
    both = Format(Kind.INT4, (1, 32))
    return Quantization("compressed-tensors", both, both, _names(found.get("ignore"), f"{source}: ignore"))


def _names(value: Any, source: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise CheckpointError(f"{source} must be a list of names, not {value!r}")
    for name in value:
        if name.startswith("re:"):
            try:
                re.compile(name[3:])
            except re.error as error:
                raise CheckpointError(f"{source}: {name!r} is no regular expression ({error})") from error
    return tuple(value)
