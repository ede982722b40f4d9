"""Lists of postings, and ranked retrieval over them: exact BM25 by a compiled op.

A list has the rows of the turns that a term, an entity, a conversation or a kind is in. It is kept in pieces, each
within an aligned block of `BLOCK` rows. A posting is one uint32:

    row in its block: 14 bits | frequency of the term - 1: 5 | length of the turn in terms: 13

Frequencies and lengths beyond their bits count as the largest. All lists are alike, so that they are searched,
restricted and deleted by the same code. SQLite's own FTS5 and PostgreSQL's text search have no answer here: one's
`bm25()` reads every list whole, and twice (seconds at a million turns), the other has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ramet import _ramet
from ramet.memory.base import Kind

BLOCK: int = _ramet.POSTING_ROWS
"""Rows that the postings of one piece lie among."""

K1, B = 1.2, 0.75
"""BM25's saturation of the term frequency, and how much long turns are discounted."""

_TF_SHIFT, _LENGTH_SHIFT = 14, 19
MOST_OFTEN, LONGEST = 32, 8191
"""Frequencies and lengths that are kept as they are; these may stand for more."""

Rows = NDArray[np.int64]


def term_list(term: str) -> str:
    """The name of the list of a term."""
    return "t" + term


def entity_list(entity: str) -> str:
    """The name of the list of an entity."""
    return "e" + entity


def conversation_list(conversation: str) -> str:
    """The name of the list of a conversation."""
    return "c" + conversation


def kind_list(kind: Kind) -> str:
    """The name of the list of a kind; every turn is on exactly one of these."""
    return "k" + kind


