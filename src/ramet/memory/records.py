"""Turns as rows of a table, and what cannot be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ramet.memory.base import KINDS, MemoryStoreError, Turn, Vector

T = TypeVar("T")

PART = 4096
"""Rows that are read at a time."""

COLUMNS = (
    "id", "conversation", "session", "position", "speaker", "text", "time", "node", "kind", "valid_from", "valid_to",
    "superseded_by", "repeats",
)  # fmt: skip

Record = tuple[Any, ...]
"""A turn as a row of the table, in the order of `COLUMNS`."""

HALF = "an id or a name has half of a surrogate pair, which no text has"
"""What is wrong with a value that cannot be encoded."""
_LONGEST_NAME = 500
"""Characters of an id, or of the name of a conversation, session or speaker: they are keys of indexes."""
_FARTHEST = 2**53
"""Positions are below it, and there is room behind: the databases have 64 bits for them."""


def units(vectors: Vector, count: int) -> Vector:
    """float32 rows of unit length (zeros stay); raises MemoryStoreError for another shape, or a value that is none."""
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
        raise MemoryStoreError(f"the vectors have the shape {vectors.shape}; {count} turns need ({count}, dimensions)")
    if not np.isfinite(vectors).all():
        raise MemoryStoreError("a vector has a value that is not finite; the embedder is broken")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def cleaned(text: str) -> str:
    """The text without what a text cannot hold: NUL and halves of surrogate pairs become U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check(turn: Turn, rows: dict[str, int]) -> None:
    """Raises MemoryStoreError if a turn cannot be stored."""
    if not turn.id or not turn.conversation:
        raise MemoryStoreError(f"a turn needs an id and a conversation; this has {turn.id!r} and {turn.conversation!r}")
    if turn.kind not in KINDS:
        raise MemoryStoreError(f"turn {turn.id!r} is of the kind {turn.kind!r}; there are {', '.join(KINDS)}")
    if (turn.kind == "said") == bool(turn.sources):
        problem = "was said, so it has no sources" if turn.sources else "is derived, so it needs the ids of its sources"
        raise MemoryStoreError(f"turn {turn.id!r} {problem}")
    if abs(turn.position) >= _FARTHEST:
        raise MemoryStoreError(f"turn {turn.id!r} is at the position {turn.position}, which is too far to be kept")
    missing = [source for source in turn.sources if source not in rows]
    if missing:
        raise MemoryStoreError(f"turn {turn.id!r} is derived from {missing[0]!r}, which is not stored")
    for name in (turn.id, turn.conversation, turn.session, turn.speaker):
        if len(name) > _LONGEST_NAME:
            raise MemoryStoreError(
                f"a name has {len(name)} characters; at most {_LONGEST_NAME} are kept: {name[:60]!r}..."
            )
    for value in (turn.id, turn.conversation, turn.session, turn.speaker, turn.text, turn.node or ""):
        if "\0" in value or (not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)):
            raise MemoryStoreError(f"turn {turn.id!r} has a character that text cannot have (NUL, or half of a pair)")


def check_same(turn: Turn, same: Turn) -> None:
    """Raises MemoryStoreError if the id of `turn` belongs to another. How a fact stands to others does not count."""
    if replace(turn, valid_to=same.valid_to, superseded_by=same.superseded_by, repeats=same.repeats) != same:
        raise MemoryStoreError(f"the id {turn.id!r} is taken by another turn: {same.text[:60]!r}")


def record(turn: Turn) -> Record:
    """The row of a turn."""
    times = [time.isoformat() if time is not None else None for time in (turn.time, turn.valid_from, turn.valid_to)]
    kind = KINDS.index(turn.kind)
    said = (turn.id, turn.conversation, turn.session, turn.position, turn.speaker, turn.text, times[0], turn.node, kind)
    return (*said, times[1], times[2], turn.superseded_by, turn.repeats)


def turn_of(record: Record, sources: tuple[str, ...] = ()) -> Turn:
    """The turn of a row; its sources are not in it."""
    id, conversation, session, position, speaker, text, time, node, kind, since, until, by, first = record
    return Turn(
        id, conversation, session, position, speaker, text, _time(time), node, KINDS[kind], sources,
        _time(since), _time(until), by, first,
    )  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def parts(items: Iterable[T]) -> Iterator[list[T]]:
    """`items` in lists of as many as one statement is given."""
    rest = iter(items)
    while part := list(islice(rest, PART)):
        yield part
