"""Pictures in requests: encoded before one of their rows has to run, and kept for those who show them again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from torch import Tensor

from ramet.engine.request import Request
from ramet.engine.stats import EngineStats
from ramet.models.pictures import Picture, Tower, show
from ramet.models.states import Span

_KEPT = 256 << 20
"""Bytes of encoded pictures. A session that goes on needs none: its rows have been run."""


class Sight:
    """The model's tower and what it has encoded lately. Safe to use from several threads."""

    def __init__(self, tower: Tower | None, stats: EngineStats) -> None:
        self._tower = tower
        self._stats = stats
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._encoding = threading.Lock()  # one at a time: together they would take as long, and more memory

    def prepare(self, request: Request, resume: int) -> None:
        """Encode the pictures that have rows behind `resume`, so that the engine's thread, which others wait for,
        finds them ready. Takes as long as that takes.
        """
        for each in request.pictures:
            if each.end > resume and self._tower is not None:
                self._encoded(each.picture)

    def show(self, span: Span, request: Request) -> None:
        """Make the next span of a session that began with `request` what the model is to be given."""
        if not request.pictures or self._tower is None:
            return
        start, end = span.position, span.position + span.tokens.numel()
        given = list(request.tokens[start:end])
        drawn = span.tokens[len(given) :].tolist()  # behind the prompt, where a session's tokens are the vocabulary's
        show(span, given + drawn, request.pictures, self._tower, self._encoded)

    def _encoded(self, picture: Picture) -> Tensor:
        found = self._find(picture)
        if found is not None:
            return found
        with self._encoding:
            found = self._find(picture)
            if found is not None:  # by somebody else, meanwhile
                return found
            assert self._tower is not None
            encoded = self._tower.encode(picture)
            self._stats.pictures_encoded += 1
            with self._lock:
                self._known[picture.digest] = encoded
                self._bytes += encoded.nbytes
                while self._bytes > _KEPT and len(self._known) > 1:
                    self._bytes -= self._known.popitem(last=False)[1].nbytes
        return encoded

    def _find(self, picture: Picture) -> Tensor | None:
        with self._lock:
            found = self._known.get(picture.digest)
            if found is not None:
                self._known.move_to_end(picture.digest)
            return found
