"""HyMem (arXiv 2602.13933), whole, over any index: summaries linked to raw sessions, a light path and a deep one.

Summaries that a model wrote are used where a conversation has some. Where it has none, the sentence of each exchange
that says most stands for it, which needs no model; such summaries are made for reading and never stored.
`Memory.recall` does not use any of this: docs/memory.md has both in one table.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ramet.memory.base import Hit, Index, Question, Store, Turn
from ramet.memory.embed import Embedder
from ramet.memory.recall.episodes import pages
from ramet.memory.recall.fusion import DEFAULT, Weights, ranked
from ramet.memory.recall.question import COMMON
from ramet.memory.recall.schedule import breadth
from ramet.memory.recall.signals import pool
from ramet.memory.words import indexed_text, terms

Judge = Callable[[str, Sequence[Turn]], bool]
"""Whether these summaries suffice to answer a question: a language model, where there is one."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LONGEST = 30
"""Words of a summary."""
_LIGHT, _DEEP, _SESSIONS = 12, 30, 2
"""Summaries on the light path (10 to 15 in the paper) and on the deep one; sessions that the deep one reads."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read for a question: summaries, or, on the deep path, whole sessions."""

    deep: bool
    turns: list[Turn]
    breadth: float
    """How evenly the scores of the summaries are spread (`schedule.breadth`)."""


class HyMem:
    """The summaries of a conversation as it was read; turns that are forgotten or said later are not seen."""

    def __init__(self, index: Index, conversation: str, scratch: Store, embedder: Embedder | None) -> None:
        """`scratch`: an empty store that keeps the summaries for this reader, such as `SqliteStore(None)`."""
        self.index, self.conversation, self._store = index, conversation, scratch
        found = list(summaries(index, conversation))
        self._summaries = {turn.id: turn for turn in found}
        spoken = [replace(turn, kind="said", sources=()) for turn in found]
        scratch.add(spoken, embedder.embed([indexed_text(turn) for turn in spoken]) if embedder and spoken else None)

    def ranked(self, question: Question, k: int, weights: Weights = DEFAULT) -> list[tuple[Turn, float]]:
        """The `k` summaries that say most about a question, best first, with their shares of the score."""
        found = pool(self._store, question)
        hits = ranked(found, k, weights)
        return [(self._summaries[hit.id], hit.score) for hit in hits]

    def read(
        self, question: Question, limit: float = math.inf, judge: Judge | None = None, weights: Weights = DEFAULT
    ) -> Reading:
        """The light path, or the deep one where the light one does not suffice.

        That is for `judge` to say; without one it does not where the scores' breadth is over `limit`, which
        `schedule.threshold` takes from past questions, with no answer known.
        """
        found = self.ranked(question, _DEEP, weights)
        spread = breadth([Hit(summary.id, score) for summary, score in found])
        light = [summary for summary, _ in found[:_LIGHT]]
        if judge(question.text, light) if judge is not None else spread <= limit:
            return Reading(False, light, spread)
        worth = dict[str, float]()
        for summary, score in found:
            worth[summary.session] = worth.get(summary.session, 0.0) + score
        sessions = sorted(worth, key=lambda session: -worth[session])[:_SESSIONS]
        turns = [turn for session in sessions for turn in self.index.session_turns(self.conversation, session)]
        return Reading(True, turns, spread)


def summaries(index: Index, conversation: str) -> Iterator[Turn]:
    """The summaries of a conversation, by session: those that are stored, and a sentence of each other exchange."""
    said = {session: index.session_turns(conversation, session) for session in index.sessions(conversation)}
    rarity = _rarity(turn.text for turns in said.values() for turn in turns)
    given = set[str]()
    for session, turns in said.items():
        place = {turn.id: turn.position for turn in turns}
        written = [id for ids in index.derived(list(place)).values() for id in ids]
        stored = [turn for turn in index.turns(list(dict.fromkeys(written))) if turn.kind == "summary"]
        for turn in stored:
            if turn.id not in given:
                given.add(turn.id)
                yield replace(turn, session=session, position=min(place.get(s, turn.position) for s in turn.sources))
        told = {source for turn in stored for source in turn.sources}
        for page in pages(turns, np.zeros((len(turns), 1), np.float32)):
            if any(turn.id in told for turn in page.turns):
                continue
            turn, sentence = max(
                ((turn, sentence) for turn in page.turns for sentence in _SENTENCE.split(turn.text)),
                key=lambda pair: _said(pair[1], rarity),
            )
            text = " ".join(sentence.split()[:_LONGEST])
            yield replace(turn, id=f"s_{turn.id}", text=text or turn.text, kind="summary", sources=(turn.id,))


def _rarity(texts: Iterable[str]) -> dict[str, float]:
    """Inverse document frequency of each term of a conversation, without common words."""
    known, count = Counter[str](), 0
    for text in texts:
        known.update(set(terms(text)) - COMMON)
        count += 1
    return {term: math.log(1 + (count - n + 0.5) / (n + 0.5)) for term, n in known.items()}


def _said(sentence: str, rarity: dict[str, float]) -> float:
    """How much a sentence says: the rarity of its first words' terms, each once; a question says less than it asks."""
    told = sum(rarity.get(term, 0.0) for term in set(terms(" ".join(sentence.split()[:_LONGEST]))))
    return told / 2 if sentence.rstrip().endswith("?") else told
