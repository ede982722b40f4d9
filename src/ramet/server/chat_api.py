"""OpenAI Chat Completions: POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ramet.chat import ReasoningDelta, TextDelta, Tokenizer, ToolCallArguments, ToolCallStart
from ramet.engine import Sampling
from ramet.server import sse
from ramet.server.answer import extension
from ramet.server.ask import (
    Ask,
    ChatMessage,
    TextForm,
    Tool,
    ToolChoice,
    check_tools,
    choose,
    content_of,
    template_variables,
)
from ramet.server.chat_schema import AllowedToolChoice, ChatRequest, Message, NamedToolChoice
from ramet.server.errors import ApiError, Dialect, bad_request
from ramet.server.fields import parse_body
from ramet.server.reply import Piece, Reply, TokenLogprob
from ramet.server.service import EventStream, Service, Started, drain


async def chat_completions(request: Request) -> Response:
    """Answer a chat completion, whole or as a stream of chunks."""
    service: Service = request.app.state.service
    body = parse_body(await request.body(), ChatRequest)
    service.check_model(body.model)
    ask = question(body, service)
    answer = _Answer(service, body, ask)
    if body.stream:
        started = await service.start(ask)
        return EventStream(started, answer.chunks(started), _error_event)
    await drain(request, service, ask, answer.pieces)
    return JSONResponse(answer.whole())


def question(body: ChatRequest, service: Service) -> Ask:
    """The request in no API's words. Raises `ApiError` where it asks for what is not served."""
    tools: list[Tool] | None = None
    if body.tools:
        tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    check_tools(tools, "tools[{}].function.name")
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")
    if body.n is not None and body.n > service.settings.limits.choices:
        raise bad_request(f"n is at most {service.settings.limits.choices} on this server", "n", "invalid_value")
    return Ask(
        messages=[_message(message, f"messages[{index}]", service.sees) for index, message in enumerate(body.messages)],
        sampling=_sampling(body, service),
        tools=tools,
        choice=_tool_choice(body, tools),
        form=_form(body),
        template_variables=template_variables(body.reasoning_effort, body.chat_template_kwargs),
        store=bool(body.store) and service.runtime.tree.on_disk,
    )


def _message(message: Message, path: str, sees: bool) -> ChatMessage:
    role = "system" if message.role == "developer" else message.role
    content = content_of(message.content, f"{path}.content", sees=sees)
    if role == "tool" and message.tool_call_id is None:
        raise bad_request("a tool's message needs the id of the call that it answers", f"{path}.tool_call_id")
    reasoning = message.reasoning if message.reasoning_content is None else message.reasoning_content
    if content is None and not (role == "assistant" and (message.tool_calls or reasoning)):
        raise bad_request(f"a message of role {message.role!r} needs content", f"{path}.content")
    converted: ChatMessage = {"role": role, "content": content}
    if message.tool_calls and role == "assistant":
        converted["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if reasoning is not None and role == "assistant":
        converted["reasoning_content"] = reasoning
    if message.name is not None:
        converted["name"] = message.name
    if role == "tool":
        converted["tool_call_id"] = message.tool_call_id
    return converted


def _sampling(body: ChatRequest, service: Service) -> Sampling:
    bias: dict[int, float] = {}
    for key, value in (body.logit_bias or {}).items():
        if not key.isdecimal() or len(key) > 10:
            raise bad_request(f"the keys of logit_bias are token ids, not {key!r}", "logit_bias", "invalid_value")
        bias[int(key)] = value
    asked = service.output_tokens(body.max_tokens, "max_tokens")
    if body.max_completion_tokens is not None:
        asked = service.output_tokens(body.max_completion_tokens, "max_completion_tokens")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty,
        seed=body.seed,
        max_tokens=asked,
        stop=stop,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        logit_bias=bias,
        n=body.n or 1,
    )


def _tool_choice(body: ChatRequest, tools: Sequence[Tool] | None) -> ToolChoice:
    parallel = body.parallel_tool_calls is not False
    match body.tool_choice:
        case None:
            return choose(tools, "auto", None, parallel)
        case NamedToolChoice(function=function):
            return choose(tools, "required", [function.name], parallel)
        case AllowedToolChoice(allowed_tools=allowed):
            return choose(tools, allowed.mode, [tool.function.name for tool in allowed.tools], parallel)
        case mode:
            return choose(tools, mode, None, parallel)


