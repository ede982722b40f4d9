"""MiniMax M2's files: the published names, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramet import models
from ramet.models.random import write_random_checkpoint
from tests.models_support import run

TOKENS = torch.arange(40)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path, seed=3, preset="tiny-minimax", dtype=torch.bfloat16)


def test_files_carry_the_published_names(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    expert = "model.layers.1.block_sparse_moe.experts.7"
    shapes = {name: list(tensors[f"{expert}.{name}.weight"].shape) for name in ("w1", "w2", "w3")}
    assert shapes == {"w1": [24, 32], "w2": [32, 24], "w3": [24, 32]}
    bias = tensors["model.layers.0.block_sparse_moe.e_score_correction_bias"]
    assert bias.dtype is torch.float32 and bias.std() > 0.05


def test_layers_that_predict_ahead_are_left_out(checkpoint: Path) -> None:
    expected = run(models.load(checkpoint), TOKENS)
    tensors = load_file(checkpoint / "model.safetensors")
    first = {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}
    ahead = {name.replace(".layers.0.", ".layers.3."): tensor.clone() for name, tensor in first.items()}
    save_file(tensors | ahead, checkpoint / "model.safetensors")
    assert torch.equal(run(models.load(checkpoint), TOKENS), expected)
    save_file(tensors | {"model.layers.2.surplus": torch.ones(1)}, checkpoint / "model.safetensors")
    with pytest.raises(models.CheckpointError, match=r"model\.layers\.2\.surplus.*is no part of the model"):
        models.load(checkpoint)


def test_a_missing_expert_is_named(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.2.block_sparse_moe.experts.5.w3.weight"]
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(models.CheckpointError, match=r"layers\.2\.block_sparse_moe\.experts\.5\.w3\.weight is missing"):
        models.check(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"attn_type_list": [1, 0, 1]}, "attn_type_list: only layers of type 1"),
        ({"shared_intermediate_size": 64}, "shared_intermediate_size"),
        ({"use_qk_norm": False}, "use_qk_norm"),
        ({"rotary_dim": 7}, "rotary_dim 7 is no even part"),
        ({"num_experts_per_tok": 9}, "more than the 8 experts"),
        ({"num_key_value_heads": 3}, "no multiple of 3"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling"),
        ({"head_dim": None}, "head_dim is missing"),
    ],
)
def test_what_is_not_computed_is_refused(checkpoint: Path, change: dict[str, object], message: str) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(models.CheckpointError, match=message) as caught:
        models.load(checkpoint)
    assert str(path) in str(caught.value)
