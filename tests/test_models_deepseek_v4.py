"""DeepSeek V4 where the tests of all families do not reach: published sizes of windows and groups, and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet import models
from ramet.errors import RametError
from ramet.models.deepseek_v4_config import HASH, HEAVY, ROUTED, SLIDING, SPARSE, DeepseekV4Config
from ramet.models.loading import load_trainable
from ramet.models.random import write_random_checkpoint
from ramet.models.yarn import Yarn
from tests.models_support import oracle, run, ties_to_the_lowest_index

LENGTH = 420  # three windows and groups of 128, 105 groups of 4
PUBLISHED: dict[str, Any] = {  # windows, groups and order of layers as they are published
    "preset": "tiny-deepseek-v4",
    "num_hidden_layers": 4,
    "layer_types": (SLIDING, SLIDING, SPARSE, HEAVY),
    "mlp_layer_types": (HASH, HASH, HASH, ROUTED),
    "sliding_window": 128,
    "heavy_ratio": 128,
    "index_topk": 24,
    "yarn": Yarn(16.0, 256, attention_factor=1.0),
}


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 256, (LENGTH,), generator=torch.Generator().manual_seed(5))


def test_a_context_of_several_windows(tmp_path: Path, tokens: Tensor) -> None:
    checkpoint = write_random_checkpoint(tmp_path, seed=11, **PUBLISHED)
    model = models.load(checkpoint)
    full = run(model, tokens)
    with torch.no_grad(), ties_to_the_lowest_index():
        expected = oracle(checkpoint)(tokens.unsqueeze(0)).logits[0]
    assert (full - expected).abs().max() < 1e-4
    for chunk in (31, 127, 256):
        assert torch.equal(run(model, tokens, chunk), full)


def test_a_bfloat16_checkpoint_keeps_its_rows_in_bfloat16_and_the_promise(tmp_path: Path, tokens: Tensor) -> None:
    checkpoint = write_random_checkpoint(tmp_path, seed=3, dtype=torch.bfloat16, **PUBLISHED)
    model = models.load(checkpoint)
    assert model.layout.row_dtype is torch.bfloat16
    full = run(model, tokens[:300])
    for chunk in (1, 130):
        assert torch.equal(run(model, tokens[:300], chunk), full)
    with torch.no_grad(), ties_to_the_lowest_index():
        expected = oracle(checkpoint)(tokens[:300].unsqueeze(0)).logits[0]
    assert (full - expected).abs().mean() < 0.01 * expected.std()  # entries are rounded, and choices may differ


def test_only_ties_make_the_cached_oracle_differ_from_itself(tmp_path: Path, tokens: Tensor) -> None:
    """In float64: transformers takes any of equal scores, so a run of 150 tokens is not the first 150 of 200."""
    theirs = oracle(write_random_checkpoint(tmp_path, seed=11, **PUBLISHED)).double()

    @torch.no_grad()
    def difference() -> float:
        longer = theirs(tokens[:200].unsqueeze(0)).logits[0, :150]
        return float((theirs(tokens[:150].unsqueeze(0)).logits[0] - longer).abs().max())

    assert difference() > 1e-3
    with ties_to_the_lowest_index():
        assert difference() < 1e-5


def test_the_published_config_says_the_same(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, seed=1, **PUBLISHED)
    ours = json.loads((tmp_path / "config.json").read_text())
    wanted = DeepseekV4Config.from_json(ours, "ours")
    for name in ("layer_types", "mlp_layer_types", "compress_rates", "rope_parameters"):
        del ours[name]
    published = ours | {
        "compress_ratios": [0, 0, 4, 128, 0],  # the last one is the prediction layer's
        "num_hash_layers": 3,
        "rope_theta": 10000,
        "compress_rope_theta": 160000,
        "rope_scaling": {
            "type": "yarn",
            "factor": 16,
            "original_max_position_embeddings": 256,
            "beta_fast": 32,
            "beta_slow": 1,
        },
    }
    assert DeepseekV4Config.from_json(published, "published") == wanted
    with pytest.raises(models.CheckpointError, match=r"published: compress_ratios: 3; known are"):
        DeepseekV4Config.from_json(published | {"compress_ratios": [0, 0, 3, 128]}, "published")
    with pytest.raises(
        models.CheckpointError, match=r"published: compress_ratios has 2 entries, num_hidden_layers is 4"
    ):
        DeepseekV4Config.from_json(published | {"compress_ratios": [0, 4]}, "published")
    with pytest.raises(models.CheckpointError, match=r"compress_rope_theta 1\.0 leaves rope_scaling no frequencies"):
        DeepseekV4Config.from_json(published | {"compress_rope_theta": 1}, "published")
    with pytest.raises(models.CheckpointError, match="scoring_func: 'softmax'"):
        DeepseekV4Config.from_json(published | {"scoring_func": "softmax"}, "published")
    with pytest.raises(models.CheckpointError, match="a compression rate of 24 neither divides"):
        DeepseekV4Config.from_json(published | {"compress_rate_csa": 24}, "published")


def test_files_have_the_published_names_and_prediction_layers_are_left_out(tmp_path: Path, tokens: Tensor) -> None:
    write_random_checkpoint(tmp_path, seed=1, **PUBLISHED)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for name in (
        "embed.weight",
        "head.weight",
        "hc_head_fn",
        "layers.2.hc_attn_scale",
        "layers.2.attn.attn_sink",
        "layers.2.attn.indexer.compressor.ape",
        "layers.3.attn.compressor.wgate.weight",
        "layers.0.ffn.gate.tid2eid",
        "layers.3.ffn.gate.bias",
        "layers.3.ffn.experts.5.w3.weight",
        "layers.3.ffn.shared_experts.w2.weight",
    ):
        assert name in tensors
    before = run(models.load(tmp_path), tokens[:50])
    save_file(tensors | {"mtp.0.norm.weight": torch.ones(3)}, file)
    assert torch.equal(run(models.load(tmp_path), tokens[:50]), before)
    save_file(tensors | {"layers.0.ffn.gate.tid2eid": tensors["layers.0.ffn.gate.tid2eid"].int()}, file)
    assert torch.equal(run(models.load(tmp_path), tokens[:50]), before)
    save_file(tensors | {"layers.0.ffn.gate.tid2eid": tensors["layers.0.ffn.gate.tid2eid"].float()}, file)
    with pytest.raises(models.CheckpointError, match=r"tid2eid has dtype F32; expected I32 or I64"):
        models.load(tmp_path)
    save_file(tensors | {"layers.0.ffn.gate.tid2eid": tensors["layers.0.ffn.gate.tid2eid"] + 3}, file)
    with pytest.raises(models.CheckpointError, match=r"layers\.0\.ffn\.gate\.tid2eid names expert [678]; there are 6"):
        models.load(tmp_path)


def test_training_is_refused(tmp_path: Path, tokens: Tensor) -> None:
    model = load_trainable(write_random_checkpoint(tmp_path, seed=1, **PUBLISHED))
    with pytest.raises(RametError, match="can be served, but not trained"):
        model.train_forward(tokens.unsqueeze(0), None, torch.arange(LENGTH).unsqueeze(0))
