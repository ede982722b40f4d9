"""Reading a store over SQL: everything that SQLite and PostgreSQL do alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ramet.memory import postings
from ramet.memory.base import KINDS, Hit, Kind, MemoryStoreError, Survey, Turn, Turns, Vector
from ramet.memory.entities import entities
from ramet.memory.records import COLUMNS, parts, turn_of
from ramet.memory.sql_tables import KIND, SqlTables
from ramet.memory.survey import count_terms, sessions, with_those_beside
from ramet.memory.words import terms


class SqlIndex(SqlTables):
    """`Index` over a database connection, and what `Store` reads; see `base` for the contracts."""

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
            vectors = self._vectors(rows) if vector is not None else np.zeros((len(rows), 0), np.float32)
            sources = self._sources(rows, columns[KIND])

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

    def repeated(self) -> int:
        """How many facts repeat another."""
        ((found,),) = self._rows("SELECT count(*) FROM turns WHERE repeats IS NOT NULL")
        return int(found)

    def ids(self, conversation: str) -> list[str]:
        """All of a conversation."""
        statement = "SELECT id FROM turns WHERE row {in} ORDER BY row"
        with self._transaction(write=False):
            rows = self._rows_on(postings.conversation_list(conversation)).tolist()
            return [id for part in parts(rows) for (id,) in self._rows(statement, part)]

    def end(self, conversation: str) -> int:
        """One more than the highest position in a conversation."""
        ((last,),) = self._rows("SELECT max(position) FROM turns WHERE conversation = ?", conversation)
        return 0 if last is None else int(last) + 1

    def scan(self, conversation: str | None = None) -> Iterator[tuple[Turn, Vector | None]]:
        """Every turn with its vector, in the order of writing."""
        rows: Sequence[int] = range(int(self.note("rows") or 0))
        if conversation is not None:
            with self._transaction(write=False):
                rows = self._rows_on(postings.conversation_list(conversation)).tolist()
        for part in parts(rows):
            with self._transaction(write=False):
                page = self._stored("row {in}", part)
                vectors = self._vectors([row for row, _ in page])
            for (_, turn), vector in zip(page, vectors, strict=True):
                yield turn, vector if vector.any() else None

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
