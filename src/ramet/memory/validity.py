"""Which facts hold: what takes the place of what, what says the same again, and what holds again when it is removed.

A fact leads to the one that was said later and cannot be true beside it (`superseded_by`). Facts that say the same,
with nothing between that contradicts them, stand behind the first of them (`repeats`) and end with it. When the first
is removed the next takes its place: a fact lasts as long as any turn that tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ramet.memory.base import MemoryStoreError, Turn
from ramet.memory.records import parts


class Tables(Protocol):
    """What this asks of a database, inside a transaction."""

    def _stored(self, where: str, *values: Any, order: str = "row") -> list[tuple[int, Turn]]: ...

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None: ...


class StoredFacts:
    """The facts of a store. Every method is called inside one of its transactions."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def supersede(self, old: str, new: str, at: datetime | None) -> None:
        """`Store.supersede`."""
        ended, follower = self._first(old), self._first(new)
        before = self._find(ended.superseded_by)
        if ended.id == follower.id or (before is not None and before.position <= follower.position):
            by = "itself" if before is None else repr(before.id)
            raise MemoryStoreError(f"the fact {old!r} cannot be superseded by {new!r}: it is already by {by}")
        if follower.id != new and follower.position < ended.position:  # what repeats that one does so no longer
            self.supersede(follower.id, ended.id, end_of(follower, ended))
            return
        while True:
            again = [turn for turn in self._behind([ended.id]) if turn.position > follower.position]
            self._stand_behind(again[1:], again[0].id if again else None)
            self._stand_behind(again[:1], None)
            self._end(ended.id, follower.id, at)
            then = self._find(follower.superseded_by)
            if not again or (then is not None and then.position <= again[0].position):
                return
            # It was said once more after what is put between, which that ends; and so on, if that was said again, too.
            ended, follower, at = follower, again[0], end_of(follower, again[0])

    def repeat(self, id: str, first: str) -> None:
        """`Store.repeat`."""
        turn, place = self._first(id), self._first(first)
        if turn.id != id or place.id == id:
            raise MemoryStoreError(f"the fact {id!r} cannot repeat {first!r}: it repeats {turn.repeats or place.id!r}")
        ended = [other for other in self._led_to([id]) if other.id != place.id]
        between = [t for t in (*ended, *self._behind(t.id for t in ended)) if t.position > place.position]
        if between:  # it was said, was so no longer, and was said again
            for other in ended:
                if other.position <= place.position:
                    self.supersede(other.id, place.id, end_of(other, place))
            then, news = self._find(self._fact(place.id).superseded_by), min(between, key=lambda other: other.position)
            if then is None or then.position > news.position:
                self.supersede(place.id, news.id, end_of(place, news))
            return
        joining = [turn, *self._behind([id])]
        self._stand_behind(joining, place.id)
        for other in ended:
            self._end(other.id, place.id, end_of(other, place))
        by, at = place.superseded_by, place.valid_to
        if by is None or by == id:
            by, at = turn.superseded_by, turn.valid_to
        if by == place.id:
            by, at = None, None
        end = self._find(by)
        if end is not None and (by != place.superseded_by or joining[-1].position > end.position):
            self._end(place.id, None, None)
            self.supersede(place.id, end.id, at)  # what was said after it stands behind the first no longer
        elif (by, at) != (place.superseded_by, place.valid_to):
            self._end(place.id, by, at)
        else:  # what stands there already stays: it may be thousands
            self._ends("id", [other.id for other in joining], by, at)

    def restore(self, removed: Mapping[str, Turn]) -> None:
        """Let what was said again take the place of removed facts; where nothing does, what they ended holds again."""
        heirs: dict[str, Turn] = {}
        for turn in self._behind(removed):
            gone = removed[turn.repeats or ""]
            if gone.id in heirs:
                self._stand_behind([turn], heirs[gone.id].id)
            elif gone.repeats not in (None, turn.id) and gone.repeats not in removed:  # only imported facts are so
                self._stand_behind([turn], gone.repeats)
            else:
                heirs[gone.id] = turn
                self._stand_behind([turn], None)
        joined = []
        for turn in self._led_to(removed):
            at, by = turn.valid_to, turn.superseded_by
            seen = set[str]()  # imported facts may name each other in a circle
            while by is not None and by in removed and by not in seen:
                seen.add(by)
                if by in heirs:
                    at, by = end_of(turn, heirs[by]), heirs[by].id
                else:
                    at, by = removed[by].valid_to, removed[by].superseded_by
            if by is None or by in seen or by == turn.id:
                self._end(turn.id, None, None)
            else:
                self._end(turn.id, by, at)
                joined.append((by, turn))
        for by, turn in joined:
            found = self._find(by)
            if found is not None and found.repeats is None and same(found, turn) and found.position >= turn.position:
                self.repeat(by, turn.id)

    def _find(self, id: str | None) -> Turn | None:
        return next((turn for _, turn in self._tables._stored("id = ?", id)), None) if id is not None else None

    def _fact(self, id: str) -> Turn:
        """A fact by its id. Raises MemoryStoreError if it is none."""
        found = self._find(id)
        if found is None or found.kind != "fact":
            raise MemoryStoreError(f"{id!r} is not a fact that is stored; only facts supersede or repeat each other")
        return found

    def _first(self, id: str) -> Turn:
        """The fact that stands for a fact: itself, or the one that it repeats."""
        found = self._fact(id)
        return self._find(found.repeats) or found

    def _behind(self, ids: Iterable[str]) -> list[Turn]:
        """The facts that repeat any of these, in the order in which they were said."""
        return self._where("repeats", ids)

    def _led_to(self, ids: Iterable[str]) -> list[Turn]:
        """The facts, other than repetitions, that were superseded by any of these, in that order."""
        return [turn for turn in self._where("superseded_by", ids) if turn.repeats is None]

    def _where(self, column: str, ids: Iterable[str]) -> list[Turn]:
        found = [pair for part in parts(ids) for pair in self._tables._stored(f"{column} {{in}}", part)]
        return [turn for _, turn in sorted(found, key=lambda pair: (pair[1].position, pair[0]))]

    def _stand_behind(self, turns: Iterable[Turn], first: str | None) -> None:
        self._tables._many("UPDATE turns SET repeats = ? WHERE id = ?", [(first, turn.id) for turn in turns])

    def _end(self, id: str, by: str | None, at: datetime | None) -> None:
        """End a fact and what stands behind it; None: they hold."""
        for column in ("id", "repeats"):
            self._ends(column, [id], by, at)

    def _ends(self, column: str, ids: Iterable[str], by: str | None, at: datetime | None) -> None:
        until = at.isoformat() if at is not None else None
        statement = f"UPDATE turns SET superseded_by = ?, valid_to = ? WHERE {column} = ?"
        self._tables._many(statement, [(by, until, id) for id in ids])


def same(one: Turn, other: Turn) -> bool:
    """Whether two facts are in the same words."""
    return _plain(one.text) == _plain(other.text)


def _plain(text: str) -> str:
    return text.casefold().rstrip(".!")


def end_of(earlier: Turn, later: Turn) -> datetime | None:
    """When the earlier fact ended: when the later began, or was said, but not before its own beginning."""
    begun = earlier.valid_from
    for time in (later.valid_from, later.time):
        if time is not None and (begun is None or time.replace(tzinfo=None) >= begun.replace(tzinfo=None)):
            return time
    return None
