"""OpenAI Responses and Conversations over HTTP, through the official client."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from ramet.cli.main import app as cli
from ramet.server.settings import Settings
from ramet.server.store import FILE
from tests.serving import NAME, NO_THINKING, Serving, serving, tiny_checkpoint

SIZES = {
    "type": "object",
    "properties": {"size": {"type": "string", "enum": ["small", "large"]}},
    "required": ["size"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "pick", "description": "Pick a size", "parameters": SIZES, "strict": True}]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("responses")
    return Settings(tiny_checkpoint(folder / "model"), tree_dir=folder / "tree")


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Serving]:
    with serving(settings) as running:
        yield running


def respond(server: Serving, input: Any, **about: Any) -> Any:
    about = {"max_output_tokens": 8, "extra_body": {**NO_THINKING, "seed": 1}, **about}
    return server.openai.responses.create(model=NAME, input=input, **about)


def test_a_response_and_its_usage(server: Serving) -> None:
    response = respond(server, "Say something.", instructions="Be brief.", metadata={"a": "b"})
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].type == "message"
    assert response.output_text == response.output[0].content[0].text != ""
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens == 8
    assert usage.input_tokens_details.cached_tokens == response.ramet["reused"]
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert server.openai.responses.retrieve(response.id).output_text == response.output_text


def test_a_response_goes_on_with_the_tokens_of_the_one_before(server: Serving) -> None:
    tree = server.runtime.tree
    first = respond(server, "One.", instructions="Count with me.")
    second = respond(server, "Two.", previous_response_id=first.id)
    before = tree.path_tokens(tree.node(first.ramet["node"])).tolist()
    after = tree.path_tokens(tree.node(second.ramet["node"])).tolist()
    # Also the empty thoughts, which the template would drop now: nothing is rendered or tokenized again.
    assert after[: len(before)] == before
    assert second.ramet["reused"] == len(before)
    assert second.ramet["divergence"] is None
    third = respond(server, "Three.", previous_response_id=second.id)
    assert third.ramet["reused"] == len(after)
    text = server.runtime.tokenizer.decode(after, specials=True)
    assert text.count("Count with me.") == 1
    assert text.index("One.") < text.index("Two.")


def test_two_responses_to_one_are_branches(server: Serving) -> None:
    tree = server.runtime.tree
    root = respond(server, "Pick a side.")
    left = respond(server, "Left.", previous_response_id=root.id)
    right = respond(server, "Right.", previous_response_id=root.id)
    node = root.ramet["node"]
    for branch in (left, right):
        assert node in [step.id for step in tree.path(tree.node(branch.ramet["node"]))]
        assert branch.ramet["reused"] >= tree.node(node).end
    assert {child.message["content"] for child in tree.children(tree.node(node))} == {"Left.", "Right."}
    assert left.ramet["divergence"] is None
    left_the_tree = right.ramet["divergence"]
    assert left_the_tree["cause"] == "fork"
    assert left_the_tree["position"] >= tree.node(node).end
    assert (left_the_tree["there"], left_the_tree["came"]) == ("L", "R")
    again = respond(server, "Left.", previous_response_id=root.id)
    assert again.output_text == left.output_text


def test_the_stream_has_every_event_and_adds_up_to_the_whole(server: Serving) -> None:
    whole = respond(server, "Tell me.", max_output_tokens=16)
    events = list(respond(server, "Tell me.", max_output_tokens=16, stream=True))
    kinds = [event.type for event in events]
    deltas = [kind for kind in kinds if kind == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    final = events[-1].response
    assert final.output_text == whole.output_text
    assert final.usage.output_tokens == 16
    assert final.ramet["node"] == whole.ramet["node"]
    assert events[0].response.id == final.id


def test_the_clients_own_accumulation_agrees(server: Serving) -> None:
    with server.openai.responses.stream(
        model=NAME,
        input="Tell me more.",
        max_output_tokens=400,
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        extra_body=NO_THINKING,
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.status == "completed"
    assert final.output[0].type == "function_call"
    jsonschema.validate(json.loads(final.output[0].arguments), SIZES)


def test_reasoning_is_an_item_of_its_own(server: Serving) -> None:
    end = server.runtime.tokenizer.token_id("</think>")
    think = {"chat_template_kwargs": {"enable_thinking": True}, "seed": 3}
    events = list(respond(server, "Think.", extra_body=think, stream=True, max_output_tokens=40, temperature=1.0))
    final = events[-1].response
    assert final.output[0].type == "reasoning"
    text = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert final.output[0].content[0].text == text
    assert final.usage.output_tokens_details.reasoning_tokens > 0
    assert end is not None


def test_calls_are_answered_with_outputs(server: Serving) -> None:
    asked = respond(
        server, "Which size?", tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_output_tokens=400
    )
    calls = [item for item in asked.output if item.type == "function_call"]
    assert asked.status == "completed"
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "taken"} for call in calls]
    by_id = respond(server, outputs, previous_response_id=asked.id)
    node = server.runtime.tree.node(asked.ramet["node"])
    assert by_id.ramet["reused"] == node.end
    items = [{"role": "user", "content": "Which size?"}, *(c.model_dump(exclude_none=True) for c in calls), *outputs]
    by_items = respond(server, items, tools=TOOLS)
    # The same conversation, sent whole, finds the same tokens.
    assert by_items.ramet["reused"] >= node.end
    with pytest.raises(openai.BadRequestError, match="call_id"):
        respond(
            server,
            [{"type": "function_call_output", "call_id": "nobody", "output": "x"}],
            previous_response_id=asked.id,
        )


class Verdict(BaseModel):
    answer: Literal["yes", "no"]
    sure: bool


def test_structured_output(server: Serving) -> None:
    parsed = server.openai.responses.parse(
        model=NAME, input="Is it?", text_format=Verdict, max_output_tokens=600, extra_body=NO_THINKING
    )
    assert isinstance(parsed.output_parsed, Verdict)


def test_what_was_not_stored_cannot_be_followed(server: Serving) -> None:
    gone = respond(server, "Forget this.", store=False)
    with pytest.raises(openai.NotFoundError):
        server.openai.responses.retrieve(gone.id)
    with pytest.raises(openai.NotFoundError) as caught:
        respond(server, "And?", previous_response_id=gone.id)
    assert caught.value.param == "previous_response_id"


def test_a_deleted_response_is_gone_and_what_stood_on_it_stays(server: Serving) -> None:
    first = respond(server, "A.")
    second = respond(server, "B.", previous_response_id=first.id)
    server.openai.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        server.openai.responses.retrieve(first.id)
    third = respond(server, "C.", previous_response_id=second.id)
    assert third.ramet["reused"] == server.runtime.tree.node(second.ramet["node"]).end


def test_other_instructions_or_tools_are_rendered_anew(server: Serving) -> None:
    first = respond(server, "Hello.", instructions="Speak Latin.")
    second = respond(server, "Go on.", previous_response_id=first.id, instructions="Speak Greek.")
    assert second.ramet["divergence"]["cause"] == "message_edited"
    other = [{**TOOLS[0], "name": "weigh"}]
    third = respond(server, "Go on.", previous_response_id=first.id, tools=other)
    assert third.ramet["divergence"]["cause"] == "tools_changed"


def test_a_conversation_follows_its_latest_response(server: Serving) -> None:
    opening: Any = [{"type": "message", "role": "user", "content": "My name is Ada."}]
    talk = server.openai.conversations.create(items=opening, metadata={"topic": "names"})
    first = respond(server, "What is my name?", conversation=talk.id)
    second = respond(server, "Again?", conversation=talk.id)
    assert second.conversation.id == talk.id
    assert second.ramet["reused"] == server.runtime.tree.node(first.ramet["node"]).end
    assert server.openai.conversations.retrieve(talk.id).metadata == {"topic": "names"}
    server.openai.conversations.delete(talk.id)
    with pytest.raises(openai.NotFoundError):
        respond(server, "And now?", conversation=talk.id)


def test_a_conversation_takes_one_request_at_a_time(server: Serving) -> None:
    talk = server.openai.conversations.create()
    go_on = threading.Event()
    server.runtime.engine.call(go_on.wait)  # so that the first request cannot end before the second comes
    try:
        running = respond(server, "Count.", conversation=talk.id, stream=True, max_output_tokens=40)
        next(iter(running))
        with pytest.raises(openai.ConflictError) as caught:
            respond(server, "Me too!", conversation=talk.id)
    finally:
        go_on.set()
    assert (caught.value.code, caught.value.param) == ("conversation_locked", "conversation")
    first = list(running)[-1].response
    second = respond(server, "Me too!", conversation=talk.id)
    assert second.ramet["reused"] >= server.runtime.tree.node(first.ramet["node"]).end
    with pytest.raises(openai.BadRequestError):
        respond(server, "Again!", conversation=talk.id, max_output_tokens=0)
    respond(server, "Again!", conversation=talk.id)  # what failed does not hold it


def test_a_damaged_row_is_said_to_be_so(server: Serving, settings: Settings) -> None:
    response = respond(server, "Keep this.")
    assert settings.tree_dir is not None
    with sqlite3.connect(settings.tree_dir / FILE) as database:
        database.execute("UPDATE responses SET body = '{' WHERE id = ?", (response.id,))
    database.close()
    with pytest.raises(openai.InternalServerError, match=r"responses\.db is damaged") as caught:
        server.openai.responses.retrieve(response.id)
    assert caught.value.code == "storage_error"


def test_pruned_nodes_take_their_responses_along(tmp_path: Path) -> None:
    settings = Settings(tiny_checkpoint(tmp_path / "model"), tree_dir=tmp_path / "tree")
    with serving(settings) as server:
        first = respond(server, "Remember the word: fern.")
        second = respond(server, "Which word?", previous_response_id=first.id)
    words = ["tree", "prune", second.ramet["node"], "--directory", str(tmp_path / "tree")]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    with serving(settings) as server:
        assert server.openai.responses.retrieve(first.id).output_text == first.output_text
        with pytest.raises(openai.NotFoundError):
            server.openai.responses.retrieve(second.id)


def test_the_input_can_be_read_again(server: Serving) -> None:
    response = respond(server, [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}])
    items = list(server.openai.responses.input_items.list(response.id))
    assert [item.content[0].text for item in items] == ["Two.", "One."]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": TOOLS}, "tool_choice"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"conversation": "conv_none"}, "conversation"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"background": True}, "background"),
    ],
)
def test_a_wrong_field_is_named(server: Serving, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        server.openai.post("/responses", cast_to=object, body={"model": NAME, "input": "x", **body})
    assert caught.value.status_code in (400, 404)
    assert caught.value.param == param


def test_responses_are_there_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(tiny_checkpoint(tmp_path / "model"), tree_dir=tmp_path / "tree")
    with serving(settings) as server:
        first = respond(server, "Remember the word: fern.")
        second = respond(server, "Which word?", previous_response_id=first.id)
        going_on = respond(server, "Spell it.", previous_response_id=second.id)
    with serving(settings) as server:
        assert server.openai.responses.retrieve(first.id).output_text == first.output_text
        again = respond(server, "Spell it.", previous_response_id=second.id)
        assert again.output_text == going_on.output_text
        assert again.ramet["node"] == going_on.ramet["node"]
        assert again.ramet["reused"] > 0
        # A turn taken back: another way on from the first response.
        other = respond(server, "What else?", previous_response_id=first.id)
        path = server.runtime.tree.path(server.runtime.tree.node(other.ramet["node"]))
        assert first.ramet["node"] in [node.id for node in path]
        assert other.ramet["reused"] >= server.runtime.tree.node(first.ramet["node"]).end - 8
