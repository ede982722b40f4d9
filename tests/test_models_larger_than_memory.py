"""Models larger than the memory there is: a control group's limit, under which weights cannot be copied."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ramet import models
from ramet.models.quantise import FP8, INT4, quantise_checkpoint
from ramet.models.random import write_random_checkpoint
from tests.models_support import run

LIMIT = 640 << 20
RUN = """
import hashlib, json, os, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
import torch
from ramet import models
from tests.models_support import run
model = models.load(sys.argv[2], mapped=json.loads(sys.argv[3]))
logits = run(model, torch.arange(12), 4)
print(json.dumps({"mapped": model.mapped, "logits": hashlib.sha256(logits.numpy().tobytes()).hexdigest()}))
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a memory limit, of version 1 or 2; skips where none can be made."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    path = (root / "memory" if first else root) / f"ramet-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(LIMIT))
        swap = path / ("memory.memsw.limit_in_bytes" if first else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(LIMIT if first else 0))
    except OSError as error:
        if path.is_dir():
            path.rmdir()
        pytest.skip(f"no control group with a memory limit can be made here ({error})")
    yield path
    path.rmdir()


def in_group(group: Path, folder: Path, mapped: bool | None) -> subprocess.CompletedProcess[str]:
    """Load and run in a process of its own, inside the group."""
    told = [sys.executable, "-c", RUN, str(group), str(folder), json.dumps(mapped)]
    return subprocess.run(told, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("preset", "quantised", "sizes"),
    [
        ("tiny-minimax", None, {"intermediate_size": 1024, "num_local_experts": 72, "num_hidden_layers": 2}),
        ("tiny-moe", None, {"intermediate_size": 24576, "num_hidden_layers": 6, "moe": None}),
        ("tiny-minimax", FP8, {"intermediate_size": 1024, "num_local_experts": 136, "num_hidden_layers": 2}),
        ("tiny-kimi", INT4, {"moe_intermediate_size": 1024, "n_routed_experts": 240, "num_hidden_layers": 3}),
        ("tiny-deepseek-v4", FP8, {"moe_intermediate_size": 1024, "n_routed_experts": 176, "num_hidden_layers": 3}),
    ],
    ids=["bf16-experts", "bf16-dense", "fp8", "int4", "fp8-and-fp4"],
)
def test_it_loads_by_mapping_and_runs_with_the_same_bits(
    tmp_path: Path, group: Path, preset: str, quantised: dict[str, Any] | None, sizes: dict[str, Any]
) -> None:
    sizes = {"hidden_size": 1024, "dtype": torch.bfloat16} | sizes
    folder = write_random_checkpoint(tmp_path, seed=1, preset=preset, **sizes)
    if quantised is not None:
        quantise_checkpoint(folder, quantised)
    assert (folder / "model.safetensors").stat().st_size > 1.2 * LIMIT
    done = in_group(group, folder, None)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mapped"] == (quantised is None)
    logits = run(models.load(folder, mapped=quantised is None), torch.arange(12), 4)
    assert found["logits"] == hashlib.sha256(logits.numpy().tobytes()).hexdigest()
    if quantised is None:
        assert in_group(group, folder, False).returncode == -9, "the limit is one: a copy of the weights is killed"
