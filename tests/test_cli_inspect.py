"""`ramet inspect`, run as a user runs it, and the memory that it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from ramet.cli.main import app
from ramet.machine import Memory, memory
from ramet.models.random import write_random_checkpoint
from tests.published_configs import DEEPSEEK_V4_PRO


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RAMET_HOME", str(tmp_path / "home"))


def ramet(*words: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["inspect", *map(str, words)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_a_checkpoint_that_fits(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, seed=1, preset="tiny-glm", dtype=torch.bfloat16)
    said = ramet(folder, "--context", "1000").stdout
    assert "GLM-5 (glm_moe_dsa): 4 layers, a vocabulary of 320, up to 163,840 tokens" in said
    assert "320 B (latents 192 B in 4 layers; index keys 128 B in 4 layers)" in said
    assert "1,000 tokens" in said and "large enough" in said and "not loaded" not in said
    found = json.loads(ramet(folder, "--json").stdout)
    wanted = {"family", "parameters", "active_parameters", "weight_bytes", "state_bytes_per_token", "state_bytes_fixed"}
    assert wanted <= set(found)
    assert (found["family"], found["state_bytes_per_token"], found["state_bytes_fixed"]) == ("GLM-5", 320, 0)
    assert found["loads"] and found["memory"]["fits"] and found["context"]["tokens"] == 32768
    assert found["memory"]["needed_bytes"] == found["weight_bytes"] * 11 // 10 + found["context"]["bytes"]


def test_a_config_alone_that_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "pro.json"
    file.write_text(json.dumps({k: v for k, v in DEEPSEEK_V4_PRO.items() if k != "quantization_config"}))
    said = ramet(file).stdout
    assert "1,573.0 billion, 48.9 billion of them active" in said and "too small" in said
    assert (
        "left out" in said and "multi-token prediction, for guessing ahead" in said and "; by config.json alone" in said
    )


def test_a_refused_one_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    said = ramet(tmp_path)
    assert "not loaded:" in said.stdout and "model_type 'llama' is not supported" in said.stdout
    found = json.loads(ramet(tmp_path, "--json").stdout)
    assert not found["loads"] and found["memory"]["fits"] is None and found["parameters"] is None


def test_mistakes_are_told_in_words(tmp_path: Path) -> None:
    assert "there is no folder" in ramet(tmp_path / "nowhere", code=1).stderr
    assert "holds no checkpoint" in " ".join(ramet(tmp_path, code=1).stderr.split())
    folder = write_random_checkpoint(tmp_path, seed=1)
    assert "goes no further than 262,144 tokens" in ramet(folder, "--context", "300000", code=1).stderr
    weights, text = folder / "model.safetensors", tmp_path / "notes.txt"
    assert "give the folder that it is in" in " ".join(ramet(weights, code=1).stderr.split())
    text.write_bytes(weights.read_bytes())
    assert "not UTF-8 text" in " ".join(ramet(text, code=1).stderr.split())


def test_memory_is_the_control_groups_where_it_is_less(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 5 kB\nMemAvailable:  700 kB\nHugePages_Total: 0\n")
    assert memory(tmp_path) == Memory(1024000, 716800)
    write("proc/self/cgroup", "0::/a/b\n")
    write("sys/fs/cgroup/a/memory.max", "512000\n")
    write("sys/fs/cgroup/a/b/memory.max", "max\n")
    assert memory(tmp_path) == Memory(512000, 512000)
    write("sys/fs/cgroup/a/memory.current", "300000\n")
    assert memory(tmp_path) == Memory(512000, 212000), "what others in the group have is not free"
    write("sys/fs/cgroup/a/memory.stat", "anon 200000\ninactive_file 60000\nactive_file 40000\n")
    assert memory(tmp_path) == Memory(512000, 312000), "but files that are kept in memory are"
    write("proc/self/cgroup", "5:cpu:/a\n4:memory:/x\n")
    write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "900000\n")
    assert memory(tmp_path) == Memory(900000, 716800)
    write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "600000\n")
    write("sys/fs/cgroup/memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 50000\n")
    assert memory(tmp_path) == Memory(900000, 350000)
    assert 0 < memory().available <= memory().total