def _form(body: ChatRequest) -> TextForm | None:
    asked = body.response_format
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return TextForm()
    if asked.json_schema is None:
        raise bad_request("'response_format.json_schema' is required", "response_format.json_schema")
    return TextForm(asked.json_schema.schema_) if asked.json_schema.schema_ is not None else TextForm()


def token_logprobs(entries: Sequence[TokenLogprob], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Log probabilities in the form that Chat Completions and Responses share."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        raw = tokenizer.token_bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}

    return [{**one(e.token, e.logprob), "top_logprobs": [one(*top) for top in e.top]} for e in entries]


class _Answer:
    """One completion while it is made."""

    def __init__(self, service: Service, body: ChatRequest, ask: Ask) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": service.name}
        self._tokenizer = service.tokenizer
        self._logprobs = bool(body.logprobs)
        self._include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._replies = [Reply() for _ in range(ask.sampling.n)]

    async def pieces(self, started: Started) -> AsyncIterator[Piece]:
        """The pieces of all choices, taken in."""
        async for piece in started.generation.pieces():
            self._replies[piece.choice].add(piece)
            yield piece

    def whole(self) -> dict[str, Any]:
        """The completion, once every piece was taken in."""
        choices = [
            {
                "index": index,
                "message": {"refusal": None, **reply.message()},
                "finish_reason": reply.done.reason,
                "logprobs": self._entries(reply.logprobs),
            }
            for index, reply in enumerate(self._replies)
        ]
        about = {"usage": self._usage(), "ramet": self._extension()}
        return {"object": "chat.completion", **self._head, "choices": choices, **about}

    async def chunks(self, started: Started) -> AsyncIterator[str]:
        """The stream: a role, deltas and a finish reason for each choice; the usage, if asked for, and the extension
        go with the last chunk."""
        for index in range(len(self._replies)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        left = len(self._replies)
        async for piece in self.pieces(started):
            entries = self._entries(piece.logprobs)
            for delta in _deltas(piece):
                # The log probabilities belong to the piece's text: they go with its first delta that is text.
                yield self._chunk(piece.choice, delta, logprobs=entries if "content" in delta else None)
                entries = None if "content" in delta else entries
            if piece.finish is not None:
                left -= 1
                last = {"ramet": self._extension()} if left == 0 and not self._include_usage else {}
                yield self._chunk(piece.choice, {}, piece.finish.reason, **last)
        if self._include_usage:
            yield self._send({"choices": [], "usage": self._usage(), "ramet": self._extension()})
        yield sse.event("[DONE]")

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": more.pop("logprobs", None)}
        usage = {"usage": None} if self._include_usage else {}
        return self._send({"choices": [choice], **usage, **more})

    def _send(self, about: dict[str, Any]) -> str:
        return sse.event({"object": "chat.completion.chunk", **self._head, **about})

    def _entries(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        return {"content": token_logprobs(logprobs, self._tokenizer), "refusal": None} if self._logprobs else None

    def _usage(self) -> dict[str, Any]:
        prompt = self._replies[0].done.usage
        completion = sum(reply.done.usage.completion_tokens for reply in self._replies)
        return {
            "prompt_tokens": prompt.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": prompt.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": prompt.reused},
            "completion_tokens_details": {"reasoning_tokens": sum(reply.reasoning_tokens for reply in self._replies)},
        }

    def _extension(self) -> dict[str, Any]:
        field = extension(self._replies[0])
        if len(self._replies) > 1:
            field["nodes"] = [reply.done.node for reply in self._replies]
        return field


def _deltas(piece: Piece) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    for event in piece.events:
        match event:
            case TextDelta(text=text):
                deltas.append({"content": text})
            case ReasoningDelta(text=text):
                deltas.append({"reasoning_content": text})
            case ToolCallStart(index=index, id=id_, name=name):
                function = {"name": name, "arguments": ""}
                deltas.append({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]})
            case ToolCallArguments(index=index, json=text):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
    return deltas


def _error_event(error: ApiError) -> str:
    return sse.event(error.body(Dialect.OPENAI))
