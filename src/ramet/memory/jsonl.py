"""A memory as lines of JSON: one turn a line, with its vector if it has one, after a line about all of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import chain, islice
from typing import Any

import numpy as np

from ramet.memory.base import MemoryStoreError, Store, Turn, Vector
from ramet.memory.recall.learning import Answered, answered, as_answered

_TIMES = ("time", "valid_from", "valid_to")
_BATCH = 2000
_EMBEDDER, _ANSWERED = "memory_embedder", "answered"
"""Keys of the first line."""


def as_object(turn: Turn) -> dict[str, Any]:
    """A turn as JSON has it; what is empty is left out. Times are ISO 8601, without a zone where none is known."""
    found: dict[str, Any] = {}
    for one in fields(Turn):
        value = getattr(turn, one.name)
        if value is None or value in ("", ()) or (one.name == "kind" and value == "said"):
            continue
        found[one.name] = value.isoformat() if isinstance(value, datetime) else value
    return found


def as_turn(given: Any, where: str) -> Turn:
    """The turn of a JSON object. Raises MemoryStoreError, saying `where`, for anything else."""
    if not isinstance(given, dict):
        raise MemoryStoreError(f"{where}: a turn is a JSON object, not {type(given).__name__}")
    known = {one.name for one in fields(Turn)}
    unknown = sorted(set(given) - known - {"vector"})
    if unknown:
        raise MemoryStoreError(f"{where}: a turn has no field {unknown[0]!r}; there are {', '.join(sorted(known))}")
    values = {name: value for name, value in given.items() if name in known and value is not None}
    for name in ("id", "conversation", "text"):
        if not isinstance(values.get(name), str):
            raise MemoryStoreError(f"{where}: {name!r} must be text, and be there")
    if type(values.get("position")) is not int:
        raise MemoryStoreError(f"{where}: 'position' must be a whole number, and be there")
    for name in ("session", "speaker", "node", "kind", "superseded_by", "repeats"):
        if not isinstance(values.get(name, ""), str):
            raise MemoryStoreError(f"{where}: {name!r} must be text")
    for name in _TIMES:
        if name in values:
            values[name] = as_time(values[name], f"{where}: {name!r}")
    sources = values.get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise MemoryStoreError(f"{where}: 'sources' must be a list of ids")
    return Turn(**{"session": "", "speaker": "", **values, "sources": tuple(sources)})


def as_time(given: Any, where: str) -> datetime:
    """A time from ISO 8601. Raises MemoryStoreError, saying `where`, for anything else."""
    try:
        return datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise MemoryStoreError(f"{where} must be a time like 2023-05-08T13:56:00, not {given!r}") from None


@dataclass(frozen=True, slots=True)
class Head:
    """What the first line says, if it says it."""

    embedder: str | None = None
    """Whose the vectors are."""
    answered: list[Answered] = field(default_factory=list)
    """The questions that were learnt from."""


def write(store: Store, conversation: str | None = None) -> Iterator[str]:
    """A line that names the embedder and has what was learnt, if there is any; then every turn as a line, in the order
    of writing.

    What was learnt is of the whole memory, and left out where only a conversation is written. Vectors are base64 of
    little-endian half precision.
    """
    embedder, known = store.note("embedder"), answered(store) if conversation is None else []
    if embedder is not None or known:
        yield json.dumps({_EMBEDDER: embedder} | ({_ANSWERED: known} if known else {}))
    for turn, vector in store.scan(conversation):
        found = as_object(turn)
        if vector is not None:
            found["vector"] = base64.b64encode(vector.astype("<f2").tobytes()).decode()
        yield json.dumps(found, ensure_ascii=False)


def read(lines: Iterable[str]) -> tuple[Head, Iterator[tuple[list[Turn], Vector | None]]]:
    """What the first line says of all, and batches of turns with their vectors, zeros where there is none.

    Raises MemoryStoreError, naming the line, for one that is not a turn.
    """
    numbered = _numbered(lines)
    first = next(numbered, None)
    if first is None:
        return Head(), iter(())
    head = _head(first[1], f"line {first[0]}")
    return head or Head(), _batches(numbered if head is not None else chain([first], numbered))


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line
    except UnicodeDecodeError:
        raise MemoryStoreError(f"from line {number + 1} on, not all is text in UTF-8") from None


def _head(line: str, where: str) -> Head | None:
    """None where the first line is a turn's."""
    try:
        given = json.loads(line)
        embedder = given[_EMBEDDER]
    except (ValueError, TypeError, KeyError):
        return None
    known = given.get(_ANSWERED, [])
    if not isinstance(embedder, str | None) or not isinstance(known, list):
        raise MemoryStoreError(f"{where}: {_EMBEDDER!r} must be text, and {_ANSWERED!r} a list")
    return Head(embedder, [as_answered(one, where) for one in known])


def _batches(numbered: Iterator[tuple[int, str]]) -> Iterator[tuple[list[Turn], Vector | None]]:
    while part := list(islice(numbered, _BATCH)):
        read = [_read(line, f"line {number}") for number, line in part]
        lengths = {len(vector) for _, vector in read if vector is not None}
        if len(lengths) > 1:
            raise MemoryStoreError(f"lines {part[0][0]} to {part[-1][0]}: the vectors have different lengths")
        matrix: Vector | None = None
        if lengths:
            matrix = np.zeros((len(read), lengths.pop()), np.float32)
            for index, (_, vector) in enumerate(read):
                if vector is not None:
                    matrix[index] = vector
        yield [turn for turn, _ in read], matrix


def _read(line: str, where: str) -> tuple[Turn, Vector | None]:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise MemoryStoreError(f"{where} is not JSON: {error}") from None
    turn = as_turn(given, where)
    text = given.get("vector")
    if text is None:
        return turn, None
    try:
        return turn, np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    except (TypeError, ValueError):
        raise MemoryStoreError(f"{where}: 'vector' must be base64 of half-precision numbers") from None
