"""The conformance suite of the chat formats: what every family's template, parser and cutting must do."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from ramet.chat import Note, ReasoningDelta, TextDelta, ToolCallEnd
from ramet.chat.format import Format
from ramet.chat.formats import FORMATS, format_of_template
from ramet.chat.template import ChatTemplate
from tests.chat_formats import TOOLS, amounts_to, comparable, conversation, cuts, markers, parse, squeezed, written

every_format = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)


def template_of(format: Format) -> ChatTemplate:
    return ChatTemplate(format.template, format.name)


@every_format
def test_a_template_tells_its_format(format: Format) -> None:
    assert format_of_template(format.template) is format


def check_identity(format: Format, count: int, seed: int) -> None:
    """Rendered and parsed, a reply is the message that it was, whichever way it is cut."""
    draw = random.Random(seed)
    template = template_of(format)
    calls = 0
    for _ in range(count):
        messages = conversation(draw, format)
        reply, in_reasoning = written(template, format, messages)
        events = parse(format, [reply], in_reasoning=in_reasoning)
        assert amounts_to(events) == comparable(messages[-1]), reply
        pieces = list(reply) if draw.random() < 0.05 else cuts(draw, reply)
        assert parse(format, pieces, in_reasoning=in_reasoning) == events, reply
        calls += len(messages[-1].get("tool_calls", ()))
    assert calls > count


@every_format
def test_rendered_then_parsed_a_reply_is_the_same(format: Format) -> None:
    check_identity(format, 400, seed=1)


@pytest.mark.slow
@every_format
def test_ten_thousand_rendered_then_parsed(format: Format) -> None:
    check_identity(format, 10_000, seed=2)


def broken_reply(draw: random.Random, format: Format, template: ChatTemplate) -> str:
    """Fragments in any order, or a good reply with a few faults."""
    fragments = [
        *markers(format),
        "</think>",
        "act",
        "count",
        "5",
        "\n",
        " ",
        "{",
        "}",
        '"',
        '{"count": 5}',
        "text",
        "<",
    ]
    if draw.random() < 0.4:
        return "".join(draw.choices(fragments, k=draw.randrange(16)))
    reply, _ = written(template, format, conversation(draw, format))
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(reply) + 1)
        reply = reply[:at] + draw.choice(["", *fragments]) + reply[at + draw.randrange(12) :]
    return reply[: draw.randrange(len(reply) + 1)] if draw.random() < 0.2 else reply


@every_format
def test_nothing_of_a_broken_reply_is_lost_however_it_is_cut(format: Format) -> None:
    draw = random.Random(3)
    template = template_of(format)
    noted = 0
    for _ in range(1500):
        reply, in_reasoning = broken_reply(draw, format, template), draw.random() < 0.3
        events = parse(format, [reply], in_reasoning=in_reasoning)
        assert parse(format, cuts(draw, reply), in_reasoning=in_reasoning) == events, repr(reply)
        came = "".join(
            event.raw if isinstance(event, ToolCallEnd) else event.text
            for event in events
            if isinstance(event, ToolCallEnd | TextDelta | ReasoningDelta)
        )
        assert squeezed(format, came) == squeezed(format, reply), repr(reply)
        noted += any(isinstance(event, Note) for event in events)
    assert noted > 200


@every_format
def test_a_good_call_behind_a_broken_one_is_still_a_call(format: Format) -> None:
    template = template_of(format)
    calls = [
        {"id": f"functions.act:{index}", "function": {"name": name, "arguments": {"count": index}}}
        for index, name in enumerate(("act", "nobody", "act"))
    ]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    reply, in_reasoning = written(template, format, messages)
    events = parse(format, [reply], in_reasoning=in_reasoning)
    assert amounts_to(events)["calls"] == [("act", "{'count': 0}"), ("act", "{'count': 2}")]
    assert "nobody" in amounts_to(events)["content"]
    assert "tool" in next(event.message for event in events if isinstance(event, Note))


@every_format
def test_reasoning_is_shown_where_it_is_still_needed(format: Format) -> None:
    def thinks(thought: str, **more: object) -> dict[str, object]:
        return {"role": "assistant", "content": "", "reasoning_content": thought, **more}

    call = {"id": "functions.act:0", "function": {"name": "act", "arguments": {}}}
    done = {"role": "tool", "tool_call_id": "functions.act:0", "content": "r"}
    messages = [
        {"role": "user", "content": "q"},
        thinks("OLDEST", tool_calls=[call]),
        done,
        thinks("OLD", content="answer"),
        {"role": "user", "content": "q"},
        thinks("NEW", tool_calls=[call]),
        done,
    ]
    variables = {**format.named, "messages": messages, "tools": TOOLS, "add_generation_prompt": True}
    text = template_of(format).render(variables)
    shown = [
        thought
        for thought in ("OLDEST", "OLD", "NEW")
        if f"{thought}\n</think>" in text or f"{thought}</think>" in text
    ]
    kept = {"deepseek_v3": [], "deepseek_v31": [], "deepseek_v4": ["OLDEST", "OLD", "NEW"]}
    assert shown == kept.get(format.name, ["NEW"])


@every_format
def test_thinking_can_be_turned_off(format: Format) -> None:
    variables = {**format.named, "messages": [{"role": "user", "content": "q"}], "add_generation_prompt": True}
    on, off = (template_of(format).render({**variables, "enable_thinking": think}) for think in (True, False))
    assert not off.rstrip().endswith("<think>")
    assert on.rstrip().endswith("<think>") == (format.name != "deepseek_v3")


@every_format
def test_tools_are_shown(format: Format) -> None:
    text = template_of(format).render({**format.named, "messages": [{"role": "user", "content": "q"}], "tools": TOOLS})
    assert all(f'"name": "{tool["function"]["name"]}"' in text for tool in TOOLS)


_PUBLISHED = {
    ("deepseek_v32", "system"): "f0b589b4322e4793c452281b62c3a7d1e4a8e1af1a490e29a4875542e3548d8b",
    ("deepseek_v32", "bare"): "ca85dcde71fe703e400d53242d7cb8332340abb1eea181e768dfb906d826c26e",
    ("deepseek_v32", "no tools"): "b00eb010567f96d68461fa19fc158dbf9cd573052387aebd667ad0902795d94f",
    ("deepseek_v4", "system"): "1aef7f256c31005fc235a5f8f6ec8196d7f8ca6b1240c1f5893998dcd49a5a37",
    ("deepseek_v4", "bare"): "d0769e740bbc4628c89072de71afcbbf47826f5f4496b85f518136745cfede94",
    ("deepseek_v4", "no tools"): "244802ad2a17bf6943e6f0582308033b3eac63934abf82fd503f64a6c073e8ef",
    ("deepseek_v4", "out of order"): "4022a5ff1c37b79e0c77d64fc343acc240e3ab4d1ee22241c9b0ace199da8daf",
}
"""SHA-256 of what the published encoders (`benchmarks.chat_peers.encoder`) make of `published_case`."""


def published_case(case: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """A conversation with calls, and its tools: it may have no system message, no tools, or results out of order."""
    weather = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    function = {"name": "weather", "description": "Grüße: what it will be like", "parameters": weather}
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        for n, arguments in enumerate(({"city": "Köln", "days": 2}, {}))
    ]
    messages: list[dict[str, Any]] = [
        *([] if case == "bare" else [{"role": "system", "content": "Be short."}]),
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "reasoning_content": "Two calls.", "content": "One moment.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "assistant", "reasoning_content": "Done.", "content": "Sun, then rain."},
        {"role": "user", "content": "And then?"},
    ]
    if case == "out of order":
        messages[3:5] = messages[4], {"role": "user", "content": "Hurry."}, messages[3]
    return messages, [] if case == "no tools" else [{"type": "function", "function": function}]


@pytest.mark.parametrize(("name", "case"), list(_PUBLISHED))
def test_deepseeks_prompts_are_those_of_the_published_encoders(name: str, case: str) -> None:
    """To the letter, instructions around the tools included: they are what the models were trained on."""
    format = next(format for format in FORMATS if format.name == name)
    messages, tools = published_case(case)
    variables = {
        **format.named,
        "messages": messages,
        "add_generation_prompt": True,
        **({"tools": tools} if tools else {}),
    }
    prompt = ChatTemplate(format.template, name).render(variables)
    assert hashlib.sha256(prompt.encode()).hexdigest() == _PUBLISHED[name, case]
