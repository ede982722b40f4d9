"""Summaries and facts, written by a model: session by session, each piece whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ramet.memory.base import Kind, MemoryStoreError, Store, Turn, Vector
from ramet.memory.derive.notes import Change, Fact, Model, ModelError, ReplyError, TooLongError, changes, notes
from ramet.memory.derive.pieces import PIECE, Piece, derived_id, pieces, size_of
from ramet.memory.embed import Embedder
from ramet.memory.entities import entities
from ramet.memory.recall.question import COMMON
from ramet.memory.words import indexed_text, terms

_NEAR = 5
"""Stored facts that are offered for each new one."""
_SEARCHED = 20
_GIVE_UP = 10
"""Sessions one after the other for which a model's replies are of no use."""

_WORD = re.compile(r"\w+")

Progress = Callable[[int, int, str], None]
"""Told how many sessions are done, of how many that have something new, and which is next."""


@dataclass
class Derived:
    """What was written, and what was not."""

    summaries: int = 0
    facts: int = 0
    superseded: int = 0
    """Facts that a newer one took the place of; both are kept."""
    repeated: int = 0
    """Facts that were not stored, because the memory has them."""
    unsourced: int = 0
    """Facts that were not stored, because they name no turn that tells them."""
    failed: list[str] = field(default_factory=list)
    """Why pieces were left out, each with its conversation and session. The next run tries them again."""


def derive(
    store: Store,
    embedder: Embedder | None,
    model: Model,
    conversation: str | None = None,
    progress: Progress | None = None,
) -> Derived:
    """`Memory.derive`."""
    if conversation is not None and not store.count(conversation):
        raise MemoryStoreError(f"the memory has no conversation {conversation!r}")
    sessions = store.without_summary(conversation)
    writer, unusable = _Writer(store, embedder, model), 0
    for done, (name, session) in enumerate(sessions):
        where = " · ".join(part for part in (name, session) if part)
        if progress is not None:
            progress(done, len(sessions), where)
        written, failed = writer.done.summaries, len(writer.done.failed)
        writer.session(name, session, where)
        if writer.done.summaries > written:
            unusable = 0
        elif len(writer.done.failed) > failed:
            unusable += 1
        if unusable == _GIVE_UP:
            raise ModelError(
                f"nothing that the model replied for {_GIVE_UP} sessions in a row could be used; the last: "
                f"{writer.done.failed[-1]}. Try another model"
            )
    if progress is not None:
        progress(len(sessions), len(sessions), "")
    return writer.done


