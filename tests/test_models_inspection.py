"""`inspect`: counts against transformers and published sizes, bytes against files, states against the model."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ramet import models
from ramet.models.deepseek_v4_config import HEAVY, SPARSE
from ramet.models.inspection import Inspection, LeftOut, inspect
from ramet.models.quantise import FP8, INT4, quantise_checkpoint
from ramet.models.random import PRESETS, write_random_checkpoint
from ramet.models.states import PAGE_TOKENS, Rows
from tests.model_configs import CONFIGS
from tests.models_support import Session
from tests.published_configs import PUBLISHED


def written(config: dict[str, Any], folder: Path) -> Path:
    """A folder with a config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def theirs(config: dict[str, Any], folder: Path) -> int:
    """How many parameters transformers' text model has; the biases that only choose experts are buffers there."""
    transformers = pytest.importorskip("transformers")
    text = {name: value for name, value in config.get("text_config", config).items() if name != "quantization_config"}
    text["model_type"] = {"kimi_k2": "deepseek_v3"}.get(text["model_type"], text["model_type"])
    written(text, folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    buffers = (buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias"))
    return sum(weight.numel() for weight in (*model.parameters(), *buffers))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str, tmp_path: Path) -> None:
    """By config.json alone: transformers' count exactly, the makers' rounded, states by hand."""
    published = PUBLISHED[name]
    found = inspect(written(published.config, tmp_path / name))
    assert found.family == published.family and not found.weights_here
    assert found.parameters is not None and found.active_parameters is not None
    assert found.parameters == theirs(published.config, tmp_path / "theirs")
    assert abs(found.parameters / 1e9 / published.parameters - 1) < (0.07 if published.parameters < 1 else 0.01)
    assert abs(found.active_parameters / 1e9 / published.active - 1) < 0.07
    assert found.state_bytes_per_token == Fraction(published.per_token)
    assert found.state_bytes_fixed == published.fixed
    assert tuple(part.part for part in found.left_out) == published.left_out
    assert inspect(tmp_path / name / "config.json") == found, "the path of the config is as good as its folder"


@pytest.mark.parametrize("name", CONFIGS)
def test_random_checkpoints_of_every_family(name: str, tmp_path: Path) -> None:
    """Files and what is loaded from them: parameters, bytes, and what a session takes."""
    config = json.loads((write_random_checkpoint(tmp_path, seed=1, **CONFIGS[name]) / "config.json").read_text())
    model, found = models.load(tmp_path), inspect(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert found.reasons == () and found.weights_here and found.left_out == ()
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    assert found.parameters == theirs(config, tmp_path / "theirs")
    assert found.weight_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert found.layout == model.layout
    assert (found.vocab_size, found.context_length) == (model.vocab_size, model.context_length)
    session = Session(model)
    model.forward([session.span(torch.arange(150), 1)])
    assert found.context_bytes(150) == sum(page.nbytes for page in session.pages) + session.state.nbytes
    alone = inspect(written(config, tmp_path / "alone"))
    assert (alone.weight_bytes, alone.formats, alone.states) == (found.weight_bytes, found.formats, found.states)
    assert alone.active_parameters == found.active_parameters


@pytest.mark.parametrize(
    ("preset", "config", "codes"),
    [
        ("tiny-moe", FP8, {"FP8"}),
        ("tiny-minimax", FP8, {"FP8"}),
        ("tiny-glm", FP8, {"FP8"}),
        ("tiny-kimi", INT4, {"INT4"}),
        ("tiny-deepseek-v4", FP8, {"FP8 (e8m0 scales)", "FP4"}),
    ],
)
def test_quantised_checkpoints_say_what_the_codes_hold(
    preset: str, config: dict[str, Any], codes: set[str], tmp_path: Path
) -> None:
    """The same of files as of the config alone: every parameter is in one format, no scale is one."""
    folder = write_random_checkpoint(tmp_path, seed=1, preset=preset, dtype=torch.bfloat16)
    before = inspect(folder)
    quantise_checkpoint(folder, config)
    found = inspect(folder)
    assert found.parameters == before.parameters == sum(each.parameters or 0 for each in found.formats)
    assert codes < {each.name for each in found.formats} <= codes | {"BF16", "F32", "I32", "I64", "F8_E8M0"}
    alone = inspect(written(json.loads((folder / "config.json").read_text()), tmp_path / "alone"))
    assert (alone.formats, alone.weight_bytes) == (found.formats, found.weight_bytes)


def test_of_codes_of_an_unknown_kind_only_the_bytes_are_told(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1, preset="tiny-minimax")
    quantise_checkpoint(folder, FP8)
    found = reconfigured(folder, model_type="llama")
    assert found.parameters is None and {each.parameters for each in found.formats} == {None}
    assert found.weight_bytes == sum(each.bytes for each in found.formats)


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if "sight" not in preset])
def test_precision_decides_about_rows_and_weights(preset: str, tmp_path: Path) -> None:
    if preset in ("0.8b", "thin"):
        pytest.skip("the same as tiny, larger")
    half = inspect(write_random_checkpoint(tmp_path / "half", seed=1, preset=preset, dtype=torch.bfloat16))
    wide = inspect(write_random_checkpoint(tmp_path / "wide", seed=1, preset=preset))
    assert half.state_bytes_per_token is not None and wide.state_bytes_per_token == 2 * half.state_bytes_per_token
    assert half.state_bytes_fixed == wide.state_bytes_fixed
    assert half.layout == models.load(tmp_path / "half").layout
    assert half.weight_bytes == (tmp_path / "half" / "model.safetensors").stat().st_size - header(tmp_path / "half")
    assert [each.name for each in wide.formats if each.parameters] == ["F32"]
    assert half.formats[0].name == "BF16" and sum(each.parameters for each in half.formats) == half.parameters


