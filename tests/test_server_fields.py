"""Errors name the field at fault, whatever union pydantic tried on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ramet.engine import Sampling
from ramet.server.ask import Ask, ToolChoice, callable_tools, template_variables
from ramet.server.chat_schema import ChatRequest
from ramet.server.errors import ApiError, Dialect
from ramet.server.fields import parse_body
from ramet.server.messages_schema import MessagesRequest
from ramet.server.responses_schema import ResponsesRequest

HELLO = [{"role": "user", "content": "hello"}]


def failure(model: Any, body: Any) -> ApiError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        parse_body(raw, model)
    return caught.value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
        ({"model": "m", "messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        (
            {"model": "m", "messages": HELLO, "tool_choice": {"type": "function", "function": {}}},
            "tool_choice.function.name",
        ),
        ({"model": "m", "messages": HELLO, "stop": [1]}, "stop[0]"),
        ({"model": "m", "messages": HELLO, "temprature": 1}, "temprature"),
    ],
)
def test_chat_paths(body: dict[str, Any], param: str) -> None:
    error = failure(ChatRequest, body)
    assert (error.status, error.param) == (400, param)


def test_what_a_request_forbids_is_no_call_whatever_the_model_writes() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    for choice, may in (
        (ToolChoice(), ["a", "b"]),
        (ToolChoice("required", ("b",)), ["b"]),
        (ToolChoice("none"), []),
    ):
        ask = Ask([], Sampling(), tools=tools, choice=choice)
        assert [tool["function"]["name"] for tool in callable_tools(ask)] == may
    assert callable_tools(Ask([], Sampling())) == []


@pytest.mark.parametrize(
    ("effort", "given", "variables"),
    [
        (None, None, {}),
        (None, {"a": 1}, {"a": 1}),
        ("none", None, {"enable_thinking": False}),
        ("minimal", {"a": 1}, {"a": 1, "enable_thinking": False}),
        ("high", None, {"enable_thinking": True, "reasoning_effort": "high"}),
        ("max", {"enable_thinking": False}, {"enable_thinking": False, "reasoning_effort": "max"}),
        ("low", {"reasoning_effort": "mine"}, {"enable_thinking": True, "reasoning_effort": "mine"}),
    ],
)
def test_an_effort_is_a_variable_of_the_template(effort: Any, given: Any, variables: dict[str, Any]) -> None:
    assert template_variables(effort, given) == variables


def test_responses_paths() -> None:
    items = [*HELLO, {"type": "function_call_output", "call_id": 1, "output": "x"}]
    assert failure(ResponsesRequest, {"model": "m", "input": items}).param == "input[1].call_id"
    assert failure(ResponsesRequest, {"model": "m", "input": 3}).param == "input"


def test_anthropic_puts_the_path_before_the_message() -> None:
    block = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "tex": "a"}]}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    error = failure(MessagesRequest, body).body(Dialect.ANTHROPIC, "req_1")
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["message"].startswith("messages.0.content.0.content.0.text:")
    assert error["request_id"] == "req_1"


@pytest.mark.parametrize("raw", [b'{"model":', b"[]", b"\xff", b"null", b"[" * 100_000])
def test_what_is_not_a_json_object_is_said_to_be_none(raw: bytes) -> None:
    error = failure(ChatRequest, raw)
    assert (error.status, error.code) == (400, "invalid_json")


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"1" * 5000])
def test_numbers_that_no_answer_could_repeat_are_refused(number: bytes) -> None:
    error = failure(ResponsesRequest, b'{"model": "m", "input": "x", "chat_template_kwargs": {"a": %b}}' % number)
    assert (error.status, error.code) == (400, "invalid_json")
    assert "number" in error.message


def test_halves_of_surrogate_pairs_are_replaced_and_pairs_are_not() -> None:
    raw = b'{"model": "m", "input": "a\\ud800b", "metadata": {"\\uDfff": "\\ud83d\\ude00"}}'
    body = parse_body(raw, ResponsesRequest)
    assert body.input == "a\ufffdb"
    assert body.metadata == {"\ufffd": "\U0001f600"}
    assert failure(ResponsesRequest, b'{"model": "m", "input": "\xed\xa0\x80"}').code == "invalid_json"


def test_fields_that_nobody_knows_are_ignored_inside_but_not_at_the_top() -> None:
    body = {"model": "m", "messages": [{**HELLO[0], "mood": "good"}], "user": "me"}
    assert parse_body(json.dumps(body).encode(), ChatRequest).messages[0].content == "hello"
