"""Replies -> events: what is a call, what stays text, and that how a reply is cut into pieces does not matter."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from typing import Any

import pytest

from ramet.chat import (
    Event,
    Note,
    Parser,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    assistant_message,
)
from tests.chat_formats import cuts, merged


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool(
        "search",
        query={"type": "string"},
        limit={"type": "integer"},
        ratio={"type": "number"},
        exact={"type": "boolean"},
        tags={"type": "array", "items": {"type": "string"}},
        options={"type": "object"},
        nothing={"type": "null"},
        maybe={"type": ["string", "null"]},
        either={"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
        open={},
    ),
    tool("now"),
]


def parse(pieces: Iterable[str], tools: Any = TOOLS, in_reasoning: bool = False) -> list[Event]:
    parser = Parser(tools, in_reasoning=in_reasoning, prompt_text="p")
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged([*events, *parser.finish()])


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def reasoning_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def calls_of(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    calls = assistant_message(events).get("tool_calls", [])
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def notes_of(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Note)]


def call(name: str, **values: str) -> str:
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


def test_text_alone_is_text() -> None:
    assert parse(["Hello, ", "world.\n"]) == [TextDelta("Hello, world.\n")]


def test_reasoning_ends_where_its_tag_does_and_loses_the_space_around_it() -> None:
    events = parse(["\n I think.\n\nSo\n</think>\n\n  Yes"], in_reasoning=True)
    assert events == [ReasoningDelta("I think.\n\nSo"), TextDelta("  Yes")]


def test_reasoning_may_be_opened_by_the_reply() -> None:
    assert parse(["\n<think>\na\n</think>\n\nb"]) == [ReasoningDelta("a"), TextDelta("b")]


def test_a_later_think_tag_is_text() -> None:
    assert parse(["Write <think>x</think>."]) == [TextDelta("Write <think>x</think>.")]


def test_empty_reasoning_gives_no_event() -> None:
    assert parse(["\n</think>\n\nb"], in_reasoning=True) == [TextDelta("b")]


def test_unclosed_reasoning_is_noted() -> None:
    events = parse(["I wonder", " whether\n"], in_reasoning=True)
    assert reasoning_of(events) == "I wonder whether" and text_of(events) == ""
    assert "not closed" in notes_of(events)[0]


def test_a_call_in_reasoning_is_none() -> None:
    events = parse([call("now") + "\n</think>\n\nok"], in_reasoning=True)
    assert calls_of(events) == [] and notes_of(events) == []
    assert reasoning_of(events) == call("now") and text_of(events) == "ok"


def test_calls_with_which_an_unclosed_reasoning_ends_are_calls() -> None:
    """The model forgot its `</think>` and stopped where it waits for a result."""
    both = call("search", query="a") + "\n" + call("now")
    events = parse(["I look it up.\n\n" + both + "\n"], in_reasoning=True)
    assert calls_of(events) == [("search", {"query": "a"}), ("now", {})]
    assert reasoning_of(events) == "I look it up." and text_of(events) == ""
    assert "not closed" in notes_of(events)[0] and len(notes_of(events)) == 1
    assert "\n".join(event.raw for event in events if isinstance(event, ToolCallEnd)) == both


@pytest.mark.parametrize(
    "behind",
    ["\n\nThat is how I could call it.", "\n</think>\n\nok", "\n<tool_call>", "\n<tool_call>\n<function=now>", " \n."],
)
def test_a_call_behind_which_a_reasoning_goes_on_is_none(behind: str) -> None:
    events = parse(["So: " + call("now") + behind], in_reasoning=True)
    assert calls_of(events) == []
    assert reasoning_of(events) == ("So: " + call("now") + behind).split("\n</think>")[0]


def test_the_last_of_the_calls_in_a_reasoning_may_be_one() -> None:
    thought = f"{call('now')} is one way, <tool_call> a tag, {call('search', limit='1')} another. So"
    events = parse([f"{thought}\n{call('now')}"], in_reasoning=True)
    assert calls_of(events) == [("now", {})] and reasoning_of(events) == thought


def test_a_reasoning_is_not_held_back_longer_than_needed() -> None:
    parser = Parser(TOOLS, in_reasoning=True)
    assert reasoning_of(parser.feed("So <tool_call> tags")) == "So <tool_call> tags"
    assert reasoning_of(parser.feed(" " + call("now"))) == ""
    assert reasoning_of(parser.feed(" no")) == " " + call("now") + " no"


def test_a_call_gives_start_arguments_and_end() -> None:
    raw = call("search", query="x")
    start, arguments, end = parse([raw])
    assert isinstance(start, ToolCallStart) and (start.index, start.name) == (0, "search")
    assert arguments == ToolCallArguments(0, '{"query": "x"}')
    assert end == ToolCallEnd(0, raw)


def test_parallel_calls_have_their_own_index_and_id() -> None:
    events = parse(["Both.\n\n" + call("now") + "\n" + call("search", query="a") + "\n" + call("now")])
    assert calls_of(events) == [("now", {}), ("search", {"query": "a"}), ("now", {})]
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [start.index for start in starts] == [0, 1, 2]
    assert len({start.id for start in starts}) == 3
    assert text_of(events) == "Both."


def test_ids_of_calls_follow_from_the_prompt_and_the_reply() -> None:
    first, again = parse([call("now")]), parse(list(call("now")))
    other = Parser(TOOLS, prompt_text="another").feed(call("now"))
    assert first == again
    assert isinstance(first[0], ToolCallStart) and isinstance(other[0], ToolCallStart)
    assert first[0].id != other[0].id


def test_text_around_calls_stays() -> None:
    events = parse(["A\n\n" + call("now") + "\nB " + call("now") + "\n\n C\n"])
    assert [type(event).__name__ for event in events if not isinstance(event, ToolCallArguments)] == [
        "TextDelta", "ToolCallStart", "ToolCallEnd", "TextDelta", "ToolCallStart", "ToolCallEnd", "TextDelta",
    ]  # fmt: skip
    assert text_of(events) == "A\nB\n\n C\n"


@pytest.mark.parametrize("space", ["", " ", "\n", "\n\n", " \n "])
def test_whitespace_between_tags_is_free(space: str) -> None:
    raw = space.join(
        ["<tool_call>", "<function=search>", "<parameter=query>\nx\n</parameter>", "</function>", "</tool_call>"]
    )
    assert calls_of(parse([raw])) == [("search", {"query": "x"})]


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("query", "5", "5"),
        ("query", "null", "null"),
        ("query", '{"a": 1}', '{"a": 1}'),
        ("query", "", ""),
        ("query", "\n two\nlines \n", "\n two\nlines \n"),
        ("limit", "5", 5),
        ("limit", " 5 ", 5),
        ("limit", "5.5", "5.5"),
        ("limit", "five", "five"),
        ("limit", "true", "true"),
        ("limit", "9" * 5000, "9" * 5000),
        ("ratio", "5", 5),
        ("ratio", "0.25", 0.25),
        ("ratio", "1e3", 1000.0),
        ("ratio", "NaN", "NaN"),
        ("ratio", "1e999", "1e999"),
        ("exact", "true", True),
        ("exact", "False", False),
        ("exact", "yes", "yes"),
        ("exact", "1", "1"),
        ("tags", '["a", "é"]', ["a", "é"]),
        ("tags", "a, b", "a, b"),
        ("tags", "[" * 100_000, "[" * 100_000),
        ("options", '{"a": {"b": [1, null]}}', {"a": {"b": [1, None]}}),
        ("options", "[1]", "[1]"),
        ("nothing", "null", None),
        ("nothing", "None", None),
        ("maybe", "null", None),
        ("maybe", "text", "text"),
        ("either", "3", 3),
        ("either", "true", True),
        ("either", "3.5", "3.5"),
        ("maybe", '"quoted"', "quoted"),
        ("open", "5", 5),
        ("open", '"quoted"', "quoted"),
        ("open", "None", "None"),
        ("open", "words, words", "words, words"),
        ("undeclared", "5", "5"),
    ],
)
def test_values_take_the_type_of_their_schema_or_stay_text(key: str, written: str, value: Any) -> None:
    parsed = calls_of(parse([call("search", **{key: written})]))
    assert parsed == [("search", {key: value})]
    assert type(parsed[0][1][key]) is type(value)


def test_types_are_found_through_references_alternatives_enums_and_constants() -> None:
    schema = {
        "type": "object",
        "$defs": {"Count": {"type": "integer"}, "Loop": {"$ref": "#/$defs/Loop"}},
        "properties": {
            "a": {"$ref": "#/$defs/Count"},
            "b": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/Count"}]},
            "c": {"enum": [1, 2, "x"]},
            "d": {"const": True},
            "e": {"$ref": "#/$defs/Loop"},
            "f": {"$ref": "#/$defs/Missing"},
            "g": {"allOf": [{"type": "array"}]},
        },
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    written = call("f", a="1", b="null", c="2", d="true", e="1", f="1", g="[1]")
    assert calls_of(parse([written], tools)) == [
        ("f", {"a": 1, "b": None, "c": 2, "d": True, "e": 1, "f": 1, "g": [1]})
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"$ref": "#/$defs/Arguments", "$defs": {"Arguments": {"properties": {"n": {"type": "integer"}}}}},
        {"allOf": [{"properties": {"other": {}}}, {"properties": {"n": {"type": "integer"}}}]},
        {"anyOf": [{"properties": {"n": {"type": "null"}}}, {"properties": {"n": {"type": "integer"}}}]},
        {"oneOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"allOf": [{"properties": {"n": {"type": "integer"}}}]}}},
    ],
)
def test_parameters_are_found_wherever_a_schema_declares_them(schema: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert calls_of(parse([call("f", n="5")], tools)) == [("f", {"n": 5})]
    assert calls_of(parse([call("f", n="five")], tools)) == [("f", {"n": "five"})]


def test_a_schema_that_refers_to_itself_over_and_over_is_read_once() -> None:
    itself = {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/A"}] * 10}
    schema = {**itself, "$defs": {"A": itself}, "properties": {"n": {"anyOf": [{"$ref": "#"}] * 20}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert calls_of(parse([call("f", n="5", m="6")], tools)) == [("f", {"n": 5, "m": "6"})]


@pytest.mark.parametrize(
    "schema", [None, {}, {"$ref": "#"}, {"allOf": 5, "anyOf": [7]}, {"additionalProperties": True}]
)
def test_a_parameter_that_no_schema_declares_is_text(schema: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert calls_of(parse([call("f", n="5")], tools)) == [("f", {"n": "5"})]


def test_half_a_surrogate_pair_in_a_value_can_still_be_sent() -> None:
    events = parse([call("search", tags='["\\ud800"]')])
    arguments = "".join(event.json for event in events if isinstance(event, ToolCallArguments))
    assert json.loads(arguments.encode()) == {"tags": ["\ud800"]}


def test_tags_inside_a_value_belong_to_it() -> None:
    value = "</parameter> is a tag, so are <parameter=other>, <function=now>, </function>, <tool_call> and </tool_call>"
    assert calls_of(parse([call("search", query=value)])) == [("search", {"query": value})]


MALFORMED = {
    "no tool of this name": (call("delete", query="x"), "no tool named 'delete'"),
    "no function": ("<tool_call>\nnow\n</tool_call>", "<function= was expected"),
    "JSON instead": ('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', "<function= was expected"),
    "empty": ("<tool_call>\n</tool_call>", "<function= was expected"),
    "a name without end": ("<tool_call>\n<function=now\n</function>\n</tool_call>", "no end"),
    "a name that is empty": ("<tool_call>\n<function=>\n</function>\n</tool_call>", "no name"),
    "garbage between tags": ("<tool_call>\n<function=now>\nwell\n</function>\n</tool_call>", "was expected in 'now'"),
    "garbage behind the function": ("<tool_call>\n<function=now>\n</function>\nwell\n</tool_call>", "</tool_call> was"),
    "parameter twice": (
        "<tool_call>\n<function=search>\n<parameter=limit>\n1\n</parameter>\n<parameter=limit>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        "'limit' of 'search' is given twice",
    ),
    "parameter not closed": (
        "<tool_call>\n<function=search>\n<parameter=query>\nx\n</function>\n</tool_call>",
        "'query' of 'search' is not closed",
    ),
    "parameter not closed before the next": (
        "<tool_call>\n<function=search>\n<parameter=query>\nx\n<parameter=limit>\n1\n</parameter>\n</function>\n"
        "</tool_call>",
        "'query' of 'search' is not closed",
    ),
    "function not closed": (
        "<tool_call>\n<function=search>\n<parameter=query>\nx\n</parameter>\n</tool_call>",
        "'search' is not closed",
    ),
    "cut off in a value": ("<tool_call>\n<function=search>\n<parameter=query>\nselect", "in parameter 'query'"),
    "cut off in a tag": ("<tool_call>\n<func", "before a function is named"),
    "cut off before its end": ("<tool_call>\n<function=now>\n</function>\n", "in 'now'"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_call_is_text_with_a_note(case: str) -> None:
    raw, why = MALFORMED[case]
    events = parse(["Look:\n\n" + raw])
    assert calls_of(events) == []
    assert text_of(events) == "Look:\n\n" + raw
    notes = notes_of(events)
    assert len(notes) == 1 and why in notes[0]


@pytest.mark.parametrize("case", [name for name in MALFORMED if not name.startswith("cut off")])
def test_a_good_call_behind_a_malformed_one_is_still_a_call(case: str) -> None:
    raw, _ = MALFORMED[case]
    events = parse([raw + "\n" + call("search", query="y")])
    assert calls_of(events) == [("search", {"query": "y"})]
    assert text_of(events) == raw


def test_a_call_behind_one_whose_value_never_ends_is_still_a_call() -> None:
    broken = "<tool_call>\n<function=search>\n<parameter=query>\nx\n</tool_call>"
    for behind in ("\n", "\n\nAnd then: "):
        for name, values in (("now", {}), ("search", {"query": "y"})):
            events = parse([broken + behind + call(name, **values)])
            assert calls_of(events) == [(name, values)]
            assert text_of(events) == (broken + behind).rstrip() and len(notes_of(events)) == 1


def test_a_stuttered_opening_costs_only_itself() -> None:
    events = parse(["<tool_call>\n" + call("now")])
    assert calls_of(events) == [("now", {})] and text_of(events) == "<tool_call>"


def test_a_tag_that_is_only_talked_about_is_text_at_once() -> None:
    parser = Parser(TOOLS)
    events = parser.feed("Use <tool_call> tags, ")
    assert text_of(events) == "Use <tool_call> tags,"


def test_without_tools_nothing_is_a_call() -> None:
    events = parse(["a " + call("now")], None)
    assert text_of(events) == "a " + call("now") and len(notes_of(events)) == 1


def test_text_is_not_held_back_longer_than_needed() -> None:
    parser = Parser(TOOLS)
    assert parser.feed("a < b") == [TextDelta("a < b")]
    assert parser.feed(" <tool") == []
    assert parser.feed("box>") == [TextDelta(" <toolbox>")]


# How a reply is cut into pieces must not matter.

REPLIES = [
    "Hello, world.\n",
    "think\n</think>\n\nIt is so.\n\n" + call("search", query="x < y\n</parameter> z", limit="5") + "\n" + call("now"),
    "</think>" + call("now") + " and " + call("nope") + "\n\nbye ",
    "<think>\n a <tool_call> b </thin k\n</think>\n\n<tool_call> c",
    *(f"ok {raw}\n{call('now')}" for raw, _ in MALFORMED.values()),
    "a " + call("now") + " b " + call("search", query="x </parameter> y") + "\n" + call("now") + "\n",
    "a " + call("now") + "\n" + call("search", query="</think>") + "\n<tool_call",
]


@pytest.mark.parametrize("in_reasoning", [False, True])
def test_every_cut_in_two_gives_the_same_events(in_reasoning: bool) -> None:
    for reply in REPLIES:
        whole = parse([reply], in_reasoning=in_reasoning)
        for cut in range(len(reply) + 1):
            assert parse([reply[:cut], reply[cut:]], in_reasoning=in_reasoning) == whole


@pytest.mark.parametrize("in_reasoning", [False, True])
def test_character_by_character_gives_the_same_events(in_reasoning: bool) -> None:
    for reply in REPLIES:
        assert parse(reply, in_reasoning=in_reasoning) == parse([reply], in_reasoning=in_reasoning)


def test_every_cut_in_three_gives_the_same_events() -> None:
    reply = "r</think>a\n" + call("search", limit="5") + "\n<tool_call>b"
    whole = parse([reply], in_reasoning=True)
    for first in range(len(reply) + 1):
        for second in range(first, len(reply) + 1):
            assert parse([reply[:first], reply[first:second], reply[second:]], in_reasoning=True) == whole


FRAGMENTS = [
    "<tool_call>", "</tool_call>", "<function=search>", "<function=now>", "<function=", "</function>", "<parameter=",
    "<parameter=query>", "<parameter=limit>", "<parameter=tags>", "</parameter>", "<think>", "</think>", "<tool_",
    "</param", "\n", "\n", "\n", "\n\n", " ", ">", "<", "x", "5", '["a"]', "null", "words and more", "é🙂", "=", "/",
    "<tool_call>\n<function=search>\n<parameter=query>\n", "\n</parameter>\n</function>\n</tool_call>",
    "<tool_call>\n<function=now>\n</function>\n</tool_call>", "<function=delete>", "\u2028", "\x1c", "\x00", "\r\n",
]  # fmt: skip


def random_reply(draw: random.Random) -> str:
    """Something like a reply: a call with a few faults, or any fragments in any order."""
    if draw.random() < 0.5:
        return "".join(draw.choices(FRAGMENTS, k=draw.randrange(14)))
    keys = draw.choices(["query", "limit", "tags", "exact", "other"], k=draw.randrange(4))
    parts = ["text\n\n", "<tool_call>", "\n", f"<function={draw.choice(['search', 'now', 'nope'])}>", "\n"]
    for key in keys:
        parts += [f"<parameter={key}>", "\n", draw.choice(FRAGMENTS), "\n", "</parameter>", "\n"]
    parts += ["</function>", "\n", "</tool_call>"] * draw.randrange(1, 3)
    for _ in range(draw.randrange(3)):
        fault = draw.randrange(len(parts))
        parts[fault : fault + draw.randrange(2)] = draw.choices(FRAGMENTS, k=draw.randrange(3))
    return "".join(parts)


def squeezed(text: str) -> str:
    return "".join(text.split())


def check_reply(draw: random.Random) -> bool:
    """One random reply: the same events however it is cut, and nothing of it is lost. Whether it has a call."""
    reply, in_reasoning = random_reply(draw), draw.random() < 0.3
    events = parse([reply], in_reasoning=in_reasoning)
    pieces = list(reply) if draw.random() < 0.05 else cuts(draw, reply)
    assert parse(pieces, in_reasoning=in_reasoning) == events, repr(reply)
    came = ""
    for event in events:
        if isinstance(event, ToolCallEnd):
            came += event.raw
        elif isinstance(event, TextDelta | ReasoningDelta):
            came += event.text
    # All that may be missing is whitespace and the tags around one stretch of reasoning at the start.
    lost_tags = {("", ""), ("<think>", ""), ("<think>", "</think>"), ("", "</think>")}
    assert any(
        squeezed(reply) == squeezed(came)
        or (
            (match := re.fullmatch(f"{re.escape(opened)}(.*?){re.escape(closed)}(.*)", squeezed(reply), re.DOTALL))
            is not None
            and match.group(1) + match.group(2) == squeezed(came)
        )
        for opened, closed in lost_tags
    ), repr(reply)
    for name, arguments in calls_of(events):
        assert name in ("search", "now") and isinstance(arguments, dict)
    return bool(calls_of(events))


@pytest.mark.parametrize("replies", [15_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_replies(replies: int) -> None:
    draw = random.Random(replies)
    with_calls = sum(check_reply(draw) for _ in range(replies))
    assert with_calls > replies / 20  # the cases are not all garbage


def test_the_work_grows_with_the_reply_and_not_with_its_square() -> None:
    value = "line < of > code\n" * 20_000
    parser = Parser(TOOLS)
    raw = call("search", query=value)
    events = [event for start in range(0, len(raw), 64) for event in parser.feed(raw[start : start + 64])]
    assert calls_of(merged([*events, *parser.finish()])) == [("search", {"query": value})]