def header(folder: Path) -> int:
    return 8 + int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")


def test_active_parameters_are_those_of_the_chosen_experts(tmp_path: Path) -> None:
    """Counted by hand of the tiny MiniMax: 3 of 8 experts of 3 matrices, and not the embedding."""
    found = inspect(write_random_checkpoint(tmp_path / "a", seed=1, preset="tiny-minimax"))
    assert found.parameters is not None
    assert found.active_parameters == found.parameters - 3 * 5 * (3 * 32 * 24) - 320 * 32
    tied = inspect(write_random_checkpoint(tmp_path / "b", seed=1, preset="tiny-minimax", tie_word_embeddings=True))
    assert tied.active_parameters == found.active_parameters, "there the embedding is the output layer"
    dense = inspect(write_random_checkpoint(tmp_path / "c", seed=1))
    assert dense.active_parameters == dense.parameters


def test_a_token_adds_a_part_of_a_row_to_a_deepseek_v4(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"layer_types": (SPARSE, HEAVY, HEAVY), "heavy_ratio": 128, "dtype": torch.bfloat16}
    found = inspect(write_random_checkpoint(tmp_path, seed=1, preset="tiny-deepseek-v4", **sizes))
    assert found.state_bytes_per_token == Fraction(2 * (16 + 12), 4) + 2 * Fraction(2 * 16, 128)
    assert {(each.name, each.kind, each.layers): each.bytes for each in found.states} == {
        ("entries", "rows", 3): Fraction(2 * 16, 4) + 2 * Fraction(2 * 16, 128),
        ("indexer entries", "rows", 1): Fraction(2 * 12, 4),
        ("window", "window", 3): 3 * 4 * 16 * 16,
        ("pool", "recurrent", 3): 4 * 3 * (2 * 16 + 16 + 16),
        ("indexer pool", "recurrent", 1): 4 * 3 * 2 * 12,
    }


def test_elements_per_token_are_those_of_the_rows_that_are_written() -> None:
    for ratio, rows in ((1, 64), (4, 16), (64, 1), (128, 1), (256, 1)):
        assert Rows("x", (rows, 10), ratio).elements_per_token == Fraction(10, ratio)
    assert Rows("keys", (2, 8, PAGE_TOKENS)).elements_per_token == 16


# What is left out, and what would be refused -------------------------------------------------------------------------


