"""Runs a question on the engine and gives its replies as pieces that every API can word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from ramet.chat import Event as ChatEvent
from ramet.chat import Format, Parser, Prompt, ReasoningDelta, TextDelta
from ramet.chat.sight import by_name
from ramet.engine import FinishEvent, Grammar, Handle, TokenEvent
from ramet.engine.grammar import GrammarError
from ramet.engine.runtime import Runtime
from ramet.errors import RametError
from ramet.server.ask import Ask, callable_tools, reply_grammar
from ramet.server.continuation import continue_node
from ramet.server.errors import ApiError, bad_request
from ramet.server.reply import Piece, TokenLogprob
from ramet.server.settings import Settings
from ramet.tree import UnknownNode


@dataclass
class _Tail:
    """Tokens of a choice whose text has not come out yet: they are told apart once it is known what they became."""

    logprobs: list[TokenLogprob] = field(default_factory=list)
    tokens: int = 0


class Generation:
    """One question that runs on the engine. Iterate `pieces()` once; leaving it early cancels the request."""

    def __init__(self, prompt: Prompt, handle: Handle, parsers: list[Parser]) -> None:
        self.prompt = prompt
        self._handle = handle
        self._parsers = parsers
        self._tails = [_Tail() for _ in parsers]

    async def pieces(self) -> AsyncIterator[Piece]:
        """The replies' pieces in the order in which they come. Raises `ApiError` if the engine gave up."""
        stream = self._handle.stream()
        try:
            async for event in stream:
                piece = self._piece(event)
                if piece.events or piece.logprobs or piece.finish is not None:
                    yield piece
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # an async generator, typed as an iterator

    def cancel(self) -> None:
        """Give up: the engine frees what the request holds."""
        self._handle.cancel()

    def _piece(self, event: TokenEvent | FinishEvent) -> Piece:
        choice, parser, tail = event.choice, self._parsers[event.choice], self._tails[event.choice]
        events: list[ChatEvent] = parser.feed(event.text_delta) if event.text_delta else []
        if isinstance(event, TokenEvent):
            tail.tokens += 1
            if event.logprob is not None:
                tail.logprobs.append(TokenLogprob(event.token, event.logprob, event.top_logprobs))
            finish = None
        else:
            if event.reason == "error":
                raise ApiError(500, event.error or "the engine could not finish the reply", code="engine_error")
            if event.reason == "cancelled":
                raise ApiError(503, "the reply was cancelled: the server is shutting down", code="cancelled")
            events = [*events, *parser.finish()]
            finish = event
        logprobs: list[TokenLogprob] = []
        reasoning = 0
        if events:
            if any(isinstance(e, TextDelta) for e in events):
                logprobs = tail.logprobs
            if isinstance(events[0], ReasoningDelta):
                reasoning = tail.tokens
            self._tails[choice] = _Tail()
        return Piece(choice, events, logprobs, reasoning, finish)


async def start(runtime: Runtime, settings: Settings, ask: Ask) -> Generation:
    """Render `ask`, check it against the limits and hand it to the engine. Raises `ApiError` where it cannot be run."""
    # Rendering, tokenizing and compiling a grammar take milliseconds, at times seconds: not on the event loop.
    starting = asyncio.ensure_future(asyncio.to_thread(_start, runtime, settings, ask))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_abandon)  # a thread cannot be stopped half-way: what it starts is cancelled then
        raise


def _abandon(starting: asyncio.Future[Generation]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().cancel()


def _start(runtime: Runtime, settings: Settings, ask: Ask) -> Generation:
    prompt = prepare(runtime, ask)
    longest = min(settings.limits.prompt_tokens or runtime.model.context_length, runtime.model.context_length - 1)
    if len(prompt.tokens) > longest:
        raise bad_request(
            f"the prompt has {len(prompt.tokens)} tokens; this server takes at most {longest}",
            code="context_length_exceeded",
        )
    tools = callable_tools(ask)
    request = replace(
        runtime.request(
            prompt,
            tools,
            sampling=ask.sampling,
            grammar=_grammar(ask, prompt, runtime.chat.format),
            may_call=not ask.tools or ask.choice.mode != "none",
        ),
        messages=[message and by_name(message) for message in prompt.messages],  # clients have the pictures
        pin_seconds=settings.pin_seconds,
        store=ask.store,
    )
    try:
        handle = runtime.engine.submit(request)
    except RametError as error:
        raise bad_request(str(error)) from None
    return Generation(prompt, handle, [runtime.chat.parser(tools, prompt) for _ in range(ask.sampling.n)])


def prepare(runtime: Runtime, ask: Ask) -> Prompt:
    """The prompt: rendered by the template, or, after a node, that node's own tokens and then the new messages'.

    Raises `ApiError` with what the template says of a conversation that it refuses.
    """
    try:
        if ask.after is not None:
            return continue_node(runtime, ask)
        return runtime.chat.render(
            ask.messages,
            ask.tools,
            reply_tokens=runtime.tree.reply_tokens,
            **ask.template_variables,
        )
    except UnknownNode as error:
        raise ApiError(404, str(error), param="previous_response_id", code="previous_response_not_found") from None
    except RametError as error:
        raise bad_request(str(error), code="invalid_prompt") from None


def _grammar(ask: Ask, prompt: Prompt, format: Format) -> Grammar | None:
    try:
        return reply_grammar(ask, format, after_reasoning=prompt.opens_reasoning)
    except GrammarError as error:
        raise bad_request(str(error), code="invalid_schema") from None
