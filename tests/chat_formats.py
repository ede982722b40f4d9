"""Conversations for every chat format, from a seed, and what a reply in them amounts to."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from ramet.chat import Event, Parser, ReasoningDelta, TextDelta, ToolCallArguments, assistant_message
from ramet.chat.calls import TagForm
from ramet.chat.format import Format
from ramet.chat.template import ChatTemplate

PROPERTIES: dict[str, Any] = {
    "text": {"type": "string"},
    "other_text": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "flag": {"type": "boolean"},
    "items": {"type": "array"},
    "options": {"type": "object"},
    "nothing": {"type": "null"},
    "größe": {"type": "string"},
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": "d", "parameters": {"type": "object", "properties": properties}},
    }
    for name, properties in (("act", PROPERTIES), ("act_now", {}), ("look-up.v2", PROPERTIES))
]
_WORDS = [
    "word", "5", "0.50", "true", "null", "None", '{"a": [1, "x"]}', "[", "}", '"', "'", "\\", "\\n", "\n", " ", "\t",
    "<", ">", "</", "<b>", "&amp;", "é", "東京", "🙂", "\u2028", "```", "```json", "functions.act:0", "x" * 50, "a=b",
]  # fmt: skip


FORGETS = ("deepseek_v3", "deepseek_v31")
"""Formats that never show a reasoning again."""


def vocabulary(format: Format) -> str:
    """The format whose tokens it has: V3.1's are V3's."""
    return "deepseek_v3" if format.name == "deepseek_v31" else format.name


def markers(format: Format) -> list[str]:
    """Every piece of the format's own markup."""
    form = format.calls
    tags = [*(form.section or ()), *form.opening, *form.ending, *format.tags, *format.control]
    tags += [form.parameter, *form.key_end, form.value_end] if isinstance(form, TagForm) else [form.separator]
    return [*tags, "<think>", *format.ends]


def _text(draw: random.Random, marks: list[str]) -> str:
    """Words and the format's own markers, a marker never next to another: two of them may be the end of a value."""
    parts: list[str] = []
    for _ in range(draw.randrange(7)):
        parts.append(draw.choice(_WORDS))
        if draw.random() < 0.25:
            parts += [" w", draw.choice(marks), "w "]
    return "".join(parts)


def _value(draw: random.Random, kind: str, marks: list[str], depth: int = 0) -> Any:
    match kind:
        case "string":
            return _text(draw, marks)
        case "integer":
            return draw.choice([0, -1, 7, 2**70, draw.randrange(-1000, 1000)])
        case "number":
            return draw.choice([0.5, -1e-9, 1e21, 3, draw.random()])
        case "boolean":
            return draw.random() < 0.5
        case "null":
            return None
        case "array":
            return [_inner(draw, marks, depth) for _ in range(draw.randrange(4))]
        case _:
            return {_text(draw, marks): _inner(draw, marks, depth) for _ in range(draw.randrange(4))}


def _inner(draw: random.Random, marks: list[str], depth: int) -> Any:
    kinds = ["string", "integer", "number", "boolean", "null", *(["array", "object"] if depth < 3 else [])]
    return _value(draw, draw.choice(kinds), marks, depth + 1)


