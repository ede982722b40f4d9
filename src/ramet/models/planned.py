"""The bytes that a model's weights take in published files, by config.json alone: before anything is downloaded.

Exact where weights are not quantised. Where they are, which of the small matrices stay as they are differs from
checkpoint to checkpoint; the large ones, and so the sum to about a percent, follow from the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ramet.models.decoder import Decoder

TAGS = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}
_KEPT = ("embed_tokens.weight", "lm_head.weight", "gate.weight", "conv1d.weight", ".ape", ".fn", "weights_proj.weight")
"""How the names of matrices end that are never quantised."""

Planned = tuple[str, int, int]
"""Dtype by safetensors' name, parameters, bytes."""


def quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the config says of quantised weights, wherever it says it."""
    for each in (config, config.get("text_config")):
        if isinstance(each, Mapping) and isinstance(found := each.get("quantization_config"), Mapping) and found:
            return found
    return None


def planned(model: Decoder, dtype: torch.dtype, config: Mapping[str, Any]) -> list[Planned] | None:
    """Every parameter's part of the files, in checkpoints of this dtype; None for a format that is not known."""
    quantised = quantization(config)
    if quantised is None:
        return list(_plain(model, dtype, ()))
    method = quantised.get("quant_method")
    if method == "fp8" and quantised.get("weight_block_size") == [128, 128]:
        left = quantised.get("modules_to_not_convert")
        kept = tuple(map(str, left)) if isinstance(left, list) else ()
        matrices = (name for name, each in model.named_parameters() if each.dim() > 1 and each.is_floating_point())
        names = {name for name in matrices if _converted(name, kept)}
        four = config.get("expert_dtype") == "fp4"
        size = 1 if quantised.get("scale_fmt") == "ue8m0" and model.published.experts[0] == "w1" else 4
    elif method == "compressed-tensors" and quantised.get("format") == "pack-quantized":
        names, four, size = {name for name, _ in model.named_parameters() if ".experts." in name}, False, 0
    else:
        return None
    parts = list(_plain(model, dtype, names))
    for name in names:
        shape = model.get_parameter(name).shape
        *many, rows, columns = shape
        count = (many[0] if many else 1) * (2 if name.endswith("gate_up_proj") else 1)
        rows //= 2 if name.endswith("gate_up_proj") else 1
        elements = count * rows * columns
        if size == 0:  # eight of four bits in an int32, a scale in bfloat16 for 32 of them, the shape
            parts += [("I32", elements, elements // 2 + 8 * count), ("BF16", 0, elements // 32 * 2)]
        elif four and many:  # two of four bits in a byte, a scale of eight bits for 32 of them
            parts += [("I8", elements, elements // 2), ("F8_E8M0", 0, elements // 32)]
        else:
            scales = count * -(-rows // 128) * -(-columns // 128)
            parts += [("F8_E4M3", elements, elements), ("F8_E8M0" if size == 1 else "F32", 0, size * scales)]
    return parts


def _converted(name: str, kept: Iterable[str]) -> bool:
    parts = name.split(".")
    return not name.endswith(_KEPT) and not any(each == name.removesuffix(".weight") or each in parts for each in kept)


def _plain(model: Decoder, dtype: torch.dtype, but: Iterable[str]) -> Iterator[Planned]:
    """Parameters that are not quantised."""
    for name, weight in model.named_parameters():
        if name not in but:
            wide = torch.float32 if name.endswith(model.published.wide or "\0") else dtype
            tag = wide if weight.is_floating_point() else weight.dtype
            parameters = weight.numel() if weight.is_floating_point() else 0
            yield TAGS[tag], parameters, weight.numel() * tag.itemsize