class _Writer:
    """Asks a model about pieces and stores what comes of it. Nothing is locked while the model thinks."""

    def __init__(self, store: Store, embedder: Embedder | None, model: Model) -> None:
        self.done = Derived()
        self._store, self._embedder, self._model = store, embedder, model

    def session(self, conversation: str, session: str, where: str) -> None:
        """Deal with all pieces of a session that have no summary."""
        left_out, limit = set[str](), PIECE
        again = True
        while again:
            again = False
            for piece in pieces(self._store, conversation, session, limit):
                if any(turn.id in left_out for turn in piece.new):
                    continue
                try:
                    again = not self._write(piece)
                except TooLongError as error:
                    again = len(piece.turns) > 1
                    if again:
                        limit = min(limit, size_of(piece)) // 2
                    else:
                        self._leave_out(piece, where, error, left_out)
                except ReplyError as error:
                    self._leave_out(piece, where, error, left_out)
                if again:
                    break

    def _leave_out(self, piece: Piece, where: str, error: ReplyError, left_out: set[str]) -> None:
        left_out.update(turn.id for turn in piece.new)
        self.done.failed.append(f"{where}, from {piece.new[0].id!r} on: {error}")

    def _write(self, piece: Piece) -> bool:
        """Have a piece written about, and store that; False if the memory has changed meanwhile: nothing is stored."""
        made = notes(self._model, piece.known, piece.new)
        summary = _derived("summary", made.summary, piece.turns, None)
        facts, repeated = dict[str, tuple[Fact, Turn]](), 0
        for fact in made.facts:
            sources = _completed(fact, piece.turns)
            turn = _derived("fact", fact.text, sources, fact.since)
            repeated += turn.id in facts
            facts.setdefault(turn.id, (Fact(fact.text, sources, fact.since), turn))
        vectors = self._embed([summary, *(turn for _, turn in facts.values())])
        new = _New(self._store, [fact for fact, _ in facts.values()], [turn for _, turn in facts.values()])
        new.find_near(None if vectors is None else vectors[1:])
        new.compare(self._model)

        with self._store.writing():
            if not self._unchanged(piece):
                return False
            if piece.summary is not None:
                self._store.delete([piece.summary.id])
            kept = new.kept()
            chosen = [0, *(1 + index for index in kept)]
            self._store.add(
                [summary, *(new.turns[index] for index in kept)], None if vectors is None else vectors[chosen]
            )
            superseded = new.supersede(kept)
        self.done.summaries += 1
        self.done.facts += len(kept)
        self.done.superseded += superseded
        self.done.repeated += made.known + repeated + len(new.turns) - len(kept)
        self.done.unsourced += made.unsourced
        return True

    def _unchanged(self, piece: Piece) -> bool:
        """Whether no turn of a piece was forgotten, and nobody else has dealt with it."""
        ids = [turn.id for turn in piece.turns]
        if len(self._store.turns(ids)) < len(ids):
            return False
        derived = self._store.derived([turn.id for turn in piece.new])
        found = self._store.turns([id for ids in derived.values() for id in ids])
        if any(turn.kind == "summary" for turn in found):
            return False
        return piece.summary is None or self._store.turns([piece.summary.id]) == [piece.summary]

    def _embed(self, turns: Sequence[Turn]) -> Vector | None:
        return None if self._embedder is None else self._embedder.embed([indexed_text(turn) for turn in turns])


class _New:
    """The new facts of a piece, and how they stand to those that hold already and to each other."""

    def __init__(self, store: Store, facts: Sequence[Fact], turns: Sequence[Turn]) -> None:
        self.facts, self.turns = facts, turns
        self._store = store
        self._others: list[Turn] = []
        self._near: list[list[int]] = []
        self._changes: list[Change] = []

    def find_near(self, vectors: Vector | None) -> None:
        """Find for each fact the stored facts that are nearest, and the earlier new ones that share a word with it."""
        place: dict[str, int] = {}
        found: list[list[str]] = []
        for index, turn in enumerate(self.turns):
            near = [hit.id for hit in self._store.lexical(turn.text, _SEARCHED, turn.conversation, "fact")]
            if vectors is not None and self._store.dimensions is not None:
                dense = self._store.dense(vectors[index], _SEARCHED, turn.conversation, "fact")
                near = list(_in_turns(near, [hit.id for hit in dense]))
            holding = [other for other in self._store.turns(near) if other.superseded_by is None]
            for other in holding[:_NEAR]:
                if other.id not in place:
                    place[other.id] = len(place)
                    self._others.append(other)
            found.append([other.id for other in holding[:_NEAR]])
        words = [set(terms(turn.text)) - COMMON for turn in self.turns]
        for index, ids in enumerate(found):
            beside = [len(place) + other for other in range(index) if words[other] & words[index]]
            self._near.append([*(place[id] for id in ids), *beside])

    def compare(self, model: Model) -> None:
        """Ask which facts replace or repeat another. Those in the same words repeat it without being asked about."""
        every = [*self._others, *self.turns]
        for index, turn in enumerate(self.turns):
            same = [at for at in self._near[index] if _plain(every[at].text) == _plain(turn.text)]
            if same:
                self._changes.append(Change(index, True, same[0]))
        known = {change.fact for change in self._changes}
        asked = [
            [] if index in known else [at for at in near if at - len(self._others) not in known]
            for index, near in enumerate(self._near)
        ]
        if any(asked):
            self._changes += changes(model, self.facts, self._others, asked)
        self._settle()

    def _settle(self) -> None:
        """Where another new fact has replaced what a fact replaces or repeats, it takes the place of that one.

        So whoever moves to Rome and back again lives where they lived before.
        """
        every, replaced = [*self._others, *self.turns], dict[int, int]()
        settled = []
        for change in sorted(self._changes, key=lambda change: change.fact):
            own, other = len(self._others) + change.fact, change.other
            while other in replaced:
                other = replaced[other]
            if other == own:
                continue
            same = _plain(every[other].text) == _plain(every[own].text)
            now = change if other == change.other else Change(change.fact, same, other)
            if not now.repeats and every[other].position <= every[own].position:
                replaced[other] = own
            settled.append(now)
        self._changes = settled

    def kept(self) -> list[int]:
        """Indices of the facts that are to be stored: those that repeat nothing. Inside a transaction."""
        stored = {turn.id for turn in self._store.turns([turn.id for turn in (*self._others, *self.turns)])}
        repeating = {
            change.fact
            for change in self._changes
            if change.repeats and (change.other >= len(self._others) or self._others[change.other].id in stored)
        }
        return [index for index, turn in enumerate(self.turns) if turn.id not in stored and index not in repeating]

    def supersede(self, kept: Sequence[int]) -> int:
        """Of each two facts that cannot both hold, end the earlier; how many were ended. Inside a transaction."""
        ended = 0
        every = [*self._others, *self.turns]
        for change in self._changes:
            if change.repeats or change.fact not in kept:
                continue
            pair = self._store.turns([every[change.other].id, self.turns[change.fact].id])
            if len(pair) < 2:
                continue  # the other one repeats a third, or was forgotten meanwhile
            earlier, later = sorted(pair, key=lambda turn: turn.position)
            if earlier.superseded_by is None:
                self._store.supersede(earlier.id, later.id, _end(earlier, later))
                ended += 1
        return ended


