"""Responses and conversations that outlive their request, in one SQLite database: which node of the tree each is."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramet.server.ask import ChatMessage, Tool
from ramet.server.errors import ApiError
from ramet.tree.errors import explained

FILE = "responses.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
  id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, previous TEXT, node TEXT NOT NULL, created REAL NOT NULL,
  messages TEXT NOT NULL, reply TEXT NOT NULL, tools TEXT, instructions TEXT,
  body TEXT, items TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS responses_previous ON responses (previous);
CREATE INDEX IF NOT EXISTS responses_created ON responses (created);
CREATE TABLE IF NOT EXISTS conversations (
  id TEXT PRIMARY KEY, created INTEGER NOT NULL, metadata TEXT NOT NULL, messages TEXT NOT NULL, head TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS conversations_head ON conversations (head);
"""

_OLDEST = """
SELECT id, kind FROM (
  SELECT id, created, 'response' AS kind FROM responses WHERE id != :kept
  AND NOT EXISTS (SELECT 1 FROM responses AS later WHERE later.previous = responses.id)
UNION ALL
  SELECT id, created, 'conversation' FROM conversations WHERE head IS NULL AND id != :kept)
ORDER BY created LIMIT 1
"""
"""The oldest of the responses that no other stands on and the conversations without any response."""

_WAIT_S = 5.0
"""How long a call waits for another process that is writing."""


class StoreError(ApiError):
    """The database of responses could not be opened, read or written; worded for the client and for the owner."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        """`passing`: it may work when tried again."""
        super().__init__(503 if passing else 500, message, code="storage_error")


@dataclass(frozen=True)
class StoredResponse:
    """A finished response: the node it is, and the messages that led there from the response before it."""

    id: str
    previous: str | None
    node: str
    """Id of the tree's node that ends with its reply."""
    messages: list[ChatMessage]
    """What its request added."""
    reply: ChatMessage
    tools: list[Tool] | None
    """As its prompt showed them."""
    instructions: str | None
    """As its prompt showed them."""
    body: dict[str, Any] | None
    """The response as it was answered; None once deleted."""
    items: list[dict[str, Any]]
    """Its input, item by item."""


@dataclass(frozen=True)
class Conversation:
    """A name for the latest response of a session."""

    id: str
    created: int
    metadata: dict[str, str]
    messages: list[ChatMessage]
    """What it began with, before any response."""
    head: str | None
    """Id of its latest response."""


