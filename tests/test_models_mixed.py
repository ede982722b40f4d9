"""Checkpoints not all of whose tensors are of one kind, and those whose tensors are not what config.json says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet import models
from ramet.models.quantise import FP8, INT4, quantise_checkpoint
from ramet.models.random import write_random_checkpoint
from tests.models_support import run

TOKENS = torch.arange(70)
Change = Callable[[dict[str, Tensor]], None]


def rewrite(folder: Path, change: Change) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def reconfigure(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def minimax(folder: Path, quantised: dict[str, Any] | None = None) -> Path:
    write_random_checkpoint(folder, seed=3, preset="tiny-minimax", dtype=torch.bfloat16)
    if quantised is not None:
        quantise_checkpoint(folder, quantised)
    return folder


def cast(part: str, dtype: torch.dtype) -> Change:
    """Some tensors in a float dtype; quantised ones (the scales of these are all 1 then) with the numbers of codes."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if part in name and name.endswith(".weight")]:
            tensors[name] = tensors[name].float().to(dtype)
            tensors.pop(name + "_scale_inv", None)

    return change


def scales_of_one(tensors: dict[str, Tensor]) -> None:
    tensors.update({name: torch.ones_like(t) for name, t in tensors.items() if name.endswith("_scale_inv")})


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("part", [".w2.", ".w1.", "experts.0.", "q_proj", "embed_tokens"])
def test_float_dtypes_are_mixed(tmp_path: Path, part: str, dtype: torch.dtype, mapped: bool) -> None:
    """bfloat16 with some matrices in another float dtype: those have all its numbers, so the logits do not change."""
    expected = run(models.load(minimax(tmp_path / "all")), TOKENS)
    if part == "embed_tokens":  # whose precision is that of the rows
        rewrite(tmp_path / "all", cast("", torch.float32))
        expected = run(models.load(tmp_path / "all"), TOKENS)
    folder = rewrite(minimax(tmp_path / "some"), cast(part, dtype))
    found = run(models.load(folder, mapped=mapped), TOKENS)
    if dtype is torch.float32:
        assert torch.equal(found, expected)
    else:  # the smallest numbers are not float16's
        assert (found - expected).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("part", [".w2.", ".w1.", "experts.0.", "experts.5.w3", "q_proj"])
def test_what_is_in_a_float_dtype_beside_quantised_ones_is_right(tmp_path: Path, part: str, dtype: torch.dtype) -> None:
    quantised = rewrite(minimax(tmp_path / "all", FP8), scales_of_one)
    expected = models.load(quantised)
    mixed = models.load(rewrite(rewrite(minimax(tmp_path / "some", FP8), scales_of_one), cast(part, dtype)))
    assert torch.equal(run(mixed, TOKENS), run(expected, TOKENS))
    assert mixed.fingerprint != expected.fingerprint


def test_int4_experts_of_a_qwen_are_found(tmp_path: Path) -> None:
    """Its float checkpoints hold experts fused, so both layouts are looked for."""
    folder = write_random_checkpoint(tmp_path, seed=3, preset="tiny-moe")
    expected = run(models.load(folder), TOKENS)
    quantise_checkpoint(folder, INT4 | {"ignore": ["lm_head", "re:.*(attn|shared_expert).*"]})
    assert "model.language_model.layers.0.mlp.experts.0.up_proj.weight_packed" in load_file(
        folder / "model.safetensors"
    )
    assert (run(models.load(folder), TOKENS) - expected).abs().max() < 1


