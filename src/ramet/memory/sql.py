"""A store over SQL: everything that SQLite and PostgreSQL do alike, in tables that both have."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Self, TypeVar

import numpy as np

from ramet.memory import postings
from ramet.memory.base import KINDS, Hit, Kind, MemoryStoreError, Survey, Turn, Turns, Vector
from ramet.memory.entities import entities
from ramet.memory.lists import StoredLists
from ramet.memory.postings import BLOCK, Gathered, Rows
from ramet.memory.records import COLUMNS, check, check_same, record, turn_of, units
from ramet.memory.survey import count_terms, sessions, with_those_beside
from ramet.memory.validity import StoredFacts
from ramet.memory.words import FORMAT, indexed_text, terms

T = TypeVar("T")

_CHUNK = 4096
"""Turns that are read or removed at a time."""


class SqlStore(ABC):
    """`Store` over a database connection; see `base.Store` for the contract.

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

    # Index

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

    def lexical(self, query: str, k: int, conversation: str | None = None, kind: Kind | None = None) -> list[Hit]:
        """The turns with the highest BM25."""
        with self._transaction(write=False):
            names = [postings.term_list(term) for term in terms(query)]
            return self._hits(postings.rank(self._lists, names, k, conversation, kind))

    def mentioning(
        self, entities: Sequence[str], k: int, conversation: str | None = None, kind: Kind | None = None
    ) -> list[Hit]:
        """The turns that mention most of `entities`."""
        with self._transaction(write=False):
            names = [postings.entity_list(entity) for entity in entities]
            return self._hits(postings.rank(self._lists, names, k, conversation, kind, counted=False))

    def dense(self, vector: Vector, k: int, conversation: str | None = None, kind: Kind | None = None) -> list[Hit]:
        """The turns whose vectors are nearest."""
        with self._transaction(write=False):
            return self._hits(self._by_vector(vector, k, conversation, kind))

    def survey(
        self, words: str, vector: Vector | None, k: int, conversation: str | None, counted: Sequence[str]
    ) -> Survey:
        """What both searches give, and the turns beside it."""
        with self._transaction(write=False):
            lists = postings.ReadOnce(self._lists)
            names = [postings.term_list(term) for term in terms(words)]
            scores = dict(postings.rank(lists, names, k, conversation))
            near = self._by_vector(vector, k, conversation, None) if vector is not None else []
            found = list(dict.fromkeys([*scores, *(row for row, _ in near)]))
            rows, records, before = with_those_beside(self, found)
            columns = list(zip(*records, strict=True)) or [()] * len(COLUMNS)
            lengths, frequencies = count_terms(lists, rows, columns, counted, conversation is not None)
            vectors, sources = self._vectors(rows), self._sources(rows, columns[_KIND])

        def make(place: int) -> Turn:
            return turn_of(records[place], sources.get(rows[place], ()))

        named = dict(zip(COLUMNS, columns, strict=True))
        return Survey(
            list(named["id"]), list(named["text"]), list(named["speaker"]), np.array(named["position"], np.int64),
            sessions(columns), Turns(make, range(len(rows))), len(found), before,
            np.array([scores.get(row, 0.0) for row in rows], np.float32), lengths, frequencies, vectors,
        )  # fmt: skip

    def turns(self, ids: Sequence[str]) -> list[Turn]:
        """The turns of `ids` in that order, those that are stored."""
        with self._transaction(write=False):
            found = {turn.id: turn for _, turn in self._stored("id {in}", list(ids))}
        return [found[id] for id in ids if id in found]

    def around(self, ids: Sequence[str], radius: int) -> dict[str, list[str]]:
        """The neighbours of each turn in its session."""
        beside = (
            "(SELECT id FROM turns WHERE conversation = t.conversation AND session = t.session AND kind = 0 AND "
            "(position, row) {} (t.position, t.row) ORDER BY position {order}, row {order} LIMIT 1 OFFSET {at})"
        )
        columns = [beside.format("<", order="DESC", at=at) for at in reversed(range(radius))]
        columns += ["t.id", *(beside.format(">", order="ASC", at=at) for at in range(radius))]
        with self._transaction(write=False):
            rows = self._rows(f"SELECT {', '.join(columns)} FROM turns t WHERE t.id {{in}} AND t.kind = 0", list(ids))
        found = {row[radius]: [id for id in row if id is not None] for row in rows}
        return {id: found[id] for id in ids if id in found}

    def session_turns(self, conversation: str, session: str) -> list[Turn]:
        """What was said in a session, in order."""
        with self._transaction(write=False):
            where = "conversation = ? AND session = ? AND kind = 0"
            return [turn for _, turn in self._stored(where, conversation, session, order="position, row")]

    def sessions(self, conversation: str) -> list[str]:
        """The sessions of a conversation, in order."""
        statement = (
            "SELECT session FROM turns WHERE conversation = ? AND kind = 0 GROUP BY session "
            "ORDER BY min(position), min(row)"
        )
        return [session for (session,) in self._rows(statement, conversation)]

    def without_summary(self, conversation: str | None = None) -> list[tuple[str, str]]:
        """The sessions with something that no summary names."""
        within, values = ("", ()) if conversation is None else ("conversation = ? AND", (conversation,))
        statement = (
            f"SELECT conversation, session FROM turns t WHERE {within} kind = 0 AND NOT EXISTS (SELECT 1 FROM "
            "derivations JOIN turns d ON derived = d.row WHERE source = t.row AND d.kind = 1) "
            "GROUP BY conversation, session ORDER BY conversation, min(position), min(row)"
        )
        return [(name, session) for name, session in self._rows(statement, *values)]

    def conversations(self) -> list[str]:
        """All conversations, by name."""
        statement = (
            "WITH RECURSIVE found(name) AS (SELECT min(conversation) FROM turns UNION ALL "
            "SELECT (SELECT min(conversation) FROM turns WHERE conversation > name) FROM found WHERE name IS NOT NULL) "
            "SELECT name FROM found WHERE name IS NOT NULL"
        )
        return [name for (name,) in self._rows(statement)]

    def derived(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """What was derived from each turn."""
        statement = (
            "SELECT s.id, d.id FROM turns s JOIN derivations ON source = s.row JOIN turns d ON derived = d.row "
            "WHERE s.id {in} ORDER BY d.row"
        )
        found: dict[str, list[str]] = {}
        for source, derived in self._rows(statement, list(ids)):
            found.setdefault(source, []).append(derived)
        return {id: found[id] for id in ids if id in found}

    def vectors(self, ids: Sequence[str]) -> Vector:
        """float32 [len(ids), dimensions]; zeros where there is none."""
        with self._transaction(write=False):
            rows = dict(self._rows("SELECT id, row FROM turns WHERE id {in}", list(ids)))
            return self._vectors([rows.get(id, -1) for id in ids])

    def entities(self, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """What each turn mentions."""
        return {turn.id: entities(turn.text, turn.time) for turn in self.turns(ids)}

    def count(self, conversation: str | None = None, kind: Kind | None = None) -> int:
        """How many turns are stored."""
        with self._transaction(write=False):
            if conversation is None:
                return sum(self._lists.count(postings.kind_list(one)) for one in KINDS if kind in (None, one))
            if kind is None:
                return self._lists.count(postings.conversation_list(conversation))
            of_kind = self._rows_on(postings.kind_list(kind))
            return len(np.intersect1d(self._rows_on(postings.conversation_list(conversation)), of_kind, True))

    # Store

    def writing(self) -> AbstractContextManager[None]:
        """Several writes as one transaction."""
        return self._transaction(write=True)

    def note(self, key: str, value: str | None = None) -> str | None:
        """A setting of the store: set it if a value is given; what it is then."""
        if value is not None:
            with self.writing():
                statement = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                self._many(statement, [(key, value)])
            return value
        found = self._rows("SELECT value FROM notes WHERE key = ?", key)
        return str(found[0][0]) if found else None

    def add(self, turns: Sequence[Turn], vectors: Vector | None = None) -> int:
        """Store turns; how many of them are new."""
        if vectors is not None:
            vectors = units(vectors, len(turns))
        new = 0
        with self.writing():
            if vectors is not None and len(turns):
                known = self.dimensions
                if known not in (None, vectors.shape[1]):
                    raise MemoryStoreError(
                        f"the vectors have {vectors.shape[1]} dimensions, the stored ones {known}: one memory has one "
                        "embedder; export it and import it into a new one to change that"
                    )
                if known is None:
                    self.note("dimensions", str(vectors.shape[1]))
            for start in range(0, len(turns), BLOCK):
                part = None if vectors is None else vectors[start : start + BLOCK]
                new += self._add(turns[start : start + BLOCK], part)
        return new

    def _add(self, turns: Sequence[Turn], vectors: Vector | None) -> int:
        mentioned = {id for turn in turns for id in (turn.id, *turn.sources)}
        stored = {turn.id: (row, turn) for row, turn in self._stored("id {in}", sorted(mentioned))}
        rows = {id: row for id, (row, _) in stored.items()}
        given: dict[str, Turn] = {}
        next_row = first = int(self.note("rows") or 0)
        for turn in turns:
            same = given.get(turn.id) or (stored[turn.id][1] if turn.id in stored else None)
            if same is not None:
                check_same(turn, same)
                continue
            check(turn, rows)
            rows[turn.id], given[turn.id] = next_row, turn
            next_row += 1
        if given:
            self._add_turns(list(given.values()), rows, first)
            self.note("rows", str(next_row))
        if vectors is not None:
            with_vector = {rows[turn.id]: index for index, turn in enumerate(turns) if vectors[index].any()}
            older = [row for row in with_vector if row < first]
            for row, vector in zip(older, self._vectors(older), strict=True):
                if vector.any():
                    del with_vector[row]
            chosen = list(with_vector.values())
            self._add_vectors(list(with_vector), [turns[index] for index in chosen], vectors[chosen])
        return next_row - first

    def _add_turns(self, turns: Sequence[Turn], rows: dict[str, int], first: int) -> None:
        """Write new turns, in the rows from `first` on, and put them on their lists; `rows`: also of their sources."""
        gathered = Gathered(first)
        for turn in turns:
            words, others = _on_lists(turn)
            gathered.add(others, words)
        self._many(
            f"INSERT INTO turns (row, {', '.join(COLUMNS)}) VALUES (?{', ?' * len(COLUMNS)})",
            [(rows[turn.id], *record(turn)) for turn in turns],
        )
        derivations = [
            (rows[source], rows[turn.id], place) for turn in turns for place, source in enumerate(turn.sources)
        ]
        self._many("INSERT INTO derivations (source, derived, place) VALUES (?, ?, ?)", derivations)
        self._lists.write(first, first + len(turns), gathered)
        self._count(len(turns), gathered.words)

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Remove turns and what was derived from them; the ids that are gone."""
        with self.writing():
            wave = [row for part in _parts(ids) for (row,) in self._rows(_ROW_OF, list(part))]
            gone: dict[int, None] = {}
            while wave:
                gone |= dict.fromkeys(wave)
                statement = "SELECT DISTINCT derived FROM derivations WHERE source {in}"
                found = [row for part in _parts(wave) for (row,) in self._rows(statement, list(part))]
                wave = [row for row in found if row not in gone]
            removed: dict[str, Turn] = {}
            for part in _parts(sorted(gone)):
                removed |= self._remove(list(part))
            self._facts.restore(removed)
        return list(removed)

    def _remove(self, rows: list[int]) -> dict[str, Turn]:
        """Remove rows from the tables and from every list; the turns that they were."""
        stored = self._stored("row {in}", rows)
        length, on = 0, defaultdict[str, list[int]](list)
        for row, turn in stored:
            words, others = _on_lists(turn)
            length += len(words)
            for name in {*others, *map(postings.term_list, words)}:
                on[name].append(row)
        self._lists.remove(on)
        keys = [(row,) for row in rows]
        self._delete_vectors(rows)
        self._many("DELETE FROM derivations WHERE source = ?", keys)
        self._many("DELETE FROM derivations WHERE derived = ?", keys)
        self._many("DELETE FROM turns WHERE row = ?", keys)
        self._count(-len(stored), -length)
        return {turn.id: turn for _, turn in stored}

    def supersede(self, old: str, new: str, at: datetime | None) -> None:
        """End the fact `old` in favour of `new`."""
        with self.writing():
            self._facts.supersede(old, new, at)

    def repeat(self, id: str, first: str) -> None:
        """Let the fact `id` stand behind `first`."""
        with self.writing():
            self._facts.repeat(id, first)

    def end(self, conversation: str) -> int:
        """One more than the highest position in a conversation."""
        ((last,),) = self._rows("SELECT max(position) FROM turns WHERE conversation = ?", conversation)
        return 0 if last is None else int(last) + 1

    def scan(self, conversation: str | None = None) -> Iterator[tuple[Turn, Vector | None]]:
        """Every turn with its vector, in the order of writing."""
        last = -1
        while True:
            with self._transaction(write=False):
                where, values = ("row > ?", (last,)) if conversation is None else (
                    "row > ? AND conversation = ?", (last, conversation))  # fmt: skip
                page = self._stored(where, *values, order="row", limit=_CHUNK)
                vectors = self._vectors([row for row, _ in page])
            for (_, turn), vector in zip(page, vectors, strict=True):
                yield turn, vector if vector.any() else None
            if len(page) < _CHUNK:
                return
            last = page[-1][0]

    # Shared by the above

    def _open_format(self) -> None:
        """Note the format of a new store; raises MemoryStoreError for one of another."""
        found = self.note("format")
        if found is None:
            with self.writing():
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
        with self.writing():
            if ("repeats",) not in self._rows(columns):  # no other process was first
                self._run("ALTER TABLE turns ADD COLUMN repeats TEXT")
                self._run("CREATE INDEX turns_repeating ON turns (repeats) WHERE repeats IS NOT NULL")

    def _rows_on(self, name: str) -> Rows:
        """The rows on a list, ascending."""
        ((*parts,),) = self._lists.read([name])
        return np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])

    def _by_vector(
        self, vector: Vector, k: int, conversation: str | None, kind: Kind | None
    ) -> list[tuple[int, float]]:
        dimensions = self.dimensions
        if dimensions is None:
            return []
        vector = np.asarray(vector, np.float32)
        if vector.shape != (dimensions,):
            raise MemoryStoreError(
                f"the question's vector has the shape {vector.shape}, the stored ones {dimensions} dimensions: "
                "ask with the embedder that the memory was written with"
            )
        length = float(np.linalg.norm(vector))
        return self._nearest(vector / length, k, conversation, kind) if length and k > 0 else []

    def _hits(self, ranked: Sequence[tuple[int, float]]) -> list[Hit]:
        ids = dict(self._rows("SELECT row, id FROM turns WHERE row {in}", [row for row, _ in ranked]))
        return [Hit(ids[row], score) for row, score in ranked if row in ids]

    def _count(self, turns: int, length: int) -> None:
        now = self._lists.totals()
        self.note("turns", str(now[0] + turns))
        self.note("length", str(now[1] + length))

    def _stored(self, where: str, *values: Any, order: str = "row", limit: int | None = None) -> list[tuple[int, Turn]]:
        """Turns with their rows."""
        statement = f"SELECT row, {', '.join(COLUMNS)} FROM turns WHERE {where} ORDER BY {order}"
        if limit is not None:
            statement += f" LIMIT {limit}"
        found = self._rows(statement, *values)
        rows, records = [row[0] for row in found], [row[1:] for row in found]
        sources = self._sources(rows, [record[_KIND] for record in records])
        return [(row, turn_of(record, sources.get(row, ()))) for row, record in zip(rows, records, strict=True)]

    def _sources(self, rows: Sequence[int], kinds: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """The ids of what each row was derived from, for those that were."""
        derived = [row for row, kind in zip(rows, kinds, strict=True) if kind]
        statement = (
            "SELECT derived, turns.id FROM derivations JOIN turns ON source = turns.row WHERE derived {in} "
            "ORDER BY derived, place"
        )
        sources: dict[int, tuple[str, ...]] = {}
        for part in _parts(derived):
            for row, source in self._rows(statement, part):
                sources[row] = (*sources.get(row, ()), source)
        return sources


def _on_lists(turn: Turn) -> tuple[list[str], list[str]]:
    """The terms of a turn, and the names of the other lists that it is on."""
    named = [postings.entity_list(entity) for entity in entities(turn.text, turn.time)]
    others = [postings.kind_list(turn.kind), postings.conversation_list(turn.conversation), *named]
    return terms(indexed_text(turn)), others


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    """`items` in lists of at most `_CHUNK`."""
    rest = iter(items)
    while part := list(islice(rest, _CHUNK)):
        yield part


_KIND = COLUMNS.index("kind")
_ROW_OF = "SELECT row FROM turns WHERE id {in} ORDER BY row"
