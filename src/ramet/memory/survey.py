"""What a question reads from a store over SQL: rows by number, and terms counted on the lists, not in the texts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramet.memory import postings
from ramet.memory.base import KINDS, Vector
from ramet.memory.lists import Tables
from ramet.memory.postings import BLOCK
from ramet.memory.records import COLUMNS, Record
from ramet.memory.words import MONTHS, heading, terms

_BESIDE = (
    "(SELECT row FROM turns WHERE t.kind = 0 AND conversation = t.conversation AND session = t.session AND kind = 0 "
    "AND (position, row) {} (t.position, t.row) ORDER BY position {order}, row {order} LIMIT 1)"
)
_FIELDS = ", ".join(f"t.{column}" for column in COLUMNS)
_READ = f"t.row, {_FIELDS} FROM {{each}} CROSS JOIN turns t WHERE t.row = each.value"
_FOUND = f"SELECT {_BESIDE.format('<', order='DESC')}, {_BESIDE.format('>', order='ASC')}, {_READ}"
_OTHERS = f"SELECT {_READ}"
_CONVERSATION, _SESSION, _SPEAKER, _TEXT, _TIME = map(
    COLUMNS.index, ("conversation", "session", "speaker", "text", "time")
)

_DATE_TERMS = len(terms(heading("", datetime.min)))
_MONTH_TERMS = frozenset(terms(" ".join(MONTHS)))

Columns = Sequence[Sequence[Any]]
"""Records, transposed."""
Places = NDArray[np.intp]


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
    lists: postings.Lists, rows: Sequence[int], records: Columns, counted: Sequence[str], scoped: bool
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
    more, often = _before_texts(records[_SPEAKER], records[_TIME], counted)
    lengths -= more
    frequencies -= often
    for place in vague.tolist():
        words = terms(records[_TEXT][place])
        lengths[place], frequencies[place] = len(words), [words.count(term) for term in counted]
    return lengths, frequencies


def _before_texts(
    speakers: Sequence[str], times: Sequence[str | None], counted: Sequence[str]
) -> tuple[Vector, Vector]:
    """Of what `indexed_text` puts before each text: how many terms it has, and how often each of `counted`."""
    names = {speaker: terms(heading(speaker, None)) for speaker in set(speakers)}
    sizes = {speaker: len(own) for speaker, own in names.items()}
    lengths = np.array([sizes[speaker] for speaker in speakers], np.float32)
    lengths += np.float32(_DATE_TERMS) * np.array([time is not None for time in times], bool)
    frequencies = np.zeros((len(speakers), len(counted)), np.float32)
    for column, term in enumerate(counted):
        if any(term in own for own in names.values()):
            frequencies[:, column] = [names[speaker].count(term) for speaker in speakers]
        if term.isdigit() or term in _MONTH_TERMS:
            frequencies[:, column] += [_date_terms(time[:10]).count(term) if time else 0 for time in times]
    return lengths, frequencies


@lru_cache(maxsize=1 << 14)
def _date_terms(day: str) -> tuple[str, ...]:
    return tuple(terms(heading("", datetime.fromisoformat(day))))


def sessions(records: Columns) -> Places:
    """`Survey.sessions`."""
    numbers: dict[tuple[str, str], int] = {}
    keys = zip(records[_CONVERSATION], records[_SESSION], strict=True)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)
