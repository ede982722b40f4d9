"""Soft fusion: each candidate's score is a weighted sum of signals; a structure of memory is a choice of weights.

Linear memory (FluxMem, arXiv 2602.14038) lends a turn the scores of its neighbours, hierarchical memory those of its
session, and a graph those of the turns most like it. Only candidates are looked at, never the whole store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Hit, Index, Question, Turn

_POOL = 150
"""Candidates that each search gives."""
_SEEDS = 10
"""Best candidates that lend their scores to turns like them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal counts: round numbers set by hand; the speaker's is the best of three tried on LoCoMo."""

    lexical: float = 1.0
    dense: float = 1.0
    before: float = 0.0
    """The turn before it in its session."""
    after: float = 0.0
    session: float = 0.0
    """Mean of the session's best three."""
    graph: float = 0.0
    """Similarity to the best candidates."""
    speaker: float = 0.0
    """It was said by the one speaker whom the question names."""


SIGNALS = tuple(field.name for field in fields(Weights))
LINEAR = Weights(before=0.5, after=0.5)
HIERARCHICAL = Weights(session=0.5)
GRAPH = Weights(graph=0.5)
DEFAULT = Weights(before=0.5, after=0.5, session=0.25, graph=0.25, speaker=1.5)


def recall(index: Index, question: Question, k: int, weights: Weights = DEFAULT) -> list[Hit]:
    """The `k` turns of `index` with the highest weighted sums of signals, best first."""
    return ranked(*signals(index, question), k, weights)


def ranked(ids: Sequence[str], values: NDArray[np.float32], k: int, weights: Weights = DEFAULT) -> list[Hit]:
    """The `k` best of the candidates `ids` by the weighted sums of their signals, float32 [ids, len(SIGNALS)]."""
    scores = values @ np.array(astuple(weights), np.float32)
    return [Hit(ids[at], float(scores[at])) for at in np.argsort(-scores, kind="stable")[:k]]


def signals(index: Index, question: Question) -> tuple[list[str], NDArray[np.float32]]:
    """The candidates' ids and their signals, float32 [candidates, len(SIGNALS)], in the order of `SIGNALS`.

    Candidates are the best of both searches and the turns beside them. `lexical` and `dense` are z-scores over the
    candidates; one that the lexical search did not give counts 0 there before scaling.
    """
    lexical = {hit.id: hit.score for hit in index.lexical(question.text, _POOL, question.conversation)}
    dense = list[Hit]()
    if question.vector is not None:
        dense = index.dense(question.vector, _POOL, question.conversation)
    found = list(dict.fromkeys([*lexical, *(hit.id for hit in dense)]))
    around = index.around(found, 1)
    turns = index.turns(list(dict.fromkeys([*found, *(id for ids in around.values() for id in ids)])))
    if not turns:
        return [], np.zeros((0, len(SIGNALS)), np.float32)
    ids = [turn.id for turn in turns]
    at = {id: row for row, id in enumerate(ids)}
    words = _scaled(np.array([lexical.get(id, 0.0) for id in ids], np.float32))
    vectors = index.vectors(ids)
    if question.vector is not None and vectors.shape[1]:
        meaning = _scaled(vectors @ (question.vector / max(float(np.linalg.norm(question.vector)), 1e-9)))
    else:
        meaning = np.zeros_like(words)
    base = words + meaning
    before, after = np.zeros_like(base), np.zeros_like(base)
    for id, beside in around.items():
        place = beside.index(id) if id in beside else -1
        if place > 0:
            before[at[id]] = base[at[beside[place - 1]]]
            after[at[beside[place - 1]]] = base[at[id]]
        if 0 <= place < len(beside) - 1:
            after[at[id]] = base[at[beside[place + 1]]]
            before[at[beside[place + 1]]] = base[at[id]]
    columns = [words, meaning, before, after, _sessions(turns, base), _alike(vectors, base)]
    return ids, np.stack([*columns, _speakers(question.text, turns)], 1).astype(np.float32)


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((values - values.mean()) / (values.std() + np.float32(1e-6)))


def _sessions(turns: Sequence[Turn], base: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each candidate the mean of the three best of its session, [candidates]."""
    members: dict[tuple[str, str], list[int]] = {}
    for row, turn in enumerate(turns):
        members.setdefault((turn.conversation, turn.session), []).append(row)
    scores = np.zeros_like(base)
    for rows in members.values():
        scores[rows] = np.sort(base[rows])[-3:].mean()
    return scores


def _alike(vectors: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float32]:
    """z-scores of the similarity to the best candidates, each counting by its own score, [candidates]."""
    if not vectors.shape[1]:
        return np.zeros_like(base)
    seeds = np.argsort(-base, kind="stable")[:_SEEDS]
    share = np.exp((base[seeds] - base[seeds[0]]) / 2)
    return _scaled(vectors @ (vectors[seeds].T @ (share / share.sum())))


def _speakers(text: str, turns: Sequence[Turn]) -> NDArray[np.float32]:
    """1 for the turns of the one speaker whom the question names; zeros where it names none or several."""
    asked = set(re.findall(r"\w+", text.casefold()))
    named = {t.speaker for t in turns if t.speaker and set(re.findall(r"\w+", t.speaker.casefold())) & asked}
    return np.array([len(named) == 1 and turn.speaker in named for turn in turns], np.float32)
