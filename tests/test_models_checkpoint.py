"""Reading checkpoints: every layout that is published, and every way of being wrong, by name."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet import models
from ramet.errors import RametError
from ramet.models.checkpoint import Weights, read_header
from ramet.models.random import PRESETS, write_random_checkpoint
from tests.models_support import run

TOKENS = torch.arange(40)
EMBEDDING = "model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("dense"), seed=1)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("moe"), seed=2, preset="tiny-moe")


def copy(checkpoint: Path, to: Path) -> Path:
    shutil.copytree(checkpoint, to, dirs_exist_ok=True)
    return to


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def shard(folder: Path) -> None:
    """Spread the weights over three files and an index, as large checkpoints are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for part in range(3):
        file = f"model.safetensors-{part + 1:05}-of-00003.safetensors"
        names = sorted(tensors)[part::3]
        save_file({name: tensors[name] for name in names}, folder / file)
        places.update(dict.fromkeys(names, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def refused(folder: Path) -> str:
    """The message with which loading this folder is refused, twice: by its headers, and by `load`."""
    with pytest.raises(models.CheckpointError) as by_load:
        models.load(folder)
    with pytest.raises(models.CheckpointError) as by_check:
        models.check(folder)
    assert isinstance(by_load.value, RametError)
    assert str(by_load.value) == str(by_check.value)
    return str(by_load.value)


# Layouts -------------------------------------------------------------------------------------------------------------


def test_shards_are_the_same_model(dense: Path, tmp_path: Path) -> None:
    shard(copy(dense, tmp_path))
    whole, sharded = models.load(dense), models.load(tmp_path)
    assert torch.equal(run(whole, TOKENS), run(sharded, TOKENS))
    assert whole.fingerprint == sharded.fingerprint


def test_experts_one_by_one_are_the_same_model_as_fused(moe: Path, tmp_path: Path) -> None:
    def split(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if ".mlp.experts." in name]:
            stem, kind = name.rsplit(".", 1)
            for expert, weight in enumerate(tensors.pop(name)):
                if kind == "gate_up_proj":
                    gate, up = weight.chunk(2)
                    tensors[f"{stem}.{expert}.gate_proj.weight"] = gate.clone()
                    tensors[f"{stem}.{expert}.up_proj.weight"] = up.clone()
                else:
                    tensors[f"{stem}.{expert}.down_proj.weight"] = weight.clone()

    rewrite(copy(moe, tmp_path), split)
    fused, apart = models.load(moe), models.load(tmp_path)
    assert torch.equal(run(fused, TOKENS), run(apart, TOKENS))
    assert fused.fingerprint == apart.fingerprint

    rewrite(tmp_path, lambda tensors: tensors.pop("model.language_model.layers.1.mlp.experts.3.up_proj.weight"))
    assert "model.language_model.layers.1.mlp.experts.3.up_proj.weight is missing" in refused(tmp_path)


def test_vision_and_multi_token_prediction_are_left_out(dense: Path, tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["model.visual.blocks.0.attn.qkv.weight"] = torch.zeros(3, 3)
        tensors["mtp.fc.weight"] = torch.zeros(2, 2, dtype=torch.bfloat16)

    rewrite(copy(dense, tmp_path), add)
    assert models.load(tmp_path).fingerprint == models.load(dense).fingerprint


def test_a_copy_of_a_tied_embedding_is_left_out(tmp_path: Path) -> None:
    tied = write_random_checkpoint(tmp_path / "tied", seed=1, tie_word_embeddings=True)
    copied = copy(tied, tmp_path / "copied")
    rewrite(copied, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()}))
    assert models.load(copied).fingerprint == models.load(tied).fingerprint


def test_float16_is_widened(dense: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    def widen(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.float() for name, tensor in tensors.items()})

    rewrite(copy(dense, tmp_path / "half"), halve)
    rewrite(copy(tmp_path / "half", tmp_path / "wide"), widen)
    assert torch.equal(run(models.load(tmp_path / "half"), TOKENS), run(models.load(tmp_path / "wide"), TOKENS))


def test_a_config_of_an_earlier_form_is_the_same_model(dense: Path, tmp_path: Path) -> None:
    """Rotary fields beside the sizes, an interval in place of the list of layers, the class's name alone."""
    config = json.loads((copy(dense, tmp_path) / "config.json").read_text())
    text = config["text_config"]
    text |= {name: text["rope_parameters"][name] for name in ("rope_theta", "partial_rotary_factor")}
    del text["rope_parameters"], text["layer_types"], config["model_type"]
    text["full_attention_interval"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert models.load(tmp_path).fingerprint == models.load(dense).fingerprint


def test_the_fingerprint_is_of_the_config_and_every_weight(dense: Path, tmp_path: Path) -> None:
    original = models.load(dense).fingerprint
    assert models.load(dense).fingerprint == original
    seen = {original}
    tensors = load_file(dense / "model.safetensors")
    for name in list(tensors)[:: len(tensors) // 6]:
        folder = copy(dense, tmp_path / name)

        def flip(tensors: dict[str, Tensor], name: str = name) -> None:
            tensors[name].view(torch.int32).view(-1)[0] ^= 1  # the lowest bit of one weight

        rewrite(folder, flip)
        seen.add(models.load(folder).fingerprint)
    reconfigure(copy(dense, tmp_path / "config"), rms_norm_eps=2e-6)
    seen.add(models.load(tmp_path / "config").fingerprint)
    assert len(seen) >= 8


# Damage --------------------------------------------------------------------------------------------------------------


def test_a_file_cut_off_anywhere_is_refused_by_name(dense: Path, tmp_path: Path) -> None:
    file = copy(dense, tmp_path) / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    data = {name: entry for name, entry in read_header(file).items() if entry.bytes}
    for size in [0, 3, 8, 100, header - 1, header, header + 1, *range(header + 7, len(whole), 9973), len(whole) - 1]:
        file.write_bytes(whole[:size])
        message = refused(tmp_path)
        assert str(file) in message
        if size >= header:
            first_cut = min((entry.start, name) for name, entry in data.items() if entry.start + entry.bytes > size)[1]
            assert f"cut off inside tensor {first_cut}:" in message
    file.write_bytes(whole + b"\0")
    assert "but its tensors end at" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not a safetensors file"),
        (struct.pack("<Q", 9) + b"not JSON!", "header is no JSON"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 60000) + b"[" * 60000, "header is no JSON"),
    ],
)
def test_a_file_that_is_something_else_is_refused(dense: Path, tmp_path: Path, content: bytes, message: str) -> None:
    file = copy(dense, tmp_path) / "model.safetensors"
    file.write_bytes(content)
    assert re.match(f"{re.escape(str(file))}: .*{message}", refused(tmp_path))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_header_is_more_than_an_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        entries = read_header(file)
    except models.CheckpointError as error:
        assert str(file) in str(error)
    else:
        assert all(0 <= entry.start <= entry.start + entry.bytes <= len(content) for entry in entries.values())