def _reply(draw: random.Random, format: Format, turn: int, marks: list[str], *, last: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _text(draw, marks).strip() or None}
    thought = _text(draw, [mark for mark in marks if not _ends_reasoning(format, mark)]).strip()
    if draw.random() < 0.5 and thought and format.name not in FORGETS:
        message["reasoning_content"] = thought
    calls = []
    # Kimi's template hides all reasoning once there is an answer, so such a reply is not shown as it was written.
    fewest = 1 if format.name == "kimi_k25" else 0
    for index in range(draw.choice([fewest, 1, 1, 2, 3]) if last else draw.randrange(1, 3)):
        tool = draw.choice(TOOLS)["function"]
        properties = tool["parameters"]["properties"]
        keys = draw.sample(sorted(properties), k=min(len(properties), draw.randrange(5)))
        arguments = {key: _value(draw, properties[key]["type"], marks) for key in keys}
        function = {"name": tool["name"], "arguments": arguments}
        calls.append({"id": f"functions.{tool['name']}:{turn * 4 + index}", "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = "ok"
    return message


def _ends_reasoning(format: Format, mark: str) -> bool:
    return format.calls_end_reasoning and mark in (format.calls.section or ())


def conversation(draw: random.Random, format: Format, *, plain: bool = False) -> list[dict[str, Any]]:
    """A conversation that ends with a reply; a `plain` one has none of the format's own markers in it."""
    marks = ["mark"] if plain else markers(format)
    messages: list[dict[str, Any]] = [{"role": "system", "content": _text(draw, marks)}] * draw.randrange(2)
    messages.append({"role": "user", "content": "Q " + _text(draw, marks)})
    for turn in range(draw.randrange(3)):
        reply = _reply(draw, format, turn, marks, last=False)
        messages.append(reply)
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": _text(draw, marks)} for call in reply["tool_calls"]
        ]
        if draw.random() < 0.3:
            messages += [{"role": "assistant", "content": "Done."}, {"role": "user", "content": "And now?"}]
    return [*messages, _reply(draw, format, 5, marks, last=True)]


def written(template: ChatTemplate, format: Format, messages: list[dict[str, Any]]) -> tuple[str, bool]:
    """What a model wrote for the last message, its end left out, and whether it began inside a reasoning."""
    variables = {**format.named, "tools": TOOLS}
    *before, _ = messages
    base = template.render({**variables, "messages": before})
    prompt = template.render({**variables, "messages": before, "add_generation_prompt": True})
    whole = template.render({**variables, "messages": messages})
    header = prompt.removeprefix(base).split("<think>")[0].split("</think>")[0]
    assert whole.startswith(base + header)
    reply = whole.removeprefix(base + header).rstrip("\n")
    for end in format.ends:
        reply = reply.removesuffix(end)
    opened = prompt.endswith("<think>") and reply.startswith("<think>")
    return (reply.removeprefix("<think>") if opened else reply), opened or reply.startswith("</think>")


def merged(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring deltas of one kind joined."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            result[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            result[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolCallArguments) and isinstance(last, ToolCallArguments) and event.index == last.index:
            result[-1] = ToolCallArguments(last.index, last.json + event.json)
        else:
            result.append(event)
    return result


def parse(format: Format, pieces: Iterable[str], *, in_reasoning: bool = False) -> list[Event]:
    """The events of a reply."""
    parser = Parser(TOOLS, format=format, in_reasoning=in_reasoning, prompt_text="p")
    return merged([*(event for piece in pieces for event in parser.feed(piece)), *parser.finish()])


def amounts_to(events: Iterable[Event]) -> dict[str, Any]:
    """The message of these events without what a format does not carry, its arguments as objects."""
    return comparable(assistant_message(events))


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """Reasoning, content and calls of a message, each call's arguments as an object."""
    calls = []
    for call in message.get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        # repr tells 1 from 1.0 and True, and keeps the order
        calls.append((call["function"]["name"], repr(arguments)))
    content = message.get("content") or ""
    return {"reasoning": message.get("reasoning_content") or "", "content": content, "calls": calls}


def cuts(draw: random.Random, reply: str) -> list[str]:
    """A reply in a few pieces."""
    places = sorted(draw.randrange(len(reply) + 1) for _ in range(draw.randrange(8)))
    return [reply[start:end] for start, end in zip([0, *places], [*places, len(reply)], strict=True)]


def squeezed(format: Format, text: str) -> str:
    """A text without blanks and without the tags that belong to no part of a reply."""
    tags = ("<think>", "</think>", *((format.calls.section or ())[1:]))
    text = "".join(text.split())
    while any(tag in text for tag in tags):  # taking one away may leave another
        for tag in tags:
            text = text.replace(tag, "")
    return text


__all__ = [
    "FORGETS", "TOOLS", "amounts_to", "comparable", "conversation", "cuts", "markers", "merged", "parse",
    "squeezed", "vocabulary", "written",
]  # fmt: skip
