"""Ranked retrieval over lists of postings: exact BM25 that reads only the lists that can change the answer.

A store keeps lists by name, each cut into blocks of `BLOCK` consecutive rows. A posting is one uint32:

    row in block: 12 bits | kind: 2 | term frequency: 5 | length of the turn in terms: 13

Frequencies and lengths beyond their bits count as the largest. Lists of terms, entities and conversations are alike, so
that all three are searched, restricted and deleted by the same code. SQLite's own FTS5 and PostgreSQL's text search
have no answer here: one's `bm25()` reads every list whole, and twice (seconds at a million turns), the other has none.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import KINDS, Kind

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
"""Rows of a block: an append rewrites at most 4 bytes a row of the last one."""

K1, B = 1.2, 0.75
"""BM25's saturation of the term frequency, and how much long turns are discounted."""

ALL = "a"
"""Name of the list of all turns. Others: `t` + term, `e` + entity, `c` + conversation."""

_SLACK = 1 + 1e-9
"""Bounds are a little generous: sums differ in their last bits with the order of their parts."""
_TF_MOST, _LENGTH_MOST = 31, 8191

Rows = NDArray[np.int64]
Blobs = defaultdict[tuple[str, int], list[int]]
"""Postings by name of the list and block."""


class Lists(Protocol):
    """Where the lists are."""

    def sizes(self, name: str) -> dict[int, int]:
        """How many postings each block of a list has, in the order of blocks."""

    def read(self, name: str, blocks: Sequence[int] | None = None) -> list[tuple[int, bytes]]:
        """(block, postings) of these blocks (None: all) of a list, in the order of blocks."""

    def totals(self) -> tuple[int, int]:
        """How many turns there are, and their length in terms, all together."""


def append(
    blobs: Blobs, row: int, kind: Kind, conversation: str, words: Sequence[str], entities: Sequence[str]
) -> None:
    """Add a turn's postings to `blobs`, for all the lists that it is on."""
    block = row >> BLOCK_BITS
    base = row & (BLOCK - 1) | KINDS.index(kind) << 12 | min(len(words), _LENGTH_MOST) << 19
    once = base | 1 << 14
    for name in (ALL, "c" + conversation, *["e" + entity for entity in entities]):
        blobs[name, block].append(once)
    for word, count in Counter(words).items():
        blobs["t" + word, block].append(once if count == 1 else base | min(count, _TF_MOST) << 14)


def pack(postings: Sequence[int]) -> bytes:
    """Postings as they are stored."""
    return struct.pack(f"<{len(postings)}I", *postings)


def without(data: bytes, rows: Sequence[int]) -> bytes:
    """A block's postings less those of `rows`."""
    postings = np.frombuffer(data, "<u4")
    return postings[~np.isin(postings & (BLOCK - 1), np.asarray(rows) & (BLOCK - 1))].tobytes()


