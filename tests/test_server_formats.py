"""Every family over HTTP, with random weights: calls under a grammar, reasoning, and a call's result sent back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ramet.chat.efforts import ENCODER
from ramet.chat.formats import FORMATS
from ramet.models.random import _CHAT, write_random_checkpoint
from ramet.server.settings import Settings
from tests.chat_formats import vocabulary
from tests.serving import NAME, NO_THINKING, Serving, serving

PRESETS = {
    "tiny": "qwen3_5",
    "tiny-glm": "glm5",
    "tiny-minimax": "minimax_m2",
    "tiny-kimi": "kimi_k25",
    "tiny-deepseek-v3": "deepseek_v3",
    "tiny-deepseek-v32": "deepseek_v32",
    "tiny-deepseek-v4": "deepseek_v4",
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Berlin <1>", "Lagos"]},
        "code": {"type": "string", "pattern": "^[0-9]{2}$"},
        "days": {"type": "integer", "enum": [1, 3, 7]},
        "exact": {"type": "boolean"},
    },
    "required": ["city", "code", "days", "exact"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "The forecast", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
QUESTION: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How warm?"}]


@pytest.fixture(scope="module", params=PRESETS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = write_random_checkpoint(tmp_path_factory.mktemp("model"), seed=1, preset=request.param)
    with serving(Settings(folder)) as running:
        assert running.runtime.chat.format.name == PRESETS[request.param]
        yield running


def check(arguments: dict[str, Any]) -> None:
    assert set(arguments) == set(SCHEMA["properties"])
    assert arguments["city"] in ("Berlin <1>", "Lagos") and arguments["days"] in (1, 3, 7)
    assert isinstance(arguments["code"], str) and len(arguments["code"]) == 2 and arguments["exact"] in (True, False)


WEATHER: Any = {"type": "function", "function": {"name": "weather"}}


def test_a_named_call_and_its_result(server: Serving) -> None:
    about: Any = {"model": NAME, "tools": TOOLS, "max_tokens": 400, "extra_body": NO_THINKING, "seed": 3}
    first = server.openai.chat.completions.create(
        messages=QUESTION, tool_choice=WEATHER, parallel_tool_calls=False, **about
    )
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls" and message.content is None
    (call,) = message.tool_calls
    check(json.loads(call.function.arguments))
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    more = [*QUESTION, message.model_dump(exclude_none=True), result]
    second = server.openai.chat.completions.create(messages=more, **{**about, "max_tokens": 4})
    written = first.usage.prompt_tokens + first.usage.completion_tokens
    assert second.ramet["reused"] >= written - 2, second.ramet


def test_calls_stream_as_they_are_answered_at_once(server: Serving) -> None:
    about: Any = {"model": NAME, "tools": TOOLS, "max_tokens": 400, "extra_body": NO_THINKING, "seed": 4}
    about |= {"messages": QUESTION, "tool_choice": WEATHER, "parallel_tool_calls": False}
    whole = server.openai.chat.completions.create(**about).choices[0].message.tool_calls[0]
    arguments, names = "", []
    for chunk in server.openai.chat.completions.create(stream=True, **about):
        for part in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            arguments += part.function.arguments or ""
            names += [part.function.name] if part.function.name else []
    assert (names, arguments) == ([whole.function.name], whole.function.arguments)


def test_anthropic_messages(server: Serving) -> None:
    reply = server.anthropic.messages.create(
        model=NAME,
        max_tokens=400,
        messages=[{"role": "user", "content": "How warm?"}],
        tools=[{"name": "weather", "input_schema": SCHEMA}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        thinking={"type": "disabled"},
    )
    (use,) = [block for block in reply.content if block.type == "tool_use"]
    assert reply.stop_reason == "tool_use" and use.name == "weather"
    check(dict(use.input))


def test_responses(server: Serving) -> None:
    tools: Any = [{"type": "function", **TOOLS[0]["function"], "strict": True}]
    about: Any = {"model": NAME, "tools": tools, "reasoning": {"effort": "none"}}
    first = server.openai.responses.create(
        input="How warm?", tool_choice="required", parallel_tool_calls=False, max_output_tokens=400, **about
    )
    (call,) = [item for item in first.output if item.type == "function_call"]
    check(json.loads(call.arguments))
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}]
    second = server.openai.responses.create(
        input=result, previous_response_id=first.id, max_output_tokens=4, tool_choice="none", **about
    )
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens


def test_reasoning_is_told_from_the_answer(server: Serving) -> None:
    tokenizer = server.runtime.tokenizer
    kept = [*tokenizer.eos_ids, tokenizer.token_id("</think>")]
    reply = server.openai.chat.completions.create(
        model=NAME, messages=QUESTION, max_tokens=12, logit_bias={str(token): -100 for token in kept}, seed=1
    )
    message: Any = reply.choices[0].message
    if server.runtime.chat.format.name == "deepseek_v3":  # which does not reason
        assert message.content and not getattr(message, "reasoning_content", None)
    else:
        assert message.reasoning_content and not message.content


def test_the_tokens_of_random_checkpoints_are_those_of_their_format() -> None:
    for format in FORMATS:
        words = _CHAT[vocabulary(format)]
        assert (words["control"], words["tags"]) == (format.control, format.tags)
        assert set(words["ends"]) == set(format.ends)


def test_efforts_reach_deepseek_v4_in_every_api(tmp_path: Path) -> None:
    """In the words of the checkpoint's own encoder; without it, an effort that takes words is an error."""
    folder = write_random_checkpoint(tmp_path, seed=1, preset="tiny-deepseek-v4")
    (folder / "chat_template.jinja").unlink()

    def prompt_tokens(server: Serving, effort: str) -> list[int]:
        chat = server.openai.chat.completions.create(
            model=NAME, messages=QUESTION, max_tokens=1, reasoning_effort=effort
        )
        response = server.openai.responses.create(
            model=NAME,
            input=QUESTION[1:],
            instructions=QUESTION[0]["content"],
            max_output_tokens=1,
            reasoning={"effort": effort},
        )
        message = server.anthropic.messages.count_tokens(
            model=NAME,
            messages=QUESTION[1:],
            system=QUESTION[0]["content"],
            thinking={"type": "enabled", "budget_tokens": 1024},
            output_config={"effort": effort},
        )
        return [chat.usage.prompt_tokens, response.usage.input_tokens, message.input_tokens]

    with serving(Settings(folder)) as server:
        plain = prompt_tokens(server, "low")
        assert len(set(plain)) == 1
        refused = pytest.raises(openai.BadRequestError, match=r"reasoning effort max stands in its encoding/")
        with refused:
            server.openai.chat.completions.create(model=NAME, messages=QUESTION, reasoning_effort="max")
        with refused:
            server.openai.responses.create(model=NAME, input="q", reasoning={"effort": "max"})
    (folder / ENCODER).parent.mkdir()
    (folder / ENCODER).write_text('REASONING_EFFORT_MAX = "Think."\n')
    with serving(Settings(folder)) as server:
        words = len(server.runtime.tokenizer.encode("Think."))
        assert prompt_tokens(server, "low") == plain
        assert prompt_tokens(server, "max") == [count + words for count in plain]
