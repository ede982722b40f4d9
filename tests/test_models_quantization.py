"""quantization_config: which tensors are in which format, their parts and bytes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ramet.models.errors import CheckpointError
from ramet.models.quantization import Format, Kind, quantization_of

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32},
        }
    },
}


def formats(config: dict[str, Any], *names: str) -> list[Kind | None]:
    found = quantization_of(config, "config.json")
    assert found is not None
    each = [found.format_of(name, (64, 64)) for name in names]
    return [one and one.kind for one in each]


def test_plain_weights_have_none() -> None:
    assert quantization_of({"text_config": {}}, "config.json") is None


def test_fp8_and_a_list_with_a_name_that_matches_nothing() -> None:
    config = {"quantization_config": FP8 | {"modules_to_not_convert": ["indexers_proj", "model.layers.0.mlp"]}}
    names = ("model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.gate.weight")
    assert formats(config, *names) == [Kind.FP8, None, None]
    assert formats(config, "model.layers.10.mlp.experts.3.up_proj.weight", "lm_head.weight") == [Kind.FP8, None]
    found = quantization_of(config, "config.json")
    assert found is not None and found.format_of("model.norm.weight", (64,)) is None


def test_the_other_name_of_the_list_is_read() -> None:
    config = {"quantization_config": {**FP8, "modules_to_not_convert": None, "ignored_layers": ["mlp.up_proj"]}}
    assert formats(config, "a.mlp.up_proj.weight", "a.mlp.down_proj.weight") == [None, Kind.FP8]


def test_int4_is_for_routed_experts_alone_where_the_others_are_ignored() -> None:
    stem = "language_model.model.layers.1."
    names = ("mlp.experts.7.up_proj.weight", "mlp.shared_experts.up_proj.weight", "self_attn.o_proj.weight")
    config = {"text_config": {"quantization_config": INT4}}
    assert formats(config, *(stem + name for name in names)) == [Kind.INT4, None, None]


def test_deepseek_v4_has_two_formats() -> None:
    config = {"model_type": "deepseek_v4", "quantization_config": FP8 | {"scale_fmt": "ue8m0"}}
    names = ("layers.0.attn.wo_a.weight", "layers.0.ffn.experts.1.w1.weight", "layers.0.attn.compressor.wkv.weight")
    assert formats(config, *names) == [Kind.FP8_E8M0, Kind.FP4_E8M0, None]
    assert formats(config | {"expert_dtype": "fp8"}, names[1]) == [Kind.FP8_E8M0]
    with pytest.raises(CheckpointError, match=r"^config\.json: expert_dtype 'fp6' is not supported; fp4 and fp8 are"):
        formats(config | {"expert_dtype": "fp6"})


def size(form: Format, shape: tuple[int, ...]) -> int:
    return sum(part.bytes for part in form.parts("a.weight", shape))


def test_parts_have_partial_blocks_and_bytes_count_the_scales() -> None:
    codes, scales = Format(Kind.FP8, (128, 128)).parts("a.weight", (576, 130))
    assert (codes.shape, scales.name, scales.shape) == ((576, 130), "a.weight_scale_inv", (5, 2))
    assert size(Format(Kind.FP8, (128, 128)), (576, 130)) == 576 * 130 + 5 * 2 * 4
    assert size(Format(Kind.FP8_E8M0, (128, 128)), (576, 130)) == 576 * 130 + 10
    assert size(Format(Kind.FP4_E8M0, (1, 32)), (3, 10, 64)) == 3 * (10 * 32 + 10 * 2)
    assert [part.name for part in Format(Kind.INT4, (1, 32)).parts("a.weight", (4, 40))] == [
        "a.weight_packed", "a.weight_scale", "a.weight_shape",
    ]  # fmt: skip
    assert size(Format(Kind.INT4, (1, 32)), (4, 40)) == 4 * 5 * 4 + 4 * 2 * 2 + 8


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("fp8", "must be an object"),
        ({"quant_method": "gptq"}, "quant_method 'gptq' is not supported; fp8 and compressed-tensors are"),
        (FP8 | {"fmt": "e5m2"}, "fmt 'e5m2'"),
        (FP8 | {"weight_block_size": [128]}, r"weight_block_size must be two positive integers, not \[128\]"),
        (FP8 | {"weight_block_size": [10**30, 128]}, "weight_block_size must be two positive integers"),
        (FP8 | {"modules_to_not_convert": "gate"}, "modules_to_not_convert must be a list"),
        (INT4 | {"format": "marlin-24"}, "format 'marlin-24'"),
        (INT4 | {"ignore": ["re:("]}, "no regular expression"),
        (INT4 | {"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8}}}}, "num_bits is 8"),
    ],
)
def test_what_is_not_read_is_refused(found: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        quantization_of({"quantization_config": found}, "config.json")
