"""What a request is told about where it left the tree."""

import json

import pytest

from ramet.engine import Request, Sampling
from tests.engine_support import Bench, chat, request, running, text_tokens, tokenizer

SYSTEM = {"role": "system", "content": "You look things up. " * 8}
QUESTION = {"role": "user", "content": "What is the capital of Peru?"}
OTHER = {"role": "user", "content": "And how high is it above the sea?"}
SEARCH = {
    "type": "function",
    "function": {"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
ANSWER = {
    "role": "assistant",
    "content": "It is Lima.",
    "reasoning_content": "Peru is in South America; its capital is Lima.",
}


def say(bench: Bench, messages, tools=None, **fields):
    """Render and run a conversation; returns its usage and what was rendered."""
    prompt = chat().render(messages, tools, reply_tokens=bench.tree.reply_tokens)
    sampling = Sampling(temperature=0.0, max_tokens=fields.pop("max_tokens", 4), ignore_eos=True)
    handle = bench.engine.submit(
        Request(prompt.tokens, prompt.boundaries, prompt.messages, prompt.save_at, sampling=sampling, **fields)
    )
    return handle.result()[0].finish.usage, prompt


def test_going_on_is_no_divergence():
    with running() as bench:
        assert say(bench, [SYSTEM, QUESTION])[0].divergence is None
        assert say(bench, [SYSTEM, QUESTION])[0].divergence is None
        assert say(bench, [SYSTEM, QUESTION])[0].computed <= 8


def test_another_conversation_under_the_same_system_prompt_is_new():
    with running() as bench:
        say(bench, [SYSTEM, QUESTION])
        usage, prompt = say(bench, [SYSTEM, OTHER])
        found = usage.divergence
        assert found.cause == "new"
        assert prompt.boundaries[0] < found.position < prompt.boundaries[1]
        assert found.came == prompt.tokens[found.position]
        assert (found.there_text, found.came_text) == ("W", "A")
        assert usage.computed <= len(prompt.tokens) - prompt.boundaries[0]


def test_an_edited_message():
    with running() as bench:
        say(bench, [SYSTEM, QUESTION, ANSWER, OTHER])
        # In the middle of a conversation.
        usage, prompt = say(bench, [SYSTEM, QUESTION, ANSWER, {**OTHER, "content": "And how many live there?"}])
        assert usage.divergence.cause == "message_edited"
        assert usage.computed <= len(prompt.tokens) - prompt.boundaries[0]
        # The first question, when what follows stays as it was.
        changed = {**QUESTION, "content": "What's the capital of Peru?"}
        assert say(bench, [SYSTEM, changed, ANSWER, OTHER])[0].divergence.cause == "message_edited"


def test_another_way_on_from_a_chosen_node():
    with running() as bench:
        _, prompt = say(bench, [SYSTEM, QUESTION, ANSWER, OTHER])
        way = {**OTHER, "content": "And how many live there?"}
        before = prompt.boundaries[2]
        assert say(bench, [SYSTEM, QUESTION, ANSWER, way], continued=before)[0].divergence.cause == "fork"
        # What differs before the place that was chosen is no fork.
        way = {**OTHER, "content": "But who lives there?"}
        later = prompt.boundaries[3]
        assert say(bench, [SYSTEM, QUESTION, ANSWER, way], continued=later)[0].divergence.cause == "message_edited"


def test_a_reply_that_comes_back_in_other_words():
    with running() as bench:
        usage, _ = say(
            bench,
            [SYSTEM, QUESTION],
            parse_reply=lambda text: {"role": "assistant", "content": text},
        )
        assert usage.divergence is None
        usage, _ = say(bench, [SYSTEM, QUESTION, {"role": "assistant", "content": "Lima!"}, OTHER])
        assert usage.divergence.cause == "message_edited"


def test_reasoning_that_the_template_drops():
    function = {"name": "search", "arguments": json.dumps({"query": "Peru"})}
    calls = [{"id": "c1", "type": "function", "function": function}]
    call = {"role": "assistant", "reasoning_content": "I must look.", "content": "", "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "c1", "content": "Lima"}
    with running() as bench:
        _, before = say(bench, [SYSTEM, QUESTION, call, result], [SEARCH])
        usage, after = say(bench, [SYSTEM, QUESTION, call, result, ANSWER, OTHER], [SEARCH])
        found = usage.divergence
        assert found.cause == "history_rewritten"
        assert before.boundaries[1] <= found.position < before.boundaries[2]
        assert found.lost <= 8
        assert usage.computed <= len(after.tokens) - found.position + 8


def test_changed_tools():
    with running() as bench:
        _, before = say(bench, [SYSTEM, QUESTION], [SEARCH])
        usage, _ = say(bench, [SYSTEM, QUESTION], [SEARCH, CLOCK])
        assert usage.divergence.cause == "tools_changed"
        assert usage.divergence.position < before.boundaries[0]
        usage, _ = say(bench, [SYSTEM, QUESTION])
        assert usage.divergence.cause == "tools_changed"


def test_states_that_are_gone():
    prompt = text_tokens(0, 3000)
    with running() as bench:
        bench.ask(prompt)
        for state in list(bench.tree.memory.states):
            bench.engine.call(lambda state=state: bench.tree.memory.evict(state)).result()
        usage = bench.ask(prompt).finish.usage
        assert usage.computed == 3000
        assert (usage.divergence.cause, usage.divergence.position, usage.divergence.lost) == ("evicted", 0, 2999)


@pytest.mark.parametrize("late", [False, True])
def test_a_prompt_that_parts_from_one_that_is_running(late):
    prefix = text_tokens(1, 1500)
    with running(step_tokens=64) as bench:
        with bench.paused():
            first = bench.engine.submit(request([*prefix, 5, *text_tokens(2, 600)], boundaries=[1000]))
            if not late:
                second = bench.engine.submit(request([*prefix, 6, 7, 8]))
        if late:
            while not any(step and step[0][0] > 1000 for step in bench.model.steps):
                bench.engine.call(lambda: None).result()
            second = bench.engine.submit(request([*prefix, 6, 7, 8]))
        usage = second.result()[0].finish.usage
        first.result()
    assert (usage.divergence.position, usage.divergence.cause) == (1500, "new")
    assert (usage.divergence.there, usage.divergence.came) == (5, 6)
    assert usage.divergence.came_text == tokenizer().decode([6])
    assert usage.computed == 3
