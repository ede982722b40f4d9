"""FluxMem's three structures of an episode (arXiv 2602.14038): how what is found in it speaks for the rest of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Turn
from ramet.memory.entities import entities
from ramet.memory.recall.episodes import Episode, Floats
from ramet.memory.recall.selector import Structure

_LENT = 0.5
"""How much of its neighbours' mean score a turn is lent."""
_NEIGHBOURS = 3
_TOPIC = 0.5
"""Pages whose vectors have a cosine below this to the topic so far begin another."""


def links(episode: Episode, structure: Structure, vectors: Floats) -> NDArray[np.float64]:
    """What each turn of the episode is lent by each, [turns, turns], rows for those that receive; none lends to itself.

    A turn is lent half the mean score of its neighbours, so that turns of differently structured episodes compare.
    `vectors` are the turns', [turns, dimensions]. Linear: the turn before and the turn after. Graph: the most similar
    of the turns that mention one of its entities, or of all where none does, by their similarity. Hierarchical: the
    turns of its topic; topics are runs of pages that are alike.
    """
    turns = [turn for page in episode.pages for turn in page.turns]
    lent = np.zeros((len(turns), len(turns)))
    if structure == "linear":
        steps = np.arange(len(turns) - 1)
        lent[steps, steps + 1] = lent[steps + 1, steps] = 1
    elif structure == "graph":
        alike = vectors @ vectors.T
        shared = _sharing(turns)
        for at in range(len(turns)):
            near = [other for other in range(len(turns)) if other != at]
            near = [other for other in near if shared[at, other]] or near
            near = sorted(near, key=lambda other: -alike[at, other])[:_NEIGHBOURS]
            lent[at, near] = np.maximum(alike[at, near], 0)
    else:
        topics = _topics(episode)
        same = topics[:, None] == topics[None, :]
        np.fill_diagonal(same, False)
        lent = same.astype(np.float64)
    return np.asarray(_LENT * lent / np.maximum(lent.sum(1, keepdims=True), 1e-9))


def _sharing(turns: Sequence[Turn]) -> NDArray[np.bool_]:
    """Which turns mention an entity of which, [turns, turns]."""
    mentioned = [set(entities(turn.text, turn.time)) for turn in turns]
    return np.array([[bool(one & other) for other in mentioned] for one in mentioned])


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
