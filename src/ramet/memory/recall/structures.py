"""FluxMem's three structures of an episode (arXiv 2602.14038): how what is found in it speaks for the rest of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Turn
from ramet.memory.entities import entities
from ramet.memory.recall.episodes import Episode, Floats
from ramet.memory.recall.selector import Structure

Places = NDArray[np.int64]

_LENT = 0.5
"""How much of its neighbours' mean score a turn is lent."""
_NEIGHBOURS = 3
_TOPIC = 0.5
"""Pages whose vectors have a cosine below this to the topic so far begin another."""
_ROWS = 256
"""Turns whose similarities to all others are held at a time."""


class Links(Protocol):
    """Which turns of an episode lend to which; none lends to itself."""

    @property
    def count(self) -> int:
        """How many pairs there are of one that receives and one that lends."""

    def lent(self, scores: Floats) -> Floats:
        """What each turn is lent, [turns], by the scores of all, [turns]: half the weighted mean of its neighbours'."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Links one by one."""

    turns: int
    to: Places
    """[pairs]: the turn that receives."""
    by: Places
    weights: Floats
    """[pairs], at least 0."""

    @property
    def count(self) -> int:
        """Those that weigh anything."""
        return int(np.count_nonzero(self.weights))

    def lent(self, scores: Floats) -> Floats:
        """`Links.lent`."""
        shares = _LENT * self.weights / np.maximum(np.bincount(self.to, self.weights, self.turns)[self.to], 1e-9)
        return np.asarray(np.bincount(self.to, shares * scores[self.by], self.turns), np.float64)


@dataclass(frozen=True, slots=True)
class Topics:
    """Each turn is linked to all others of its topic."""

    numbers: Places
    """[turns]."""

    @property
    def count(self) -> int:
        """Those within each topic."""
        sizes = np.bincount(self.numbers)
        return int((sizes * (sizes - 1)).sum())

    def lent(self, scores: Floats) -> Floats:
        """`Links.lent`."""
        others = np.bincount(self.numbers)[self.numbers] - 1
        return _LENT * (np.bincount(self.numbers, scores)[self.numbers] - scores) / np.maximum(others, 1)


def links(episode: Episode, structure: Structure, vectors: Floats) -> Links:
    """What lends to what in an episode. No structure takes memory for every pair of its turns.

    A turn is lent half the mean score of its neighbours, so that turns of differently structured episodes compare.
    `vectors` are the turns', [turns, dimensions]. Linear: the turn before and the turn after. Graph: the most similar
    of the turns that mention one of its entities, or of all where none does, by their similarity. Hierarchical: the
    turns of its topic; topics are runs of pages that are alike.
    """
    turns = [turn for page in episode.pages for turn in page.turns]
    if structure == "hierarchical":
        return Topics(_topics(episode))
    if structure == "graph":
        return _graph(turns, vectors)
    first = np.arange(len(turns) - 1)
    to, by = np.concatenate([first, first + 1]), np.concatenate([first + 1, first])
    return Pairs(len(turns), to, by, np.ones(len(to)))


def _graph(turns: Sequence[Turn], vectors: Floats) -> Pairs:
    mentioned = [entities(turn.text, turn.time) for turn in turns]
    mentioning = defaultdict[str, list[int]](list)
    for at, names in enumerate(mentioned):
        for name in names:
            mentioning[name].append(at)
    to, by, weights = list[int](), list[int](), list[float]()
    for start in range(0, len(turns), _ROWS):
        for at, row in enumerate(vectors[start : start + _ROWS] @ vectors.T, start):
            near = np.zeros(len(turns), np.bool_)
            for name in mentioned[at]:
                near[mentioning[name]] = True
            near[at] = False
            if not near.any():
                near[:] = True
                near[at] = False
            alike = np.where(near, row, -np.inf)
            for _ in range(min(_NEIGHBOURS, int(near.sum()))):
                best = int(alike.argmax())
                to.append(at)
                by.append(best)
                weights.append(max(float(row[best]), 0.0))
                alike[best] = -np.inf
    return Pairs(len(turns), np.array(to, np.int64), np.array(by, np.int64), np.array(weights, np.float64))


def _topics(episode: Episode) -> NDArray[np.int64]:
    """The number of each turn's topic, [turns]."""
    numbers, number = list[int](), -1
    total = np.zeros(0)
    for page in episode.pages:
        length = float(np.linalg.norm(total)) if len(total) else 0.0
        if not length or float(page.vector @ total) / length < _TOPIC:
            number, total = number + 1, np.zeros_like(page.vector)
        total = total + page.vector
        numbers += [number] * len(page.turns)
    return np.array(numbers)
