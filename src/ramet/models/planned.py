"""What a model's weights are in published files, tensor by tensor: by config.json alone, or as it is in the files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ramet.models.checkpoint import Entry
from ramet.models.decoder import Decoder
from ramet.models.errors import CheckpointError
from ramet.models.published import Names
from ramet.models.quantization import Format, Quantization, quantization_of

TAGS = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}

Planned = tuple[str, int, int]
"""The name of a format that codes are in, or the dtype as safetensors calls it; parameters; bytes."""


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
    for parameter, weight, matrices, shape, form in _matrices(model, names, quantization):
        if form is None:
            found.append(_plain(model, parameter, weight, dtype))
            continue
        codes, *others = form.parts(matrices[0], shape)
        found.append((form.kind.value, weight.numel(), len(matrices) * codes.bytes))
        found += [(part.dtypes[0], 0, len(matrices) * part.bytes) for part in others]
    return found


def quantised(
    model: Decoder, names: Names, quantization: Quantization | None, entries: Mapping[str, Entry]
) -> dict[str, Planned]:
    """Of the tensors of files those that are codes, with the parameters that they hold, and scales and shapes."""
    found: dict[str, Planned] = {}
    for _, _, matrices, shape, form in _matrices(model, names, quantization):
        if form is None:
            continue
        for matrix in matrices:
            codes, *others = form.parts(matrix, shape)
            if (entry := entries.get(codes.name)) is not None and entry.dtype in codes.dtypes:
                found[codes.name] = form.kind.value, math.prod(shape), entry.bytes
                here = {part.name: entries[part.name] for part in others if part.name in entries}
                found |= {name: (each.dtype, 0, each.bytes) for name, each in here.items()}
    return found


def _matrices(
    model: Decoder, names: Names, quantization: Quantization | None
) -> Iterator[tuple[str, torch.Tensor, list[str], tuple[int, ...], Format | None]]:
    """Every parameter's name and itself; the published names of the matrices in it, the shape and format of each."""
    for parameter, weight in model.named_parameters():
        published, shape = names.of(parameter), tuple(weight.shape)
        matrices = model.published.by_expert(published, shape) or [published]
        if len(shape) == 3:  # experts, two of whose matrices may be one parameter
            shape = (shape[1] * shape[0] // len(matrices), shape[2])
        yield parameter, weight, matrices, shape, quantization.format_of(matrices[0], shape) if quantization else None


def _plain(model: Decoder, parameter: str, weight: torch.Tensor, dtype: torch.dtype) -> Planned:
    wide = torch.float32 if parameter.endswith(model.published.wide or "\0") else dtype
    tag = wide if weight.is_floating_point() else weight.dtype
    return TAGS[tag], weight.numel() if weight.is_floating_point() else 0, weight.numel() * tag.itemsize
