"""The store in one SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ramet.memory import codes
from ramet.memory.base import Kind, MemoryStoreError, Turn, Vector
from ramet.memory.codes import Codes
from ramet.memory.halves import unit_vectors, vectors_of
from ramet.memory.postings import conversation_list
from ramet.memory.records import HALF
from ramet.memory.sql import SqlStore

T = TypeVar("T")

_APPLICATION = 0x72616D74
"""What SQLite files of this store say they are: 'ramt'."""
_PATIENCE_S = 600.0
"""How long a writer waits for others. Transactions last milliseconds: longer means that a process hangs in one."""

_EACH = "json_each(?) AS each"
_VECTORS = "SELECT row, data FROM {each} CROSS JOIN vectors WHERE row = each.value"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, conversation TEXT NOT NULL, session TEXT NOT NULL,
    position INTEGER NOT NULL, speaker TEXT NOT NULL, text TEXT NOT NULL, time TEXT, node TEXT, kind INTEGER NOT NULL,
    valid_from TEXT, valid_to TEXT, superseded_by TEXT);
CREATE INDEX IF NOT EXISTS turns_in_order ON turns (conversation, session, kind, position);
CREATE INDEX IF NOT EXISTS turns_last ON turns (conversation, position);
CREATE INDEX IF NOT EXISTS turns_superseded ON turns (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE TABLE IF NOT EXISTS derivations (
    source INTEGER NOT NULL, derived INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (source, derived, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS derivations_back ON derivations (derived);
CREATE TABLE IF NOT EXISTS lists (
    start INTEGER NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (start, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (row INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS codes (block INTEGER PRIMARY KEY, version INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS codes_version ON codes (version);
"""


