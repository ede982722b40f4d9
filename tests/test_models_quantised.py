"""Quantised checkpoints in their published layouts: decoded as a reference written here does, run bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet import kernels, models
from ramet.models.errors import CheckpointError
from ramet.models.quantise import FP8, INT4, encode, quantise_checkpoint
from ramet.models.quantization import Format, Kind
from ramet.models.random import write_random_checkpoint
from tests.models_support import Session, run

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
FORMATS = [
    Format(Kind.FP8, (128, 128)),
    Format(Kind.FP8_E8M0, (128, 128)),
    Format(Kind.FP4_E8M0, (1, 32)),
    Format(Kind.INT4, (1, 32)),
]
CODINGS: dict[Kind, Any] = {Kind.FP8: "fp8", Kind.FP8_E8M0: "fp8", Kind.FP4_E8M0: "fp4", Kind.INT4: "int4"}
CASES = [
    ("tiny-moe", FP8), ("tiny-minimax", FP8), ("tiny-deepseek-v3", FP8), ("tiny-deepseek-v32", FP8),
    ("tiny-glm", FP8), ("tiny-kimi", INT4), ("tiny-deepseek-v4", FP8),
]  # fmt: skip
WIDER: dict[str, dict[str, Any]] = {
    "tiny-minimax": {"hidden_size": 160, "head_dim": 72},  # 144 rows of queries, 160 inputs: partial blocks
    "tiny-deepseek-v3": {"kv_lora_rank": 130, "hidden_size": 144},  # 138 rows, and heads that cross a block
    "tiny-kimi": {"hidden_size": 40, "moe_intermediate_size": 48},
    "tiny-deepseek-v4": {"hidden_size": 160, "moe_intermediate_size": 48, "o_lora_rank": 72},
}


def e4m3(byte: int) -> float:
    """By the definition: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities."""
    sign, exponent, mantissa = (-1.0 if byte & 128 else 1.0), byte >> 3 & 15, byte & 7
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


E4M3 = np.array([e4m3(byte) for byte in range(256)], dtype=np.float32)


def decode(tensors: dict[str, Tensor], name: str, block: tuple[int, int]) -> Tensor:
    """The float32 matrix that published tensors stand for, in numpy, one number of one format after the other."""
    stem = name.removesuffix(".weight")
    if stem + ".weight_packed" in tensors:
        outputs, inputs = tensors[stem + ".weight_shape"].tolist()
        words = tensors[stem + ".weight_packed"].numpy().view(np.uint32)
        codes = np.empty((outputs, inputs), np.float32)
        for column in range(inputs):
            codes[:, column] = ((words[:, column // 8] >> np.uint32(4 * (column % 8))) & 15).astype(np.int32) - 8
        scales = tensors[stem + ".weight_scale"].float().numpy()
    else:
        raw = tensors[name].view(torch.uint8).numpy()
        found = tensors.get(name + "_scale_inv")
        if found is not None:
            scales = found.float().numpy()
        else:
            scales = np.exp2(tensors[stem + ".scale"].view(torch.uint8).numpy().astype(np.float32) - 127)
        if tensors[name].dtype is torch.float8_e4m3fn:
            codes = E4M3[raw]
        else:
            table = np.array(E2M1 + [-value for value in E2M1], np.float32)
            codes = np.empty((raw.shape[0], raw.shape[1] * 2), np.float32)
            codes[:, ::2], codes[:, 1::2] = table[raw & 15], table[raw >> 4]
    out = np.empty_like(codes)
    for row in range(codes.shape[0]):
        for begin in range(0, codes.shape[1], block[1]):
            scale = scales[row // block[0], begin // block[1]]
            out[row, begin : begin + block[1]] = codes[row, begin : begin + block[1]] * scale
    return torch.from_numpy(out)


def block_of(tensors: dict[str, Tensor], name: str) -> tuple[int, int]:
    return (128, 128) if name in tensors and tensors[name].dtype is torch.float8_e4m3fn else (1, 32)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def matrix_of(form: Format, weight: Tensor) -> tuple[kernels.CodedMatrix, Tensor]:
    tensors = encode(form, "a.weight", weight)
    codes, scales = (tensors[part.name] for part in form.parts("a.weight", tuple(weight.shape))[:2])
    matrix = kernels.CodedMatrix(CODINGS[form.kind], codes, scales, *weight.shape, form.block)
    return matrix, decode(tensors, "a.weight", form.block)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.kind.name)
def test_a_matrix_is_decoded_and_multiplied_bit_for_bit(form: Format) -> None:
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(300, 200 if form.kind is not Kind.FP4_E8M0 else 224, generator=random)
    matrix, decoded = matrix_of(form, weight)
    assert (decoded - weight).abs().max() < 0.7  # an encoding of this matrix, not of another
    before = kernels.isa()
    try:
        for isa in kernels.available_isas():
            kernels.set_isa(isa)
            for rows in (1, 2, 13, 70):
                x, add = torch.randn(rows, weight.shape[1], generator=random), torch.randn(rows, 600, generator=random)
                both = kernels.CodedLinear(matrix, matrix)
                assert same_bits(both(x, add=add), kernels.PackedLinear(torch.cat([decoded] * 2))(x, add=add))
    finally:
        kernels.set_isa(before)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.kind.name)
def test_experts_have_the_bits_of_the_float_ones(form: Format) -> None:
    random = torch.Generator().manual_seed(2)
    experts, hidden, inner, top_k = 5, 96, 64, 3
    each = [
        [matrix_of(form, torch.randn(*size, generator=random)) for size in ((inner, hidden),) * 2 + ((hidden, inner),)]
        for _ in range(experts)
    ]
    coded = kernels.CodedExperts([(gate[0], up[0]) for gate, up, _ in each], [down[0] for *_, down in each])
    plain = kernels.PackedExperts(
        torch.stack([torch.cat([gate[1], up[1]]) for gate, up, _ in each]), torch.stack([down[1] for *_, down in each])
    )
    before = kernels.isa()
    try:
        for isa in kernels.available_isas():
            kernels.set_isa(isa)
            for rows in (0, 1, 17):
                x, weights = torch.randn(rows, hidden, generator=random), torch.rand(rows, top_k, generator=random)
                chosen = torch.rand(rows, experts, generator=random).argsort(dim=1)[:, :top_k].int().contiguous()
                assert same_bits(coded(x, chosen, weights, limit=2.0), plain(x, chosen, weights, limit=2.0))
    finally:
        kernels.set_isa(before)


def as_float(folder: Path, to: Path) -> int:
    """The same checkpoint with every matrix decoded by the reference; returns how many were quantised."""
    tensors = load_file(folder / "model.safetensors")
    plain, count = {}, 0
    for name, tensor in tensors.items():
        if name.endswith(("_scale_inv", ".weight_scale", ".weight_shape")) or tensor.dtype is torch.float8_e8m0fnu:
            continue
        if name.endswith(".weight_packed") or tensor.dtype in (torch.float8_e4m3fn, torch.int8):
            name, count = name.removesuffix("_packed"), count + 1
            tensor = decode(tensors, name, block_of(tensors, name))
        plain[name] = tensor
    to.mkdir()
    save_file(plain, to / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (to / "config.json").write_text(json.dumps(config))
    return count


@pytest.mark.parametrize(("preset", "config"), CASES, ids=[preset for preset, _ in CASES])
def test_logits_are_those_of_the_decoded_model(tmp_path: Path, preset: str, config: dict[str, Any]) -> None:
    folder = write_random_checkpoint(tmp_path / "coded", seed=3, preset=preset, **WIDER.get(preset, {}))
    quantise_checkpoint(folder, config)
    assert as_float(folder, tmp_path / "plain") > 8
    coded, plain = models.load(folder), models.load(tmp_path / "plain")
    tokens = torch.randint(0, 256, (90,), generator=torch.Generator().manual_seed(4))
    expected = run(plain, tokens)
    assert same_bits(run(coded, tokens), expected) and same_bits(run(coded, tokens, 7), expected)
    assert coded.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("preset", "config"), [CASES[1], CASES[2], CASES[5], CASES[6]], ids=lambda case: str(case)[:16]
)
def test_a_mixed_batch_gives_each_session_the_logits_it_has_alone(
    tmp_path: Path, preset: str, config: dict[str, Any]
) -> None:
    quantise_checkpoint(write_random_checkpoint(tmp_path, seed=5, preset=preset, **WIDER.get(preset, {})), config)
    model, random = models.load(tmp_path), torch.Generator().manual_seed(6)
    tokens = [torch.randint(0, 256, (length,), generator=random) for length in (40, 7, 71)]
    alone = [run(model, each) for each in tokens]
    sessions, parts = [Session(model) for _ in tokens], ([33, 1, 1, 5], [1, 1, 1, 4], [60, 9, 1, 1])
    found: list[list[Tensor]] = [[] for _ in tokens]
    pieces = [each.split(sizes) for each, sizes in zip(tokens, parts, strict=True)]
    for step in zip(*pieces, strict=True):  # prefill of one beside single tokens of others
        logits = model.forward([session.span(part) for session, part in zip(sessions, step, strict=True)])
        for got, rows in zip(found, logits.split([len(part) for part in step]), strict=True):
            got.append(rows)
    for got, expected in zip(found, alone, strict=True):
        assert same_bits(torch.cat(got), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors, scale, codes: tensors.pop(scale),
            "tensor {scale} is missing; by quantization_config the matrix is quantised",
        ),
        (lambda tensors, scale, codes: tensors.update({scale: tensors[scale][:0]}), "tensor {scale} is "),
        (lambda tensors, scale, codes: tensors.update({scale: tensors[scale].int()}), "tensor {scale} is I32"),
        (lambda tensors, scale, codes: tensors.update({codes: tensors[codes][:, 1:].clone()}), "tensor {codes} is "),
    ],
)
@pytest.mark.parametrize(("preset", "config"), [CASES[1], CASES[5], CASES[6]], ids=["fp8", "int4", "v4"])
def test_scales_and_codes_that_do_not_fit_are_refused(
    tmp_path: Path, preset: str, config: dict[str, Any], change: Callable[..., Any], message: str
) -> None:
    quantise_checkpoint(write_random_checkpoint(tmp_path, seed=3, preset=preset, **WIDER[preset]), config)
    tensors = load_file(tmp_path / "model.safetensors")
    endings = ("q_proj.weight_scale_inv", "0.gate_proj.weight_scale", "attn.wq_b.scale")
    scale = next(name for name in sorted(tensors) if name.endswith(endings))
    codes = scale.replace("_scale_inv", "").replace("weight_scale", "weight_packed").replace(".scale", ".weight")
    change(tensors, scale, codes)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as raised:
        models.check(tmp_path)
    assert message.format(scale=scale, codes=codes) in str(raised.value) and str(tmp_path) in str(raised.value)
