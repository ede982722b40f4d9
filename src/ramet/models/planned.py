"""The bytes that a model's weights take in published files, by config.json alone: before anything is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ramet.models.decoder import Decoder
from ramet.models.errors import CheckpointError
from ramet.models.quantization import quantization_of

TAGS = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}

Planned = tuple[str, int, int]
"""Dtype by safetensors' name, parameters, bytes."""


def planned(model: Decoder, dtype: torch.dtype, config: Mapping[str, Any]) -> list[Planned] | None:
    """Every parameter's part of the files, in checkpoints of this dtype; None for a format that is not known.

    Exact where weights are not quantised. Where they are, a checkpoint may keep small matrices in a float dtype that
    its config does not name; the large ones, and so the sum to about a percent, follow from the format.
    """
    try:
        quantization = quantization_of(config, "config.json")
    except CheckpointError:
        return None
    names = model.published.names[0].at(model.config.num_hidden_layers)
    found: list[Planned] = []
    for parameter, weight in model.named_parameters():
        published, shape = names.of(parameter), tuple(weight.shape)
        matrices = model.published.by_expert(published, shape) or [published]
        if len(shape) == 3:  # experts, two of whose matrices may be one parameter
            shape = (shape[1] * shape[0] // len(matrices), shape[2])
        form = quantization.format_of(matrices[0], shape) if quantization else None
        if form is None:
            found.append(_plain(model, parameter, weight, dtype))
            continue
        codes, *others = form.parts(matrices[0], shape)
        found.append((codes.dtypes[0], weight.numel(), len(matrices) * codes.bytes))
        found += [(part.dtypes[0], 0, len(matrices) * part.bytes) for part in others]
    return found


def _plain(model: Decoder, parameter: str, weight: torch.Tensor, dtype: torch.dtype) -> Planned:
    wide = torch.float32 if parameter.endswith(model.published.wide or "\0") else dtype
    tag = wide if weight.is_floating_point() else weight.dtype
    return TAGS[tag], weight.numel() if weight.is_floating_point() else 0, weight.numel() * tag.itemsize
