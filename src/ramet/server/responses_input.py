"""OpenAI Responses: from a request to a question, with what earlier responses contribute to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ramet.engine import Sampling
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
from ramet.server.errors import ApiError, bad_request
from ramet.server.responses_schema import (
    AllowedTools,
    ConversationReference,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputItem,
    MessageItem,
    NamedTool,
    ReasoningItem,
    ResponsesRequest,
)
from ramet.server.service import Service
from ramet.server.store import Conversation


@dataclass(frozen=True)
class Turn:
    """A question with what must be kept of it once it is answered."""

    ask: Ask
    previous: str | None
    """Id of the response that it follows."""
    new: list[ChatMessage]
    """The messages that it adds to those of the response before."""
    instructions: str | None
    conversation: str | None
    tools: list[Tool] | None


def read_turn(body: ResponsesRequest, service: Service) -> Turn:
    """The request as a question. Raises `ApiError` where it is wrong or asks for what is not served."""
    conversation = _conversation(body, service)
    previous = conversation.head if conversation is not None else body.previous_response_id
    new = input_messages(body.input, sees=service.sees)
    if conversation is not None and conversation.head is None:
        new = [*conversation.messages, *new]
    before: list[ChatMessage] = []
    tools = _tools(body)
    instructions = body.instructions
    after = None
    if previous is not None:
        path = service.responses.path(previous)
        if not path or (path[-1].body is None and conversation is None):
            raise ApiError(
                404,
                f"there is no response {previous!r}: it was deleted, not stored, or made with another model",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        before = [message for response in path for message in (*response.messages, response.reply)]
        last = path[-1]
        # What a request leaves out stays as the session has it; what it changes has to be rendered anew.
        instructions = last.instructions if body.instructions is None else body.instructions
        tools = last.tools if body.tools is None else tools
        if instructions == last.instructions and tools == last.tools:
            after = last.node
    if not new:
        raise bad_request("'input' is required: there is nothing to answer", "input", "missing_required_parameter")
    head: list[ChatMessage] = [] if instructions is None else [{"role": "system", "content": instructions}]
    messages = [*head, *before, *new]
    _check_outputs(messages)
    effort = body.reasoning.effort if body.reasoning is not None else None
    ask = Ask(
        messages=messages,
        sampling=_sampling(body, service),
        tools=tools,
        choice=_tool_choice(body, tools),
        form=_form(body),
        template_variables=template_variables(effort, body.chat_template_kwargs),
        after=after,
        new_from=len(head) + len(before),
        store=body.store is not False and service.runtime.tree.on_disk,
    )
    return Turn(ask, previous, new, instructions, conversation.id if conversation is not None else None, tools)


def input_messages(given: str | Sequence[InputItem] | None, *, sees: bool) -> list[ChatMessage]:
    """Input items as chat messages: what belongs to one reply (thoughts, text, calls) becomes one message."""
    if given is None:
        return []
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[ChatMessage] = []
    for index, item in enumerate(given):
        path = f"input[{index}]"
        match item:
            case MessageItem(role="assistant"):
                text = content_of(item.content, f"{path}.content", sees=sees)
                _open_reply(messages, "content", "tool_calls")["content"] = text
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": content_of(item.content, f"{path}.content", sees=sees)})
            case FunctionCallItem():
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                _open_reply(messages).setdefault("tool_calls", []).append(call)
            case FunctionCallOutputItem():
                content = content_of(item.output, f"{path}.output", sees=sees)
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
            case ReasoningItem():
                thoughts = "".join(part.text for part in item.content or item.summary)
                _open_reply(messages, "reasoning_content", "content", "tool_calls")["reasoning_content"] = thoughts
            case _:
                raise bad_request(f"items of type {item.type!r} are not served", f"{path}.type", "unsupported_item")
    for message in messages:
        message.setdefault("content", None)
    return messages


def _open_reply(messages: list[ChatMessage], *closed_by: str) -> ChatMessage:
    """The assistant message at the end, if it has none of the fields `closed_by`; else a new one."""
    if not messages or messages[-1]["role"] != "assistant" or any(field in messages[-1] for field in closed_by):
        messages.append({"role": "assistant"})
    return messages[-1]


def _check_outputs(messages: Sequence[ChatMessage]) -> None:
    called = {call["id"] for message in messages for call in message.get("tool_calls") or ()}
    for message in messages:
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            raise bad_request(f"no function call has the call_id {message['tool_call_id']!r}", "input")


def conversation_id(body: ResponsesRequest) -> str | None:
    """The conversation that the request goes on with, if it names one."""
    given = body.conversation
    return given.id if isinstance(given, ConversationReference) else given


def _conversation(body: ResponsesRequest, service: Service) -> Conversation | None:
    id = conversation_id(body)
    if id is None:
        return None
    if body.previous_response_id is not None:
        raise bad_request("give previous_response_id or conversation, not both", "previous_response_id")
    if body.store is False:
        raise bad_request("a conversation keeps its responses: store cannot be false", "store")
    found = service.responses.conversation(id)
    if found is None:
        raise ApiError(404, f"there is no conversation {id!r}", param="conversation", code="conversation_not_found")
    return found


def _tools(body: ResponsesRequest) -> list[Tool] | None:
    tools: list[Tool] = []
    for index, tool in enumerate(body.tools or ()):
        if tool.type != "function":
            raise bad_request(
                f"tools of type {tool.type!r} are not served; this server calls the client's own functions",
                f"tools[{index}].type",
                "unsupported_tool",
            )
        if not tool.name:
            raise bad_request(
                f"'tools[{index}].name' is required", f"tools[{index}].name", "missing_required_parameter"
            )
        function: dict[str, Any] = {"name": tool.name}
        for key in ("description", "parameters", "strict"):
            if getattr(tool, key) is not None:
                function[key] = getattr(tool, key)
        tools.append({"type": "function", "function": function})
    check_tools(tools, "tools[{}].name")
    return tools or None


def _tool_choice(body: ResponsesRequest, tools: Sequence[Tool] | None) -> ToolChoice:
    parallel = body.parallel_tool_calls is not False
    match body.tool_choice:
        case None:
            return choose(tools, "auto", None, parallel)
        case NamedTool(name=name):
            return choose(tools, "required", [name], parallel)
        case AllowedTools(mode=mode, tools=allowed):
            return choose(tools, mode, [tool.name for tool in allowed], parallel)
        case mode:
            return choose(tools, mode, None, parallel)


def _form(body: ResponsesRequest) -> TextForm | None:
    asked = body.text.format if body.text is not None else None
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_schema" and asked.schema_ is None:
        raise bad_request("'text.format.schema' is required", "text.format.schema", "missing_required_parameter")
    return TextForm(asked.schema_ if asked.type == "json_schema" else None)


def wants_logprobs(body: ResponsesRequest) -> bool:
    """Whether the output text comes with log probabilities."""
    return bool(body.top_logprobs) or "message.output_text.logprobs" in (body.include or ())


def _sampling(body: ResponsesRequest, service: Service) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        max_tokens=service.output_tokens(body.max_output_tokens, "max_output_tokens"),
        logprobs=(body.top_logprobs or 0) if wants_logprobs(body) else None,
    )
