"""A memory as lines of JSON: one turn a line, with its vector if it has one, after a line that says whose they are."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import datetime
from itertools import chain, islice
from typing import Any

import numpy as np

from ramet.memory.base import MemoryStoreError, Store, Turn, Vector

_TIMES = ("time", "valid_from", "valid_to")
_BATCH = 2000
_EMBEDDER = "memory_embedder"
"""Key of the first line."""


def as_object(turn: Turn) -> dict[str, Any]:
    """A turn as JSON has it; what is empty is left out. Times are ISO 8601, without a zone where none is known."""
    found: dict[str, Any] = {}
    for field in fields(Turn):
        value = getattr(turn, field.name)
        if value is None or value in ("", ()) or (field.name == "kind" and value == "said"):
            continue
        found[field.name] = value.isoformat() if isinstance(value, datetime) else value
    return found


def as_turn(given: Any, where: str) -> Turn:
    """The turn of a JSON object. Raises MemoryStoreError, saying `where`, for anything else."""
    if not isinstance(given, dict):
        raise MemoryStoreError(f"{where}: a turn is a JSON object, not {type(given).__name__}")
    known = {field.name for field in fields(Turn)}
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


def write(store: Store, conversation: str | None = None) -> Iterator[str]:
    """A line that names the embedder, if there is one; then every turn as a line, in the order of writing.

    Vectors are base64 of little-endian half precision.
    """
    embedder = store.note("embedder")
    if embedder is not None:
        yield json.dumps({_EMBEDDER: embedder})
    for turn, vector in store.scan(conversation):
        found = as_object(turn)
        if vector is not None:
            found["vector"] = base64.b64encode(vector.astype("<f2").tobytes()).decode()
        yield json.dumps(found, ensure_ascii=False)


def read(lines: Iterable[str]) -> tuple[str | None, Iterator[tuple[list[Turn], Vector | None]]]:
    """The embedder that the lines name, if they do, and batches of turns with their vectors, zeros where there is none.

    Raises MemoryStoreError, naming the line, for one that is not a turn.
    """
    numbered: Iterator[tuple[int, str]] = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return None, iter(())
    embedder: str | None = None
    try:
        embedder = json.loads(first[1])[_EMBEDDER]
    except (ValueError, TypeError, KeyError):
        numbered = chain([first], numbered)
    return embedder, _batches(numbered)


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
