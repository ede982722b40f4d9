"""Anthropic Messages: POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ramet.chat import ReasoningDelta, TextDelta, ToolCallArguments, ToolCallStart
from ramet.engine import FinishEvent, Sampling
from ramet.server import sse
from ramet.server.answer import extension
from ramet.server.ask import (
    Ask,
    ChatMessage,
    Content,
    TextForm,
    Tool,
    ToolChoice,
    check_tools,
    choose,
    not_served,
    template_variables,
)
from ramet.server.errors import ApiError, Dialect, bad_request
from ramet.server.fields import parse_body
from ramet.server.generate import prepare
from ramet.server.messages_schema import (
    Block,
    CountTokensRequest,
    ImageBlock,
    Message,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ramet.server.reply import Piece, Reply
from ramet.server.service import EventStream, Service, Started, drain

Event = dict[str, Any]


async def messages(request: Request) -> Response:
    """Answer a message, whole or as a stream of events."""
    service: Service = request.app.state.service
    body = parse_body(await request.body(), MessagesRequest)
    service.check_model(body.model)
    sampling = Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_tokens=service.output_tokens(body.max_tokens, "max_tokens"),
        stop=tuple(body.stop_sequences or ()),
    )
    ask = question(body, sampling, sees=service.sees)
    answer = _Answer(service.name)
    if body.stream:
        started = await service.start(ask)
        return EventStream(started, answer.stream(started), _error_event)

    await drain(request, service, ask, answer.events)
    return JSONResponse(answer.message)


async def count_tokens(request: Request) -> Response:
    """How many tokens the prompt of these messages has."""
    service: Service = request.app.state.service
    body = parse_body(await request.body(), CountTokensRequest)
    service.check_model(body.model)
    prompt = await asyncio.to_thread(prepare, service.runtime, question(body, Sampling(), sees=service.sees))
    return JSONResponse({"input_tokens": len(prompt.tokens)})


def question(body: CountTokensRequest, sampling: Sampling, *, sees: bool) -> Ask:
    """The request in no API's words; `sees`: the model reads pictures.

    Raises `ApiError` where it asks for what is not served.
    """
    chat: list[ChatMessage] = []
    if body.system:
        system = body.system if isinstance(body.system, str) else "\n\n".join(block.text for block in body.system)
        chat.append({"role": "system", "content": system})
    for index, message in enumerate(body.messages):
        chat += _chat_messages(message, f"messages[{index}]", sees)
    if body.messages[-1].role == "assistant":
        raise bad_request("the last message must be the user's: a reply cannot be begun for the model", "messages")
    tools = _tools(body)
    output = body.output_config.format if body.output_config is not None else None
    effort = body.output_config.effort if body.output_config is not None else None
    thinks = body.thinking is not None and body.thinking.type != "disabled"
    return Ask(
        messages=chat,
        sampling=sampling,
        tools=tools,
        choice=_tool_choice(body, tools),
        form=TextForm(output.schema_) if output is not None else None,
        template_variables=template_variables(effort if thinks else "none", {"enable_thinking": thinks}),
    )


def _chat_messages(message: Message, path: str, sees: bool) -> list[ChatMessage]:
    """One Anthropic message as chat messages: the results of tools are messages of their own."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    parts: list[TextBlock | ImageBlock] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[ChatMessage] = []
    for index, block in enumerate(message.content):
        at = f"{path}.content[{index}]"
        match block:
            case TextBlock():
                parts.append(block)
            case ImageBlock() if message.role == "user":
                if not sees:
                    raise not_served("blocks", block.type, sees, f"{at}.type")
                parts.append(block)
            case ThinkingBlock(thinking=thinking) if message.role == "assistant":
                thoughts.append(thinking)
            case ToolUseBlock(id=id, name=name, input=given) if message.role == "assistant":
                function = {"name": name, "arguments": json.dumps(given, ensure_ascii=False)}
                calls.append({"id": id, "type": "function", "function": function})
            case ToolResultBlock(tool_use_id=id) if message.role == "user":
                results.append({"role": "tool", "tool_call_id": id, "content": _result(block.content, at, sees)})
            case _:
                raise bad_request(
                    f"blocks of type {block.type!r} are not served in messages of role {message.role!r}", f"{at}.type"
                )
    if message.role != "assistant":
        content = _content(parts, f"{path}.content")
        return [*results, {"role": message.role, "content": content}] if parts or not results else results
    reply: ChatMessage = {"role": "assistant", "content": _content(parts, f"{path}.content") or None}
    if thoughts:
        reply["reasoning_content"] = "".join(thoughts)
    if calls:
        reply["tool_calls"] = calls
    if len(reply) == 2 and not parts:
        raise bad_request("an assistant's message needs content", f"{path}.content")
    return [reply]


def _result(content: str | Sequence[Block] | None, path: str, sees: bool) -> Content:
    """What a tool's result says, or shows."""
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[TextBlock | ImageBlock] = []
    for index, block in enumerate(content):
        if not isinstance(block, TextBlock | ImageBlock):
            raise bad_request(
                f"blocks of type {block.type!r} are not served in a tool's result", f"{path}.content[{index}].type"
            )
        if isinstance(block, ImageBlock) and not sees:
            raise not_served("blocks in a tool's result", block.type, sees, f"{path}.content[{index}].type")
        parts.append(block)
    return _content(parts, f"{path}.content")


