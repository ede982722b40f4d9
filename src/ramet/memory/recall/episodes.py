"""FluxMem's three levels (arXiv 2602.14038): the pages in hand, the episodes they become, and what lasts of those.

A page is an exchange: a turn and what is said in answer to it. The clock of the levels counts pages, so that the same
conversation gives the same episodes whenever it is read.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Turn
from ramet.memory.recall.gate import Gate

Floats = NDArray[np.float64]

_SHORT, _MID, _LONG = 4, 2000, 100
"""Pages in hand, episodes, and entries that last: as published."""
_LASTS = 5.0
"""Utility from which something of an episode lasts."""
_FADES = 200.0
"""Pages after which recency has fallen to 1/e."""
_PAGE_TURNS = 4


@dataclass(frozen=True, slots=True)
class Page:
    """An exchange."""

    turns: tuple[Turn, ...]
    vector: Floats
    """Mean of its turns' vectors, of unit length (zeros without any)."""


@dataclass(slots=True, eq=False)
class Episode:
    """Pages about one thing, in the order in which they came."""

    pages: list[Page]
    total: Floats
    """Sum of the vectors of its pages."""
    touched: int
    """The clock when a page was last added to it or read."""
    visits: int = 0
    """How often it was read."""

    @property
    def vector(self) -> Floats:
        """Unit length."""
        return _unit(self.total)

    def utility(self, clock: int) -> float:
        """How much it is worth keeping: how often it was read, how much is in it, how lately it was touched."""
        return self.visits + math.log1p(len(self.pages)) + math.exp((self.touched - clock) / _FADES)


@dataclass(slots=True, eq=False)
class Lasting:
    """What lasts of an episode: the turns that stand for it best."""

    episode: Episode
    turns: tuple[Turn, ...]
    touched: int
    uses: int = 0


@dataclass(slots=True)
class Levels:
    """The three levels of one conversation. Not safe to use from several threads at once."""

    gate: Gate = field(default_factory=Gate)
    short: OrderedDict[int, Page] = field(default_factory=OrderedDict)
    """By number, the one that was used longest ago first."""
    mid: list[Episode] = field(default_factory=list)
    long: list[Lasting] = field(default_factory=list)
    clock: int = 0
    _places: dict[str, tuple[int, Episode]] = field(default_factory=dict)
    """The episode of each turn in one, with its number: they are numbered as they open."""
    _vectors: list[Floats] = field(default_factory=list)
    """Those of the episodes `mid`."""
    _opened: int = 0

    def add(self, page: Page) -> None:
        """Take a page in hand; the one that was used longest ago then goes to an episode, if there are too many."""
        self.short[self.clock] = page
        self.clock += 1
        while len(self.short) > _SHORT:
            self._settle(self.short.popitem(last=False)[1])

    def settle(self) -> None:
        """Put all pages in hand into episodes, as at the end of a conversation."""
        while self.short:
            self._settle(self.short.popitem(last=False)[1])

    def touch(self, ids: Iterable[str]) -> None:
        """Note that turns were read: their pages stay in hand, their episodes are worth more, and last in the end."""
        read = set(ids)
        for number in [n for n, page in self.short.items() if any(turn.id in read for turn in page.turns)]:
            self.short.move_to_end(number)
        for _, episode in sorted({self._places[id] for id in read if id in self._places}, key=lambda place: place[0]):
            episode.visits += 1
            episode.touched = self.clock
            self._keep(episode)
        for entry in self.long:
            if any(turn.id in read for turn in entry.turns):
                entry.uses += 1
                entry.touched = self.clock

    def _settle(self, page: Page) -> None:
        """The page joins the episode that the gate lets it into and that is most like it, or opens one."""
        likeness: list[float] = (np.array(self._vectors) @ page.vector).tolist() if self.mid else []
        joins = [at for at, joined in enumerate(self.gate.joins(likeness)) if joined]
        if joins:
            at = max(joins, key=likeness.__getitem__)
            episode = self.mid[at]
            episode.pages.append(page)
            episode.total = episode.total + page.vector
            episode.touched = self.clock
            self._vectors[at] = episode.vector
            self._places |= dict.fromkeys((turn.id for turn in page.turns), self._places[episode.pages[0].turns[0].id])
            return
        episode = Episode([page], page.vector.copy(), self.clock)
        self.mid.append(episode)
        self._vectors.append(episode.vector)
        self._places |= dict.fromkeys((turn.id for turn in page.turns), (self._opened, episode))
        self._opened += 1
        if len(self.mid) > _MID:
            least = min(range(len(self.mid) - 1), key=lambda at: self.mid[at].utility(self.clock))
            del self._vectors[least]
            for page in self.mid.pop(least).pages:
                for turn in page.turns:
                    self._places.pop(turn.id, None)

    def _keep(self, episode: Episode) -> None:
        """Let an episode last once it is worth it."""
        if episode.utility(self.clock) < _LASTS or any(entry.episode is episode for entry in self.long):
            return
        best = max(episode.pages, key=lambda page: float(page.vector @ episode.total))
        self.long.append(Lasting(episode, best.turns, self.clock))
        if len(self.long) > _LONG:
            self.long.remove(min(self.long[:-1], key=lambda e: e.uses + math.exp((e.touched - self.clock) / _FADES)))


def pages(turns: Sequence[Turn], vectors: NDArray[np.float32]) -> Iterator[Page]:
    """Cut a conversation's turns, in order, into exchanges: one ends where its first speaker speaks again."""
    start = 0
    for at in range(1, len(turns) + 1):
        first = turns[start]
        if (
            at == len(turns)
            or turns[at].session != first.session
            or turns[at].speaker == first.speaker
            or at - start == _PAGE_TURNS
        ):
            yield Page(tuple(turns[start:at]), _unit(vectors[start:at].astype(np.float64).sum(0)))
            start = at


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
