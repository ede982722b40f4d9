"""What speaks for each candidate: the two searches, the words around it, who said it, when, and whom it answers.

Only a pool of candidates is looked at, never the whole store: the best of each search, and the turns beside them.
"""

from __future__ import annotations

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
    counts, lengths = _counts(asked.content, bags), np.array([len(bag) for bag in bags], np.float32)
    places = dict[tuple[str, str], int]()
    session = np.array([places.setdefault((turn.conversation, turn.session), len(places)) for turn in turns])
    base = lexical + dense
    in_window = counts + _beside(counts, before) + _beside(counts, after)
    words = _scaled(_bm25(counts, lengths))
    window = _scaled(_bm25(in_window, lengths + _beside(lengths, before) + _beside(lengths, after)))
    topic = _scaled(_bm25(_summed(counts, session), np.bincount(session, lengths).astype(np.float32))[session])
    mixed = words + dense
    spoken = np.array([asked.speaker is not None and turn.speaker == asked.speaker for turn in turns], np.float32)
    asking = np.array([turn.text.rstrip().endswith("?") for turn in turns], np.float32)
    open_asks = np.array(["?" in turn.text for turn in turns], np.float32)
    earlier, later = _beside(mixed, before), _beside(mixed, after)
    positions = np.array([turn.position for turn in turns])
    first = np.full(len(places), positions.max())
    np.minimum.at(first, session, positions)
    columns = [
        lexical, dense, words, window, earlier, later, _beside(earlier, before) + _beside(later, after),
        _best_of(base, session, 3), _best_of(mixed, session, 1), topic, _alike(vectors, base), (in_window > 0).sum(1),
        spoken, _beside(spoken, before), [asked.dated(turn.time) for turn in turns],
        [asked.when and tells_time(turn.text) for turn in turns],
        asking, _beside(open_asks, before), np.log1p(lengths), 1 / (1 + positions - first[session]),
    ]  # fmt: skip
    return np.stack([np.asarray(column, np.float32) for column in columns], 1)


def _beside(values: Floats, rows: NDArray[np.intp]) -> Floats:
    """The values of the turns beside, `[candidates, ...]`, 0 where there is none."""
    there = (rows >= 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(there, values[rows], np.float32(0))


def _summed(values: Floats, groups: NDArray[np.intp]) -> Floats:
    """The sum of each group's rows, `[groups, ...]`."""
    sums = np.zeros((int(groups.max()) + 1, *values.shape[1:]), np.float32)
    np.add.at(sums, groups, values)
    return sums


def _counts(asked: Sequence[str], texts: Sequence[Sequence[str]]) -> Floats:
    """How often each text has each of the terms asked for, `[texts, terms]`."""
    at = {term: column for column, term in enumerate(asked)}
    counts = np.zeros((len(texts), len(asked)), np.float32)
    for row, text in enumerate(texts):
        for term in text:
            if term in at:
                counts[row, at[term]] += 1
    return counts


def _bm25(counts: Floats, lengths: Floats) -> Floats:
    """BM25 (k1 = 1.2, b = 0.75) of each text by its `counts` of the terms asked for; these texts are the collection."""
    known = (counts > 0).sum(0)
    rarity = np.log1p((len(counts) - known + 0.5) / (known + 0.5))
    norm = 1.2 * (0.25 + 0.75 * lengths / max(float(lengths.mean()), 1.0))
    return np.asarray((rarity * counts * 2.2 / (counts + norm[:, None])).sum(1), np.float32)


def _scaled(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / (values.std() + np.float32(1e-6)))


def _best_of(values: Floats, groups: NDArray[np.intp], best: int) -> Floats:
    """For each candidate the mean of the `best` highest values of its group, [candidates]."""
    order = np.lexsort((-values, groups))
    ordered = groups[order]
    kept = order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < best]
    means = np.bincount(groups[kept], values[kept]) / np.bincount(groups[kept])
    return np.asarray(means[groups], np.float32)


def _alike(vectors: Floats, base: Floats) -> Floats:
    """z-scores of the similarity to the best candidates, each counting by its own score, [candidates]."""
    if not vectors.shape[1]:
        return np.zeros_like(base)
    seeds = np.argsort(-base, kind="stable")[:_SEEDS]
    share = np.exp((base[seeds] - base[seeds[0]]) / 2)
    return _scaled(vectors @ (vectors[seeds].T @ (share / share.sum())))
