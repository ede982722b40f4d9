"""The lists of postings in a table, as segments: a log-structured merge tree of four levels.

A segment has the postings of successive rows, list by list, next to each other in the table: what a turn adds to its
two dozen lists is written in one place. Whenever rows fill a range of 16, 256, 4,096 or 16,384, its segments become
one: a posting is written five times at most, and a list is read from one piece every 16,384 rows and a few dozen
more. Segments of the last level are sealed: nothing is written there any more, unless turns are removed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ramet.memory.postings import BLOCK, Gathered, Postings, Rows, without

LEVELS = (BLOCK, 4096, 256, 16)
"""Rows of a segment: at each level, those of several of the next one."""
KEPT = 128 << 20
"""Bytes of sealed postings that are kept in memory, those that were asked for last."""

_NOTHING = Postings.of([])
_ENTRY = 512
"""Bytes that a list in memory takes beside its postings."""


class Tables(Protocol):
    """What the lists ask of a database: statements with `?` and `{in}`, inside a transaction."""

    def _rows(self, statement: str, *values: Any) -> list[Any]: ...

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None: ...

    def note(self, key: str, value: str | None = None) -> str | None: ...


class StoredLists:
    """The lists of a store. Every method is called inside one of its transactions."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._kept: OrderedDict[str, tuple[int, Postings]] = OrderedDict()
        """Sealed postings by list, with the row up to which they are all there."""
        self._kept_bytes = 0
        self._removals = ""

    def forget(self) -> None:
        """Keep nothing in memory: what was read is not so any more."""
        self._kept.clear()
        self._kept_bytes = 0

    def totals(self) -> tuple[int, int]:
        """Turns, and their length in terms."""
        return int(self._tables.note("turns") or 0), int(self._tables.note("length") or 0)

    def count(self, name: str) -> int:
        """How many turns are on a list."""
        sealed, opened, _ = self._segments()
        statement = "SELECT coalesce(sum(length(data)), 0) FROM lists WHERE name = ? AND start {in}"
        ((size,),) = self._tables._rows(statement, name, [*sealed, *opened])
        return int(size) // 4

    def read(self, names: Sequence[str], blocks: Rows | None = None) -> list[list[Postings]]:
        """What is on these lists; see `postings.Lists`."""
        sealed, opened, removals = self._segments()
        if removals != self._removals:
            self.forget()
            self._removals = removals
        known: dict[str, tuple[int, Postings]] = {}
        since: dict[int, list[str]] = defaultdict(list)
        for name in names:
            if name in self._kept:
                known[name] = self._kept[name]
                self._kept.move_to_end(name)
            since[known[name][0] if name in known else 0].append(name)
        fresh: dict[str, list[tuple[int, bytes]]] = {name: [] for name in names}
        for start, missing in since.items():
            starts = [row for row in (*sealed, *opened) if row >= start]
            if blocks is not None:
                wanted = set(blocks.tolist())
                starts = [row for row in starts if row // BLOCK in wanted]
            statement = "SELECT name, start, data FROM lists WHERE start {in} AND name {in} ORDER BY start"
            for name, row, data in self._tables._rows(statement, starts, missing) if starts else ():
                fresh[name].append((row, data))
        found = []
        for name in names:
            before, kept = known.get(name, (0, _NOTHING))
            edge = bisect_right(fresh[name], sealed.stop - 1, key=lambda part: part[0])
            if edge:
                kept = kept.joined(Postings.of(fresh[name][:edge])) if before else Postings.of(fresh[name][:edge])
            if blocks is None and sealed.stop > before:
                self._keep(name, sealed.stop, kept)
            if blocks is not None and before:
                kept = kept.in_blocks(blocks)
            parts = [kept, Postings.of(fresh[name][edge:])] if fresh[name][edge:] else [kept]
            found.append([part for part in parts if len(part.packed)])
        return found

    def write(self, first: int, end: int, gathered: Gathered) -> None:
        """Add the postings of the new rows [first, end)."""
        _, opened, _ = self._segments()
        new = cut(first, end)
        merged = [start for start in opened if any(begin <= start < stop for begin, stop in new)]
        old: dict[str, bytes] = {}
        if merged:
            statement = "SELECT name, data FROM lists WHERE start {in} ORDER BY start"
            for name, data in self._tables._rows(statement, merged):
                old[name] = old[name] + data if name in old else data
            self._tables._many("DELETE FROM lists WHERE start = ?", [(start,) for start in merged])
        records: list[tuple[int, str, bytes]] = []
        for (begin, _), own in zip(new, gathered.cut(new), strict=True):
            # Only the first of the new segments takes older ones in.
            names = sorted(old.keys() | own.keys() if old else own)
            records += [(begin, name, old.get(name, b"") + own.get(name, b"")) for name in names]
            old = {}
        self._tables._many("INSERT INTO lists (start, name, data) VALUES (?, ?, ?)", records)
        sealed_end = end // LEVELS[0] * LEVELS[0]
        left = [start for start in opened if start not in merged] + [begin for begin, _ in new if begin >= sealed_end]
        self._tables.note("segments", " ".join(map(str, left)))

    def remove(self, rows: Mapping[str, Sequence[int]]) -> None:
        """Take rows off the lists of these names."""
        sealed, opened, removals = self._segments()
        taken: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for name, own in rows.items():
            for row in own:
                is_sealed = row < sealed.stop
                start = row // LEVELS[0] * LEVELS[0] if is_sealed else opened[bisect_right(opened, row) - 1]
                taken[start][name].append(row)
        left, emptied = [], []
        for start, names in sorted(taken.items()):
            statement = "SELECT name, data FROM lists WHERE start = ? AND name {in}"
            for name, data in self._tables._rows(statement, start, list(names)):
                data = without(data, names[name])
                if data:
                    left.append((data, start, name))
                else:
                    emptied.append((start, name))
        self._tables._many("UPDATE lists SET data = ? WHERE start = ? AND name = ?", left)
        self._tables._many("DELETE FROM lists WHERE start = ? AND name = ?", emptied)
        self._tables.note("removals", str(int(removals or 0) + 1))

    def _segments(self) -> tuple[range, list[int], str]:
        """Where the sealed segments start and where the others do, and how often rows were removed."""
        statement = "SELECT key, value FROM notes WHERE key IN ('rows', 'segments', 'removals')"
        notes = dict(self._tables._rows(statement))
        end = int(notes.get("rows", 0)) // LEVELS[0] * LEVELS[0]
        opened = [int(start) for start in notes.get("segments", "").split()]
        return range(0, end, LEVELS[0]), opened, notes.get("removals", "")

    def _keep(self, name: str, end: int, postings: Postings) -> None:
        before = self._kept.pop(name, None)
        if before is not None:
            self._kept_bytes -= _size(before[1])
        self._kept[name] = end, postings
        self._kept_bytes += _size(postings)
        while self._kept_bytes > KEPT:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._kept_bytes -= _size(oldest)


def _size(postings: Postings) -> int:
    return _ENTRY + sum(part.nbytes for part in (postings.starts, postings.sizes, postings.packed, postings.bounds))


def cut(first: int, end: int) -> list[tuple[int, int]]:
    """The segments (first row, end) that come of new rows [first, end); the first may begin before them."""
    cut, at = [], first
    for level in LEVELS:
        whole = end // level * level
        if whole > at:
            begin = at // level * level
            step = level if level == LEVELS[0] else whole - begin
            cut += [(start, start + step) for start in range(begin, whole, step)]
            at = whole
    if end > at:
        cut.append((at, end))
    return cut
