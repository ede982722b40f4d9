"""A store over SQL: everything that SQLite and PostgreSQL do alike, in tables that both have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import groupby

from ramet.memory import postings
from ramet.memory.base import MemoryStoreError, Turn, Vector
from ramet.memory.entities import entities
from ramet.memory.postings import BLOCK, Gathered
from ramet.memory.records import COLUMNS, check, check_same, parts, record, units
from ramet.memory.sql_index import SqlIndex
from ramet.memory.words import indexed_text, terms


class SqlStore(SqlIndex):
    """`Store` over a database connection; see `base.Store` for the contract."""

    def writing(self) -> AbstractContextManager[None]:
        """Several writes as one transaction."""
        return self._transaction(write=True)

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
            wave = [row for part in parts(ids) for (row,) in self._rows(_ROW_OF, part)]
            gone: dict[int, None] = {}
            while wave:
                gone |= dict.fromkeys(wave)
                statement = "SELECT DISTINCT derived FROM derivations WHERE source {in}"
                found = [row for part in parts(wave) for (row,) in self._rows(statement, part)]
                wave = [row for row in found if row not in gone]
            removed: dict[str, Turn] = {}
            for _, part in groupby(sorted(gone), key=lambda row: row // BLOCK):  # a list's piece is written once
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

    def _count(self, turns: int, length: int) -> None:
        now = self._lists.totals()
        self.note("turns", str(now[0] + turns))
        self.note("length", str(now[1] + length))


def _on_lists(turn: Turn) -> tuple[list[str], list[str]]:
    """The terms of a turn, and the names of the other lists that it is on."""
    named = [postings.entity_list(entity) for entity in entities(turn.text, turn.time)]
    others = [postings.kind_list(turn.kind), postings.conversation_list(turn.conversation), *named]
    return terms(indexed_text(turn)), others


_ROW_OF = "SELECT row FROM turns WHERE id {in} ORDER BY row"
