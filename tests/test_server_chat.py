"""OpenAI Chat Completions over HTTP, through the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from ramet.server.chat_api import _message
from ramet.server.chat_schema import ChatRequest
from ramet.server.fields import parse_body
from ramet.server.settings import Settings
from tests.serving import NAME, NO_THINKING, Serving, serving, tiny_checkpoint

QUESTION: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say something."}]

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Berlin", "Lagos", "Lima"]},
        "days": {"type": "integer", "enum": [1, 3, 7]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
LIGHT = {"type": "object", "properties": {"state": {"type": "string", "enum": ["on", "off"]}}, "required": ["state"]}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "The forecast", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "light", "parameters": LIGHT}},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(Settings(tiny_checkpoint(tmp_path_factory.mktemp("model")))) as running:
        yield running


def ask(server: Serving, messages: Any = QUESTION, **about: Any) -> Any:
    about = {"max_tokens": 8, "extra_body": NO_THINKING, **about}
    if "tools" not in about and "response_format" not in about:  # a random model would end its replies at random
        ends = {str(token): -100 for token in server.runtime.tokenizer.eos_ids}
        about["logit_bias"] = {**ends, **about.get("logit_bias", {})}
    return server.openai.chat.completions.create(model=NAME, messages=messages, **about)


def gather(stream: Any) -> tuple[dict[int, dict[str, Any]], list[Any]]:
    """What the choices of a stream add up to, and its chunks."""
    choices: dict[int, dict[str, Any]] = {}
    chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            into = choices.setdefault(choice.index, {"content": "", "reasoning": "", "calls": {}, "reason": None})
            into["content"] += choice.delta.content or ""
            into["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            into["reason"] = choice.finish_reason or into["reason"]
            for call in choice.delta.tool_calls or ():
                known = into["calls"].setdefault(call.index, {"name": "", "arguments": "", "id": ""})
                known["id"] += call.id or ""
                known["name"] += call.function.name or ""
                known["arguments"] += call.function.arguments or ""
    return choices, chunks


def test_a_reply_and_its_usage(server: Serving) -> None:
    first = ask(server, seed=1)
    assert first.object == "chat.completion"
    assert first.choices[0].finish_reason == "length"
    usage = first.usage
    assert usage.completion_tokens == 8
    assert usage.total_tokens == usage.prompt_tokens + 8
    extension = first.ramet
    assert extension["computed"] + extension["reused"] == usage.prompt_tokens
    assert server.runtime.tree.node(extension["node"]).message["role"] == "assistant"
    again = ask(server, seed=1)
    assert again.choices[0].message.content == first.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens - 8


def test_the_stream_is_the_whole_in_pieces(server: Serving) -> None:
    whole = ask(server, seed=5, max_tokens=24, temperature=1.0)
    choices, chunks = gather(
        ask(server, seed=5, max_tokens=24, temperature=1.0, stream=True, stream_options={"include_usage": True})
    )
    assert choices[0]["content"] == whole.choices[0].message.content
    assert choices[0]["reason"] == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].ramet["node"] == whole.ramet["node"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_ends_with_the_extension(server: Serving) -> None:
    _, chunks = gather(ask(server, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].ramet["node"]


def test_the_next_turn_computes_only_what_is_new(server: Serving) -> None:
    first = ask(server, seed=9)
    said = first.choices[0].message.content
    more = [*QUESTION, {"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]
    second = ask(server, more)
    # A new question makes the template drop the empty thoughts before the reply: all up to there is reused, no more.
    left = second.ramet["divergence"]
    assert left["cause"] == "history_rewritten"
    assert left["there"] == "<think>"
    assert 0 <= left["position"] - second.ramet["reused"] <= 8
    third = ask(server, [*more, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}])
    assert third.ramet["reused"] >= second.usage.prompt_tokens - 12


def test_where_a_request_left_the_tree_is_told(server: Serving) -> None:
    ask(server, [{"role": "system", "content": "Alpha beta gamma."}, {"role": "user", "content": "One."}])
    edited = ask(server, [{"role": "system", "content": "Alpha beta delta."}, {"role": "user", "content": "One."}])
    left = edited.ramet["divergence"]
    assert left["cause"] == "message_edited"
    assert left["position"] == edited.ramet["reused"] or left["position"] > edited.ramet["reused"]
    assert left["there"] != left["came"]


def test_several_choices_are_forks_of_one_prompt(server: Serving) -> None:
    reply = ask(server, n=3, seed=4, temperature=1.0)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1
    assert reply.usage.completion_tokens == 24
    nodes = [server.runtime.tree.node(id) for id in reply.ramet["nodes"]]
    assert len({node.parent.id for node in nodes}) == 1
    streamed, _ = gather(ask(server, n=3, seed=4, temperature=1.0, stream=True))
    assert [streamed[i]["content"] for i in range(3)] == [choice.message.content for choice in reply.choices]


def test_stop_strings_end_a_reply_and_are_not_part_of_it(server: Serving) -> None:
    text = ask(server, seed=2, max_tokens=24, temperature=1.0).choices[0].message.content
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    stopped = ask(server, seed=2, max_tokens=24, temperature=1.0, stop=[stop])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(stop)]


def test_log_probabilities(server: Serving) -> None:
    reply = ask(server, seed=1, logprobs=True, top_logprobs=3, temperature=0)
    entries = reply.choices[0].logprobs.content
    assert entries
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        # At temperature 0 the token taken is the likeliest.
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob)
    assert b"".join(bytes(e.bytes) for e in entries).decode("utf-8", "replace") == reply.choices[0].message.content


def test_logit_bias_decides(server: Serving) -> None:
    token = server.runtime.tokenizer.encode("e")[0]
    reply = ask(server, logit_bias={str(token): 100})
    assert reply.choices[0].message.content == "e" * 8


def test_reasoning_comes_apart_from_the_content(server: Serving) -> None:
    end = server.runtime.tokenizer.token_id("</think>")
    think = {"chat_template_kwargs": {"enable_thinking": True}}
    cut = ask(server, extra_body=think, seed=3, temperature=1.0, logit_bias={str(end): -100})
    assert cut.choices[0].message.reasoning_content
    assert not cut.choices[0].message.content
    assert cut.usage.completion_tokens_details.reasoning_tokens > 0
    done = ask(server, extra_body=think, seed=3, max_tokens=1, logit_bias={str(end): 100})
    assert not done.choices[0].message.content


def test_a_reasoning_and_a_name_are_sent_back_as_they_are_called_elsewhere() -> None:
    sent = [
        {"role": "user", "content": "q", "name": "Ann"},
        {
            "role": "assistant",
            "reasoning": "r",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": ""}}],
        },
        {"role": "assistant", "reasoning": "r", "reasoning_content": "c"},
    ]
    body = parse_body(json.dumps({"model": "m", "messages": sent}).encode(), ChatRequest)
    asked = [_message(message, "messages", False) for message in body.messages]
    assert asked[0]["name"] == "Ann"
    assert [message.get("reasoning_content") for message in asked] == [None, "r", "c"]


def test_parallel_calls_hold_to_their_schemas_and_are_answered(server: Serving) -> None:
    newline = server.runtime.tokenizer.encode("\n")[0]  # what goes on after a call, where the reply could end
    settings: dict[str, Any] = {
        "n": 6,
        "seed": 0,
        "max_tokens": 260,
        "temperature": 1.0,
        "logit_bias": {str(newline): 2},
    }
    settings.update(tools=TOOLS, tool_choice="required")
    reply = ask(server, **settings)
    several = [c for c in reply.choices if len(c.message.tool_calls) > 1 and c.finish_reason == "tool_calls"]
    assert several  # a random model calls what chance says: of six replies some have several calls
    choice, message = several[0].index, several[0].message
    schemas = {"weather": WEATHER, "light": LIGHT}
    for call in message.tool_calls:
        jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])
    assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)

    streamed, _ = gather(ask(server, **settings, stream=True))
    assert streamed[choice]["reason"] == "tool_calls"
    assert [(c["name"], c["arguments"]) for c in streamed[choice]["calls"].values()] == [
        (call.function.name, call.function.arguments) for call in message.tool_calls
    ]

    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    answer = ask(server, [*QUESTION, message.model_dump(exclude_none=True), *results], tools=TOOLS)
    # What the model wrote was not tokenized anew: only the results and the beginning of the next turn were computed.
    assert answer.ramet["reused"] == server.runtime.tree.node(reply.ramet["nodes"][choice]).end
    assert answer.ramet["divergence"] is None
    assert server.runtime.tree.stats().pinned_nodes > 0


def test_calls_one_at_a_time(server: Serving) -> None:
    newline = server.runtime.tokenizer.encode("\n")[0]
    reply = ask(
        server,
        n=4,
        seed=0,
        max_tokens=260,
        temperature=1.0,
        logit_bias={str(newline): 2},
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert [len(choice.message.tool_calls) for choice in reply.choices] == [1, 1, 1, 1]


def test_a_named_tool_is_the_one_called(server: Serving) -> None:
    named: Any = {"type": "function", "function": {"name": "light"}}
    reply = ask(server, max_tokens=160, temperature=1.0, seed=0, tools=TOOLS, tool_choice=named)
    assert {call.function.name for call in reply.choices[0].message.tool_calls} == {"light"}


def test_tools_may_be_forbidden_without_changing_the_prompt(server: Serving) -> None:
    call = server.runtime.tokenizer.token_id("<tool_call>")
    forbidden = ask(server, tools=TOOLS, tool_choice="none", logit_bias={str(call): 100}, seed=0)
    assert not forbidden.choices[0].message.tool_calls
    allowed = ask(server, tools=TOOLS, max_tokens=1)
    assert allowed.usage.prompt_tokens_details.cached_tokens >= forbidden.usage.prompt_tokens - 8


class Animal(BaseModel):
    kind: Literal["cat", "dog", "owl"]
    legs: Literal[2, 4]
    tame: bool


def test_structured_output_is_what_the_schema_says(server: Serving) -> None:
    for seed in range(2):
        reply = server.openai.chat.completions.parse(
            model=NAME,
            messages=QUESTION,
            response_format=Animal,
            seed=seed,
            temperature=1.0,
            max_tokens=600,
            extra_body=NO_THINKING,
        )
        assert isinstance(reply.choices[0].message.parsed, Animal)


def test_structured_output_beside_tools_is_a_call_or_the_schema(server: Serving) -> None:
    schema = {**Animal.model_json_schema(), "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    call = server.runtime.tokenizer.token_id("<tool_call>")
    about: Any = {"tools": TOOLS, "response_format": form, "max_tokens": 600, "temperature": 1.0, "seed": 2}
    says = ask(server, **about, logit_bias={str(call): -100}).choices[0].message
    assert not says.tool_calls
    Animal.model_validate_json(says.content)
    calls = ask(server, **about, logit_bias={str(call): 100}).choices[0].message
    assert calls.tool_calls
    assert not calls.content


def test_a_json_object(server: Serving) -> None:
    reply = ask(server, response_format={"type": "json_object"}, max_tokens=64, seed=0, temperature=1.0)
    assert reply.choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"n": 1000}, "n"),
        ({"nonsense": 1}, "nonsense"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs.self"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    ],
)
def test_a_wrong_field_is_named(server: Serving, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai.post(
            "/chat/completions", cast_to=object, body={"model": NAME, "messages": QUESTION, "max_tokens": 1, **body}
        )
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_a_schema_that_cannot_be_enforced_is_the_clients_error(server: Serving) -> None:
    schema = {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}
    with pytest.raises(openai.BadRequestError, match="schema"):
        ask(server, response_format={"type": "json_schema", "json_schema": schema})


def test_another_model_is_not_found(server: Serving) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny"):
        server.openai.chat.completions.create(model="gpt-x", messages=QUESTION)
