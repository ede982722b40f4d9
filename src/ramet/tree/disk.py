"""The sessions' database: one SQLite file per model fingerprint, written in whole transactions and checked when read.

Three tables: `node` (how conversations were cut: parent, tokens, what is told about them), `part` (the pages of rows
and the saved states, each at a position on the path to some node), and `meta`. SQLite makes a transaction whole or
absent whatever moment the process dies at; digests make sure that bytes damaged later are never served.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ramet.models.states import StateLayout
from ramet.tree.errors import DamagedPart, DiskError, explained

FORMAT = 1
SQLITE_PAGE = 65536
"""Bytes. Large, because the parts are: a state of a 0.8B model has 19 MiB."""
WAL_LIMIT = 64 << 20
"""Bytes that the write-ahead log is cut back to once its content is in the database."""

PAGE, STATE = 0, 1
"""Kinds of part."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS node (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    parent BLOB NOT NULL,
    tokens BLOB NOT NULL,
    told TEXT NOT NULL,
    seal BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS part (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    node BLOB NOT NULL,
    position INTEGER NOT NULL,
    digest BLOB NOT NULL,
    seal BLOB NOT NULL,
    data BLOB NOT NULL
);
"""


@dataclass(frozen=True)
class NodeRow:
    """A node as stored. `told` is its message, bill and reply, whichever are known."""

    id: str
    parent: str
    tokens: bytes
    """Little-endian int32."""
    told: dict[str, Any]


@dataclass(frozen=True)
class PartRow:
    """What is known of a stored page or state without reading it."""

    id: int
    kind: int
    node: str
    """A node whose path passes through `position`."""
    position: int
    """Just past the last row of a page, or where a state was saved."""


@dataclass
class Batch:
    """Changes that go to disk together or not at all."""

    nodes: list[NodeRow] = field(default_factory=list)
    parts: list[tuple[PartRow, Tensor]] = field(default_factory=list)
    moved_parts: list[PartRow] = field(default_factory=list)
    """Parts that now hang on another node."""
    removed_nodes: list[str] = field(default_factory=list)
    removed_parts: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.nodes or self.parts or self.moved_parts or self.removed_nodes or self.removed_parts)


class Database:
    """The file of one fingerprint in `directory`. Reads and writes may come from different threads."""

    def __init__(self, directory: Path, fingerprint: str, layout: StateLayout) -> None:
        name = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        self.path = directory / f"{name}.sqlite"
        self._sizes = {PAGE: layout.page_bytes, STATE: layout.state_bytes}
        self._dtypes = {PAGE: layout.row_dtype, STATE: torch.float32}
        self._connections: list[sqlite3.Connection] = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = _lock(directory / f"{name}.lock")
        except OSError as error:
            raise DiskError(f"cannot keep sessions in {directory}: {error.strerror}") from None
        self._writing, self._reading = threading.Lock(), threading.Lock()
        try:
            with self._errors("open"):
                self._writer = self._connect()
                self._prepare(fingerprint)
                self._reader = self._connect()
        except DiskError:
            self.close()
            raise

    def load(self) -> tuple[list[NodeRow], list[PartRow], Batch]:
        """Every node (parents first) and part whose seal is whole, and the removal of those whose is not."""
        nodes, parts, bad = [], [], Batch()
        with self._errors("read"), self._reading:
            for id, parent, tokens, told, seal in self._reader.execute(
                "SELECT id, parent, tokens, told, seal FROM node ORDER BY sequence"
            ):
                if seal == _node_seal(id, parent, tokens, told):
                    nodes.append(NodeRow(id.hex(), parent.hex(), tokens, json.loads(told)))
                else:
                    bad.removed_nodes.append(id.hex())
            for id, kind, node, position, digest, seal in self._reader.execute(
                "SELECT id, kind, node, position, digest, seal FROM part ORDER BY id"
            ):
                if seal == _part_seal(id, kind, node, position, digest):
                    parts.append(PartRow(id, kind, node.hex(), position))
                else:
                    bad.removed_parts.append(id)
        return nodes, parts, bad

    def read(self, id: int, kind: int) -> Tensor:
        """The content of a part: a page in the rows' dtype, a state in float32, `[elements]`.

        Raises DamagedPart unless it is, bit for bit, what was written. Where it hangs is the database's own word: in
        the tree it may have been moved since.
        """
        with self._reading:
            try:
                found = self._reader.execute(
                    "SELECT node, position, digest, seal, data FROM part WHERE id = ?", (id,)
                ).fetchone()
            except sqlite3.Error as error:
                raise DamagedPart(str(error)) from None
        if found is None:
            raise DamagedPart("it is not in the database")
        node, position, digest, seal, data = found
        if seal != _part_seal(id, kind, node, position, digest):
            raise DamagedPart("its description was changed")
        if len(data) != self._sizes[kind] or hashlib.sha256(data).digest() != digest:
            raise DamagedPart("its content was changed")
        return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()).view(self._dtypes[kind])

    def write(self, batch: Batch, *, durable: bool) -> None:
        """Write a batch in one transaction; with `durable`, it is on the medium on return. Raises DiskError."""
        with self._errors("write"), self._writing:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._apply(batch)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """Give the space of removed parts back to the file system where it is much of the file."""
        with contextlib.suppress(DiskError), self._errors("write"), self._writing:
            free, count = (
                self._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
            if free > 8 and free > count // 4:
                # as a script: a plain statement would stop after its first step, one page
                self._writer.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._writing, self._reading, contextlib.suppress(sqlite3.Error):
            for connection in self._connections:
                connection.close()
        self._lock_file.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connections.append(connection)
        connection.execute(f"PRAGMA page_size = {SQLITE_PAGE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        connection.execute("PRAGMA cell_size_check = ON")
        return connection

    def _prepare(self, fingerprint: str) -> None:
        """Make the tables if there are none, or check that they are what this code writes."""
        db = self._writer
        expected = {
            "format": str(FORMAT),
            "fingerprint": fingerprint,
            "page_bytes": str(self._sizes[PAGE]),
            "state_bytes": str(self._sizes[STATE]),
        }
        db.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        found = dict(db.execute("SELECT name, value FROM meta"))
        if not found:
            db.executemany("INSERT INTO meta VALUES (?, ?)", expected.items())
        db.execute("COMMIT")
        for name, value in expected.items():
            if found and found.get(name) != value:
                raise DiskError(
                    f"{self.path} was written with {name} {found.get(name)!r}, this version of Ramet has {value!r}: "
                    "use another directory, or delete the file to lose the sessions in it"
                )

    def _apply(self, batch: Batch) -> None:
        db = self._writer
        if not batch:  # a transaction all the same, so that what went before it is on the medium with it
            db.execute("INSERT OR REPLACE INTO meta VALUES ('stored', '')")
        db.executemany("DELETE FROM part WHERE id = ?", [(id,) for id in batch.removed_parts])
        db.executemany("DELETE FROM node WHERE id = ?", [(bytes.fromhex(id),) for id in batch.removed_nodes])
        for node in batch.nodes:
            id, parent, told = bytes.fromhex(node.id), bytes.fromhex(node.parent), json.dumps(node.told)
            db.execute(
                "INSERT INTO node (id, parent, tokens, told, seal) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET told = excluded.told, seal = excluded.seal",
                (id, parent, node.tokens, told, _node_seal(id, parent, node.tokens, told)),
            )
        for row, tensor in batch.parts:
            # a copy of a page: a session may be writing behind the rows that count
            content = tensor.view(torch.uint8).numpy()
            data = content.tobytes() if row.kind == PAGE else content.data
            digest, name = hashlib.sha256(data).digest(), bytes.fromhex(row.node)
            seal = _part_seal(row.id, row.kind, name, row.position, digest)
            db.execute(
                "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row.id, row.kind, name, row.position, digest, seal, data),
            )
        for row in batch.moved_parts:
            found = db.execute("SELECT digest FROM part WHERE id = ?", (row.id,)).fetchone()
            if found is not None:
                name = bytes.fromhex(row.node)
                seal = _part_seal(row.id, row.kind, name, row.position, found[0])
                db.execute(
                    "UPDATE part SET node = ?, position = ?, seal = ? WHERE id = ?", (name, row.position, seal, row.id)
                )

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Say what went wrong with the file in words for its owner."""
        try:
            yield
        except sqlite3.Error as error:
            raise DiskError(f"cannot {doing} the sessions in {self.path}: {explained(error)}") from None


def _lock(path: Path) -> IO[bytes]:
    """Take the directory for this process. Raises DiskError if another has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise DiskError(
            f"the sessions in {path.parent} are in use by another process: stop it, or choose another directory"
        ) from None
    os.set_inheritable(file.fileno(), False)
    return file


def _seal(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(struct.pack("<q", len(part)))
        digest.update(part)
    return digest.digest()[:16]


def _node_seal(id: bytes, parent: bytes, tokens: bytes, told: str) -> bytes:
    return _seal((id, parent, tokens, told.encode()))


def _part_seal(id: int, kind: int, node: bytes, position: int, digest: bytes) -> bytes:
    return _seal((struct.pack("<qqq", id, kind, position), node, digest))