class ResponseStore:
    """Keeps responses and conversations in `directory` (None: in memory). Safe to use from several threads.

    A response belongs to the model it was made with: under another fingerprint its node does not exist. Every method
    may raise StoreError.
    """

    def __init__(self, directory: Path | None, fingerprint: str, budget: int | None = None) -> None:
        """`budget`: bytes that they may take (None: no limit). Beyond it the oldest sessions lose their last turns."""
        self._fingerprint = fingerprint
        self._budget = budget
        self._lock = threading.Lock()
        self._place = "memory" if directory is None else str(directory / FILE)
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot keep responses in {directory}: {error.strerror}") from None
        with self._used("open"):
            place = ":memory:" if directory is None else self._place
            self._db = sqlite3.connect(place, check_same_thread=False, isolation_level=None, timeout=_WAIT_S)
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def put(self, response: StoredResponse, conversation: str | None = None) -> None:
        """Keep `response`; it is on disk when this returns. With `conversation`, it becomes that one's latest.

        Raises ApiError (409) if the conversation has gone on, or is gone, since `response.previous` was read of it.
        """
        with self._changed():
            previous = response.previous
            if previous and not self._db.execute("SELECT 1 FROM responses WHERE id = ?", (previous,)).fetchone():
                raise StoreError(f"{previous}, which this response continues, was removed before it could be stored")
            self._db.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    response.id,
                    self._fingerprint,
                    response.previous,
                    response.node,
                    time.time(),
                    json.dumps(response.messages),
                    json.dumps(response.reply),
                    None if response.tools is None else json.dumps(response.tools),
                    response.instructions,
                    None if response.body is None else json.dumps(response.body),
                    json.dumps(response.items),
                ),
            )
            if conversation is not None:
                moved = self._db.execute(
                    "UPDATE conversations SET head = ? WHERE id = ? AND head IS ?",
                    (response.id, conversation, response.previous),
                )
                if not moved.rowcount:
                    raise conversation_locked(conversation)
            self._make_room(kept=response.id)

    def get(self, id: str) -> StoredResponse | None:
        """The response of this id; None if there is none, or it was deleted."""
        found = self._row(id)
        return found if found is not None and found.body is not None else None

    def path(self, id: str) -> list[StoredResponse]:
        """The response and those before it, the first one first; empty if any of them is missing.

        The later ones stand on deleted ones too.
        """
        path: list[StoredResponse] = []
        at: str | None = id
        while at is not None:
            found = self._row(at)
            if found is None:
                return []
            path.append(found)
            at = found.previous
        return path[::-1]

    def delete(self, id: str) -> bool:
        """Forget a response. What others stand on is kept for them, unseen, until they are gone too."""
        with self._changed():
            return self._delete(id)

    def forget(self, nodes: Collection[str]) -> int:
        """Forget the responses that are one of these nodes, with conversations that end in one; returns how many."""
        with self._changed():
            gone = [id for id, node in self._db.execute("SELECT id, node FROM responses").fetchall() if node in nodes]
            for id in gone:
                self._db.execute("DELETE FROM conversations WHERE head = ?", (id,))
            for id in gone:
                self._delete(id)
        self._shrink()
        return len(gone)

    def create_conversation(self, id: str, metadata: dict[str, str], messages: Sequence[ChatMessage]) -> Conversation:
        """A new conversation that begins with `messages`."""
        conversation = Conversation(id, int(time.time()), metadata, list(messages), None)
        with self._changed():
            self._db.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, NULL)",
                (id, conversation.created, json.dumps(metadata), json.dumps(conversation.messages)),
            )
            self._make_room(kept=id)
        return conversation

    def conversation(self, id: str) -> Conversation | None:
        """The conversation of this id, if there is one."""
        with self._used("read"):
            row = self._db.execute(
                "SELECT id, created, metadata, messages, head FROM conversations WHERE id = ?", (id,)
            ).fetchone()
            return None if row is None else Conversation(row[0], row[1], json.loads(row[2]), json.loads(row[3]), row[4])

    def delete_conversation(self, id: str) -> bool:
        """Forget a conversation; its responses stay, but for those that were deleted and kept for its sake."""
        with self._changed():
            gone = self._db.execute("DELETE FROM conversations WHERE id = ? RETURNING head", (id,)).fetchone()
            if gone is not None:
                self._sweep(gone[0])
            return gone is not None

    def _row(self, id: str) -> StoredResponse | None:
        with self._used("read"):
            row = self._db.execute(
                "SELECT id, previous, node, messages, reply, tools, instructions, body, items FROM responses"
                " WHERE id = ? AND fingerprint = ?",
                (id, self._fingerprint),
            ).fetchone()
            if row is None:
                return None
            key, previous, node, messages, reply, tools, instructions, body, items = row
            return StoredResponse(
                key,
                previous,
                node,
                json.loads(messages),
                json.loads(reply),
                None if tools is None else json.loads(tools),
                instructions,
                None if body is None else json.loads(body),
                json.loads(items),
            )

    def _delete(self, id: str) -> bool:
        marked = self._db.execute("UPDATE responses SET body = NULL WHERE id = ? AND body IS NOT NULL", (id,))
        self._sweep(id)
        return bool(marked.rowcount)

    def _sweep(self, at: str | None) -> None:
        """Drop a deleted response that nothing stands on any more, and then those before it."""
        while at is not None:
            row = self._db.execute(
                "DELETE FROM responses WHERE id = ? AND body IS NULL"
                " AND NOT EXISTS (SELECT 1 FROM responses AS later WHERE later.previous = responses.id)"
                " AND NOT EXISTS (SELECT 1 FROM conversations WHERE head = responses.id) RETURNING previous",
                (at,),
            ).fetchone()
            at = row[0] if row is not None else None

    def _make_room(self, kept: str) -> None:
        """Drop the oldest until all fit the budget, but not what was just `kept`, nor what that stands on."""
        while self._budget is not None and self._bytes() > self._budget:
            oldest = self._db.execute(_OLDEST, {"kept": kept}).fetchone()
            if oldest is None:
                raise StoreError(f"it does not fit in {self._place}: that may hold {self._budget} bytes; allow it more")
            id, kind = oldest
            if kind == "response":
                self._db.execute("DELETE FROM conversations WHERE head = ?", (id,))
                self._delete(id)
            else:
                self._db.execute("DELETE FROM conversations WHERE id = ?", (id,))

    def _bytes(self) -> int:
        """How much of the file is in use."""
        count, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (count - free) * size

    def _shrink(self) -> None:
        """Give the space of what was dropped back to the file system."""
        with self._used("shrink"):
            self._db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextlib.contextmanager
    def _changed(self) -> Iterator[None]:
        """One transaction: whole and on disk afterwards, or as if it had not been."""
        with self._used("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _used(self, doing: str) -> Iterator[None]:
        """The database for this thread alone; what goes wrong is said in words for people."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                message = f"cannot {doing} the stored responses in {self._place}: {explained(error)}"
                raise StoreError(message, passing="locked" in str(error)) from None
            except json.JSONDecodeError as error:
                raise StoreError(f"a stored response in {self._place} is damaged: {error}") from None


def conversation_locked(id: str) -> ApiError:
    """409: another request is going on with this conversation, or has just done so."""
    return ApiError(
        409,
        f"another request is working on the conversation {id!r}, or changed it meanwhile: try again in a moment",
        param="conversation",
        code="conversation_locked",
    )


def forget_nodes(directory: Path, nodes: Collection[str]) -> int:
    """`ResponseStore.forget` for the responses kept in a directory, if there are any. Raises StoreError."""
    if not nodes or not (directory / FILE).is_file():
        return 0
    store = ResponseStore(directory, fingerprint="")  # a node's id tells its model too
    try:
        return store.forget(nodes)
    finally:
        store.close()
