"""Quantised checkpoints against transformers, which decodes the published formats with readers of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramet import models
from ramet.models.quantise import FP8, INT4, quantise_checkpoint
from ramet.models.random import write_random_checkpoint
from tests.models_support import run, ties_to_the_lowest_index

# transformers takes a block's size from the shapes, so sizes are multiples of 128, or below it.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny-moe": (FP8, {}),
    "tiny-minimax": (FP8, {"hidden_size": 256, "intermediate_size": 128, "head_dim": 64}),
    "tiny-deepseek-v3": (FP8, {"hidden_size": 256, "n_group": 4, "topk_group": 2}),
    "tiny-deepseek-v32": (FP8, {"hidden_size": 128}),
    "tiny-glm": (FP8, {"moe_intermediate_size": 256}),
    "tiny-deepseek-v4": (FP8, {"hidden_size": 256, "moe_intermediate_size": 128}),  # experts in FP4
    "tiny-kimi": (INT4, {"hidden_size": 64, "moe_intermediate_size": 96, "nested": False}),
}


@pytest.mark.parametrize("preset", CASES)
def test_logits_are_those_of_transformers_on_the_same_files(tmp_path: Path, preset: str) -> None:
    transformers = pytest.importorskip("transformers")
    quantised, sizes = CASES[preset]
    folder = write_random_checkpoint(tmp_path, seed=5, preset=preset, **sizes)
    quantise_checkpoint(folder, quantised)
    if quantised is INT4:  # by bfloat16 scales transformers decodes to bfloat16, and rounds; float32 ones it keeps
        file = folder / "model.safetensors"
        tensors = {n: t.float() if n.endswith("weight_scale") else t for n, t in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
        told = transformers.CompressedTensorsConfig(dequantize=True)
    else:
        told = transformers.FineGrainedFP8Config(dequantize=True)
    expected_model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager", quantization_config=told
    ).eval()
    tokens = torch.randint(0, 256, (130,), generator=torch.Generator().manual_seed(7))
    with torch.no_grad(), ties_to_the_lowest_index():
        expected = expected_model(tokens.unsqueeze(0)).logits[0]
    assert expected.std() > 0.3
    assert (run(models.load(folder), tokens) - expected).abs().max() < 1e-4
