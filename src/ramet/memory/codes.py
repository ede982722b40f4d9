"""The signs of all vectors, in memory: a first pass over a million of them in milliseconds.

A code has one bit a dimension. The Hamming distance of codes estimates the angle between their vectors, so the nearest
few thousand codes hold the nearest few dozen vectors. Of those, the question itself against the signs (Gordo and
Perronnin 2011, "Asymmetric distances for binary embeddings") leaves a thousand, which are then compared as they are.
48 bytes a turn at 384 dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ramet import _ramet
from ramet.memory.base import KINDS, Kind, Vector
from ramet.memory.postings import Rows

BLOCK_BITS = 8
"""Codes are stored in blocks of 256 consecutive rows."""
CANDIDATES = 1000
"""Vectors that are compared: at least this many, and `PER_HIT` for each hit that is asked for."""
PER_HIT = 16
LOOKED = 6
"""Near codes that the question is held against, for each vector that is compared."""


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
        self._codes = np.zeros((0, self.words), np.uint64)
        self._marks = np.zeros(0, np.uint8)  # 0: no vector; else 1 + the kind's index
        self._end = 0

    def update(self, blocks: Iterable[tuple[int, int, bytes]]) -> None:
        """Take over (block, version, records)."""
        for block, version, data in blocks:
            self.version = max(self.version, version)
            start, end = block << BLOCK_BITS, (block + 1) << BLOCK_BITS
            if end > len(self._marks):
                more = max(end, len(self._marks) * 3 // 2) - len(self._marks)
                self._codes = np.pad(self._codes, ((0, more), (0, 0)))
                self._marks = np.pad(self._marks, (0, more))
            self._end = max(self._end, end)
            records = np.frombuffer(data, np.uint8).reshape(-1, 2 + 8 * self.words)
            self._marks[start:end] = 0
            rows = start + records[:, 0].astype(np.int64)
            self._marks[rows] = records[:, 1]
            self._codes[rows] = np.ascontiguousarray(records[:, 2:]).view("<u8")

    def nearest(self, vector: Vector, most: int, kind: Kind | None, rows: Rows | None) -> Rows:
        """The `most` rows whose codes promise the highest cosines with a vector [d], ascending.

        Among `rows` (None: all) of `kind` (None: any). All of them, if they are not more.
        """
        if rows is not None:
            rows = np.ascontiguousarray(rows[rows < self._end])
        count = self._end if rows is None else len(rows)
        vector = np.ascontiguousarray(vector, np.float32)
        code, mark = encode(vector[None]), 0 if kind is None else KINDS.index(kind) + 1
        near = np.empty(min(most, count), np.int64)
        found = _ramet.near_codes(
            self._codes.ctypes.data, self._marks.ctypes.data, self.words, 0 if rows is None else rows.ctypes.data,
            count, code.ctypes.data, vector.ctypes.data, len(vector), mark, LOOKED * most, most, near.ctypes.data,
        )  # fmt: skip
        return near[:found]