def test_what_is_left_out_is_weighed(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1, preset="tiny-kimi", tie_word_embeddings=True)
    before = inspect(folder)
    more = {
        "vision_tower.encoder.blocks.0.wqkv.weight": torch.zeros(3, 5),
        "mm_projector.proj.0.weight": torch.zeros(2),
        "language_model.model.layers.4.eh_proj.weight": torch.zeros(7),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
        "language_model.lm_head.weight": torch.zeros(320, 32),
    }
    save_file(load_file(folder / "model.safetensors") | more, folder / "model.safetensors")
    found = inspect(folder)
    assert found.reasons == () and found.weight_bytes == before.weight_bytes and found.formats == before.formats
    assert set(found.left_out) == {
        LeftOut("the vision tower, which is not counted", 4 * 17),
        LeftOut("multi-token prediction, for guessing ahead", 4 * 7),
        LeftOut("a copy of the embedding", 40960),
        LeftOut("rotary frequencies, which config.json gives as well", 16),
    }  # fmt: skip


def reconfigured(folder: Path, **changes: Any) -> Inspection:
    config = json.loads((folder / "config.json").read_text())
    inner = config.get("text_config", config)
    inner |= changes
    return inspect(written(config, folder))


@pytest.mark.parametrize(
    ("preset", "changes", "reasons"),
    [
        (
            "tiny",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4}, "hidden_act": "gelu"},
            ["hidden_act", "only unsc"],
        ),
        ("tiny-moe", {"attention_bias": True, "mlp_only_layers": [0]}, ["attention_bias", "mlp_only_layers"]),
        ("tiny-minimax", {"scoring_func": "softmax", "sliding_window": 4}, ["scoring_func", "sliding_window"]),
        ("tiny-minimax", {"attn_type_list": [1, 0, 1]}, ["attn_type_list"]),
        ("tiny-deepseek-v3", {"rope_scaling": {"type": "linear", "factor": 2}}, ["rope_type: 'linear'"]),
        ("tiny-kimi", {"topk_method": "greedy"}, ["text_config: topk_method: 'greedy'"]),
        ("tiny-deepseek-v32", {"rope_scaling": {"type": "yarn", "factor": 2, "truncate": False}}, ["truncate"]),
        ("tiny-glm", {"indexer_rope_interleave": False, "mlp_bias": True}, ["mlp_bias", "indexer_rope"]),
        ("tiny-deepseek-v4", {"scoring_func": "softmax", "n_shared_experts": 2}, ["scoring_func", "n_shared"]),
    ],
)
def test_what_is_refused_by_its_config_is_described_with_every_reason(
    tmp_path: Path, preset: str, changes: dict[str, Any], reasons: list[str]
) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1, preset=preset)
    expected = inspect(folder)
    found = reconfigured(folder, **changes)
    with pytest.raises(models.CheckpointError) as caught:
        models.load(folder)
    assert str(caught.value) in found.reasons
    assert len(found.reasons) == len(reasons)
    for reason, said in zip(reasons, found.reasons, strict=True):
        assert reason in said and str(folder / "config.json") in said
    for name in ("family", "parameters", "active_parameters", "weight_bytes", "states", "layers", "context_length"):
        assert getattr(found, name) == getattr(expected, name)


def test_what_contradicts_itself_is_described_by_its_files(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1, preset="tiny-moe")
    size = inspect(folder).weight_bytes
    found = reconfigured(folder, num_experts_per_tok=99)
    assert "num_experts_per_tok 99 is more than num_experts 8" in found.reasons[0]
    assert (found.family, found.weight_bytes, found.layers, found.states) == ("Qwen3.5", size, None, ())
    assert found.parameters is not None and found.active_parameters is None
    assert found.state_bytes_per_token is None and found.context_bytes(5) is None


def test_files_that_do_not_fit_the_config_are_described(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1)
    tensors = load_file(folder / "model.safetensors")
    size = sum(tensor.nbytes for tensor in tensors.values())
    norm = tensors.pop("model.language_model.norm.weight")
    save_file(tensors | {"surplus": torch.ones(3)}, folder / "model.safetensors")
    found = inspect(folder)
    assert len(found.reasons) == 1 and "norm.weight is missing" in found.reasons[0]
    assert found.weight_bytes == size - norm.nbytes + 12 and found.parameters == (size - 4 * 4) // 4 + 4