@dataclass(frozen=True)
class Found:
    """Postings with the rows that they are of, ascending."""

    rows: Rows
    packed: NDArray[np.uint32]

    @staticmethod
    def of(parts: Sequence[tuple[int, bytes]], kind: Kind | None = None) -> Found:
        """Those of the blocks in `parts` that are of `kind`."""
        packed = np.frombuffer(b"".join(data for _, data in parts), "<u4")
        starts = np.array([block for block, _ in parts], np.int64) << BLOCK_BITS
        rows = np.repeat(starts, [len(data) // 4 for _, data in parts])
        rows |= packed & (BLOCK - 1)
        found = Found(rows, packed)
        return found if kind is None else found.only((packed >> 12 & 3) == KINDS.index(kind))

    def only(self, chosen: NDArray[Any]) -> Found:
        """The postings that a mask, or positions, choose."""
        return Found(self.rows[chosen], self.packed[chosen])

    def counts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each posting: the frequency of the term, and the length of the turn."""
        return (self.packed >> 14 & 31).astype(np.float64), (self.packed >> 19).astype(np.float64)


@dataclass(frozen=True)
class Scope:
    """The part of the store that a question is about: everything, or a conversation."""

    count: int
    """Turns."""
    mean_length: float
    rows: Rows | None = None
    """A conversation's, ascending; None: all."""
    pure: frozenset[int] = frozenset()
    """Blocks that hold nothing but this conversation: what is in them need not be looked at to be counted."""
    mixed: tuple[int, ...] = ()
    """Its other blocks."""

    @staticmethod
    def everything(lists: Lists) -> Scope:
        """All turns."""
        count, length = lists.totals()
        return Scope(count, length / max(count, 1))

    @staticmethod
    def of(lists: Lists, conversation: str) -> Scope:
        """The turns of a conversation."""
        parts = lists.read("c" + conversation)
        found = Found.of(parts)
        sizes = lists.sizes(ALL) if len(parts) > 8 else {}
        pure = frozenset(block for block, data in parts if sizes.get(block) == len(data) // 4)
        mixed = tuple(block for block, _ in parts if block not in pure)
        mean = float(found.counts()[1].mean()) if len(found.rows) else 0.0
        return Scope(len(found.rows), mean, found.rows, pure, mixed)

    def has(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of `rows` are of the conversation."""
        assert self.rows is not None
        if not len(self.rows):
            return np.zeros(len(rows), bool)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.asarray(self.rows[at] == rows)


class _Term:
    """One list in a scope: how often it occurs there, and its postings on demand."""

    def __init__(self, lists: Lists, name: str, scope: Scope, kind: Kind | None, weight: int) -> None:
        self._lists, self._name, self._kind, self._scope = lists, name, kind, scope
        self._kept: list[tuple[int, bytes]] = []
        sizes = lists.sizes(name)
        if scope.rows is None:
            self._blocks: list[int] = list(sizes)
            frequency = sum(sizes.values())
        else:
            self._blocks = [block for block in sizes if block in scope.pure]
            frequency = sum(sizes[block] for block in self._blocks)
            mixed = [block for block in scope.mixed if block in sizes]
            if mixed:
                for block, data in lists.read(name, mixed):
                    rows = (block << BLOCK_BITS) | (np.frombuffer(data, "<u4") & (BLOCK - 1)).astype(np.int64)
                    own = scope.has(rows)
                    frequency += int(own.sum())
                    self._kept.append((block, np.frombuffer(data, "<u4")[own].tobytes()))
        self.frequency = frequency
        self.end = (max([*self._blocks, *(block for block, _ in self._kept)], default=-1) + 1) << BLOCK_BITS
        """Past its last row."""
        self.idf = weight * math.log1p((scope.count - frequency + 0.5) / (frequency + 0.5))

    def postings(self, rows: Rows | None = None) -> Found:
        """All postings in the scope; with `rows`, at least those in the blocks of `rows`."""
        wanted: set[int] | None = None if rows is None else set((rows >> BLOCK_BITS).tolist())
        blocks = self._blocks if wanted is None else [block for block in self._blocks if block in wanted]
        kept = [part for part in self._kept if wanted is None or part[0] in wanted]
        whole = len(blocks) == len(self._blocks) and self._scope.rows is None
        read = self._lists.read(self._name, None if whole else blocks) if blocks else []
        return Found.of(sorted(read + kept), self._kind)


def rank(
    lists: Lists, names: Sequence[str], k: int, scope: Scope, kind: Kind | None = None, *, counted: bool = True
) -> list[tuple[int, float]]:
    """The `k` rows with the highest scores > 0, ties in the order of rows.

    `counted`: BM25; a name that is there twice weighs double. Otherwise the sum of the idf of the names a row is on.
    Exact by MaxScore (Turtle and Flood 1995): lists are read from the rarest on; once the lists that are left could not
    lift a new row into the answer, only rows that are candidates already are looked up in them.
    """
    k1 = K1 if counted else 0.0
    terms = [_Term(lists, name, scope, kind, weight if counted else 1) for name, weight in Counter(names).items()]
    terms = sorted((term for term in terms if term.frequency), key=lambda term: (-term.idf, term._name))
    if not terms or k < 1:
        return []
    bounds = [term.idf * (k1 + 1) for term in terms]
    left = [sum(bounds[index:]) for index in range(len(bounds) + 1)]
    rows = np.empty(0, np.int64)
    # Pages of it that no list names are never touched.
    scores = np.zeros(max(term.end for term in terms))
    for index, term in enumerate(terms):
        reached = scores[rows]
        floor = float(np.partition(reached, len(rows) - k)[len(rows) - k]) if len(rows) >= k else 0.0
        # What is dropped here could not reach the floor any more. Should an open list name it again, it stays dropped.
        rows = rows[reached + left[index] * _SLACK >= floor]
        closed = left[index] * _SLACK < floor
        found = term.postings(rows if closed else None)
        if closed:
            if not len(found.rows):
                continue
            at = np.minimum(np.searchsorted(found.rows, rows), len(found.rows) - 1)
            hit = found.rows[at] == rows
            found = found.only(at[hit])
        elif len(found.rows):
            rows = np.concatenate([rows, found.rows[scores[found.rows] == 0]])
        scores[found.rows] += _impact(term.idf, found, k1, scope.mean_length)
    reached = scores[rows]
    order = np.lexsort((rows, -reached))[:k]
    return [(int(rows[index]), float(reached[index])) for index in order]


def _impact(idf: float, found: Found, k1: float, mean_length: float) -> NDArray[np.float64]:
    """What a list adds to the scores of its rows."""
    tf, length = found.counts()
    norm = k1 * (1 - B + B * length / max(mean_length, 1e-9))
    return idf * (k1 + 1) * tf / (tf + norm)
