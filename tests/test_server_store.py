"""The database of responses and conversations."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from ramet.server.errors import ApiError
from ramet.server.store import FILE, ResponseStore, StoredResponse, StoreError, forget_nodes


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


def test_a_conversation_takes_one_way_on() -> None:
    store = ResponseStore(None, "model")
    store.create_conversation("talk", {}, [])
    store.put(response("a"), "talk")
    store.put(response("b", "a"), "talk")
    with pytest.raises(ApiError) as caught:  # it was read before "b" came
        store.put(response("c", "a"), "talk")
    assert (caught.value.status, caught.value.code) == (409, "conversation_locked")
    assert store.get("c") is None
    found = store.conversation("talk")
    assert found is not None and found.head == "b"
    store.delete_conversation("talk")
    with pytest.raises(ApiError):
        store.put(response("d", "b"), "talk")


def test_a_budget_drops_the_oldest_sessions_from_their_ends(tmp_path: Path) -> None:
    budget = 400_000
    store = ResponseStore(tmp_path, "model", budget)
    store.create_conversation("unused", {}, [])
    store.create_conversation("old", {}, [])
    store.put(replace(response("first"), instructions="x" * 20_000), "old")
    store.put(response("second", "first"), "old")
    previous = None
    for number in range(60):
        store.put(replace(response(f"new {number}", previous), instructions="x" * 20_000))
        previous = f"new {number}" if number % 10 else None  # a few sessions
    assert store.get("new 59") is not None
    assert store.get("first") is None and store.get("second") is None
    assert store.conversation("old") is None and store.conversation("unused") is None
    for number in range(60):  # what is left is whole
        path = store.path(f"new {number}")
        assert (store.get(f"new {number}") is not None) == bool(path)
        assert not path or path[0].previous is None
    store.close()
    assert (tmp_path / FILE).stat().st_size <= budget + 100_000
    store = ResponseStore(tmp_path, "model", budget)
    with pytest.raises(StoreError, match="does not fit"):
        store.put(replace(response("huge"), instructions="x" * 500_000))
    assert store.get("huge") is None and store.get("new 59") is not None


def test_responses_go_with_their_nodes(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "model")
    store.create_conversation("talk", {}, [])
    store.put(response("a"), "talk")
    store.put(response("b", "a"), "talk")
    store.put(response("c", "a"))
    store.put(response("d", "c"))
    store.close()
    assert forget_nodes(tmp_path, {"node of b", "node of c", "no node"}) == 2
    store = ResponseStore(tmp_path, "model")
    assert store.get("a") is not None and store.get("b") is None and store.get("c") is None
    assert store.conversation("talk") is None
    assert [each.id for each in store.path("d")] == ["a", "c", "d"]  # it stands on what "c" said
    assert forget_nodes(tmp_path / "elsewhere", {"x"}) == 0


def test_a_session_with_a_gap_is_gone() -> None:
    store = ResponseStore(None, "model")
    store.put(response("a"))
    store.put(response("b", "a"))
    store._db.execute("DELETE FROM responses WHERE id = 'a'")
    assert store.path("b") == []


def test_a_response_whose_predecessor_went_meanwhile_is_not_called_stored() -> None:
    store = ResponseStore(None, "model")
    with pytest.raises(StoreError, match="lost, which this response continues, was removed"):
        store.put(response("b", "lost"))
    assert store.get("b") is None


def test_what_was_deleted_goes_with_the_conversation_that_kept_it() -> None:
    store = ResponseStore(None, "model")
    store.create_conversation("talk", {}, [])
    store.put(response("a"), "talk")
    assert store.delete("a") and store._db.execute("SELECT count(*) FROM responses").fetchone() == (1,)
    assert store.delete_conversation("talk") and not store.delete_conversation("talk")
    assert store._db.execute("SELECT count(*) FROM responses").fetchone() == (0,)


def test_what_sqlite_says_is_put_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramet.server.store._WAIT_S", 0.05)
    store = ResponseStore(tmp_path, "model")
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=rf"{FILE}: database is locked; another program") as caught:
        store.put(response("a"))
    assert caught.value.status == 503
    other.rollback()
    store._db.execute("PRAGMA max_page_count = 1")  # a full disk
    with pytest.raises(StoreError, match="full; free some space") as caught:
        store.put(replace(response("a"), instructions="x" * 100_000))
    assert (caught.value.status, caught.value.code) == (500, "storage_error")
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.put(response("a"))
    other.execute("UPDATE responses SET messages = '[{'")
    other.commit()
    with pytest.raises(StoreError, match="damaged"):
        store.get("a")
