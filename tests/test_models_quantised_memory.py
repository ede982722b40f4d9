"""What a quantised checkpoint costs in memory: loading, and running with less memory than the weights take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ramet.models.quantise import FP8, INT4, quantise_checkpoint
from ramet.models.random import write_random_checkpoint

LOAD = """
import json, resource, sys
from pathlib import Path
import torch
from ramet import models
from tests.models_support import run
import ramet.models.loading  # what is imported is not counted
from ramet.models import deepseek_v4, minimax_m2, vision_kimi
torch.set_num_threads(1)
def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":"))
before = memory("VmRSS")
if limit := int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_DATA, (memory("VmData") + limit,) * 2)
model = models.load(sys.argv[1])
loaded = memory("VmHWM") - before
logits = run(model, torch.arange(20)).double()
print(json.dumps({"loaded": loaded, "sum": float(logits.sum()), "data": memory("RssAnon")}))
"""


SIZES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "fp8": ("tiny-minimax", FP8, {"intermediate_size": 1024, "num_hidden_layers": 2, "num_local_experts": 56}),
    "int4": ("tiny-kimi", INT4, {"moe_intermediate_size": 512, "num_hidden_layers": 3, "n_routed_experts": 128}),
    "v4": ("tiny-deepseek-v4", FP8, {"moe_intermediate_size": 1024, "n_routed_experts": 36}),
}
"""Experts of 180 MB and more, by format: INT4, and DeepSeek V4's FP4 with the rest in FP8."""


@pytest.fixture(scope="module", params=list(SIZES))
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    preset, config, sizes = SIZES[request.param]
    folder = write_random_checkpoint(tmp_path_factory.mktemp("large"), seed=1, preset=preset, hidden_size=1024, **sizes)
    quantise_checkpoint(folder, config)
    return folder


def run_in_process(folder: Path, limit: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(limit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_loading_takes_the_weights_and_a_tenth_and_running_needs_no_copy(large: Path) -> None:
    size = (large / "model.safetensors").stat().st_size
    assert size > 180_000_000
    free = run_in_process(large, 0)
    assert free["loaded"] <= 1.1 * size
    # RLIMIT_DATA bounds what is not a file's pages: with half the weights' size a copy of them cannot be made.
    limited = run_in_process(large, size // 2)
    assert limited["sum"] == free["sum"]
