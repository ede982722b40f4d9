"""Anthropic Messages over HTTP, through the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import jsonschema
import pytest

from ramet.server.settings import Settings
from tests.serving import NAME, Serving, serving, tiny_checkpoint

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Oslo", "Quito"]},
        "days": {"type": "integer", "enum": [1, 7]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"name": "weather", "description": "The forecast", "input_schema": SCHEMA},
    {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
]
QUESTION: Any = [{"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(Settings(tiny_checkpoint(tmp_path_factory.mktemp("model")))) as running:
        yield running


def ask(server: Serving, messages: Any = QUESTION, **about: Any) -> Any:
    # The client no longer names a temperature, the API still takes one.
    about = {"max_tokens": 8, "extra_body": {"temperature": about.pop("temperature", 0)}, **about}
    return server.anthropic.messages.create(model=NAME, messages=messages, **about)


def test_a_message_and_its_usage(server: Serving) -> None:
    message = ask(server, system="Be brief.")
    assert (message.type, message.role) == ("message", "assistant")
    assert message.stop_reason in ("max_tokens", "end_turn")
    assert message.content[0].type == "text"
    usage = message.usage
    assert 1 <= usage.output_tokens <= 8
    total = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    counted = server.anthropic.messages.count_tokens(model=NAME, messages=QUESTION, system="Be brief.")
    assert counted.input_tokens == total
    again = ask(server, system="Be brief.")
    assert again.content == message.content
    assert again.usage.cache_read_input_tokens >= total - 8
    assert again.usage.input_tokens == total - again.usage.cache_read_input_tokens
    assert again.ramet["node"] == message.ramet["node"]


def test_a_system_of_blocks_is_the_same_prompt(server: Serving) -> None:
    whole = ask(server, system="One.\n\nTwo.")
    blocks: Any = [
        {"type": "text", "text": "One."},
        {"type": "text", "text": "Two.", "cache_control": {"type": "ephemeral"}},
    ]
    assert ask(server, system=blocks).ramet["node"] == whole.ramet["node"]


def test_the_stream_adds_up_to_the_whole(server: Serving) -> None:
    whole = ask(server, max_tokens=16)
    kinds = []
    with server.anthropic.messages.stream(
        model=NAME, messages=QUESTION, max_tokens=16, extra_body={"temperature": 0}
    ) as stream:
        kinds = [event.type for event in stream if event.type not in ("text",)]
        final = stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert final.content[0].text == whole.content[0].text
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 16
    assert final.usage.cache_read_input_tokens > 0


def test_thinking_comes_in_a_block_of_its_own(server: Serving) -> None:
    think: Any = {"type": "enabled", "budget_tokens": 1024}
    message = ask(server, thinking=think, temperature=1.0, max_tokens=24)
    assert message.content[0].type == "thinking"
    assert message.usage.output_tokens_details.thinking_tokens > 0
    with server.anthropic.messages.stream(model=NAME, messages=QUESTION, max_tokens=24, thinking=think) as stream:
        final = stream.get_final_message()
    assert final.content[0].type == "thinking"
    said = [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "Yes."}]
    after = ask(server, [*QUESTION, {"role": "assistant", "content": said}, {"role": "user", "content": "Sure?"}])
    assert after.content


def test_a_stop_sequence_is_named(server: Serving) -> None:
    text = ask(server, max_tokens=24, temperature=0).content[0].text
    stop = text[len(text) // 2 :][:2]
    message = ask(server, max_tokens=24, temperature=0, stop_sequences=[stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == text[: text.index(stop)]


def test_tools_are_used_and_answered(server: Serving) -> None:
    used = ask(
        server,
        tools=TOOLS,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        max_tokens=400,
        temperature=1.0,
    )
    assert used.stop_reason == "tool_use"
    blocks = [block for block in used.content if block.type == "tool_use"]
    schemas = {tool["name"]: tool["input_schema"] for tool in TOOLS}
    for block in blocks:
        jsonschema.validate(block.input, schemas[block.name])
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "fine"}]}
        for block in blocks
    ]
    said = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in used.content]}
    answer = ask(server, [*QUESTION, said, {"role": "user", "content": results}], tools=TOOLS)
    assert answer.ramet["reused"] == server.runtime.tree.node(used.ramet["node"]).end
    assert answer.ramet["divergence"] is None


def test_one_named_tool_streamed(server: Serving) -> None:
    with server.anthropic.messages.stream(
        model=NAME,
        messages=QUESTION,
        max_tokens=400,
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    ) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["tool_use"]
    jsonschema.validate(final.content[0].input, SCHEMA)
    assert parts
    assert final.stop_reason == "tool_use"


def test_structured_output(server: Serving) -> None:
    form: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
    message = ask(server, output_config=form, max_tokens=600, temperature=1.0)
    jsonschema.validate(json.loads(message.content[0].text), SCHEMA)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.type"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "I"}]}, "messages"),
        ({"temperature": 2}, "temperature"),
        ({"nonsense": 1}, "nonsense"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ],
)
def test_a_wrong_field_is_named(server: Serving, body: dict[str, Any], path: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        server.anthropic.post(
            "/v1/messages", cast_to=object, body={"model": NAME, "messages": QUESTION, "max_tokens": 1, **body}
        )
    answer: Any = caught.value.body
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"].startswith(f"{path}:")
    assert answer["request_id"] == caught.value.response.headers["request-id"]


def test_the_served_model_in_anthropics_words(server: Serving) -> None:
    models = server.anthropic.models.list()
    assert [model.id for model in models] == [NAME]
    assert server.anthropic.models.retrieve(NAME).type == "model"
    with pytest.raises(anthropic.NotFoundError):
        server.anthropic.messages.create(model="claude", messages=QUESTION, max_tokens=1)
