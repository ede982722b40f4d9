"""What a parser makes of a reply, and the message it amounts to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class ToolCallStart:
    """A call begins. It is well-formed and names a tool of the request; `index` counts calls from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """More of a call's arguments; the `json` of one index, joined, is one JSON object."""

    index: int
    json: str


@dataclass(frozen=True)
class ToolCallEnd:
    """A call is complete. `raw` is what the model wrote for it."""

    index: int
    raw: str


@dataclass(frozen=True)
class Note:
    """Something in the reply looked like a call, or like reasoning, but is not whole; its text came as text.

    `message` says, for a person, what is wrong with it.
    """

    message: str


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallArguments | ToolCallEnd | Note


def assistant_message(events: Iterable[Event]) -> dict[str, Any]:
    """The reply as an assistant message in OpenAI's chat form.

    `content` is None where there are only calls; `reasoning_content` and `tool_calls` are there if the reply has any.
    """
    text, reasoning = [], []
    calls: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, TextDelta):
            text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            reasoning.append(event.text)
        elif isinstance(event, ToolCallStart):
            function = {"name": event.name, "arguments": ""}
            calls.append({"id": event.id, "type": "function", "function": function})
        elif isinstance(event, ToolCallArguments):
            calls[event.index]["function"]["arguments"] += event.json
    content = "".join(text)
    message: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
    if reasoning or "</think>" in content:  # templates look for reasoning in the content where no field has it
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = calls
    return message
