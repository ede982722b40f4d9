"""The database of responses and conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramet.server.store import FILE, ResponseStore, StoredResponse, StoreError


def response(id: str, previous: str | None = None) -> StoredResponse:
    asked = [{"role": "user", "content": f"to {id}"}]
    reply = {"role": "assistant", "content": f"from {id}"}
    return StoredResponse(id, previous, f"node of {id}", asked, reply, None, "Be brief.", {"id": id}, [])


def test_responses_survive_a_restart(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "model")
    store.put(response("a"))
    store.put(response("b", "a"))
    store.close()
    store = ResponseStore(tmp_path, "model")
    assert store.get("b") == response("b", "a")
    assert [each.id for each in store.path("b")] == ["a", "b"]


def test_a_response_belongs_to_its_model(tmp_path: Path) -> None:
    ResponseStore(tmp_path, "model").put(response("a"))
    assert ResponseStore(tmp_path, "another").get("a") is None


def test_what_others_stand_on_outlives_its_deletion() -> None:
    store = ResponseStore(None, "model")
    for id, previous in (("a", None), ("b", "a"), ("c", "a")):
        store.put(response(id, previous))
    assert store.delete("a")
    assert store.get("a") is None
    assert not store.delete("a")
    assert [each.id for each in store.path("c")] == ["a", "c"]
    store.delete("b")
    store.delete("c")
    assert store.path("a") == []


def test_a_conversation_follows_its_latest_response() -> None:
    store = ResponseStore(None, "model")
    store.create_conversation("talk", {"topic": "tea"}, [{"role": "user", "content": "hi"}])
    store.put(response("a"), "talk")
    found = store.conversation("talk")
    assert found is not None
    assert (found.head, found.metadata) == ("a", {"topic": "tea"})
    assert store.delete_conversation("talk")
    assert store.conversation("talk") is None
    assert store.get("a") is not None


def test_a_damaged_database_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=FILE):
        ResponseStore(tmp_path, "model")
