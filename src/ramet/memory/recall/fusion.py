"""Soft fusion: each candidate's score is a weighted sum of signals; a structure of memory is a choice of weights.

Linear memory (FluxMem, arXiv 2602.14038) lends a turn the scores of its neighbours, hierarchical memory those of its
session, and a graph those of the turns most like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Hit
from ramet.memory.recall.chain import chained
from ramet.memory.recall.signals import SIGNALS, Floats, Pool

Example = tuple[Floats, Floats]
"""Signals of the candidates for a question, [candidates, SIGNALS], and the share of its answer that each is."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal counts. z-scores are over the candidates."""

    lexical: float = 0.0
    """z of BM25 in the whole store; 0 before scaling for one that the search did not give."""
    dense: float = 0.0
    """z of the cosine to the question."""
    words: float = 0.0
    """z of BM25 among the candidates, without common words and the names of speakers."""
    window: float = 0.0
    """The same for the turn and those beside it, read as one text."""
    before: float = 0.0
    """`words` + `dense` of the turn before it in its session."""
    after: float = 0.0
    farther: float = 0.0
    """... of the turns two before and two after."""
    session: float = 0.0
    """Mean of its session's best three by `lexical` + `dense`."""
    best: float = 0.0
    """The best of its session by `words` + `dense`."""
    topic: float = 0.0
    """z of BM25 of its session's candidates, read as one text."""
    graph: float = 0.0
    """z of the similarity to the best candidates."""
    covered: float = 0.0
    """How many of the question's content words it and the turns beside it have."""
    speaker: float = 0.0
    """It was said by the one speaker whom the question names."""
    replies: float = 0.0
    """The turn before it was."""
    date: float = 0.0
    """How many of the year, month and day that the question names are those of the turn."""
    time: float = 0.0
    """It speaks of a time, and the question asks for one."""
    asks: float = 0.0
    """It ends with a question."""
    answers: float = 0.0
    """There is a question in the turn before it."""
    length: float = 0.0
    """log(1 + its terms)."""
    early: float = 0.0
    """1 / (1 + turns between it and the first candidate of its session)."""
    own: float = 0.0
    """The one speaker whom the question names speaks of themself in it."""
    names: float = 0.0
    """How many names it tells, at most 3."""
    named: float = 0.0
    """The same, where the question asks for one: who, where, which."""
    number: float = 0.0
    """It has a number, and the question asks how many."""


LEXICAL_AND_DENSE = Weights(lexical=1, dense=1)
LINEAR = Weights(lexical=1, dense=1, before=0.5, after=0.5)
HIERARCHICAL = Weights(lexical=1, dense=1, session=0.5)
GRAPH = Weights(lexical=1, dense=1, graph=0.5)
DEFAULT = Weights(
    lexical=0.5, dense=1, words=0.5, window=0.5, before=0.25, after=0.25, farther=0.25, session=0.25, topic=0.25,
    graph=0.25, speaker=1.5, replies=-0.5, date=1, time=0.5, asks=-0.5, answers=0.5, length=0.5, early=0.5, own=0.5,
    names=0.25, named=0.5, number=0.5,
)  # fmt: skip
"""Round numbers set by hand, not fitted; but set after seeing weights that had been fitted to LoCoMo."""


def scores(found: Pool, weights: Weights = DEFAULT) -> NDArray[np.float64]:
    """How well each candidate fits, [candidates]: the weighted sum of its signals, and what the best lend it."""
    return chained(weighted(found.values, weights), found.vectors)


def ranked(found: Pool, k: int, weights: Weights = DEFAULT) -> list[Hit]:
    """The `k` best candidates, best first, with their shares as `best` has them."""
    return [Hit(found.ids[at], share) for at, share in best(scores(found, weights), k)]


def best(scores: NDArray[np.float64], k: int) -> list[tuple[int, float]]:
    """The `k` best of `scores`, [candidates], and their shares of a softmax over all: above 0, together at most 1."""
    if not len(scores):
        return []
    shares = np.exp(np.maximum(scores - scores.max(), -600))
    shares /= shares.sum()
    order = np.argsort(-scores, kind="stable")[:k]
    return list(zip(order.tolist(), shares[order].tolist(), strict=True))


def weighted(values: Floats, weights: Weights) -> NDArray[np.float64]:
    """The weighted sums of signals, [candidates]."""
    return (values @ np.array(astuple(weights), np.float32)).astype(np.float64)


def fit(examples: Sequence[Example]) -> Weights:
    """Weights that give the answers the highest share of a softmax over the candidates, from nothing.

    Raises ValueError without an example.
    """
    if not examples:
        raise ValueError("weights cannot be fitted to no examples")
    spread = np.concatenate([values for values, _ in examples]).std(0)
    return _fitted(examples, spread, np.zeros(SIGNALS), pull=1e-3 * len(examples), rate=0.05, steps=80)


def adapted(examples: Sequence[Example], spread: Floats, start: Weights = DEFAULT) -> Weights:
    """Weights near `start` that give the answers of a few examples a higher share; `start` without any.

    `spread`: the standard deviation of each signal over all candidates, of which the examples may have but a few.
    """
    if not examples:
        return start
    return _fitted(examples, spread, np.array(astuple(start)), pull=40.0, rate=0.02, steps=60, least=0.3)


def _fitted(
    examples: Sequence[Example],
    spread: Floats,
    start: NDArray[np.float64],
    pull: float,
    rate: float,
    steps: int,
    least: float = 1e-3,
) -> Weights:
    """Adam on the mean cross-entropy and, shared by the examples, `pull` / 2 times the square of the way from `start`.

    Weights are of signals of unit variance there, so that a step means the same for all; a `spread` below `least`, of a
    signal that hardly any candidate has, counts as that, so that one answer cannot make it decide all others.
    """
    tells = spread > 1e-3  # what is the same for all candidates is left alone
    spread = np.maximum(spread, least)
    count, sizes = len(examples), [len(share) for _, share in examples]
    starts = np.cumsum([0, *sizes[:-1]])
    scaled = np.concatenate([values / spread for values, _ in examples]).astype(np.float64)
    shares = np.concatenate([share for _, share in examples])
    w, mean, square = start * spread, np.zeros(SIGNALS), np.zeros(SIGNALS)
    for step in range(1, steps + 1):
        sums = scaled @ w
        likely = np.exp(sums - np.repeat(np.maximum.reduceat(sums, starts), sizes))
        likely /= np.repeat(np.add.reduceat(likely, starts), sizes)
        gradient = (pull * (w - start * spread) + scaled.T @ (likely - shares)) / count * tells
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        w = w - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return Weights(*map(float, w / spread))
