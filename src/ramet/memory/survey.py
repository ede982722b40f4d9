"""What a question reads from a store over SQL: rows by number, and terms counted on the lists, not in the texts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ramet.memory import postings
from ramet.memory.base import KINDS, Turn, Vector
from ramet.memory.lists import StoredLists, Tables
from ramet.memory.postings import BLOCK
from ramet.memory.records import COLUMNS, Record, turn_of
from ramet.memory.words import heading, terms

_BESIDE = (
    "(SELECT row FROM turns WHERE t.kind = 0 AND conversation = t.conversation AND session = t.session AND kind = 0 "
    "AND (position, row) {} (t.position, t.row) ORDER BY position {order}, row {order} LIMIT 1)"
)
_FOUND = (
    f"SELECT {_BESIDE.format('<', order='DESC')}, {_BESIDE.format('>', order='ASC')}, t.row, "
    f"{', '.join(f't.{column}' for column in COLUMNS)} FROM turns t WHERE t.row {{in}}"
)
_OTHERS = f"SELECT row, {', '.join(COLUMNS)} FROM turns WHERE row {{in}}"
_CONVERSATION, _SESSION, _POSITION, _SPEAKER, _TEXT, _TIME = map(COLUMNS.index, COLUMNS[1:7])


Places = NDArray[np.intp]


class Read(Sequence[Turn]):
    """Turns as they were read, each made when it is asked for."""

    def __init__(self, records: Sequence[Record], sources: Sequence[tuple[str, ...]]) -> None:
        self._records, self._sources = records, sources

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, at: int) -> Turn: ...

    @overload
    def __getitem__(self, at: slice) -> list[Turn]: ...

    def __getitem__(self, at: int | slice) -> Turn | list[Turn]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        return turn_of(self._records[at], self._sources[at])


def with_those_beside(tables: Tables, found: Sequence[int]) -> tuple[list[int], list[Record], Places]:
    """The rows `found`, then those just before and after them in their sessions, with their records.

    The third is `Survey.before`.
    """
    read = {row[2]: row for row in tables._rows(_FOUND, list(found))}
    beside = [(read[row][0], row, read[row][1]) for row in found]
    at = {row: place for place, row in enumerate(found)}
    for near in beside:
        for row in near:
            if row is not None:
                at.setdefault(row, len(at))
    others = {row[0]: row[1:] for row in tables._rows(_OTHERS, list(at)[len(found) :])}
    before = np.full(len(at), -1)
    for previous, row, following in beside:
        if previous is not None:
            before[at[row]] = at[previous]
        if following is not None:
            before[at[following]] = at[row]
    return list(at), [read[row][3:] if row in read else others[row] for row in at], before


def count_terms(
    lists: StoredLists, rows: Sequence[int], records: Sequence[Record], counted: Sequence[str], scoped: bool
) -> tuple[Vector, Vector]:
    """How many terms the text of each row has, float32 [rows], and how often each of `counted`, [rows, counted].

    The lists know it of the texts together with what `indexed_text` puts before them, which is taken off again.
    `scoped`: the rows are of one conversation, so that they are in few blocks.
    """
    order = np.argsort(np.array(rows, np.int64))
    ascending = np.array(rows, np.int64)[order]
    names = [*map(postings.kind_list, KINDS), *map(postings.term_list, counted)]
    found, long = postings.look_up(lists, names, ascending, np.unique(ascending // BLOCK) if scoped else None)
    frequencies, lengths = np.empty((len(rows), len(counted)), np.float32), np.empty(len(rows), np.float32)
    frequencies[order], lengths[order] = found[len(KINDS) :].T, long
    vague = np.flatnonzero((lengths >= postings.LONGEST) | (frequencies >= postings.MOST_OFTEN).any(1))
    column = {term: index for index, term in enumerate(counted)}
    headings: dict[tuple[str, str | None], int] = {}
    keys = ((record[_SPEAKER], record[_TIME] and record[_TIME][:10]) for record in records)
    of = np.array([headings.setdefault(key, len(headings)) for key in keys], np.intp)
    more = np.zeros((len(headings), len(counted) + 1), np.float32)
    for place, key in enumerate(headings):
        own = _heading_terms(*key)
        more[place, -1] = len(own)
        for term in own:
            if term in column:
                more[place, column[term]] += 1
    frequencies -= more[of, :-1]
    lengths -= more[of, -1]
    for place in vague.tolist():
        words = terms(records[place][_TEXT])
        lengths[place], frequencies[place] = len(words), [words.count(term) for term in counted]
    return lengths, frequencies


@lru_cache(maxsize=1 << 16)
def _heading_terms(speaker: str, day: str | None) -> tuple[str, ...]:
    return tuple(terms(heading(speaker, datetime.fromisoformat(day) if day is not None else None)))


def columns(records: Sequence[Record]) -> tuple[list[str], list[str], NDArray[np.int64], Places]:
    """`Survey.texts`, `speakers`, `positions` and `sessions`."""
    numbers: dict[tuple[str, str], int] = {}
    sessions = [numbers.setdefault((r[_CONVERSATION], r[_SESSION]), len(numbers)) for r in records]
    positions = np.array([record[_POSITION] for record in records], np.int64)
    return [r[_TEXT] for r in records], [r[_SPEAKER] for r in records], positions, np.array(sessions, np.intp)
