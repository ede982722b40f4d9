"""The words of memory: what is kept (`Turn`), how it is asked (`Index`) and how it is written (`Store`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from ramet.errors import RametError

Kind = Literal["said", "summary", "fact"]
"""`said`: a turn as it was spoken; the others were derived from turns by a model."""

KINDS: tuple[Kind, ...] = ("said", "summary", "fact")

Vector = NDArray[np.float32]


class MemoryStoreError(RametError):
    """A memory cannot be opened, read or written as asked."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that is remembered. Immutable, but for how a fact stands to others: its last three fields."""

    id: str
    """Stable and unique in the store."""
    conversation: str
    session: str
    """One sitting of the conversation; may be empty."""
    position: int
    """Order within the conversation, over all its sessions."""
    speaker: str
    text: str
    time: datetime | None = None
    """When it was said, by the conversation's own clock; None where that is not known. Never the time of writing."""
    node: str | None = None
    """The node of the session tree that it is, if it is one."""
    kind: Kind = "said"
    sources: tuple[str, ...] = ()
    """Ids of the turns that it was derived from; empty for what was said."""
    valid_from: datetime | None = None
    """Facts: since when it holds, by the conversation's clock."""
    valid_to: datetime | None = None
    """Facts: until when it held; None while it does."""
    superseded_by: str | None = None
    """Facts: the id of the fact that took its place."""
    repeats: str | None = None
    """Facts: the id of the one that said the same before and stands for this one; both end at once."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn that was found. Scores compare within one answer only."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a memory."""

    text: str
    vector: Vector | None = None
    """The text's embedding, float32 [d] of unit length; None where there is no embedder."""
    conversation: str | None = None
    """Ask inside this conversation only; None: all of them."""
    time: datetime | None = None
    """When it is asked, by the conversation's clock; what 'last week' counts from."""


class Turns(Sequence[Turn]):
    """Turns that are made when they are first asked for."""

    def __init__(self, make: Callable[[int], Turn], places: Sequence[int]) -> None:
        """`make(place)` gives a turn; these are the turns of `places`."""
        self._make, self._places = make, places
        self._made: dict[int, Turn] = {}

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Turn: ...

    @overload
    def __getitem__(self, at: slice) -> list[Turn]: ...

    def __getitem__(self, at: int | slice) -> Turn | list[Turn]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        place = self._places[at]
        if place not in self._made:
            self._made[place] = self._make(place)
        return self._made[place]


@dataclass(frozen=True, slots=True)
class Survey:
    """The turns that were found for a question, and those beside them. Everything is by these turns, in one order."""

    ids: list[str]
    """First of what a search gave, best first, the search by words before the other one; then of what is beside it."""
    texts: list[str]
    speakers: list[str]
    positions: NDArray[np.int64]
    sessions: NDArray[np.intp]
    """Numbers from 0 on, the same for turns of the same session of the same conversation."""
    turns: Sequence[Turn]
    """All of each of them."""
    found: int
    """How many the searches gave. The others were said just before or just after one of these, in its session."""
    before: NDArray[np.intp]
    """Which of the turns was said just before each; -1 for none, and where neither of the two was found."""
    lexical: Vector
    """BM25, 0 for a turn that the search by words did not give."""
    lengths: Vector
    """How many terms the text has (without date and speaker)."""
    frequencies: Vector
    """[turns, terms]: how often the text has each of the terms that were to be counted."""
    vectors: Vector
    """[turns, dimensions], as `Index.vectors` has them; [turns, 0] where the question has no vector."""


