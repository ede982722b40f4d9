"""Pulling models: from folders, and from a hub that speaks the real one's protocol on 127.0.0.1."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from ramet import models
from ramet.cli.main import app
from ramet.errors import RametError
from ramet.models import hub
from ramet.models.random import write_random_checkpoint

NAME = "Qwen/Qwen3.5-Tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("published"), seed=1)


def same(pulled: Path, checkpoint: Path) -> bool:
    return {path.name: path.read_bytes() for path in pulled.iterdir()} == {
        path.name: path.read_bytes() for path in checkpoint.iterdir()
    }


# From folders ---------------------------------------------------------------------------------------------------------


def hub_cache(root: Path, checkpoint: Path) -> Path:
    """`root` as a hub's cache: blobs, a snapshot of links to them, a reference."""
    repository = root / "models--Qwen--Qwen3.5-Tiny"
    (repository / "blobs").mkdir(parents=True)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for path in checkpoint.iterdir():
        shutil.copy(path, repository / "blobs" / path.stem)
        (repository / "snapshots" / COMMIT / path.name).symlink_to(f"../../blobs/{path.stem}")
    return root


@pytest.mark.parametrize("layout", ["folder", "names", "cache"])
def test_a_model_comes_from_a_folder(checkpoint: Path, tmp_path: Path, layout: str) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    if layout == "cache":
        hub_cache(source, checkpoint)
    else:
        shutil.copytree(checkpoint, source / NAME if layout == "names" else source)
    assert hub.local_path(NAME, cache=cache) is None
    pulled = hub.pull(NAME, source=source, cache=cache)
    shutil.rmtree(source)
    assert same(pulled, checkpoint)
    assert hub.local_path(NAME, cache=cache) == pulled
    assert models.load(pulled).fingerprint == models.load(checkpoint).fingerprint


def test_only_what_is_needed_comes_and_only_once(checkpoint: Path, tmp_path: Path) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    shutil.copytree(checkpoint, source)
    (source / "pytorch_model.bin").write_bytes(b"the same weights again")
    pulled = hub.pull(NAME, source=source, cache=cache)
    assert same(pulled, checkpoint)
    times = {path.name: path.stat().st_mtime_ns for path in pulled.iterdir()}
    # A pull that was interrupted: one file half there, one not yet.
    weights = pulled / "model.safetensors"
    (pulled / "model.safetensors.part").write_bytes(weights.read_bytes()[:1000])
    weights.unlink()
    (pulled / "tokenizer.json").unlink()
    assert same(hub.pull(NAME, source=source, cache=cache), checkpoint)
    again = {path.name: path.stat().st_mtime_ns for path in pulled.iterdir()}
    assert {name for name in times if times[name] != again[name]} == {"model.safetensors", "tokenizer.json"}


def test_what_came_is_checked(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkpoint, source)
    weights = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(models.CheckpointError, match=r"model\.safetensors: cut off inside tensor"):
        hub.pull(NAME, source=source, cache=tmp_path / "cache")
    (source / "model.safetensors").write_bytes(weights)
    (source / "tokenizer.json").unlink()
    with pytest.raises(models.CheckpointError, match=r"no tokenizer\.json"):
        hub.pull(NAME, source=source, cache=tmp_path / "cache2")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        hub.PullError, match=r"has no model Qwen/Qwen3\.5-Tiny: there is no config\.json in it"
    ) as caught:
        hub.pull(NAME, source=tmp_path, cache=tmp_path / "cache")
    assert isinstance(caught.value, RametError)
    for name in ("Qwen3.5", "a/b/c", "../../etc", ""):
        with pytest.raises(hub.PullError, match="is no name of a model"):
            hub.pull(name, source=tmp_path, cache=tmp_path / "cache")
        assert hub.local_path(name, cache=tmp_path / "cache") is None


