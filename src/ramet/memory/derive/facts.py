"""How new facts stand to those that are stored, and to each other; and where among them they are put."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ramet.memory.base import Store, Turn, Vector
from ramet.memory.derive.notes import Fact, Model, changes
from ramet.memory.recall.question import COMMON
from ramet.memory.validity import end_of, same
from ramet.memory.words import terms

_NEAR = 5
"""Stored facts that are offered for each new one."""
_SEARCHED, _WIDER, _WIDEST = 20, 4, 1280
"""How many a search is asked for at first, and how many times that if too few of them can be offered."""


class NewFacts:
    """The new facts of a piece. `compare` asks about them, with nothing locked; the rest is part of a transaction."""

    def __init__(self, store: Store, facts: Sequence[Fact], turns: Sequence[Turn], vectors: Vector | None) -> None:
        """`turns`: the facts as they are to be stored; `vectors`: theirs, where there is an embedder."""
        self.turns = turns
        self._store, self._facts, self._vectors = store, facts, vectors
        self._repeats: list[dict[str, bool]] = [{} for _ in turns]
        """For each fact the ids of others that it repeats (True) or replaces (False)."""
        self._compared: list[set[str]] = [set() for _ in turns]
        self._version = ""

    def compare(self, model: Model) -> None:
        """Ask how the facts stand to those near them that they were not compared with yet."""
        self._version = self._store.version  # before it is searched
        asked = self._left()
        if not any(asked):
            return
        new = {turn.id for turn in self.turns}
        others = list({turn.id: turn for near in asked for turn in near if turn.id not in new}.values())
        ids = [turn.id for turn in (*others, *self.turns)]
        place = {id: at for at, id in enumerate(ids)}
        for change in changes(model, self._facts, others, [[place[turn.id] for turn in near] for near in asked]):
            self._repeats[change.fact][ids[change.other]] = change.repeats
        for compared, near in zip(self._compared, asked, strict=True):
            compared.update(turn.id for turn in near)

    def is_compared(self) -> bool:
        """Whether nothing came near the facts since they were compared. If something did, `compare` asks about that."""
        return self._store.version == self._version or not any(self._left())

    def kept(self) -> list[int]:
        """Indices of the facts that are worth storing.

        Others are stored already, or repeat one that is lost only together with them.
        """
        mentioned = [id for turn, related in zip(self.turns, self._repeats, strict=True) for id in (turn.id, *related)]
        known = {turn.id: turn for turn in self._store.turns(mentioned)}
        kept = []
        for index, turn in enumerate(self.turns):
            firsts = [known[id] for id, repeats in self._repeats[index].items() if repeats and id in known]
            if turn.id not in known and not any(
                first.position == turn.position and set(first.sources) <= set(turn.sources) for first in firsts
            ):
                kept.append(index)
                known[turn.id] = turn
        return kept

    def place(self, kept: Sequence[int]) -> tuple[int, int]:
        """Put these facts, which are stored, among the others; how many repeat one, and how many others were ended.

        In the order in which they were said: of two that cannot both hold the earlier ends.
        """
        ended = 0
        for index in sorted(kept, key=lambda index: self.turns[index].position):
            ended += self._place(index)
        stored = self._store.turns([self.turns[index].id for index in kept])
        return sum(turn.repeats is not None for turn in stored), ended

    def _place(self, index: int) -> int:
        id, related = self.turns[index].id, self._repeats[index]
        turn, ended = self._find(id), 0
        held = [found for other, repeats in related.items() if (found := self._held(other, repeats, turn)) is not None]
        held.sort(key=lambda found: found[0].position)
        told = {other.id: other for other, repeats in held if repeats}
        later = list[Turn]()
        for other in {other.id: other for other, _ in held if other.id not in told}.values():
            if other.position > turn.position:
                later.append(other)
                continue
            # What had ended that one comes after this one, too, unless the model was asked about it.
            later += [t for t in self._chain(other) if t.id not in self._compared[index] and t.id not in related][:1]
            self._store.supersede(other.id, id, end_of(other, turn))
            ended += other.superseded_by is None
        told |= {other.id: other for other in later if same(other, turn)}
        later = sorted((other for other in later if other.id not in told), key=lambda other: other.position)
        if later and self._find(id).superseded_by is None:
            self._store.supersede(id, later[0].id, end_of(turn, later[0]))
            ended += 1
        turn = self._find(id)
        until = next((later.position for later in self._chain(turn)), math.inf)
        for other in sorted(told.values(), key=lambda other: other.position) if turn.repeats is None else ():
            if other.position <= turn.position:
                self._store.repeat(id, other.id)
                break
            if other.position < until:
                self._store.repeat(other.id, id)
                break
        return ended

    def _held(self, id: str, repeats: bool, turn: Turn) -> tuple[Turn, bool] | None:
        """What stood in the place of a fact when `turn` was said, and whether `turn` repeats that; None if it is gone.

        So whoever moves to Rome and back again lives where they lived before.
        """
        own: set[str | None] = {turn.id, turn.repeats, *(other.id for other in self._chain(turn))}
        found = next(iter(self._firsts([id])), None)
        if found is None:
            return None
        for later in self._chain(found):
            if later.position > turn.position or later.id in own:
                break
            found, repeats = later, same(later, turn)
        return None if found.id in own else (found, repeats)

    def _chain(self, turn: Turn) -> Iterator[Turn]:
        """What superseded a fact, and that one, and so on."""
        seen = {turn.id}
        while turn.superseded_by is not None and turn.superseded_by not in seen:
            following = self._store.turns([turn.superseded_by])
            if not following:
                return
            turn = following[0]
            seen.add(turn.id)
            yield turn

    def _find(self, id: str) -> Turn:
        return self._store.turns([id])[0]

    def _left(self) -> list[list[Turn]]:
        """For each fact those that it is to be compared with: stored ones that are near, and new ones before it.

        One that was said before in the same words repeats that, without being asked about.
        """
        words = [set(terms(turn.text)) - COMMON for turn in self.turns]
        left, told = list[list[Turn]](), set[int]()
        for index, turn in enumerate(self.turns):
            beside = [self.turns[at] for at in range(index) if at not in told and words[at] & words[index]]
            near = [*self._near(index), *beside]
            alike = [other.id for other in near if same(other, turn)]
            self._repeats[index].update(dict.fromkeys(alike, True))
            if any(other.position <= turn.position for other in near if other.id in alike):
                told.add(index)
                left.append([])
            else:
                left.append([t for t in near if t.id not in alike and t.id not in self._compared[index]])
        return left

    def _near(self, index: int) -> list[Turn]:
        """The stored facts that are nearest to one, of those that held when it was said, or came later."""
        turn, most = self.turns[index], _SEARCHED
        while True:
            near = [hit.id for hit in self._store.lexical(turn.text, most, turn.conversation, "fact")]
            more = len(near) == most
            if self._vectors is not None and self._store.dimensions is not None:
                dense = self._store.dense(self._vectors[index], most, turn.conversation, "fact")
                more |= len(dense) == most
                near = list(_in_turns(near, [hit.id for hit in dense]))
            found = self._firsts(near)
            until = self._store.turns([other.superseded_by for other in found if other.superseded_by is not None])
            late = {other.id for other in until if other.position > turn.position}
            open_ = [other for other in found if other.superseded_by is None or other.superseded_by in late]
            if len(open_) >= _NEAR or not more or most >= _WIDEST:
                return open_[:_NEAR]
            most *= _WIDER

    def _firsts(self, ids: Sequence[str]) -> list[Turn]:
        """Stored facts, each standing also for what repeats it."""
        found = self._store.turns(ids)
        firsts = {turn.id: turn for turn in self._store.turns([turn.repeats for turn in found if turn.repeats])}
        return list({first.id: first for turn in found for first in [firsts.get(turn.repeats or "", turn)]}.values())


def _in_turns(first: Sequence[str], second: Sequence[str]) -> Iterator[str]:
    """The ids of two lists, alternating, each once."""
    lists = [[*first], [*second]]
    seen = set[str]()
    for place in range(max(map(len, lists))):
        for ids in lists:
            if place < len(ids) and ids[place] not in seen:
                seen.add(ids[place])
                yield ids[place]
