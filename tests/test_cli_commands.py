"""`ramet pull`, `serve`, `train sft` and `ask`, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from ramet.cli.main import app
from ramet.models.random import write_random_checkpoint

RAMET = Path(sys.executable).with_name("ramet")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def ramet(*words: str | Path, code: int = 0, typed: str | None = None) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    assert result.exit_code == code, result.output
    return result


def test_a_pulled_model_is_found_by_its_name(checkpoint: Path, tmp_path: Path) -> None:
    pulled = ramet("pull", "Own/Tiny-1", "--source", checkpoint)
    folder = Path(pulled.stdout.strip().removeprefix("Own/Tiny-1 is in "))
    assert folder.is_relative_to(tmp_path / "hub")
    assert (folder / "model.safetensors").is_file()
    talk = ramet("chat", "--model", "Own/Tiny-1", "--max-tokens", "4", typed="hello\n")
    assert "reply" in talk.stderr


def test_a_torn_download_is_not_taken_for_whole(checkpoint: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in checkpoint.iterdir():
        data = file.read_bytes()
        (torn / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    assert "model.safetensors" in ramet("pull", "Own/Torn", "--source", torn, code=1).stderr


def test_serve_says_where_it_is_answers_and_stops_on_ctrl_c(checkpoint: Path) -> None:
    words = [RAMET, "serve", "--model", checkpoint, "--port", "0", "--name", "tiny", "--threads", "1"]
    with subprocess.Popen(
        words, env=os.environ | {"RAMET_API_KEY": "sesame"}, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        said = ""
        while "Stop with Ctrl-C" not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
        url = re.search(r"Serving tiny on (http://127\.0\.0\.1:\d+)", said)
        assert url is not None
        assert f"curl {url[1]}/v1/chat/completions" in said
        assert "authorization: Bearer $RAMET_API_KEY" in said
        assert "sesame" not in said
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        request = urllib.request.Request(
            f"{url[1]}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": "Bearer sesame"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
        assert answer["usage"]["completion_tokens"] >= 1
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=60)[1]
    assert server.returncode in (0, 130), rest
    assert "Traceback" not in rest
    # What was said is on disk: the session can be shown without the model.
    assert "user  Hello" in ramet("tree", "show").stdout


def test_serve_says_that_the_port_is_taken(checkpoint: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--model", str(checkpoint), "--port", str(port), "--memory-only"])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in " ".join(result.stderr.split())


def test_train_sft_makes_a_checkpoint_that_answers_and_goes_on_only_as_it_began(tmp_path: Path) -> None:
    out, data = tmp_path / "run", tmp_path / "talks.jsonl"
    said = [{"role": "user", "content": "who lives in oslo?"}, {"role": "assistant", "content": "ada does"}]
    data.write_text(f"{json.dumps({'messages': said})}\n" * 8)
    words = ["train", "sft", out, "--data", data, "--preset", "tiny", "--rows", "2", "--length", "64", "--steps", "2"]
    assert f"The checkpoint is in {out}" in ramet(*words).stdout
    table = tmp_path / "people.csv"
    table.write_text("name,city\nAda,Oslo\nBen,Bern\n")
    answer = json.loads(ramet("ask", table, "Who lives in Oslo?", "--model", out, "--json").stdout)
    assert answer["question"] == "Who lives in Oslo?"
    assert {"answer", "sure", "agreement", "sql", "columns", "rows", "others", "tokens"} < set(answer)
    assert answer["tokens"]["computed"] > 0
    other = ramet(*words, "--lr", "0.5", code=1)
    assert "lr 0.0 -> 0.5" in " ".join(other.stderr.split())


def test_train_sft_wants_to_know_on_what(tmp_path: Path) -> None:
    said = ramet("train", "sft", tmp_path / "run", code=1).stderr
    assert "give either --data FILE.jsonl or --task tables" in " ".join(said.split())
