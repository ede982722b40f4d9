"""The store in PostgreSQL, for several machines: the same tables, vectors in pgvector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ramet.memory.base import KINDS, Kind, MemoryStoreError, Turn, Vector
from ramet.memory.halves import vectors_of
from ramet.memory.records import HALF
from ramet.memory.sql import SqlStore

try:
    import psycopg
    from psycopg import sql
except ImportError:
    raise MemoryStoreError("a memory in PostgreSQL needs its driver: pip install 'ramet[postgres]'") from None

T = TypeVar("T")

_LOCK = 0x72616D74
"""Advisory lock of whoever writes; together with the schema's own number."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (key text COLLATE "C" PRIMARY KEY, value text NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    row bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, conversation text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL, position bigint NOT NULL, speaker text NOT NULL, text text NOT NULL, time text,
    node text, kind smallint NOT NULL, valid_from text, valid_to text, superseded_by text COLLATE "C");
CREATE INDEX IF NOT EXISTS turns_in_order ON turns (conversation, session, kind, position);
CREATE INDEX IF NOT EXISTS turns_last ON turns (conversation, position);
CREATE INDEX IF NOT EXISTS turns_superseded ON turns (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE TABLE IF NOT EXISTS derivations (
    source bigint NOT NULL, derived bigint NOT NULL, place integer NOT NULL, PRIMARY KEY (source, derived, place));
CREATE INDEX IF NOT EXISTS derivations_back ON derivations (derived);
CREATE TABLE IF NOT EXISTS lists (
    start bigint NOT NULL, name text COLLATE "C" NOT NULL, data bytea NOT NULL, PRIMARY KEY (start, name));
ALTER TABLE lists ALTER data SET STORAGE EXTERNAL
"""


class PostgresStore(SqlStore):
    """A store in a schema of a PostgreSQL database, for any number of processes and machines.

    Vectors are pgvector's `halfvec` under an HNSW index: the nearest are found approximately once there are many.
    `url`: `postgresql://...`. Raises MemoryStoreError if the database cannot be reached or used.
    """

    def __init__(self, url: str, schema: str = "ramet_memory") -> None:
        super().__init__()
        self._url, self._schema = url, schema
        self._connection = self._connect()
        try:
            with self._transaction(write=True):
                self._run(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
                for statement in _SCHEMA.split(";\n"):
                    self._run(statement)
            self._open_format()
            self._complete("SELECT attname FROM pg_attribute WHERE attrelid = CAST('turns' AS regclass)")
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(self._url, autocommit=True, connect_timeout=10)
        except psycopg.Error as error:
            raise MemoryStoreError(f"the database cannot be reached: {_first_line(error)}") from None
        path = sql.SQL("SET search_path TO {}, public").format(sql.Identifier(self._schema))
        connection.execute(path)
        connection.execute("SET client_min_messages TO warning")
        return connection

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    # The dialect

    def _run(self, statement: Any, values: Sequence[Any] = ()) -> Any:
        return self._guarded(lambda: self._connection.execute(statement, values or None))

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._lock:
            found: list[Any] = self._run(_dialect(statement), values).fetchall()
        return found

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                self._guarded(lambda: cursor.executemany(_dialect(statement).encode(), rows))

    def _begin(self, *, write: bool) -> None:
        if self._connection.closed:
            self._connection = self._connect()
        if write:
            self._run("BEGIN")
            self._run("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, self._schema))
        else:
            self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def _commit(self) -> None:
        self._run("COMMIT")

    def _rollback(self) -> None:
        if not self._connection.closed:
            self._run("ROLLBACK")

    def _guarded(self, run: Callable[[], T]) -> T:
        """Run, with the database's errors as ours."""
        try:
            return run()
        except psycopg.Error as error:
            raise MemoryStoreError(f"the database: {_first_line(error)}") from None
        except UnicodeEncodeError:
            raise MemoryStoreError(HALF) from None

    # Vectors

    def _add_vectors(self, rows: Sequence[int], turns: Sequence[Turn], vectors: Vector) -> None:
        if not len(rows):
            return
        self._have_vectors(vectors.shape[1])
        records = [
            (row, turn.conversation, KINDS.index(turn.kind), _text(vector))
            for row, turn, vector in zip(rows, turns, vectors, strict=True)
        ]
        self._many("INSERT INTO vectors VALUES (?, ?, ?, CAST(? AS halfvec))", records)

    def _have_vectors(self, dimensions: int) -> None:
        """Make the table of vectors, once their length is known."""
        try:
            self._run("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
        except MemoryStoreError as error:
            raise MemoryStoreError(f"vectors need the extension pgvector in the database ({error})") from None
        self._run(
            'CREATE TABLE IF NOT EXISTS vectors (row bigint PRIMARY KEY, conversation text COLLATE "C" NOT NULL, '
            f"kind smallint NOT NULL, data halfvec({dimensions}) NOT NULL)"
        )
        self._run("CREATE INDEX IF NOT EXISTS vectors_conversation ON vectors (conversation, kind)")
        self._run("CREATE INDEX IF NOT EXISTS vectors_nearest ON vectors USING hnsw (data halfvec_cosine_ops)")

    def _delete_vectors(self, rows: Sequence[int]) -> None:
        if self.dimensions is not None and self._has_table():
            self._many("DELETE FROM vectors WHERE row = ?", [(row,) for row in rows])

    def _has_table(self) -> bool:
        return self._rows("SELECT to_regclass('vectors')")[0][0] is not None

    def _vectors(self, rows: Sequence[int]) -> Vector:
        dimensions = self.dimensions
        if not dimensions or not len(rows) or not self._has_table():
            return np.zeros((len(rows), dimensions or 0), np.float32)
        # pgvector's own form: two numbers of 16 bits, then the halves; a list of numbers takes ten times as long.
        found = self._rows("SELECT row, halfvec_send(data) FROM vectors WHERE row {in}", list(rows))
        return vectors_of([(row, data[4:]) for row, data in found], rows, dimensions, ">f2")

    def _nearest(self, vector: Vector, k: int, conversation: str | None, kind: Kind | None) -> list[tuple[int, float]]:
        if not self._has_table():
            return []
        wanted: dict[str, Any] = {}
        if conversation is not None:
            wanted["conversation = ?"] = conversation
        if kind is not None:
            wanted["kind = ?"] = KINDS.index(kind)
        self._run(f"SET LOCAL hnsw.ef_search = {min(1000, max(100, 2 * k))}")
        self._run("SET LOCAL hnsw.iterative_scan = strict_order")
        near = _text(vector)
        found = self._rows(
            "SELECT row, 1 - (data <=> CAST(? AS halfvec)) FROM vectors "
            f"{'WHERE ' + ' AND '.join(wanted) if wanted else ''} ORDER BY data <=> CAST(? AS halfvec) LIMIT ?",
            near, *wanted.values(), near, k,
        )  # fmt: skip
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))


def _dialect(statement: str) -> str:
    """`?`, `{in}` and `{each}` as psycopg and PostgreSQL write them."""
    each = "unnest(CAST(? AS bigint[])) AS each (value)"
    return statement.replace("{in}", "= ANY(?)").replace("{each}", each).replace("?", "%s")


def _text(vector: Vector) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(str, np.asarray(vector, np.float16).tolist())) + "]"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
