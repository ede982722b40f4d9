"""OpenAI Responses and Conversations: a response is a node of the tree, a conversation a name for its latest."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ramet.server import sse
from ramet.server.answer import extension
from ramet.server.errors import ApiError
from ramet.server.fields import parse_body
from ramet.server.reply import Reply
from ramet.server.responses_input import Turn, conversation_id, input_messages, read_turn, wants_logprobs
from ramet.server.responses_output import Event, Output, usage
from ramet.server.responses_schema import ConversationRequest, ResponsesRequest
from ramet.server.service import EventStream, Service, Started, drain
from ramet.server.store import Conversation, StoredResponse


async def create(request: Request) -> Response:
    """POST /v1/responses: answer, whole or as a stream of typed events."""
    service: Service = request.app.state.service
    body = parse_body(await request.body(), ResponsesRequest)
    service.check_model(body.model)
    with ExitStack() as held:
        if (conversation := conversation_id(body)) is not None:
            held.enter_context(service.alone_in(conversation))
        turn = await asyncio.to_thread(read_turn, body, service)
        answer = _Answer(service, body, turn)
        if body.stream:
            started = await service.start(turn.ask)
            started.at_end(held.pop_all().close)
            return EventStream(started, answer.stream(started), answer.failed)
        await drain(request, service, turn.ask, answer.events)
        return JSONResponse(answer.response)


class _Answer:
    """One response while it is made."""

    def __init__(self, service: Service, body: ResponsesRequest, turn: Turn) -> None:
        self._service = service
        self._turn = turn
        self._stored = body.store is not False
        self._output = Output(service.tokenizer, wants_logprobs(body))
        self._number = 0
        self._items = _input_items(body)
        self.response = _blank(body, turn, service.name)

    async def stream(self, started: Started) -> AsyncIterator[str]:
        """The events as they are sent."""
        async for event in self.events(started):
            yield self._send(event)

    def failed(self, error: ApiError) -> str:
        """The event that ends a stream which cannot go on."""
        failure = {"code": "server_error", "message": error.message}
        self.response.update(status="failed", error=failure, output=self._output.items)
        return self._send({"type": "response.failed", "response": self.response})

    async def events(self, started: Started) -> AsyncIterator[Event]:
        """Make the response, telling every step; it is stored before the last event."""
        yield {"type": "response.created", "response": self.response}
        yield {"type": "response.in_progress", "response": self.response}
        reply = Reply()
        async for piece in started.generation.pieces():
            reply.add(piece)
            for event in self._output.add(piece):
                yield event
        finish = reply.done
        for event in self._output.finish(finish):
            yield event
        cut = finish.reason == "length"
        self.response.update(
            status="incomplete" if cut else "completed",
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            completed_at=None if cut else time.time(),
            output=self._output.items,
            usage=usage(finish, reply.reasoning_tokens),
            ramet=extension(reply),
        )
        if self._stored:
            await asyncio.to_thread(self._keep, reply)
        yield {"type": f"response.{self.response['status']}", "response": self.response}

    def _keep(self, reply: Reply) -> None:
        turn = self._turn
        node = reply.done.node
        if node is None:
            raise ApiError(500, "the reply has no node in the tree, so it cannot be stored")
        kept = StoredResponse(
            id=self.response["id"],
            previous=turn.previous,
            node=node,
            messages=turn.new,
            reply=reply.message(),
            tools=turn.tools,
            instructions=turn.instructions,
            body=self.response,
            items=self._items,
        )
        self._service.responses.put(kept, turn.conversation)

    def _send(self, event: Event) -> str:
        text = sse.event({**event, "sequence_number": self._number}, event["type"])
        self._number += 1
        return text


def _blank(body: ResponsesRequest, turn: Turn, model: str) -> dict[str, Any]:
    """The response before its first token."""
    choice = body.tool_choice
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": time.time(),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "conversation": None if turn.conversation is None else {"id": turn.conversation},
        "error": None,
        "incomplete_details": None,
        "instructions": turn.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
        "store": body.store is not False,
        "temperature": body.temperature,
        "text": {"format": _text_format(body)},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump() if choice is not None else "auto",
        "tools": [{"type": "function", "parameters": None, "strict": None, **t["function"]} for t in turn.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def _text_format(body: ResponsesRequest) -> dict[str, Any]:
    asked = body.text.format if body.text is not None else None
    return {"type": "text"} if asked is None else asked.model_dump(by_alias=True, exclude_none=True)


def _input_items(body: ResponsesRequest) -> list[dict[str, Any]]:
    """The input as items with ids, for `GET /v1/responses/{id}/input_items`."""
    if body.input is None:
        return []
    if isinstance(body.input, str):
        content = [{"type": "input_text", "text": body.input}]
        given: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": content}]
    else:
        given = [item.model_dump(exclude_none=True) for item in body.input]
        for item in given:
            if item["type"] == "message" and isinstance(item["content"], str):
                kind = "output_text" if item["role"] == "assistant" else "input_text"
                item["content"] = [{"type": kind, "text": item["content"]}]
    return [{"id": f"item_{secrets.token_hex(16)}", "status": "completed", **item} for item in given]


async def _found(request: Request) -> StoredResponse:
    service: Service = request.app.state.service
    id = request.path_params["id"]
    found = await asyncio.to_thread(service.responses.get, id)
    if found is None:
        raise ApiError(404, f"there is no response {id!r}", param="response_id", code="not_found")
    return found


async def retrieve(request: Request) -> Response:
    """GET /v1/responses/{id}."""
    return JSONResponse((await _found(request)).body)


async def delete(request: Request) -> Response:
    """DELETE /v1/responses/{id}. Its node stays in the tree for the sessions that go through it."""
    service: Service = request.app.state.service
    found = await _found(request)
    await asyncio.to_thread(service.responses.delete, found.id)
    return JSONResponse({"id": found.id, "object": "response.deleted", "deleted": True})


async def input_items(request: Request) -> Response:
    """GET /v1/responses/{id}/input_items: what its request gave, the latest first."""
    items = (await _found(request)).items[::-1]
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return JSONResponse({"object": "list", "data": items, "has_more": False, **ends})


async def create_conversation(request: Request) -> Response:
    """POST /v1/conversations."""
    service: Service = request.app.state.service
    body = parse_body(await request.body() or b"{}", ConversationRequest)
    id = f"conv_{secrets.token_hex(24)}"
    opening = input_messages(body.items, sees=service.sees)
    made = await asyncio.to_thread(service.responses.create_conversation, id, body.metadata or {}, opening)
    return JSONResponse(_conversation_body(made))


async def retrieve_conversation(request: Request) -> Response:
    """GET /v1/conversations/{id}."""
    return JSONResponse(_conversation_body(await _found_conversation(request)))


async def delete_conversation(request: Request) -> Response:
    """DELETE /v1/conversations/{id}. Its responses stay."""
    service: Service = request.app.state.service
    found = await _found_conversation(request)
    await asyncio.to_thread(service.responses.delete_conversation, found.id)
    return JSONResponse({"id": found.id, "object": "conversation.deleted", "deleted": True})


async def _found_conversation(request: Request) -> Conversation:
    service: Service = request.app.state.service
    id = request.path_params["id"]
    found = await asyncio.to_thread(service.responses.conversation, id)
    if found is None:
        raise ApiError(404, f"there is no conversation {id!r}", param="conversation_id", code="not_found")
    return found


def _conversation_body(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created,
        "metadata": conversation.metadata,
    }
