"""The tables of a memory in a SQL database: what reading and writing share, and what a dialect has to do."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from ramet.memory.base import Kind, MemoryStoreError, Turn, Vector
from ramet.memory.lists import StoredLists
from ramet.memory.postings import Rows
from ramet.memory.records import COLUMNS, parts, turn_of
from ramet.memory.validity import StoredFacts
from ramet.memory.words import FORMAT

KIND = COLUMNS.index("kind")
"""Where the kind is in a record."""


class SqlTables(ABC):
    """Tables over a database connection.

    A dialect runs statements that are written with `?` for parameters, `{in}` for membership of an array and `{each}`
    for an array of numbers as a table (`each.value`). It opens transactions, and keeps the vectors.
    """

    @abstractmethod
    def _rows(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a SELECT; lists among `values` are arrays."""

    @abstractmethod
    def _run(self, statement: str) -> Any:
        """Run a statement that changes the tables."""

    @abstractmethod
    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each of `rows`."""

    @abstractmethod
    def _begin(self, *, write: bool) -> None:
        """Begin a transaction; one that writes waits here until it is alone."""

    @abstractmethod
    def _commit(self) -> None:
        """Make the transaction last."""

    @abstractmethod
    def _rollback(self) -> None:
        """Undo the transaction, if one is open."""

    @abstractmethod
    def _add_vectors(self, rows: Sequence[int], turns: Sequence[Turn], vectors: Vector) -> None:
        """Keep unit vectors [n, d] for new rows."""

    @abstractmethod
    def _delete_vectors(self, rows: Sequence[int]) -> None:
        """Remove the vectors of these rows."""

    @abstractmethod
    def _vectors(self, rows: Sequence[int]) -> Vector:
        """Their unit vectors [rows, dimensions], zeros for one that has none; [rows, 0] while nothing has."""

    @abstractmethod
    def _nearest(self, vector: Vector, k: int, conversation: str | None, kind: Kind | None) -> list[tuple[int, float]]:
        """The `k` rows with the highest cosine to a unit vector."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = self._failed = False
        self._lists, self._facts = StoredLists(self), StoredFacts(self)

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[None]:
        """One snapshot to read, or one whole write; inside another one, a part of that."""
        with self._lock:
            if self._inside:
                try:
                    yield
                except BaseException:
                    self._failed |= write
                    raise
                return
            self._begin(write=write)
            self._inside, self._failed = True, False
            try:
                yield
                if self._failed:
                    raise MemoryStoreError("a write failed in this transaction, so that nothing of it was kept")
                self._commit()
            except BaseException:
                self._rollback()
                self._lists.forget()  # some of it may be of what was not kept
                raise
            finally:
                self._inside = False

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def dimensions(self) -> int | None:
        """Length of the stored vectors; None while there are none."""
        known = self.note("dimensions")
        return int(known) if known else None

    @property
    def version(self) -> str:
        """Another one whenever turns were added or removed."""
        notes = dict(self._rows("SELECT key, value FROM notes WHERE key IN ('rows', 'removals')"))
        return f"{notes.get('rows', 0)} {notes.get('removals', 0)}"

    def note(self, key: str, value: str | None = None) -> str | None:
        """A setting of the store: set it if a value is given; what it is then."""
        if value is not None:
            with self._transaction(write=True):
                statement = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                self._many(statement, [(key, value)])
            return value
        found = self._rows("SELECT value FROM notes WHERE key = ?", key)
        return str(found[0][0]) if found else None

    def _open_format(self) -> None:
        """Note the format of a new store; raises MemoryStoreError for one of another."""
        found = self.note("format")
        if found is None:
            with self._transaction(write=True):
                found = self.note("format") or self.note("format", str(FORMAT))
        if found != str(FORMAT):
            raise MemoryStoreError(
                f"this memory is of format {found}, this version of Ramet reads format {FORMAT}: export it with the "
                "version that wrote it, and import that"
            )

    def _complete(self, columns: str) -> None:
        """Add what stores of this format did not have at first. `columns`: a SELECT of those that `turns` has."""
        if ("repeats",) in self._rows(columns):
            return
        with self._transaction(write=True):
            if ("repeats",) not in self._rows(columns):  # no other process was first
                self._run("ALTER TABLE turns ADD COLUMN repeats TEXT")
                self._run("CREATE INDEX turns_repeating ON turns (repeats) WHERE repeats IS NOT NULL")

    def _rows_on(self, name: str) -> Rows:
        """The rows on a list, ascending."""
        ((*parts,),) = self._lists.read([name])
        return np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])

    def _stored(self, where: str, *values: Any, order: str = "row") -> list[tuple[int, Turn]]:
        """Turns with their rows."""
        statement = f"SELECT row, {', '.join(COLUMNS)} FROM turns WHERE {where} ORDER BY {order}"
        found = self._rows(statement, *values)
        rows, records = [row[0] for row in found], [row[1:] for row in found]
        sources = self._sources(rows, [record[KIND] for record in records])
        return [(row, turn_of(record, sources.get(row, ()))) for row, record in zip(rows, records, strict=True)]

    def _sources(self, rows: Sequence[int], kinds: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """The ids of what each row was derived from, for those that were."""
        derived = [row for row, kind in zip(rows, kinds, strict=True) if kind]
        statement = (
            "SELECT derived, turns.id FROM derivations JOIN turns ON source = turns.row WHERE derived {in} "
            "ORDER BY derived, place"
        )
        sources: dict[int, tuple[str, ...]] = {}
        for part in parts(derived):
            for row, source in self._rows(statement, part):
                sources[row] = (*sources.get(row, ()), source)
        return sources