@dataclass(frozen=True)
class Postings:
    """Pieces of a list, ascending."""

    starts: Rows
    """int64 [pieces]: a row of the block of each."""
    sizes: Rows
    """int64 [pieces]: how many postings each has."""
    packed: NDArray[np.uint32]
    """uint32 [sum of sizes]."""
    bounds: NDArray[np.uint32]
    """uint32 [pieces, 4]: postings that stand for the best of each piece; see csrc/ops/bound_postings.cpp."""

    @classmethod
    def of(cls, parts: Sequence[tuple[int, bytes]]) -> Self:
        """Those in (start, postings as they are stored)."""
        starts = np.array([start for start, _ in parts], np.int64)
        sizes = np.array([len(data) // 4 for _, data in parts], np.int64)
        packed = np.frombuffer(b"".join([data for _, data in parts]), "<u4")
        bounds = np.empty((len(parts), _ramet.POSTING_BOUNDS), np.uint32)
        _ramet.bound_postings(_at(packed), _at(sizes), len(parts), _at(bounds))
        return cls(starts, sizes, packed, bounds)

    def joined(self, other: Postings) -> Postings:
        """These and later ones."""
        return Postings(
            np.concatenate([self.starts, other.starts]),
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.packed, other.packed]),
            np.concatenate([self.bounds, other.bounds]),
        )

    def in_blocks(self, blocks: Rows) -> Postings:
        """Those of the pieces in these blocks (row // BLOCK)."""
        chosen = np.isin(self.starts // BLOCK, blocks)
        if chosen.all():
            return self
        ends = np.cumsum(self.sizes)
        edges = zip((ends - self.sizes)[chosen].tolist(), ends[chosen].tolist(), strict=True)
        packed = np.concatenate([self.packed[:0], *(self.packed[start:end] for start, end in edges)])
        return Postings(self.starts[chosen], self.sizes[chosen], packed, self.bounds[chosen])

    @cached_property
    def addresses(self) -> Rows:
        """int64 [pieces]: where the postings of each are in memory."""
        return _at(self.packed) + 4 * (np.cumsum(self.sizes) - self.sizes)

    @property
    def rows(self) -> Rows:
        """Ascending."""
        return np.repeat(self.starts // BLOCK * BLOCK, self.sizes) | (self.packed & (BLOCK - 1))

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """Of each posting's turn, in terms."""
        return self.packed >> np.uint32(_LENGTH_SHIFT)


def without(data: bytes, rows: Sequence[int]) -> bytes:
    """A piece's postings less those of `rows`."""
    packed = np.frombuffer(data, "<u4")
    left = np.ones(BLOCK, np.bool_)  # np.isin takes several times as long for one piece
    left[np.asarray(rows) & (BLOCK - 1)] = False
    return bytes(packed[left[packed & (BLOCK - 1)]].data)


class Gathered:
    """The postings of new turns, in successive rows."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._names: dict[str, int] = {}
        self._words: dict[str, int] = _Numbers()
        self._flat: list[int] = []
        self._lengths: list[int] = []
        self._once: list[int] = []
        self._once_at: list[int] = []

    def add(self, names: Sequence[str], words: Sequence[str]) -> None:
        """The next row: its terms, and the names of the other lists that it is on."""
        self._flat += map(self._words.__getitem__, words)
        at, numbers = len(self._lengths), self._names
        self._lengths.append(len(words))
        for name in names:
            self._once.append(numbers.setdefault(name, len(numbers)))
            self._once_at.append(at)

    @property
    def words(self) -> int:
        """How many terms there are, repeated as they are."""
        return len(self._flat)

    def cut(self, bounds: Iterable[tuple[int, int]]) -> list[dict[str, bytes]]:
        """For each (first row, end): the postings of these rows, as they are stored, by name of the list."""
        lengths = np.array(self._lengths, np.int64)
        at = np.repeat(np.arange(len(lengths)), lengths)
        keys, counts = np.unique(np.array(self._flat, np.int64) << 32 | at, return_counts=True)
        names = [*map(term_list, self._words), *self._names]
        once = np.array(self._once, np.int64) + len(self._words) << 32 | np.array(self._once_at, np.int64)
        keys = np.concatenate([keys, np.sort(once)])
        counts = np.concatenate([np.minimum(counts, MOST_OFTEN), np.ones(len(once), np.int64)])
        rows, lists = self._first + (keys & 0xFFFFFFFF), keys >> 32
        clipped = np.minimum(lengths, LONGEST)[keys & 0xFFFFFFFF]
        packed = (rows % BLOCK | counts - 1 << _TF_SHIFT | clipped << _LENGTH_SHIFT).astype("<u4")
        cut = []
        for first, end in bounds:
            chosen = (rows >= first) & (rows < end)
            own, data = lists[chosen], packed[chosen].tobytes()
            edges = np.flatnonzero(np.diff(own, prepend=-1, append=-1)).tolist() if len(own) else [0]
            numbers = own[edges[:-1]].tolist()
            cut.append(
                {
                    names[number]: data[4 * start : 4 * stop]
                    for number, start, stop in zip(numbers, edges, edges[1:], strict=False)
                }
            )
        return cut


class _Numbers(dict[str, int]):
    """Numbers words as they come."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class Lists(Protocol):
    """Where the lists are."""

    def read(self, names: Sequence[str], blocks: Rows | None = None) -> list[list[Postings]]:
        """Of each of these lists, in ascending parts, what lies in `blocks` (row // BLOCK; None: all)."""

    def totals(self) -> tuple[int, int]:
        """How many turns there are, and their length in terms, all together."""


class ReadOnce:
    """Lists of which none is read a second time; what was read may be of more blocks than are asked for then."""

    def __init__(self, lists: Lists) -> None:
        self.totals = lists.totals
        self._lists = lists
        self._read: dict[str, list[Postings]] = {}

    def read(self, names: Sequence[str], blocks: Rows | None = None) -> list[list[Postings]]:
        """See `Lists`. Blocks that are asked for later have to be among those that were asked for first."""
        new = [name for name in names if name not in self._read]
        self._read |= zip(new, self._lists.read(new, blocks), strict=True)
        return [self._read[name] for name in names]


def rank(
    lists: Lists,
    names: Sequence[str],
    k: int,
    conversation: str | None = None,
    kind: Kind | None = None,
    *,
    counted: bool = True,
) -> list[tuple[int, float]]:
    """The `k` rows with the highest scores > 0, ties in the order of rows.

    `counted`: BM25; a name that is there twice weighs double. Otherwise the sum of the idf of the names a row is on.
    Inside a conversation the frequencies are its own. Exact: see csrc/ops/rank_postings.cpp.
    """
    if not names or k < 1:
        return []
    weights = Counter(names)
    terms = sorted(weights)
    blocks: Rows | None = None
    scope: list[Postings] = []
    if conversation is None:
        turns, length = lists.totals()
        mean = length / max(turns, 1)
    else:
        ((*scope,),) = lists.read([conversation_list(conversation)])
        turns = sum(len(part.packed) for part in scope)
        mean = sum(int(part.lengths.sum()) for part in scope) / max(turns, 1)
        blocks = np.unique(np.concatenate([part.starts // BLOCK for part in scope])) if scope else np.empty(0, np.int64)
    kinds = [kind_list(kind)] if kind is not None else []
    found = lists.read([*kinds, *terms], blocks)
    of_kind = found.pop(0) if kinds else []
    parts = [(index, part) for index, own in enumerate([scope, of_kind, *found]) for part in own]
    starts, owners, addresses, sizes, bounds = _pieces(parts)
    k = min(k, sum(len(part.packed) for own in found for part in own))
    rows, scores = np.empty(k, np.int64), np.empty(k)
    weighing = np.array([weights[term] if counted else 1 for term in terms], np.float64)
    count = _ramet.rank_postings(
        len(starts), _at(starts), _at(owners), _at(addresses), _at(sizes), _at(bounds), conversation is not None,
        kind is not None, len(terms), _at(weighing), turns, mean, K1 if counted else 0.0, B, k, _at(rows), _at(scores),
    )  # fmt: skip
    return list(zip(rows[:count].tolist(), scores[:count].tolist(), strict=True))


def look_up(
    lists: Lists, names: Sequence[str], rows: Rows, blocks: Rows | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """How often each of `rows` (ascending) is on each of these lists, [names, rows], and how long its turn is, [rows].

    Lengths are in terms, 0 for a row that is on none of the lists. `MOST_OFTEN` and `LONGEST` may stand for more.
    `blocks`: read no more than these (row // BLOCK).
    """
    found = lists.read(names, blocks)
    parts = [part for own in found for part in own]
    first = np.cumsum([0, *(sum(len(part.starts) for part in own) for own in found)])
    starts = np.concatenate([np.empty(0, np.int64), *(part.starts for part in parts)])
    sizes = np.concatenate([np.empty(0, np.int64), *(part.sizes for part in parts)])
    addresses = np.concatenate([np.empty(0, np.int64), *(part.addresses for part in parts)])
    rows = np.ascontiguousarray(rows, np.int64)
    frequencies, lengths = np.empty((len(names), len(rows)), np.int32), np.empty(len(rows), np.int32)
    _ramet.look_up_postings(
        len(names), _at(first), _at(starts), _at(addresses), _at(sizes), len(rows), _at(rows), _at(frequencies),
        _at(lengths),
    )  # fmt: skip
    return frequencies, lengths


def _pieces(parts: Sequence[tuple[int, Postings]]) -> tuple[Rows, Rows, Rows, Rows, NDArray[np.uint32]]:
    """Of every piece of (list, part), in the order of blocks, lists and rows: start, list, address, size, bounds."""
    if not parts:
        none = np.empty(0, np.int64)
        return none, none, none, none, none.astype(np.uint32)
    starts = np.concatenate([part.starts for _, part in parts])
    sizes = np.concatenate([part.sizes for _, part in parts])
    owners = np.repeat(np.array([index for index, _ in parts]), [len(part.starts) for _, part in parts])
    addresses = np.concatenate([part.addresses for _, part in parts])
    order = np.lexsort((starts, owners, starts // BLOCK))
    bounds = np.concatenate([part.bounds for _, part in parts])
    return starts[order], owners[order], addresses[order], sizes[order], bounds[order]


def _at(array: NDArray[Any]) -> int:
    """Where an array is in memory."""
    address: int = array.ctypes.data
    return address
