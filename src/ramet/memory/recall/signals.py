"""What speaks for each candidate: the two searches, the words around it, who said it, when, and whom it answers.

Only a pool of candidates is looked at, never the whole store: the best of each search, and the turns beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Index, Question, Turn
from ramet.memory.recall.question import COMMON, Asked, tells_time
from ramet.memory.words import terms

Floats = NDArray[np.float32]

_EACH = 150
"""Candidates that each search gives."""
SIGNALS = 20
"""How many there are: one for each field of `fusion.Weights`, in that order."""
_SEEDS = 10
"""Best candidates that lend their scores to turns like them."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates for a question and their signals."""

    turns: list[Turn]
    values: Floats
    """[candidates, signals], in the order of `Weights`."""
    vectors: Floats
    """[candidates, dimensions], unit length; [candidates, 0] without any."""

    @property
    def ids(self) -> list[str]:
        """Of the candidates."""
        return [turn.id for turn in self.turns]


def pool(index: Index, question: Question) -> Pool:
    """The candidates for a question: the best of both searches, and what was said just before and after them.

    A turn that neither search found is one only if it follows a question that one of them did find: its answer.
    """
    lexical = {hit.id: hit.score for hit in index.lexical(_searched(question.text), _EACH, question.conversation)}
    dense = dict[str, float]()
    if question.vector is not None:
        dense = {hit.id: hit.score for hit in index.dense(question.vector, _EACH, question.conversation)}
    found = list(dict.fromkeys([*lexical, *dense]))
    around = index.around(found, 1)
    turns = index.turns(list(dict.fromkeys([*found, *(id for ids in around.values() for id in ids)])))
    if not turns:
        return Pool([], np.zeros((0, SIGNALS), np.float32), np.zeros((0, 0), np.float32))
    vectors = index.vectors([turn.id for turn in turns])
    at = {turn.id: row for row, turn in enumerate(turns)}
    before = np.full(len(turns), -1)
    for beside in around.values():
        for one, other in pairwise(beside):
            before[at[other]] = at[one]
    after = np.full(len(turns), -1)
    after[before[before >= 0]] = np.flatnonzero(before >= 0)
    words = _scaled(np.array([lexical.get(turn.id, 0.0) for turn in turns], np.float32))
    if question.vector is not None and vectors.shape[1]:
        meaning = _scaled(vectors @ (question.vector / max(float(np.linalg.norm(question.vector)), 1e-9)))
    else:
        meaning = np.zeros_like(words)
    values = _values(question, turns, words, meaning, vectors, before, after)
    asks = [turn.text.rstrip().endswith("?") for turn in turns]
    kept = [
        row
        for row, turn in enumerate(turns)
        if turn.id in lexical or turn.id in dense or (before[row] >= 0 and asks[before[row]])
    ]
    return Pool([turns[row] for row in kept], values[kept], vectors[kept])


def _searched(text: str) -> str:
    """A question without its common words, which are slow to look up; whole if it has no other."""
    return " ".join(word for word in text.split() if set(terms(word)) - COMMON) or text


def _values(
    question: Question, turns: Sequence[Turn], lexical: Floats, dense: Floats, vectors: Floats,
    before: NDArray[np.intp], after: NDArray[np.intp],
) -> Floats:  # fmt: skip
    """The signals of every turn, [turns, signals]; `before`, `after`: rows of the turns beside, -1 for none."""
    asked = Asked.read(question.text, {turn.speaker for turn in turns})
    bags = [terms(turn.text) for turn in turns]
    windows = [
        [*(bags[b] if b >= 0 else ()), *bag, *(bags[a] if a >= 0 else ())]
        for bag, b, a in zip(bags, before, after, strict=True)
    ]
    base = lexical + dense
    words, window = (_scaled(_bm25(asked.content, texts)) for texts in (bags, windows))
    mixed = words + dense
    spoken = np.array([asked.speaker is not None and turn.speaker == asked.speaker for turn in turns], np.float32)
    asking = np.array([turn.text.rstrip().endswith("?") for turn in turns], np.float32)
    open_asks = np.array(["?" in turn.text for turn in turns], np.float32)
    session = _sessions(turns, base)
    earlier, later = _beside(mixed, before), _beside(mixed, after)
    places: dict[tuple[str, str], int] = {}
    for turn in turns:
        key = (turn.conversation, turn.session)
        places[key] = min(places.get(key, turn.position), turn.position)
    early = [1 / (1 + turn.position - places[turn.conversation, turn.session]) for turn in turns]
    gathered: dict[tuple[str, str], list[str]] = {}
    for turn, bag in zip(turns, bags, strict=True):
        gathered.setdefault((turn.conversation, turn.session), []).extend(bag)
    score = dict(zip(gathered, _bm25(asked.content, list(gathered.values())), strict=True))
    topic = _scaled(np.array([score[turn.conversation, turn.session] for turn in turns], np.float32))
    covered = [len(set(asked.content) & set(bag)) for bag in windows]
    columns = [
        lexical, dense, words, window, earlier, later, _beside(earlier, before) + _beside(later, after),
        session, _sessions(turns, mixed, 1), topic, _alike(vectors, base), covered,
        spoken, _beside(spoken, before), [asked.dated(turn.time) for turn in turns],
        [asked.when and tells_time(turn.text) for turn in turns],
        asking, _beside(open_asks, before), [math.log1p(len(bag)) for bag in bags], early,
    ]  # fmt: skip
    return np.stack([np.asarray(column, np.float32) for column in columns], 1)


def _beside(values: Floats, rows: NDArray[np.intp]) -> Floats:
    """The values of the turns beside, 0 where there is none."""
    return np.where(rows >= 0, values[rows], np.float32(0))


def _bm25(asked: Sequence[str], texts: Sequence[Sequence[str]]) -> Floats:
    """BM25 (k1 = 1.2, b = 0.75) of each text, with the candidates as the collection."""
    counts = np.array([[text.count(term) for term in asked] for text in texts], np.float32).reshape(len(texts), -1)
    known = (counts > 0).sum(0)
    rarity = np.log1p((len(texts) - known + 0.5) / (known + 0.5))
    lengths = np.array([len(text) for text in texts], np.float32)
    norm = 1.2 * (0.25 + 0.75 * lengths / max(float(lengths.mean()), 1.0))
    return np.asarray((rarity * counts * 2.2 / (counts + norm[:, None])).sum(1), np.float32)


def _scaled(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / (values.std() + np.float32(1e-6)))


def _sessions(turns: Sequence[Turn], base: Floats, best: int = 3) -> Floats:
    """For each candidate the mean of the `best` of its session, [candidates]."""
    members: dict[tuple[str, str], list[int]] = {}
    for row, turn in enumerate(turns):
        members.setdefault((turn.conversation, turn.session), []).append(row)
    scores = np.zeros_like(base)
    for rows in members.values():
        scores[rows] = np.sort(base[rows])[-best:].mean()
    return scores


def _alike(vectors: Floats, base: Floats) -> Floats:
    """z-scores of the similarity to the best candidates, each counting by its own score, [candidates]."""
    if not vectors.shape[1]:
        return np.zeros_like(base)
    seeds = np.argsort(-base, kind="stable")[:_SEEDS]
    share = np.exp((base[seeds] - base[seeds[0]]) / 2)
    return _scaled(vectors @ (vectors[seeds].T @ (share / share.sum())))
