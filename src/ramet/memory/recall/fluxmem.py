"""FluxMem (arXiv 2602.14038), whole, over any index: levels, gate, a structure for each episode, and what they recall.

With the published gate a conversation is one episode (`gate.py` says why); everything else is as published where it
needs no language model. `Memory.recall` does not use it: docs/memory.md has both in one table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ramet.memory.base import Hit, Index, Question
from ramet.memory.recall.episodes import Episode, Levels, pages
from ramet.memory.recall.features import features
from ramet.memory.recall.gate import Gate
from ramet.memory.recall.selector import Selector, Structure
from ramet.memory.recall.structures import Links, links

Base = Callable[[Index, Question], dict[str, float]]
"""The scores of a conversation's turns before any structure; higher is better."""

Choice = Structure | Selector | Sequence[Structure]
"""One structure for all episodes, a selector that chooses, or one for each."""

_EACH = 1000
_RANK = 60
"""The constant of reciprocal rank fusion."""


@dataclass(slots=True)
class FluxMem:
    """The episodes of a conversation as it was read, and what is recalled from them: turns that are forgotten or said
    later are not seen. Not safe to use from several threads at once.
    """

    levels: Levels
    structures: list[Structure]
    """Of each episode of `levels.mid`."""
    index: Index
    conversation: str
    _links: list[tuple[list[str], Links]]

    @classmethod
    def read(cls, index: Index, conversation: str, choice: Choice = "linear", gate: Gate | None = None) -> FluxMem:
        """Read what was said in a conversation, page by page, into the levels."""
        levels = Levels(gate or Gate())
        for session in index.sessions(conversation):
            turns = index.session_turns(conversation, session)
            for page in pages(turns, index.vectors([turn.id for turn in turns])):
                levels.add(page)
        levels.settle()
        return cls.structured(levels, index, conversation, choice)

    @classmethod
    def structured(cls, levels: Levels, index: Index, conversation: str, choice: Choice) -> FluxMem:
        """Give each episode of the levels its structure."""
        if isinstance(choice, str):
            structures: list[Structure] = [choice] * len(levels.mid)
        elif isinstance(choice, Selector):
            structures = choice.choose(np.stack([features(episode) for episode in levels.mid])) if levels.mid else []
        else:
            structures = list(choice)
        linked = [_linked(index, *pair) for pair in zip(levels.mid, structures, strict=True)]
        return cls(levels, structures, index, conversation, linked)

    def links_kept(self, episode: int) -> int:
        """How many links between turns the structure of an episode keeps."""
        return self._links[episode][1].count

    def recall(self, question: Question, k: int, base: Base | None = None) -> list[Hit]:
        """The `k` best turns; each has its own score and what its episode's structure lends it. Notes what was read."""
        scores = (base or reciprocal)(self.index, replace(question, conversation=self.conversation))
        found = dict(scores)
        for ids, linked in self._links:
            own = np.array([scores.get(id, 0.0) for id in ids])
            if own.any():
                found |= zip(ids, map(float, own + linked.lent(own)), strict=True)
        best = sorted(found, key=lambda id: -found[id])[:k]
        self.levels.touch(best)
        return [Hit(id, found[id]) for id in best]


def reciprocal(index: Index, question: Question) -> dict[str, float]:
    """Both searches by reciprocal rank, as published."""
    searches = [index.lexical(question.text, _EACH, question.conversation)]
    if question.vector is not None:
        searches.append(index.dense(question.vector, _EACH, question.conversation))
    scores = dict[str, float]()
    for hits in searches:
        for rank, hit in enumerate(hits, 1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (_RANK + rank)
    return scores


def _linked(index: Index, episode: Episode, structure: Structure) -> tuple[list[str], Links]:
    ids = [turn.id for page in episode.pages for turn in page.turns]
    return ids, links(episode, structure, index.vectors(ids).astype(np.float64))