def test_an_index_that_promises_too_much_is_refused(dense: Path, tmp_path: Path) -> None:
    shard(copy(dense, tmp_path))
    index = tmp_path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    second = places[sorted(places)[1]]

    index.write_text(json.dumps({"weight_map": places | {EMBEDDING: "../elsewhere.safetensors"}}))
    assert EMBEDDING in refused(tmp_path) and "not a file of this folder" in refused(tmp_path)
    index.write_text(json.dumps({"weight_map": places | {"lm_head.weight": second}}))
    assert f"{second}: tensor lm_head.weight is missing" in refused(tmp_path)
    index.write_text(json.dumps({"weight_map": {n: p for n, p in places.items() if n != EMBEDDING}}))
    assert f"tensor {EMBEDDING} is missing" in refused(tmp_path)
    index.write_text(json.dumps({"weight_map": [1]}))
    assert "weight_map must be an object" in refused(tmp_path)
    index.write_text('{"weight_map": {"a"')
    assert f"{index}: not valid JSON" in refused(tmp_path)
    index.write_text(json.dumps({"weight_map": places}))
    models.check(tmp_path)
    (tmp_path / second).unlink()
    assert f"{tmp_path / second}: missing; model.safetensors.index.json says" in refused(tmp_path)


# Contradictions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 48}, rf"tensor {EMBEDDING} has shape \[320, 32\]; config.json makes it \[320, 48\]"),
        ({"vocab_size": 400}, rf"tensor {EMBEDDING} has shape \[320, 32\]; config.json makes it \[400, 32\]"),
        ({"head_dim": 32}, r"self_attn.q_proj.weight has shape \[64, 32\]; config.json makes it \[128, 32\]"),
        ({"num_hidden_layers": 5, "layer_types": None}, r"layers\.4\..* is missing; config.json asks for it"),
        ({"num_hidden_layers": 3, "layer_types": None}, r"layers\.3\..* is no part of the model"),
        ({"layer_types": ["full_attention"] * 4}, r"layers\.0\.self_attn\.\S+ is missing"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries, num_hidden_layers is 4"),
        ({"layer_types": ["sliding"] * 4}, "layer_types has .'sliding'.; known are"),
        ({"layer_types": [{}] * 4}, "layer_types has .'{}'.; known are"),
        ({"hidden_size": 1 << 40}, "hidden_size is 1099511627776; no model is that large"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number, not nan"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": float("inf")}}, "partial_rotary_factor must"),
        ({"num_key_value_heads": 3}, "num_attention_heads 2 is no multiple of 3"),
        ({"hidden_size": None}, "config.json: text_config: hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size must be a positive integer, not '32'"),
        ({"rms_norm_eps": -1}, "rms_norm_eps must be a positive number, not -1"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; only 'silu' is supported"),
        ({"attention_bias": True}, "attention_bias: True; only False is supported"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type: 'yarn'; only 'default'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq' is not supported"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    dense: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    reconfigure(copy(dense, tmp_path), **changes)
    found = refused(tmp_path)
    assert re.search(message, found) and str(tmp_path) in found


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float64, torch.float8_e4m3fn])
def test_other_dtypes_are_refused(dense: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    rewrite(copy(dense, tmp_path), lambda tensors: tensors.update({EMBEDDING: tensors[EMBEDDING].to(dtype)}))
    found = refused(tmp_path)
    assert f"tensor {EMBEDDING} has dtype" in found and "expected BF16, F16 or F32" in found
    assert ("quantised, but config.json does not say so" in found) == (dtype is not torch.float64)


def test_other_models_are_refused_with_what_is_supported(dense: Path, tmp_path: Path) -> None:
    config = copy(dense, tmp_path) / "config.json"
    config.write_text(json.dumps({"model_type": "llama"}))
    assert "model_type 'llama' is not supported; supported are qwen3_5, qwen3_5_text, qwen3_5_moe" in refused(tmp_path)
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    assert "['LlamaForCausalLM'] and no model_type is not supported" in refused(tmp_path)
    config.write_text(json.dumps({"model_type": ["qwen3_5"]}))
    assert "model_type ['qwen3_5'] is not supported" in refused(tmp_path)
    config.write_text(json.dumps({"architectures": [{}]}))
    assert "architectures [{}] and no model_type is not supported" in refused(tmp_path)
    config.write_text("{")
    assert f"{config}: not valid JSON" in refused(tmp_path)
    config.write_text("[]")
    assert "expected a JSON object, found list" in refused(tmp_path)
    config.unlink()
    assert f"{tmp_path}: no config.json. Give the folder of a checkpoint" in refused(tmp_path)


def test_weights_in_another_format_are_named(dense: Path, tmp_path: Path) -> None:
    (copy(dense, tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin is there, but only safetensors are read" in refused(tmp_path)


def test_a_file_that_changes_under_the_reader_is_an_error(dense: Path, tmp_path: Path) -> None:
    weights = Weights(copy(dense, tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(models.CheckpointError, match=f"ends inside tensor {re.escape(EMBEDDING)}"):
        weights.read(EMBEDDING)


# Random checkpoints --------------------------------------------------------------------------------------------------


def test_random_checkpoints_are_reproducible_and_seeded(tmp_path: Path) -> None:
    a = write_random_checkpoint(tmp_path / "a", seed=4, corpus=["the cat sat on the mat"] * 9)
    b = write_random_checkpoint(tmp_path / "b", seed=4, corpus=["the cat sat on the mat"] * 9)
    c = write_random_checkpoint(tmp_path / "c", seed=5)
    assert all((a / file.name).read_bytes() == file.read_bytes() for file in b.iterdir())
    assert models.load(a).fingerprint != models.load(c).fingerprint


def test_the_thin_preset_weighs_states_against_rows_like_the_0_8b() -> None:
    """What makes caching states hard at that size: a state as heavy as some 820 tokens of rows."""
    from ramet.models.qwen3_5 import Qwen3_5
    from ramet.models.qwen3_5_config import Qwen3_5Config

    weight = {}
    for preset in ("0.8b", "thin"):
        with torch.device("meta"):
            layout = Qwen3_5(Qwen3_5Config(vocab_size=64, **PRESETS[preset][1])).layout
        weight[preset] = layout.state_bytes / (layout.page_bytes / 64)
        assert len(layout.rows) == 2 * 6 and len(layout.fixed) == 2 * 18
    assert 800 < weight["0.8b"] < 840
    assert abs(weight["thin"] / weight["0.8b"] - 1) < 0.01
