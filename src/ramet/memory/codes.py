"""The signs of all vectors, in memory: a first pass over a million of them in milliseconds.

A code has one bit a dimension. The Hamming distance of codes estimates the angle between their vectors, so the nearest
few thousand codes hold the nearest few dozen vectors, which are then compared as they are. 48 bytes a turn at 384
dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import KINDS, Kind, Vector
from ramet.memory.postings import Rows

BLOCK_BITS = 8
"""Codes are stored in blocks of 256 consecutive rows."""
CANDIDATES = 2000
"""Codes that are looked at closer: at least this many, and `PER_HIT` for each hit that is asked for."""
PER_HIT = 40

_CHUNK = 1 << 15
_SAMPLE = 16
_ABSENT = np.uint16(0xFFFF)


def encode(vectors: Vector) -> NDArray[np.uint64]:
    """Sign codes uint64 [n, ceil(d / 64)] of vectors [n, d]."""
    bits = np.packbits(vectors > 0, axis=1)
    padding = -bits.shape[1] % 8
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, padding)))).view("<u8")


def pack(rows: Sequence[int], kinds: Sequence[Kind], vectors: Vector) -> list[tuple[int, bytes]]:
    """(block, records) to append for new rows: the row in its block, its kind, its code."""
    codes = encode(vectors).view(np.uint8)
    low = np.asarray(rows, np.int64) & 0xFF
    marks = np.array([KINDS.index(kind) + 1 for kind in kinds])
    records = np.concatenate([low[:, None], marks[:, None], codes], axis=1).astype(np.uint8)
    blocks = np.asarray(rows, np.int64) >> BLOCK_BITS
    return [(int(block), records[blocks == block].tobytes()) for block in np.unique(blocks)]


def without(data: bytes, rows: Sequence[int], words: int) -> bytes:
    """A block's records less those of `rows`."""
    records = np.frombuffer(data, np.uint8).reshape(-1, 2 + 8 * words)
    return records[~np.isin(records[:, 0], np.asarray(rows) & 0xFF)].tobytes()


class Codes:
    """The codes of every row that has a vector."""

    def __init__(self, dimensions: int) -> None:
        self.words = -(-dimensions // 64)
        self.version = 0
        """That of the newest block."""
        self._codes = np.zeros((self.words, 0), np.uint64)
        self._marks = np.zeros(0, np.uint8)  # 0: no vector; else 1 + the kind's index
        self._end = 0

    def update(self, blocks: Iterable[tuple[int, int, bytes]]) -> None:
        """Take over (block, version, records)."""
        for block, version, data in blocks:
            self.version = max(self.version, version)
            start, end = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
            if end > len(self._marks):
                more = max(end, len(self._marks) * 3 // 2) - len(self._marks)
                self._codes = np.pad(self._codes, ((0, 0), (0, more)))
                self._marks = np.pad(self._marks, (0, more))
            self._end = max(self._end, end)
            records = np.frombuffer(data, np.uint8).reshape(-1, 2 + 8 * self.words)
            self._marks[start:end] = 0
            rows = start + records[:, 0].astype(np.int64)
            self._marks[rows] = records[:, 1]
            self._codes[:, rows] = np.ascontiguousarray(records[:, 2:]).view("<u8").T

    def nearest(self, vector: Vector, most: int, kind: Kind | None, rows: Rows | None) -> Rows:
        """About `most` rows, or a few more, whose codes are nearest to that of a vector [d], ascending.

        Among `rows` (None: all) of `kind` (None: any). All of them, if they are not more.
        """
        if rows is not None:
            rows = rows[rows < self._end]
        marks = self._marks[: self._end] if rows is None else self._marks[rows]
        present = marks > 0 if kind is None else marks == KINDS.index(kind) + 1
        if rows is not None:
            rows, present = rows[present], None
            if len(rows) <= most:
                return rows
            distances = self._distances(vector, rows)
        else:
            distances = self._distances(vector, None)
            distances[~present] = _ABSENT
        # The distance within which about `most` codes lie, told from every 16th; then, if those are too few, from all.
        limit = _limit(distances[::_SAMPLE], most // _SAMPLE + 1)
        near = np.flatnonzero(distances <= limit)
        if len(near) < most * 3 // 4:
            near = np.flatnonzero(distances <= _limit(distances, most))
        near = near[distances[near] < _ABSENT]
        return near if rows is None else rows[near]

    def _distances(self, vector: Vector, rows: Rows | None) -> NDArray[np.uint16]:
        code = encode(vector[None])[0]
        count = self._end if rows is None else len(rows)
        distances = np.zeros(count, np.uint16)
        for start in range(0, count, _CHUNK):  # what a chunk makes stays in the processor's cache
            part = slice(start, min(start + _CHUNK, count))
            chosen = part if rows is None else rows[part]
            for word in range(self.words):
                distances[part] += np.bitwise_count(self._codes[word, chosen] ^ code[word])
        return distances


def _limit(distances: NDArray[np.uint16], most: int) -> int:
    """The `most`-th smallest distance, but less than that of absent rows."""
    index = min(most, len(distances)) - 1
    return min(int(np.partition(distances, index)[index]), int(_ABSENT) - 1) if len(distances) else 0