class Index(Protocol):
    """The read side of a store. Nothing here walks over all turns in Python.

    `conversation=None` means all conversations, `kind=None` all kinds. Answers come best first; fewer than `k` where
    there are no more. Equal scores are in the order of writing.
    """

    @property
    def dimensions(self) -> int | None:
        """Length of the stored vectors; None while there are none."""

    @property
    def version(self) -> str:
        """Another one whenever turns were added or removed."""

    def lexical(self, query: str, k: int, conversation: str | None = None, kind: Kind | None = None) -> list[Hit]:
        """The `k` turns with the highest BM25 (k1 = 1.2, b = 0.75) over `words.indexed_text`, scores > 0.

        Inside a conversation the document frequencies are that conversation's own.
        """

    def dense(self, vector: Vector, k: int, conversation: str | None = None, kind: Kind | None = None) -> list[Hit]:
        """The `k` turns with the highest cosine to `vector` (float32 [dimensions], any length); scores in [-1, 1].

        Raises MemoryStoreError if the length of `vector` is not that of the stored ones. Empty where none are stored.
        """

    def mentioning(
        self, entities: Sequence[str], k: int, conversation: str | None = None, kind: Kind | None = None
    ) -> list[Hit]:
        """The `k` turns that mention most of `entities` (as `words.entities` writes them); score: sum of their idf."""

    def survey(
        self, words: str, vector: Vector | None, k: int, conversation: str | None, counted: Sequence[str]
    ) -> Survey:
        """What the searches for `words` and near `vector` (if given) give, `k` each, and the turns beside it, at once.

        `counted`: index terms that are counted in every text. Raises MemoryStoreError as `dense` does.
        """

    def turns(self, ids: Sequence[str]) -> list[Turn]:
        """The turns of `ids` in that order; ids that are not stored are left out."""

    def around(self, ids: Sequence[str], radius: int) -> dict[str, list[str]]:
        """For each stored id the ids of the said turns at most `radius` places from it in its session, in order.

        The turn itself is among them if it was said. Something derived has no place, so nothing is around it.
        """

    def session_turns(self, conversation: str, session: str) -> list[Turn]:
        """What was said in a session, in order."""

    def sessions(self, conversation: str) -> list[str]:
        """The sessions in which something was said, in the order of their first turns."""

    def without_summary(self, conversation: str | None = None) -> list[tuple[str, str]]:
        """The sessions, as (conversation, session), in which something was said that no summary names.

        Conversations by name, sessions in the order of their first such turns.
        """

    def conversations(self) -> list[str]:
        """All conversations, by name."""

    def ids(self, conversation: str) -> list[str]:
        """All of a conversation, what was derived included, in the order of writing."""

    def derived(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """For each id that something was derived from directly: the ids of what was."""

    def vectors(self, ids: Sequence[str]) -> Vector:
        """float32 [len(ids), dimensions], unit length; zeros for a turn without a vector. [len(ids), 0] without any."""

    def entities(self, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """For each stored id the entities that it mentions, in order of mention."""

    def count(self, conversation: str | None = None, kind: Kind | None = None) -> int:
        """How many turns are stored."""

    def repeated(self) -> int:
        """How many of the facts stand behind another that says the same."""


class Store(Index, Protocol):
    """An index that can be written. Every method is one transaction: whole or absent, durable when it returns.

    Several processes may use one store at once; a writer waits for another and never sees an error because of it.
    """

    def add(self, turns: Sequence[Turn], vectors: Vector | None = None) -> int:
        """Store `turns`, with `vectors` (float32 [len(turns), d]) if given. How many of them are new.

        A turn that is stored already as it is given is left alone, but gets its vector if it had none.
        Raises MemoryStoreError if an id is taken by another turn, a source is not stored, or `d` is not the store's.
        """

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Remove turns and all that was derived from any of them, at any remove; the ids that are gone.

        The next fact that repeats one of them takes its place; where there is none, what it had superseded holds again,
        or leads to what superseded it.
        """

    def supersede(self, old: str, new: str, at: datetime | None) -> None:
        """End the fact `old` at `at` (None: not known when) in favour of the fact `new`; both stay.

        What repeats `old`, and was said after `new`, supersedes that in turn. Raises MemoryStoreError if either is not
        a stored fact, or `old` is superseded by one that was said no later than `new`.
        """

    def repeat(self, id: str, first: str) -> None:
        """Let the fact `id` stand behind the fact `first`, which says the same and was said before; both stay.

        What stood behind `id`, or was superseded by it, now does so by `first`; but if some of that was said after
        `first`, it supersedes `first` instead; and where what ended `first` was said before `id`, `id` stands alone and
        supersedes that. Raises MemoryStoreError if either is not a stored fact, or `id` repeats
        one already.
        """

    def end(self, conversation: str) -> int:
        """One more than the highest position in a conversation; 0 if there is none."""

    def scan(self, conversation: str | None = None) -> Iterator[tuple[Turn, Vector | None]]:
        """Every turn with its vector, in the order of writing (sources before what was derived from them).

        What is added meanwhile is not among them.
        """

    def note(self, key: str, value: str | None = None) -> str | None:
        """A small setting of the store (such as its embedder's name): set to `value` if given; what it is then."""

    def writing(self) -> AbstractContextManager[None]:
        """Several writes as one transaction."""

    def close(self) -> None:
        """Let go of the store. Nothing else may be called after."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
