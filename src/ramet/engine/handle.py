"""The caller's end of a running request: an iterator of its events, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from ramet.engine.request import Completion, Event, FinishEvent, Request, TokenEvent


class Handle:
    """Events of one submitted request, for one consumer. Ends after the FinishEvent of the last of its n choices.

    Whoever stops reading can go on later, with the first event that was not read.
    """

    def __init__(self, request: Request, cancel: Callable[[Handle], None]) -> None:
        self.request = request
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._notify: Callable[[], None] | None = None
        self._unfinished = request.sampling.n
        self._unread = request.sampling.n  # choices whose FinishEvent the consumer has not had

    def cancel(self) -> None:
        """End the request; what it holds is freed before the next step. Its choices finish with reason "cancelled"."""
        self._cancel(self)

    @property
    def finished(self) -> bool:
        """Every choice has had its FinishEvent (they may still wait to be read)."""
        return self._unfinished == 0

    def __iter__(self) -> Iterator[Event]:
        while self._unread:
            with self._changed:
                while not self._events:
                    self._changed.wait()
            yield self._take()

    async def stream(self) -> AsyncIterator[Event]:
        """The events, for asyncio. Leaving the loop early (a client that went away) cancels the request."""
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(wake.set)
            except RuntimeError:  # the loop has been closed: nobody is listening any more
                self.cancel()

        with self._changed:
            self._notify = notify
            if self._events:
                wake.set()
        try:
            while self._unread:
                await wake.wait()
                wake.clear()
                while self._events:
                    yield self._take()
        finally:
            with self._changed:
                self._notify = None
            if self._unread:
                self.cancel()

    def result(self) -> list[Completion]:
        """Wait for all choices and return them in order. A choice that failed has `finish.reason == "error"`."""
        completions = [Completion(choice) for choice in range(self.request.sampling.n)]
        for event in self:
            completion = completions[event.choice]
            completion.text += event.text_delta
            if isinstance(event, TokenEvent):
                completion.tokens.append(event.token)
                if event.logprob is not None:
                    completion.logprobs.append(event.logprob)
                    completion.top_logprobs.append(event.top_logprobs)
            else:
                completion.finish = event
        return completions

    def _take(self) -> Event:
        event = self._events.popleft()
        self._unread -= isinstance(event, FinishEvent)
        return event

    def put(self, events: list[Event]) -> None:
        """Hand events to the consumer (the engine's side)."""
        with self._changed:
            self._events.extend(events)
            self._unfinished -= sum(isinstance(event, FinishEvent) for event in events)
            self._changed.notify()
            if self._notify is not None:
                self._notify()
