"""Which turns of a session have no summary yet, in pieces that a model can read at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ramet.memory.base import Index, Kind, Turn
from ramet.memory.derive.notes import turn_line

PIECE = 12_000
"""Characters of turns that are shown at once, as they are shown: about 3,000 tokens."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Turns of one session, in order, that are dealt with together."""

    known: tuple[Turn, ...]
    """Turns that have a summary, and are the beginning of this piece."""
    new: tuple[Turn, ...]
    """Turns that have none; at least one."""
    summary: Turn | None
    """The summary of `known`, of which this piece's takes the place."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All of them."""
        return self.known + self.new


def pieces(index: Index, conversation: str, session: str, limit: int = PIECE) -> list[Piece]:
    """The pieces of a session that have no summary yet, each of at most `limit` characters, or one turn.

    Turns that come right behind a summary which we wrote, and from which nothing else was derived, are put to its turns
    as long as both together are within the limit: that summary is then written anew.
    """
    turns = index.session_turns(conversation, session)
    derived = index.derived([turn.id for turn in turns])
    named = list(dict.fromkeys(id for ids in derived.values() for id in ids))
    summaries = {turn.id: turn for turn in index.turns(named) if turn.kind == "summary"}
    fixed = set(index.derived(list(summaries)))
    covered: dict[str, Turn] = {}
    for turn in turns:
        for id in derived.get(turn.id, ()):
            if id in summaries:
                covered[turn.id] = summaries[id]
    place = {turn.id: turn for turn in turns}

    found: list[Piece] = []
    before: Turn | None = None
    known: tuple[Turn, ...] = ()
    new: list[Turn] = []
    size = 0
    for turn in turns:
        if turn.id in covered:
            if new:
                found.append(Piece(known, tuple(new), before if known else None))
            before, known, new, size = covered[turn.id], (), [], 0
            continue
        own = len(turn_line("t00", turn))
        if not new and before is not None and before.id not in fixed and before.id == summary_id(before):
            known = tuple(place[id] for id in before.sources if id in place)
            size = sum(len(turn_line("t00", each, known=True)) for each in known)
            if len(known) < len(before.sources) or size + own > limit:
                known, size = (), 0
        if new and size + own > limit:
            found.append(Piece(known, tuple(new), before if known else None))
            before, known, new, size = None, (), [], 0
        new.append(turn)
        size += own
    if new:
        found.append(Piece(known, tuple(new), before if known else None))
    return found


def size_of(piece: Piece) -> int:
    """Characters of a piece, as they are shown."""
    return sum(len(turn_line("t00", turn)) for turn in piece.turns)


def derived_id(kind: Kind, conversation: str, sources: Sequence[str], text: str) -> str:
    """The id of something derived: the same for the same words from the same turns."""
    whole = "\0".join([kind, conversation, *sources, text])
    return f"{kind[0]}_{blake2b(whole.encode(), digest_size=12).hexdigest()}"


def summary_id(turn: Turn) -> str:
    """The id that a summary has if it was written here, and not imported under another."""
    return derived_id(turn.kind, turn.conversation, turn.sources, turn.text)