def test_a_place_that_cannot_be_written_is_said(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(hub.PullError, match="cannot write to"):
        hub.pull(NAME, source=checkpoint, cache=tmp_path / "cache")


# From a hub -----------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download touches: a repository's listing, files with ranges, and its refusals."""

    checkpoint: Path
    requested: list[str]
    cut: dict[str, int]
    """Files whose first transfer breaks off after so many bytes."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if "Gated" in self.path:
            return self.refuse(403, "GatedRepo")
        if NAME not in self.path:
            return self.refuse(404, "RepoNotFound")
        files = sorted(path.name for path in self.checkpoint.iterdir())
        if "/api/" in self.path:
            if "/tree/" in self.path:
                listing: object = [{"type": "file", "path": name, **self.sizes(name)} for name in files]
            else:
                listing = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return self.send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
        if "/no-such-branch" in self.path:
            return self.refuse(404, "RevisionNotFound")
        if Path(self.path).name not in files:
            return self.refuse(404, "EntryNotFound")
        content = (self.checkpoint / Path(self.path).name).read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if body:
            self.requested.append(f"{Path(self.path).name} from {start}")
            if (limit := self.cut.pop(Path(self.path).name, None)) is not None:
                self.send(200, content[:limit], headers | {"Content-Length": str(len(content))}, body)
                return self.connection.close()
        return self.send(206 if start else 200, content[start:], headers, body, total=len(content))

    def sizes(self, name: str) -> dict[str, object]:
        content = (self.checkpoint / name).read_bytes()
        return {"size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def send(self, status: int, content: bytes, headers: dict[str, str], body: bool, total: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status == 206 and total is not None:
            self.send_header("Content-Range", f"bytes {total - len(content)}-{total - 1}/{total}")
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, **cut: int) -> Iterator[list[str]]:
    """Make the hub's client talk to a hub here; yields what is downloaded."""
    requested: list[str] = []
    handler = type("Served", (Hub,), {"checkpoint": checkpoint, "requested": requested, "cut": cut})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    try:
        yield requested
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_comes_from_the_hub_and_comes_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, cache = tmp_path / "published", tmp_path / "cache"
    shutil.copytree(checkpoint, published)
    (published / "pytorch_model.bin").write_bytes(b"not needed")
    with serving(published, monkeypatch) as requested:
        pulled = hub.pull(NAME, cache=cache)
        assert same(pulled, checkpoint)
        assert sorted(requested) == sorted(f"{path.name} from 0" for path in checkpoint.iterdir())
        requested.clear()
        assert hub.pull(NAME, cache=cache) == pulled
        assert requested == []
    assert hub.local_path(NAME, cache=cache) == pulled


def test_a_download_that_breaks_off_is_taken_up_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(checkpoint, monkeypatch, **{"model.safetensors": 70_000}) as requested:
        assert same(hub.pull(NAME, cache=tmp_path), checkpoint)
    assert sum(line.startswith("model.safetensors from") for line in requested) == 2
    assert len(requested) == 1 + len(list(checkpoint.iterdir()))


def test_the_hubs_refusals_are_explained(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(checkpoint, monkeypatch):
        with pytest.raises(hub.PullError, match="There is no model Qwen/Unheard-of on the hub"):
            hub.pull("Qwen/Unheard-of", cache=tmp_path)
        with pytest.raises(hub.PullError, match=r"its terms to be accepted: open https://huggingface\.co/Qwen/Gated"):
            hub.pull("Qwen/Gated", cache=tmp_path)


def test_a_config_comes_alone_and_is_no_pulled_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(checkpoint, monkeypatch) as requested:
        file = hub.config(NAME, tmp_path / "configs")
        assert requested == ["config.json from 0"]
        assert file == tmp_path / "configs" / NAME / "config.json"
        assert file.read_bytes() == (checkpoint / "config.json").read_bytes()
        assert hub.local_path(NAME) is None
        with pytest.raises(hub.PullError, match="There is no model Qwen/Unheard-of on the hub"):
            hub.config("Qwen/Unheard-of", tmp_path)
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(hub.PullError, match="cannot write to"):
            hub.config(NAME, tmp_path / "file")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # it tries again for 23 s
    with pytest.raises(hub.PullError, match=r"the hub cannot be reached.*give the path of a config\.json that is here"):
        hub.config(NAME, tmp_path / "other")


def test_a_model_without_a_config_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("weights to follow")
    with serving(tmp_path, monkeypatch), pytest.raises(hub.PullError, match=r"has no config\.json on the hub"):
        hub.config(NAME, tmp_path / "configs")


def test_a_model_on_the_hub_is_inspected_before_it_is_pulled(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAMET_HOME", str(tmp_path))
    with serving(checkpoint, monkeypatch) as requested:
        for words in ([NAME], [f"{NAME}/config.json"]):
            found = CliRunner().invoke(app, ["inspect", *words, "--json"])
            assert found.exit_code == 0, found.output
            told = json.loads(found.stdout)
            assert told["family"] == "Qwen3.5" and told["loads"] and not told["weights_here"]
        assert set(requested) == {"config.json from 0"}
        assert "There is no model Qwen/Unheard-of" in CliRunner().invoke(app, ["inspect", "Qwen/Unheard-of"]).stderr


def test_no_network_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(hub.PullError, match=r"the hub cannot be reached.*--source FOLDER"):
        hub.pull(NAME, cache=tmp_path)