def _derived(kind: Kind, text: str, sources: Sequence[Turn], since: datetime | None) -> Turn:
    """A turn that was derived, placed and dated as the last of its sources."""
    last = sources[-1]
    time = next((turn.time for turn in reversed(sources) if turn.time is not None), None)
    ids = tuple(turn.id for turn in sources)
    return Turn(
        derived_id(kind, last.conversation, ids, text), last.conversation, last.session, last.position, "", text, time,
        kind=kind, sources=ids, valid_from=(since or time) if kind == "fact" else None,
    )  # fmt: skip


def _completed(fact: Fact, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The sources of a fact, and the turns whose names or numbers it uses and that the model did not mention.

    So that, whatever a model says of its sources, a name that is forgotten is in no fact any more.
    """
    said = {word for entity in entities(fact.text) for word in entity.split()}
    for turn in fact.sources:
        said -= _mentions(turn)
    return tuple(turn for turn in turns if turn in fact.sources or said & _mentions(turn))


def _mentions(turn: Turn) -> set[str]:
    """The words of a turn, and the dates and other entities in it."""
    return {*_WORD.findall(f"{turn.speaker} {turn.text}".casefold()), *entities(turn.text, turn.time)}


def _plain(text: str) -> str:
    return text.casefold().rstrip(".!")


def _end(earlier: Turn, later: Turn) -> datetime | None:
    """When the earlier fact ended: when the later began, or was said, but not before its own beginning."""
    begun = earlier.valid_from
    for time in (later.valid_from, later.time):
        if time is not None and (begun is None or time.replace(tzinfo=None) >= begun.replace(tzinfo=None)):
            return time
    return None


def _in_turns(first: Sequence[str], second: Sequence[str]) -> Iterator[str]:
    """The ids of two lists, alternating, each once."""
    lists = [[*first], [*second]]
    seen = set[str]()
    for place in range(max(map(len, lists))):
        for ids in lists:
            if place < len(ids) and ids[place] not in seen:
                seen.add(ids[place])
                yield ids[place]