def _content(blocks: Sequence[TextBlock | ImageBlock], path: str) -> Content:
    """Text, or parts in OpenAI's chat form where there are pictures."""
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, TextBlock):
            parts.append({"type": "text", "text": block.text})
            continue
        source = block.source
        if source is not None and source.type == "base64" and source.data is not None:
            url = f"data:{source.media_type or ''};base64,{source.data}"
        elif source is not None and source.type == "url" and source.url is not None:
            url = source.url
        else:
            raise bad_request("the source of a picture is base64 data, or a data: URL", f"{path}.source")
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _tools(body: CountTokensRequest) -> list[Tool] | None:
    tools: list[Tool] = []
    for index, tool in enumerate(body.tools or ()):
        if tool.type not in (None, "custom"):
            raise bad_request(
                f"tools of type {tool.type!r} are not served; this server calls the client's own tools",
                f"tools[{index}].type",
            )
        if tool.input_schema is None:
            raise bad_request("'input_schema' is required", f"tools[{index}].input_schema")
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        function["parameters"] = tool.input_schema
        if tool.strict:
            function["strict"] = True
        tools.append({"type": "function", "function": function})
    check_tools(tools, "tools[{}].name")
    return tools or None


def _tool_choice(body: CountTokensRequest, tools: Sequence[Tool] | None) -> ToolChoice:
    given = body.tool_choice
    if given is None:
        return choose(tools, "auto", None, parallel=True)
    parallel = not given.disable_parallel_tool_use
    if given.type == "tool":
        if given.name is None:
            raise bad_request("'tool_choice.name' is required", "tool_choice.name")
        return choose(tools, "required", [given.name], parallel)
    if given.type == "any":
        return choose(tools, "required", None, parallel)
    return choose(tools, given.type, None, parallel)


class _Answer:
    """One message while it is made."""

    def __init__(self, model: str) -> None:
        self.message: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": None,
        }
        self._arguments = ""
        self._open: str | None = None

    async def stream(self, started: Started) -> AsyncIterator[str]:
        """The events as they are sent."""
        async for event in self.events(started):
            yield sse.event(event, event["type"])

    async def events(self, started: Started) -> AsyncIterator[Event]:
        """Make the message, telling every step."""
        # What is reused is known with the first token; the counts of the last event replace these.
        self.message["usage"] = _usage(len(started.generation.prompt.tokens), 0, 0, 0)
        yield {"type": "message_start", "message": self.message}
        reply = Reply()
        async for piece in started.generation.pieces():
            reply.add(piece)
            for event in self._add(piece):
                yield event
        for event in self._close():
            yield event
        used = reply.done.usage
        reason, sequence = _stop(reply.done)
        usage = _usage(used.computed, used.reused, used.completion_tokens, reply.reasoning_tokens)
        field = extension(reply)
        self.message.update(stop_reason=reason, stop_sequence=sequence, usage=usage, ramet=field)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        yield {"type": "message_delta", "delta": delta, "usage": usage, "ramet": field}
        yield {"type": "message_stop"}

    def _add(self, piece: Piece) -> list[Event]:
        events: list[Event] = []
        for event in piece.events:
            match event:
                case TextDelta(text=text):
                    events += self._into("text", {"type": "text", "text": ""})
                    self._block["text"] += text
                    events.append(self._delta({"type": "text_delta", "text": text}))
                case ReasoningDelta(text=text):
                    events += self._into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                    self._block["thinking"] += text
                    events.append(self._delta({"type": "thinking_delta", "thinking": text}))
                case ToolCallStart(id=id, name=name):
                    events += self._close()
                    events += self._into("tool_use", {"type": "tool_use", "id": id, "name": name, "input": {}})
                    self._arguments = ""
                case ToolCallArguments(json=text):
                    self._arguments += text
                    events.append(self._delta({"type": "input_json_delta", "partial_json": text}))
        return events

    @property
    def _block(self) -> dict[str, Any]:
        block: dict[str, Any] = self.message["content"][-1]
        return block

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": len(self.message["content"]) - 1, "delta": delta}

    def _into(self, kind: str, block: dict[str, Any]) -> list[Event]:
        """Make the last block an open one of `kind`."""
        if self._open == kind:
            return []
        events = self._close()
        self._open = kind
        self.message["content"].append(block)
        index = len(self.message["content"]) - 1
        return [*events, {"type": "content_block_start", "index": index, "content_block": dict(block)}]

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        if self._open == "tool_use":
            self._block["input"] = json.loads(self._arguments or "{}")
        self._open = None
        return [{"type": "content_block_stop", "index": len(self.message["content"]) - 1}]


def _stop(finish: FinishEvent) -> tuple[str, str | None]:
    if finish.reason == "length":
        return "max_tokens", None
    if finish.reason == "tool_calls":
        return "tool_use", None
    return ("stop_sequence", finish.stop) if isinstance(finish.stop, str) else ("end_turn", None)


def _usage(fresh: int, reused: int, output: int, thinking: int) -> dict[str, Any]:
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reused,
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": thinking},
    }


def _error_event(error: ApiError) -> str:
    return sse.event(error.body(Dialect.ANTHROPIC), "error")
