"""What every endpoint shares: the loaded model, the limits on what runs, and a question's start and end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ramet.chat import Tokenizer
from ramet.engine.runtime import Runtime
from ramet.errors import RametError
from ramet.server import generate, sse
from ramet.server.ask import Ask
from ramet.server.errors import ApiError, bad_request, internal_error
from ramet.server.generate import Generation
from ramet.server.settings import Settings
from ramet.server.store import ResponseStore, conversation_locked

log = logging.getLogger("ramet.server")


class Service:
    """One served model. Used from the event loop only."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime = runtime
        self.settings = settings
        self.name = settings.served_name
        self.responses = ResponseStore(settings.tree_dir, runtime.model.fingerprint, settings.responses_bytes)
        self._running = 0
        self._conversations: set[str] = set()

    @property
    def tokenizer(self) -> Tokenizer:
        """The served model's tokenizer."""
        return self.runtime.tokenizer

    @property
    def sees(self) -> bool:
        """Whether the model reads pictures."""
        return self.runtime.chat.sees

    def check_model(self, name: str) -> None:
        """Raise `ApiError` (404) if `name` is not the served model."""
        if name != self.name:
            raise ApiError(
                404,
                f"there is no model {name!r} here; this server serves {self.name!r}",
                param="model",
                code="model_not_found",
            )

    def output_tokens(self, asked: int | None, field: str) -> int:
        """How long a reply may get. Raises `ApiError` if more was asked for than the server allows."""
        limits = self.settings.limits
        if asked is None:
            return min(limits.default_output_tokens, limits.output_tokens)
        if asked > limits.output_tokens:
            raise bad_request(
                f"{field} is at most {limits.output_tokens} on this server, not {asked}", field, "invalid_value"
            )
        return asked

    async def start(self, ask: Ask) -> Started:
        """Start `ask` if there is room for it. Raises `ApiError`; 429 where too much is running."""
        limits = self.settings.limits
        if self._running >= limits.concurrent:
            raise ApiError(
                429,
                f"{self._running} requests are running, which is this server's limit; try again shortly",
                code="rate_limit_exceeded",
                headers={"retry-after": str(limits.retry_after_s)},
            )
        self._running += 1
        try:
            return Started(await generate.start(self.runtime, self.settings, ask), self._release)
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        self._running -= 1

    @contextmanager
    def alone_in(self, conversation: str) -> Iterator[None]:
        """Be the only request that goes on with a conversation. Raises `ApiError` (409) if another one does."""
        if conversation in self._conversations:
            raise conversation_locked(conversation)
        self._conversations.add(conversation)
        try:
            yield
        finally:
            self._conversations.remove(conversation)

    def close(self) -> None:
        """Close the store of responses. The runtime belongs to whoever loaded it."""
        self.responses.close()


class Started:
    """A running question and its place among those that may run at once. `close()` ends both; twice does no harm."""

    def __init__(self, generation: Generation, release: Callable[[], None]) -> None:
        self.generation = generation
        self._releases = [release]

    def at_end(self, release: Callable[[], None]) -> None:
        """Have `release` called by `close()`."""
        self._releases.append(release)

    def close(self) -> None:
        """Cancel the question if it still runs, and give its place free."""
        if self._releases:
            self.generation.cancel()
            while self._releases:
                self._releases.pop()()


class EventStream(StreamingResponse):
    """A stream of events about a running question, which ends with it however the stream ends."""

    media_type = sse.MEDIA_TYPE

    def __init__(self, started: Started, events: AsyncIterator[str], on_error: Callable[[ApiError], str]) -> None:
        super().__init__(_with_errors(events, on_error), headers=sse.HEADERS)
        self._started = started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a client that disconnects cancels the question."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._started.close()


async def _with_errors(events: AsyncIterator[str], on_error: Callable[[ApiError], str]) -> AsyncIterator[str]:
    """`events`; an error that comes after the first bytes can only be told as one more event."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield on_error(error)
    except RametError as error:
        yield on_error(ApiError(500, str(error)))
    except Exception as error:
        log.exception("a stream broke off")
        yield on_error(internal_error(error))


async def drain(request: Request, service: Service, ask: Ask, events: Callable[[Started], AsyncIterator[Any]]) -> None:
    """Run `ask` through `events` to their end without sending them; given up when the client disconnects."""

    async def work() -> None:
        started = await service.start(ask)
        try:
            async for _ in events(started):
                pass
        finally:
            started.close()

    await sse.unless_gone(request, work)
