"""Summaries and facts, written by a model: session by session, each piece whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ramet.memory.base import Kind, MemoryStoreError, Store, Turn, Vector
from ramet.memory.derive.facts import NewFacts
from ramet.memory.derive.notes import Fact, Model, ModelError, ReplyError, TooLongError, notes
from ramet.memory.derive.pieces import PIECE, Piece, derived_id, pieces, size_of
from ramet.memory.embed import Embedder
from ramet.memory.entities import entities
from ramet.memory.words import indexed_text

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
    """Facts that the memory has. From other turns they are stored, too, behind the first."""
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
        known, turns = [fact for fact, _ in facts.values()], [turn for _, turn in facts.values()]
        new, stored = NewFacts(self._store, known, turns, None if vectors is None else vectors[1:]), False
        while not stored:  # again only if another process has stored facts that are near: somebody gets on
            new.compare(self._model)
            with self._store.writing():
                if not self._unchanged(piece):
                    return False
                if stored := new.is_compared():
                    if piece.summary is not None:
                        self._store.delete([piece.summary.id])
                    kept = new.kept()
                    rows = None if vectors is None else vectors[[0, *(1 + index for index in kept)]]
                    self._store.add([summary, *(turns[index] for index in kept)], rows)
                    again, superseded = new.place(kept)
        self.done.summaries += 1
        self.done.facts += len(kept) - again
        self.done.superseded += superseded
        self.done.repeated += made.known + repeated + len(turns) - len(kept) + again
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
