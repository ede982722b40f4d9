"""Writing the quantised layouts as they are published: for tests, benchmarks and trying things out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet.models.quantization import Format, Kind, quantization_of

FP8: dict[str, Any] = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["indexers_proj", "in_proj_a", "in_proj_b"],
}
"""As MiniMax M2.5, GLM-5, DeepSeek V3 and Qwen3.5 publish it; with model_type deepseek_v4 it means e8m0 and FP4."""
INT4: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32},
        }
    },
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
}
"""As Kimi K2.5 publishes it: routed experts alone."""
_BETWEEN = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
"""Halfway between neighbours of e2m1's 0, 0.5, 1, 1.5, 2, 3, 4 and 6; what lies there becomes the lower one."""


def quantise_checkpoint(folder: Path, quantization_config: dict[str, Any]) -> None:
    """Rewrite a float checkpoint (`model.safetensors`) in the formats of `quantization_config`, which config.json gets.

    Fused experts are written one by one. Raises CheckpointError for a method that is not known.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": quantization_config}
    quantization = quantization_of(config, str(path))
    assert quantization is not None
    written: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        form = quantization.format_of(name, tuple(tensor.shape))
        if form is None:
            written[name] = tensor
        else:
            for matrix, weight in _matrices(name, tensor):
                written |= encode(form, matrix, weight)
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})
    path.write_text(json.dumps(config, indent=2) + "\n")


def encode(form: Format, name: str, weight: Tensor) -> dict[str, Tensor]:
    """The tensors that a float matrix `[out, in]` is published as: nearest codes, scales from each block's largest."""
    parts = form.parts(name, tuple(weight.shape))
    outputs, inputs = weight.shape
    rows, columns = form.block
    padded = F.pad(weight.float(), (0, -inputs % columns, 0, -outputs % rows))
    blocks = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    largest = {Kind.FP8: 448.0, Kind.FP8_E8M0: 448.0, Kind.FP4_E8M0: 6.0, Kind.INT4: 7.0}[form.kind]
    scales = blocks.abs().amax(dim=(1, 3)).clamp(min=1e-12) / largest
    match form.kind:
        case Kind.FP8_E8M0 | Kind.FP4_E8M0:
            scales = torch.exp2(torch.log2(scales).ceil())
            written = scales.to(torch.float8_e8m0fnu)
        case Kind.FP8:
            written = scales
        case Kind.INT4:
            written = scales.bfloat16()
            scales = written.float()
    codes = (blocks / scales[:, None, :, None]).view(padded.shape)[:outputs, :inputs]
    match form.kind:
        case Kind.FP8 | Kind.FP8_E8M0:
            return {parts[0].name: codes.clamp(-448, 448).to(torch.float8_e4m3fn), parts[1].name: written}
        case Kind.FP4_E8M0:
            nearest = torch.bucketize(codes.abs(), _BETWEEN, out_int32=True) + 8 * (codes < 0)
            packed = _pack(nearest, 4, 2).to(torch.uint8).view(torch.int8)
            return {parts[0].name: packed, parts[1].name: written}
        case Kind.INT4:
            packed = _pack(codes.round().clamp(-8, 7).int() + 8, 4, 8)
            shape = torch.tensor([outputs, inputs], dtype=torch.int32)
            return {parts[0].name: packed, parts[1].name: written, parts[2].name: shape}


def _pack(codes: Tensor, bits: int, each: int) -> Tensor:
    codes = F.pad(codes, (0, -codes.shape[1] % each)).view(codes.shape[0], -1, each)
    shifts = bits * torch.arange(each, dtype=torch.int32)
    return (codes << shifts).sum(-1, dtype=torch.int32)  # the highest bit is the sign's


def _matrices(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if tensor.dim() == 2:
        yield name, tensor
        return
    stem, _, kind = name.rpartition(".")
    parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
    for expert, weight in enumerate(tensor):
        for part, matrix in zip(parts, weight.chunk(len(parts)), strict=True):
            yield f"{stem}.{expert}.{part}.weight", matrix
