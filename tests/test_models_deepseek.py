"""What is particular to the DeepSeek family's files: configs, layouts, layers that are left out, rows in bfloat16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet import models
from ramet.models.deepseek_v3_config import DeepseekV3Config, KimiK25Config
from ramet.models.deepseek_v32_config import FULL, SHARED, DeepseekV32Config, GlmMoeDsaConfig
from ramet.models.random import write_random_checkpoint
from ramet.models.yarn import Yarn
from tests.model_configs import DEEPSEEK_V3
from tests.models_support import run

PRESETS = ("tiny-deepseek-v3", "tiny-kimi", "tiny-deepseek-v32", "tiny-glm")


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 256, (130,), generator=torch.Generator().manual_seed(3))


def config_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return value


@pytest.mark.parametrize("sizes", DEEPSEEK_V3.values(), ids=DEEPSEEK_V3)
def test_a_kimi_is_the_deepseek_v3_below_its_prefix(tmp_path: Path, tokens: Tensor, sizes: dict[str, Any]) -> None:
    """Which transformers is the oracle of: every way to run each of these configs is compared with it elsewhere."""
    nested = write_random_checkpoint(tmp_path / "kimi", seed=1, preset="tiny-kimi", **sizes)
    text = write_random_checkpoint(tmp_path / "text", seed=1, preset="tiny-kimi", nested=False, **sizes)
    tensors = load_file(nested / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"language_model"}
    tensors |= {
        "vision_tower.encoder.blocks.0.wqkv.weight": torch.zeros(3),
        "mm_projector.proj.0.weight": torch.zeros(2),
    }
    save_file(tensors, nested / "model.safetensors")
    assert config_of(nested)["model_type"] == "kimi_k25" and config_of(text)["model_type"] == "deepseek_v3"
    assert torch.equal(run(models.load(nested), tokens), run(models.load(text), tokens, 31))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_layer_that_predicts_ahead_is_left_out(tmp_path: Path, tokens: Tensor, preset: str) -> None:
    folder = write_random_checkpoint(tmp_path, seed=2, preset=preset)
    expected = run(models.load(folder), tokens)
    tensors = load_file(folder / "model.safetensors")
    body = "language_model.model." if preset == "tiny-kimi" else "model."
    more = {
        name.replace("layers.3.", "layers.4."): value.clone() for name, value in tensors.items() if "layers.3." in name
    }
    save_file(tensors | more | {f"{body}layers.4.eh_proj.weight": torch.zeros(2, 4)}, folder / "model.safetensors")
    assert torch.equal(run(models.load(folder), tokens), expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_bfloat16_rows_are_the_same_bits_however_they_are_cut(tmp_path: Path, tokens: Tensor, preset: str) -> None:
    model = models.load(write_random_checkpoint(tmp_path, seed=3, preset=preset, dtype=torch.bfloat16))
    assert model.layout.row_dtype is torch.bfloat16
    full = run(model, tokens)
    assert all(torch.equal(run(model, tokens, chunk), full) for chunk in (1, 17, 64))


def test_states_are_latents_rotated_keys_and_index_keys(tmp_path: Path) -> None:
    """Of the tiny ones: 16 + 8 columns a layer, and 16 where there is an indexer; nothing per head."""
    sizes = {"tiny-deepseek-v3": 4 * 24, "tiny-glm": 4 * 24 + 2 * 16}
    for preset, columns in sizes.items():
        more = {"indexer_types": (FULL, SHARED) * 2} if preset == "tiny-glm" else {}
        model = models.load(write_random_checkpoint(tmp_path / preset, seed=4, preset=preset, **more))
        assert model.layout.page_elements == 64 * columns
        assert not model.layout.fixed


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("tiny-deepseek-v3", {"qk_rope_head_dim": 7}, "qk_rope_head_dim 7 is not even"),
        ("tiny-deepseek-v3", {"n_group": 3}, "n_routed_experts 8 in n_group 3 groups"),
        ("tiny-deepseek-v3", {"n_group": 8, "topk_group": 4}, "n_group 8 groups of 1 expert"),
        ("tiny-deepseek-v3", {"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than the 8 experts"),
        ("tiny-deepseek-v3", {"mlp_layer_types": ["dense"]}, "mlp_layer_types has 1 entries, num_hidden_layers is 4"),
        ("tiny-deepseek-v3", {"attention_bias": True}, "attention_bias: True; only False is supported"),
        ("tiny-deepseek-v3", {"scoring_func": "softmax"}, "scoring_func: 'softmax'; only 'sigmoid'"),
        ("tiny-deepseek-v3", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type: 'linear'; only"),
        ("tiny-deepseek-v3", {"rope_scaling": {"type": "yarn"}}, "rope_scaling: factor is missing"),
        ("tiny-deepseek-v3", {"rope_scaling": {"type": "yarn", "factor": 2}, "rope_theta": 1}, "rope_theta 1.0 leaves"),
        ("tiny-deepseek-v3", {"rope_theta": 10**400}, "rope_theta must be a positive number, not 1000"),
        ("tiny-deepseek-v3", {"kv_lora_rank": None}, "kv_lora_rank is missing"),
        ("tiny-deepseek-v32", {"q_lora_rank": None}, "q_lora_rank is null; the indexer's queries"),
        ("tiny-deepseek-v32", {"index_head_dim": 4}, "index_head_dim 4 is less than the 8 rotated columns"),
        ("tiny-deepseek-v32", {"index_topk": 0}, "index_topk must be a positive integer, not 0"),
        ("tiny-glm", {"indexer_types": ["shared"] + ["full"] * 3}, "indexer_types begins with 'shared'"),
        ("tiny-glm", {"indexer_types": ["full", "half"] * 2}, r"indexer_types has \['half'\]; known are"),
        ("tiny-glm", {"indexer_rope_interleave": False}, "indexer_rope_interleave: False; only True"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_says_why(
    tmp_path: Path, preset: str, changes: dict[str, Any], message: str
) -> None:
    folder = write_random_checkpoint(tmp_path, seed=5, preset=preset)
    (folder / "config.json").write_text(json.dumps(config_of(folder) | changes))
    with pytest.raises(models.CheckpointError, match=message) as caught:
        models.check(folder)
    assert str(folder / "config.json") in str(caught.value)


def test_configs_are_read_as_they_are_written() -> None:
    common: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 24,
        "num_hidden_layers": 4, "num_attention_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 3,
        "first_k_dense_replace": 1, "yarn": Yarn(40.0, 4096, mscale=1.0, mscale_all_dim=1.0),
    }  # fmt: skip
    index: dict[str, Any] = {"index_n_heads": 3, "index_head_dim": 16, "index_topk": 24}
    for config in (
        DeepseekV3Config(**common),
        KimiK25Config(**common),
        DeepseekV32Config(**common, **index),
        GlmMoeDsaConfig(**common, **index, indexer_types=(FULL, FULL, SHARED, FULL)),
    ):
        written = json.loads(json.dumps(config.to_json("bfloat16", nested=True)))
        assert type(config).from_json(written, "config.json") == config


def test_glm_names_its_indexers_in_three_ways(tmp_path: Path) -> None:
    written = config_of(write_random_checkpoint(tmp_path, seed=6, preset="tiny-glm"))
    del written["indexer_types"]

    def kinds(**fields: Any) -> str:
        read = GlmMoeDsaConfig.from_json(written | fields, "config.json").indexer_types
        return "".join(kind[0] for kind in read)

    assert kinds() == "ffff"
    assert kinds(index_topk_pattern="FSSF") == "fssf"
    assert kinds(index_topk_freq=2) == "ffsf"
    assert kinds(index_topk_freq=3, index_skip_topk_offset=1) == "fssf"
    assert kinds(index_topk_freq=1, index_skip_topk_offset=0) == "ffff"
