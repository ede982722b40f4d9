"""Pictures in requests: encoded when one of their rows has to run, and kept for those who show them again."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from ramet.engine.request import Request
from ramet.engine.stats import EngineStats
from ramet.models.pictures import Picture, Tower, show
from ramet.models.states import Span

_KEPT = 256 << 20
"""Bytes of encoded pictures. A session that goes on needs none: its rows have been run."""


class Sight:
    """The model's tower and what it has encoded lately. On the engine's thread alone."""

    def __init__(self, tower: Tower | None, stats: EngineStats) -> None:
        self._tower = tower
        self._stats = stats
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0

    def shown(self, span: Span, request: Request) -> Span:
        """The next span of a session that began with `request`, as the model is given it."""
        if not request.pictures or self._tower is None:
            return span
        start, end = span.position, span.position + span.tokens.numel()
        given = list(request.tokens[start:end])
        drawn = span.tokens[len(given) :].tolist()  # behind the prompt, where a session's tokens are the vocabulary's
        return show(span, given + drawn, request.pictures, self._tower, self._encode)

    def _encode(self, picture: Picture) -> Tensor:
        assert self._tower is not None
        known = self._known.get(picture.digest)
        if known is None:
            known = self._known[picture.digest] = self._tower.encode(picture)
            self._stats.pictures_encoded += 1
            self._bytes += known.nbytes
            while self._bytes > _KEPT and len(self._known) > 1:
                self._bytes -= self._known.popitem(last=False)[1].nbytes
        else:
            self._known.move_to_end(picture.digest)
        return known
