"""/v1/memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from ramet.engine.runtime import Runtime
from ramet.memory import Memory
from ramet.server.app import create_app
from ramet.server.settings import Settings
from tests.serving import tiny_checkpoint

KEY = {"authorization": "Bearer k-123"}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, TestClient]]:
    """Of a server with a memory, and of one without."""
    settings = Settings(tiny_checkpoint(tmp_path_factory.mktemp("model")), api_key="k-123")
    with Runtime.load(settings.model) as runtime, Memory.open(None) as memory:
        apps = [create_app(runtime, settings, memory), create_app(runtime, settings)]
        yield TestClient(apps[0], headers=KEY), TestClient(apps[1], headers=KEY)
        for app in apps:
            app.state.service.close()


def test_remember_recall_forget(clients: tuple[TestClient, TestClient]) -> None:
    http = clients[0]
    about = {"text": "I moved to Oslo", "speaker": "Ann", "conversation": "ann", "time": "2023-05-08", "id": "a/1"}
    turn = http.post("/v1/memory/turns", json=about).json()
    assert turn == about | {"object": "memory.turn", "position": 0, "time": "2023-05-08T00:00:00"}
    found = http.post("/v1/memory/recall", json={"question": "Who lives in Oslo?", "count": 3}).json()["data"]
    assert [hit["id"] for hit in found] == ["a/1"] and found[0]["score"] > 0
    assert http.get("/v1/memory/turns/a/1").json() == turn
    assert http.get("/v1/memory").json()["turns"] == 1
    assert http.delete("/v1/memory/turns/a/1").json()["removed"] == ["a/1"]
    for answer in (http.get("/v1/memory/turns/a/1"), http.delete("/v1/memory/turns/a/1")):
        assert answer.status_code == 404 and "no turn 'a/1'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("turns", b"{", "not JSON"),
        ("turns", b"[]", "JSON object"),
        ("turns", b'{"text": ""}', "nothing to remember"),
        ("turns", b'{"text": "x", "time": "now"}', "must be a time"),
        ("recall", b"{}", "'question' must be text"),
        ("recall", b'{"question": "x", "time": "now"}', "must be a time"),
    ],
)
def test_what_is_wrong_is_said(clients: tuple[TestClient, TestClient], path: str, body: bytes, message: str) -> None:
    answer = clients[0].post(f"/v1/memory/{path}", content=body)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


def test_without_a_key_or_a_memory(clients: tuple[TestClient, TestClient]) -> None:
    assert clients[0].get("/v1/memory", headers={"authorization": ""}).status_code == 401
    answer = clients[1].post("/v1/memory/recall", json={"question": "x"})
    assert answer.status_code == 404 and "--memory-store" in answer.json()["error"]["message"]