def refused(folder: Path) -> str:
    with pytest.raises(models.CheckpointError) as caught:
        models.load(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_fused_experts_in_fp8_are_refused(tmp_path: Path) -> None:
    def fuse(tensors: dict[str, Tensor]) -> None:
        stem = "model.language_model.layers.0.mlp.experts"
        tensors[f"{stem}.gate_up_proj"] = torch.zeros(8, 32, 32).to(torch.float8_e4m3fn)
        tensors[f"{stem}.gate_up_proj_scale_inv"] = torch.ones(8, 1, 1)

    folder = write_random_checkpoint(tmp_path, seed=3, preset="tiny-moe")
    quantise_checkpoint(folder, FP8)
    assert "experts.gate_up_proj has all experts in one; quantised experts are read one by one" in refused(
        rewrite(folder, fuse)
    )


def kimi(folder: Path) -> Path:
    write_random_checkpoint(folder, seed=3, preset="tiny-kimi")
    quantise_checkpoint(folder, INT4)
    return folder


UNSAID = "quantised, but config.json does not say so: it has no quantization_config, or one that leaves this out"


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (lambda to: minimax(to, FP8), lambda c: c.pop("quantization_config"), f"F8_E4M3; expected BF16, .*: {UNSAID}"),
        (
            lambda to: minimax(to, FP8),
            lambda c: c["quantization_config"].update(modules_to_not_convert=["self_attn"]),
            rf"self_attn\.q_proj\.weight has dtype F8_E4M3; expected BF16, F16 or F32: {UNSAID}",
        ),
        (
            lambda to: minimax(to, FP8),
            lambda c: c.update(quantization_config=INT4 | {"ignore": []}),
            r"q_proj\.weight_packed is missing; by .* \(\S+q_proj\.weight is there: in another format than quantiz",
        ),
        (
            kimi,
            lambda c: c.pop("quantization_config"),
            rf"experts\.0\.gate_proj\.weight is missing; .* \(\S+gate_proj\.weight_packed is there: {UNSAID}\)",
        ),
        (
            kimi,
            lambda c: c["quantization_config"].update(ignore=["re:.*mlp.*"]),
            rf"experts\.0\.gate_proj\.weight is missing; .* \(\S+gate_proj\.weight_packed is there: {UNSAID}\)",
        ),
        (
            kimi,
            lambda c: c.update(quantization_config=FP8),
            r"gate_proj\.weight is missing; by .* \(\S+gate_proj\.weight_packed is there: in another format than quant",
        ),
    ],
)
def test_a_quantization_config_that_contradicts_the_tensors_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    found = refused(reconfigure(make(tmp_path), change))
    assert re.search(message, found), found


def test_a_shape_that_is_not_the_configs_is_refused(tmp_path: Path) -> None:
    name = "language_model.model.layers.1.mlp.experts.0.down_proj.weight_shape"
    rewrite(kimi(tmp_path), lambda tensors: tensors.update({name: torch.tensor([24, 32], dtype=torch.int32)}))
    assert f"{name} says [24, 32]; config.json makes the matrix [32, 24]" in refused(tmp_path)


def test_experts_by_token_that_are_not_there_are_refused(tmp_path: Path) -> None:
    name = "layers.0.ffn.gate.tid2eid"
    folder = write_random_checkpoint(tmp_path, seed=3, preset="tiny-deepseek-v4")
    for expert in (77, -1):
        rewrite(folder, lambda tensors, expert=expert: tensors.update({name: torch.full((320, 2), expert)}))  # type: ignore[misc]
        assert f"{name} names expert {expert}; there are 6" in refused(folder)


def test_shards_whose_index_is_missing_are_named(tmp_path: Path) -> None:
    folder = minimax(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert "(model-00001-of-00002.safetensors is there, but not the index" in refused(folder)


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    file = minimax(tmp_path) / "config.json"
    assert f"{file}: no config.json. Give the folder of a checkpoint" in refused(file)


@pytest.mark.parametrize(
    ("preset", "field"),
    [
        ("tiny-deepseek-v3", "num_hidden_layers"),
        ("tiny-minimax", "num_local_experts"),
        ("tiny-glm", "n_routed_experts"),
        ("tiny-glm", "qk_rope_head_dim"),
        ("tiny-deepseek-v4", "head_dim"),
    ],
)
def test_what_would_take_for_ever_to_count_is_refused(tmp_path: Path, preset: str, field: str) -> None:
    folder = write_random_checkpoint(tmp_path, seed=3, preset=preset)
    reconfigure(folder, lambda config: config.update({field: 2_000_000_000}))
    assert f"{field} is 2000000000; no model is that large" in refused(folder)


@pytest.mark.parametrize(
    ("preset", "field", "value"),
    [
        ("tiny-deepseek-v3", "norm_topk_prob", "false"),
        ("tiny-deepseek-v3", "rope_interleave", 2),
        ("tiny-minimax", "tie_word_embeddings", "no"),
        ("tiny", "tie_word_embeddings", []),
        ("tiny-kimi", "tie_word_embeddings", "true"),
    ],
)
def test_yes_or_no_is_not_guessed(tmp_path: Path, preset: str, field: str, value: object) -> None:
    folder = write_random_checkpoint(tmp_path, seed=3, preset=preset)
    reconfigure(folder, lambda config: config.update({field: value}))
    assert f"{field} must be true or false, not {value!r}" in refused(folder)
    reconfigure(folder, lambda config: config.update({field: None}))
    models.load(folder)