class SqliteStore(SqlStore):
    """A store in one file, for any number of threads and processes of one machine.

    Vectors are kept in half precision, so a cosine is off by less than 1e-3. `path` None: in memory, gone when closed.
    Raises MemoryStoreError if the file cannot be opened or is not a memory.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._codes: Codes | None = None
        self._purge = False
        self._name = str(path) if path is not None else "the memory"
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what was said is nobody else's to read
            self._database = sqlite3.connect(
                path if path is not None else ":memory:", isolation_level=None, check_same_thread=False, timeout=5
            )
            self._patiently(self._prepare)
        except (sqlite3.Error, OSError) as error:
            raise MemoryStoreError(f"{self._name} cannot be opened as a memory: {_reason(error)}") from None
        try:
            self._open_format()
            self._complete("SELECT name FROM pragma_table_info('turns')")
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        run = self._database.execute
        # In this order: a process that makes the same file writes both at once.
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = run("PRAGMA application_id").fetchone()
        if application != _APPLICATION and tables:
            self._database.close()
            raise MemoryStoreError(f"{self._name} is a database, but not a memory; name another file")
        run("PRAGMA page_size = 8192")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
        run("PRAGMA cache_size = -65536")
        run("PRAGMA mmap_size = 8589934592")
        if application == _APPLICATION:
            return
        run("BEGIN IMMEDIATE")
        try:
            for statement in _SCHEMA.split(";\n"):
                run(statement)
            run(f"PRAGMA application_id = {_APPLICATION}")
            run("COMMIT")
        except BaseException:
            self._rollback()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Remove turns and what was derived from them; the ids that are gone."""
        with self.writing():
            gone = super().delete(ids)
            self._purge |= bool(gone)
        return gone

    # The dialect

    def _run(self, statement: str) -> None:
        self._guarded(lambda: self._database.execute(statement))

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        statement = statement.replace("{in}", "IN (SELECT value FROM json_each(?))").replace("{each}", _EACH)
        given = [json.dumps(value) if isinstance(value, list) else value for value in values]
        with self._lock:
            return self._guarded(lambda: self._database.execute(statement, given).fetchall())

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._guarded(lambda: self._database.executemany(statement, rows))

    def _begin(self, *, write: bool) -> None:
        statement = "BEGIN IMMEDIATE" if write else "BEGIN"
        self._guarded(lambda: self._patiently(lambda: self._database.execute(statement)))

    def _commit(self) -> None:
        self._guarded(lambda: self._patiently(lambda: self._database.execute("COMMIT")))
        if self._purge:
            # The log still has the pages as they were. A process that reads just now may keep it for a while longer.
            with suppress(sqlite3.OperationalError):
                busy = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                self._purge = bool(busy)  # then again after the next write

    def _rollback(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        self._purge = False
        self._codes = None  # they may be of what was not kept

    def _guarded(self, run: Callable[[], T]) -> T:
        """Run, with SQLite's errors as ours."""
        try:
            return run()
        except sqlite3.Error as error:
            raise MemoryStoreError(f"{self._name}: {_reason(error)}") from None
        except UnicodeEncodeError:
            raise MemoryStoreError(HALF) from None

    def _patiently(self, run: Callable[[], T]) -> T:
        """Run as often as another process is in the way."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return run()
            except sqlite3.OperationalError as error:
                if (error.sqlite_errorcode & 0xFF) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    # Vectors

    def _add_vectors(self, rows: Sequence[int], turns: Sequence[Turn], vectors: Vector) -> None:
        if not len(rows):
            return
        halves = vectors.astype("<f2")
        self._many(
            "INSERT INTO vectors VALUES (?, ?)",
            [(row, half.tobytes()) for row, half in zip(rows, halves, strict=True)],
        )
        version = self._next_version()
        self._many(
            "INSERT INTO codes VALUES (?, ?, ?) ON CONFLICT (block) "
            "DO UPDATE SET version = excluded.version, data = CAST(data || excluded.data AS BLOB)",
            [(block, version, data) for block, data in codes.pack(rows, [turn.kind for turn in turns], vectors)],
        )

    def _delete_vectors(self, rows: Sequence[int]) -> None:
        dimensions = self.dimensions
        if dimensions is None:
            return
        self._many("DELETE FROM vectors WHERE row = ?", [(row,) for row in rows])
        version, words = self._next_version(), -(-dimensions // 64)
        blocks: dict[int, list[int]] = {}
        for row in rows:
            blocks.setdefault(row >> codes.BLOCK_BITS, []).append(row)
        found = self._rows("SELECT block, data FROM codes WHERE block {in}", list(blocks))
        left = [(version, codes.without(data, blocks[block], words), block) for block, data in found]
        self._many("UPDATE codes SET version = ?, data = ? WHERE block = ?", left)

    def _next_version(self) -> int:
        version = int(self.note("version") or 0) + 1
        self.note("version", str(version))
        return version

    def _vectors(self, rows: Sequence[int]) -> Vector:
        dimensions = self.dimensions
        if not dimensions or not len(rows):
            return np.zeros((len(rows), dimensions or 0), np.float32)
        found = self._rows(_VECTORS, list(rows))
        return vectors_of(found, rows, dimensions, "<f2")

    def _nearest(self, vector: Vector, k: int, conversation: str | None, kind: Kind | None) -> list[tuple[int, float]]:
        most = max(codes.CANDIDATES, codes.PER_HIT * k)
        rows = None if conversation is None else self._rows_on(conversation_list(conversation))
        if rows is None or kind is not None or len(rows) > most:
            rows = self._current_codes(len(vector)).nearest(vector, most, kind, rows)
        found = self._rows(_VECTORS, rows.tolist())
        if not found:
            return []
        vectors = unit_vectors(b"".join([data for _, data in found]), len(vector), "<f2")
        scores = np.einsum("ij,j->i", vectors, vector)
        order = np.lexsort(([row for row, _ in found], -scores))[:k]
        return [(found[index][0], float(scores[index])) for index in order.tolist()]

    def _current_codes(self, dimensions: int) -> Codes:
        """The codes as they are in this transaction."""
        if self._codes is None:
            self._codes = Codes(dimensions)
        newer = "SELECT block, version, data FROM codes WHERE version > ?"
        self._codes.update(self._rows(newer, self._codes.version))
        return self._codes


def _reason(error: sqlite3.Error | OSError) -> str:
    """What is wrong, in words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and (code & 0xFF) == sqlite3.SQLITE_NOTADB:
        return "the file is not an SQLite database"
    if code is not None and (code & 0xFF) == sqlite3.SQLITE_BUSY:
        return f"another process has held it for {_PATIENCE_S / 60:.0f} minutes; end that process"
    return str(error)