@pytest.mark.parametrize("change", ["torn", "missing", "other"])
def test_weights_that_cannot_be_read_are_a_reason_and_the_config_tells_the_rest(tmp_path: Path, change: str) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1)
    whole, file = inspect(folder), folder / "model.safetensors"
    if change == "torn":
        file.write_bytes(file.read_bytes()[:-9])
    elif change == "missing":
        file.unlink()
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        file.rename(folder / "model.gguf")
    found = inspect(folder)
    assert len(found.reasons) == 1 and not found.weights_here
    said = {"torn": "cut off", "missing": "00001-of-00002.safetensors: missing", "other": "only safetensors are read"}
    assert said[change] in found.reasons[0]
    assert (found.parameters, found.weight_bytes, found.states) == (whole.parameters, whole.weight_bytes, whole.states)


def test_another_model_is_described_by_its_files(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16), "c": torch.zeros(2, dtype=torch.int8)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = inspect(written({"model_type": "llama"}, tmp_path))
    assert found.family == "llama" and "model_type 'llama' is not supported" in found.reasons[0]
    assert (found.parameters, found.weight_bytes, found.active_parameters) == (22, 76, None)
    alone = inspect(written({"architectures": ["LlamaForCausalLM"]}, tmp_path / "alone"))
    assert (alone.family, alone.parameters, alone.weight_bytes) == ("LlamaForCausalLM", None, None)
    nothing = inspect(written({}, tmp_path / "nothing"))
    assert nothing.family == "unknown" and "names neither a model_type nor architectures" in nothing.reasons[0]


def test_float16_takes_twice_its_size_in_memory(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / "model.safetensors")
    found = inspect(folder)
    assert found.weight_bytes == sum(tensor.nbytes for tensor in tensors.values()) // 2
    assert found.memory_bytes == math.floor(2.2 * found.weight_bytes)
    assert found.layout == models.load(folder).layout and found.layout.row_dtype is torch.float32


@pytest.mark.parametrize("content", ["[]", "{", "\xff", "[" * 100_000])
def test_what_is_no_config_is_an_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(models.CheckpointError, match=r"config\.json: "):
        inspect(file)
    file.unlink()
    with pytest.raises(models.CheckpointError, match=r"no config\.json"):
        inspect(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_config_is_more_than_an_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Published configs with some fields replaced by anything: a description with reasons, never a traceback."""
    config = json.loads(json.dumps(PUBLISHED[data.draw(st.sampled_from(sorted(PUBLISHED)))].config))
    for _ in range(data.draw(st.integers(1, 3))):
        fields = [each for each in (config, config.get("text_config")) if isinstance(each, dict)]
        place = data.draw(st.sampled_from(fields))
        place[data.draw(st.sampled_from(sorted(place) or ["vocab_size"]))] = data.draw(JSON)
    folder = written(config, tmp_path_factory.getbasetemp() / "fuzzed")
    found = inspect(folder)
    assert found.reasons or found.parameters
    with contextlib.suppress(models.CheckpointError):
        models.check(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("Kimi-K2.5", 595),
        ("MiniMax-M2.5", 230),
        ("DeepSeek-V3", 688.6),
        ("DeepSeek-V4-Flash", 160),
        ("DeepSeek-V4-Pro", 865),
    ],
)
def test_quantised_weights_are_reckoned_by_the_config_alone(name: str, gigabytes: float, tmp_path: Path) -> None:
    """Of the published files, which hold up to 3 % more: vision, or a layer that predicts ahead."""
    found = inspect(written(PUBLISHED[name].config, tmp_path))
    assert found.weight_bytes is not None and 0.97 < found.weight_bytes / 1e9 / gigabytes < 1.001
    assert sum(each.parameters for each in found.formats) == found.parameters
    other = json.loads(json.dumps(PUBLISHED[name].config).replace('"quant_method": "', '"quant_method": "x'))
    unknown = inspect(written(other, tmp_path))
    assert unknown.weight_bytes is None and unknown.memory_bytes is None and unknown.parameters == found.parameters
