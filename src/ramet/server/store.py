"""Responses and conversations that outlive their request, in one SQLite database: which node of the tree each is."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramet.errors import RametError
from ramet.server.ask import ChatMessage, Tool

FILE = "responses.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
  id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, previous TEXT, node TEXT NOT NULL, created REAL NOT NULL,
  messages TEXT NOT NULL, reply TEXT NOT NULL, tools TEXT, instructions TEXT,
  body TEXT, items TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS responses_previous ON responses (previous);
CREATE TABLE IF NOT EXISTS conversations (
  id TEXT PRIMARY KEY, created INTEGER NOT NULL, metadata TEXT NOT NULL, messages TEXT NOT NULL, head TEXT
) STRICT;
"""


class StoreError(RametError):
    """The database of responses could not be opened, read or written."""


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

    A response belongs to the model it was made with: under another fingerprint its node does not exist.
    """

    def __init__(self, directory: Path | None, fingerprint: str) -> None:
        """Raises StoreError if the database cannot be opened."""
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
            place = ":memory:" if directory is None else str(directory / FILE)
            self._db = sqlite3.connect(place, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open the responses' database {directory}/{FILE}: {error}") from None

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def put(self, response: StoredResponse, conversation: str | None = None) -> None:
        """Keep `response`; it is on disk when this returns. With `conversation`, it becomes that one's latest."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
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
                    self._db.execute("UPDATE conversations SET head = ? WHERE id = ?", (response.id, conversation))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def get(self, id: str) -> StoredResponse | None:
        """The response of this id; None if there is none, or it was deleted."""
        found = self._row(id)
        return found if found is not None and found.body is not None else None

    def path(self, id: str) -> list[StoredResponse]:
        """The response and those before it, the first one first. The later ones stand on deleted ones too."""
        path: list[StoredResponse] = []
        at: str | None = id
        while at is not None and (found := self._row(at)) is not None:
            path.append(found)
            at = found.previous
        return path[::-1]

    def delete(self, id: str) -> bool:
        """Forget a response. What others stand on is kept for them, unseen, until they are gone too."""
        with self._lock:
            marked = self._db.execute("UPDATE responses SET body = NULL WHERE id = ? AND body IS NOT NULL", (id,))
            if not marked.rowcount:
                return False
            at: str | None = id
            while at is not None:
                row = self._db.execute(
                    "DELETE FROM responses WHERE id = ? AND body IS NULL"
                    " AND NOT EXISTS (SELECT 1 FROM responses AS later WHERE later.previous = responses.id)"
                    " AND NOT EXISTS (SELECT 1 FROM conversations WHERE head = responses.id) RETURNING previous",
                    (at,),
                ).fetchone()
                at = row[0] if row is not None else None
            return True

    def _row(self, id: str) -> StoredResponse | None:
        with self._lock:
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

    def create_conversation(self, id: str, metadata: dict[str, str], messages: Sequence[ChatMessage]) -> Conversation:
        """A new conversation that begins with `messages`."""
        conversation = Conversation(id, int(time.time()), metadata, list(messages), None)
        with self._lock:
            self._db.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, NULL)",
                (id, conversation.created, json.dumps(metadata), json.dumps(conversation.messages)),
            )
        return conversation

    def conversation(self, id: str) -> Conversation | None:
        """The conversation of this id, if there is one."""
        with self._lock:
            row = self._db.execute(
                "SELECT id, created, metadata, messages, head FROM conversations WHERE id = ?", (id,)
            ).fetchone()
        return None if row is None else Conversation(row[0], row[1], json.loads(row[2]), json.loads(row[3]), row[4])

    def delete_conversation(self, id: str) -> bool:
        """Forget a conversation; its responses stay."""
        with self._lock:
            return bool(self._db.execute("DELETE FROM conversations WHERE id = ?", (id,)).rowcount)
