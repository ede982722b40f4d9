"""The agent loop: calls are run and their results go back, with a real memory, a real engine and real models."""

from __future__ import annotations

import _thread
import json
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramet.agent.loop import Called, Calling, Message, Toolbox, run
from ramet.agent.remembering import Remembering, now
from ramet.agent.stream import Piece, reply
from ramet.cli.conversation import Conversation
from ramet.engine import FinishEvent, GrammarError, Sampling, Usage
from ramet.engine.runtime import Runtime
from ramet.memory import Memory, MemoryStoreError
from ramet.memory.tools import TOOLS, call
from ramet.models.random import write_random_checkpoint

from .scripted import Script
from .test_agent_ask import running

NOTHING = Usage(0, 0, 0, 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory.open(None) as found:
        yield found


def calls(*given: tuple[str, str]) -> FinishEvent:
    """The end of a reply that makes these calls, (name, arguments)."""
    made = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(given)
    ]
    return FinishEvent("tool_calls", NOTHING, message={"role": "assistant", "content": None, "tool_calls": made})


ANSWER = FinishEvent("stop", NOTHING, message={"role": "assistant", "content": "Done."})


class Said:
    """Replies with these ends, one after the other; keeps what it was asked with."""

    def __init__(self, *ends: FinishEvent) -> None:
        self.ends = list(ends)
        self.asked: list[tuple[list[Message], bool]] = []
        self.closed = 0

    def __call__(self, messages: list[Message], may_call: bool) -> Generator[Piece | FinishEvent]:
        self.asked.append((messages, may_call))
        try:
            yield Piece("Hm", False)
            yield self.ends.pop(0)
        finally:
            self.closed += 1


def tools_of(memory: Memory) -> Toolbox:
    return Toolbox(TOOLS, lambda name, arguments: call(memory, name, arguments))


def outcomes(events: Iterator[Any]) -> list[Called]:
    return [event for event in events if isinstance(event, Called)]


USER: list[Message] = [{"role": "user", "content": "hello"}]


def test_results_go_back_in_the_order_of_the_calls(memory: Memory) -> None:
    ask = Said(
        calls(("remember", '{"text": "Ann lives in Oslo"}'), ("recall", "{}"), ("sing", '{"x": 1}'), ("recall", "[")),
        calls(("recall", '{"question": "Oslo"}')),
        ANSWER,
    )
    events = list(run(ask, USER, tools_of(memory)))
    kinds = [type(event).__name__ for event in events]
    once = ["Piece", "FinishEvent"]
    assert kinds == once + ["Calling"] * 4 + ["Called"] * 4 + once + ["Calling", "Called"] + once
    stored, *failed, found = outcomes(iter(events))
    assert not stored.failed and memory.get(stored.result["id"]) is not None
    said = [each.result["error"] for each in failed]
    assert said[0].startswith("'question' must be text") and said[1:2] == ["there is no tool 'sing'"]
    assert "arguments are not JSON" in said[2]
    assert found.result["turns"][0]["text"] == "Ann lives in Oslo"
    (first, _), (second, allowed), (third, _) = ask.asked
    assert (
        first == USER and allowed and [message["tool_call_id"] for message in second] == [f"call_{i}" for i in range(4)]
    )
    assert json.loads(third[0]["content"]) == found.result and third[0]["role"] == "tool"
    assert ask.closed == 3


def test_what_a_tool_raises_goes_to_the_model() -> None:
    def broken(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise KeyError(name)

    ask = Said(calls(("x", ""), ("y", "3")), ANSWER)
    first, second = outcomes(run(ask, USER, Toolbox([], broken)))
    assert first.failed and first.result == {"error": "the tool failed: KeyError: 'x'"}
    assert second.result == {"error": "the arguments must be a JSON object"}


def test_calls_may_be_refused_before_any_is_run() -> None:
    """One after another, where the events are taken: there a user can be asked, and stop it all."""
    asked, ran = list[str](), list[str]()

    def refuse(name: str, arguments: Mapping[str, Any]) -> str | None:
        assert threading.current_thread() is threading.main_thread() and not ran
        asked.append(f"{name}{arguments['x']}")
        if name == "stop":
            raise KeyboardInterrupt
        if name == "broken":
            raise MemoryStoreError("the store is gone")
        return "the user said no" if name == "no" else None

    def go(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        ran.append(name)
        return {}

    toolbox = Toolbox([], go, refuse)
    ask = Said(calls(("no", '{"x": 1}'), ("yes", '{"x": 2}'), ("yes", "["), ("broken", '{"x": 3}')), ANSWER)
    no, yes, wrong, broken = (each.result for each in outcomes(run(ask, USER, toolbox)))
    assert (no, yes, broken) == ({"error": "the user said no"}, {}, {"error": "the store is gone"})
    assert "not JSON" in wrong["error"] and (asked, ran) == (["no1", "yes2", "broken3"], ["yes"])
    ran.clear()
    with pytest.raises(KeyboardInterrupt):
        list(run(Said(calls(("stop", '{"x": 1}'), ("yes", '{"x": 1}'))), USER, toolbox))
    assert not ran


def test_calls_of_a_reply_run_at_once() -> None:
    meet = threading.Barrier(3, timeout=20)

    def wait(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        meet.wait()
        return {"name": name}

    ask = Said(calls(("a", "{}"), ("b", "{}"), ("c", "{}")), ANSWER)
    assert [each.result["name"] for each in outcomes(run(ask, USER, Toolbox([], wait)))] == ["a", "b", "c"]


def test_rounds_are_bounded(memory: Memory) -> None:
    again = calls(("recall", '{"question": "x"}'))
    ask = Said(*[again] * 9)
    assert len(outcomes(run(ask, USER, tools_of(memory), rounds=3))) == 3
    assert [allowed for _, allowed in ask.asked] == [True, True, True, False]


def test_a_long_result_is_cut(memory: Memory) -> None:
    for index in range(3):
        memory.remember(f"Oslo {index} " + "x " * 3000, conversation="c")
    ask = Said(calls(("recall", '{"question": "Oslo"}')), ANSWER)
    list(run(ask, USER, tools_of(memory)))
    content = ask.asked[1][0][0]["content"]
    assert 16_000 < len(content) < 16_100 and content.endswith("characters more)")


def test_closing_stops_it_wherever_it_is() -> None:
    started, end = threading.Event(), threading.Event()

    def slow(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        started.set()
        end.wait(20)
        return {}

    ask = Said(calls(("a", "{}")), ANSWER)
    events = run(ask, USER, Toolbox([], slow))
    assert isinstance(next(events), Piece)
    events.close()
    assert ask.closed == 1 and not started.is_set()

    class Interrupted(KeyboardInterrupt):
        pass

    ask = Said(calls(("a", "{}")), ANSWER)
    events = run(ask, USER, Toolbox([], slow))
    assert [type(next(events)) for _ in range(3)] == [Piece, FinishEvent, Calling]
    with pytest.raises(Interrupted):
        events.throw(Interrupted)
    end.set()
    assert len(ask.asked) == 1


def test_ctrl_c_while_a_call_runs() -> None:
    end, once = threading.Event(), threading.Lock()

    def slow(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if once.acquire(blocking=False):
            _thread.interrupt_main()
        end.wait(60)
        return {}

    ask = Said(calls(*[("a", "{}")] * 12), ANSWER)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run(ask, USER, Toolbox([], slow)))
    finally:
        signal.signal(signal.SIGINT, before)
        end.set()
    assert time.monotonic() - began < 30 and len(ask.asked) == 1


@pytest.mark.parametrize("choice", ["required", "recall"])
def test_a_random_model_held_to_calls(checkpoint: Path, memory: Memory, choice: str) -> None:
    """Its words mean nothing, but the call is whole, it is run, and its result is in the next prompt."""
    bounds = {'"string"': '"string", "maxLength": 20', '"array"': '"array", "maxItems": 2'}
    tools = json.dumps(TOOLS)
    for kind, bounded in bounds.items():
        tools = tools.replace(kind, bounded)
    tools = json.loads(tools)
    sampling = Sampling(temperature=1.0, seed=2, max_tokens=3000)
    with Runtime.load(checkpoint) as runtime:
        said: list[Message] = []

        def ask(new: list[Message], may_call: bool) -> Generator[Piece | FinishEvent]:
            said.extend(new)
            first = len(said) == 1
            short = replace(sampling, max_tokens=20)
            for event in reply(
                runtime, said, tools, sampling=sampling if first else short, choice=choice if first else "none",
                thinking=False,
            ):  # fmt: skip
                if isinstance(event, FinishEvent):
                    assert event.reason != "error", event.error
                    said.append(dict(event.message or {}))
                yield event

        events = list(run(ask, USER, tools_of(memory)))
        made, done = [event for event in events if isinstance(event, Calling)], outcomes(iter(events))
        assert {each.name for each in made} <= {"remember", "recall", "forget"} and made
        assert choice == "required" or {each.name for each in made} == {choice}
        assert [each.call for each in done] == made
        assert all(isinstance(json.loads(each.arguments), dict) for each in made)
        said[2:-1] = said[2:3]
        assert [message["role"] for message in said] == ["user", "assistant", "tool", "assistant"]
        ids = [each.result["id"] for each in done if each.call.name == "remember" and not each.failed]
        assert memory.store.count() == len(set(ids))
        last = [event for event in events if isinstance(event, FinishEvent)][-1]
        path = runtime.tree.path(runtime.tree.node(last.node or ""))
        assert [node.message["role"] for node in path if node.message] == [
            "system",
            "user",
            "assistant",
            "tool",
            "assistant",
        ]
        assert not last.message or "tool_calls" not in last.message
        with pytest.raises(GrammarError, match="tool_choice names 'sing'"):
            next(reply(runtime, USER, tools, sampling=sampling, choice="sing"))


def wanted(name: str, **arguments: str) -> str:
    """A call as the tiny model's family writes it."""
    given = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items())
    return f"<tool_call>\n<function={name}>\n{given}</function>\n</tool_call>"


def thinking(script: Script) -> Script:
    """The template opens a reasoning, which a reply must close."""
    return lambda prompt: {f"<think>\nHm\n</think>\n\n{said}": share for said, share in script(prompt).items()}


def conversation_of(runtime: Runtime, memory: Memory | None) -> tuple[Conversation, Remembering | None]:
    conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=200))
    if memory is None:
        return conversation, None
    remembering = Remembering(memory)
    conversation.toolbox = remembering.toolbox(lambda: conversation.node)
    return conversation, remembering


def recaller(prompt: str) -> Mapping[str, float]:
    """Says where the user lives if it has just been told, else looks it up."""
    last = prompt.rpartition("<|im_start|>user\n")[2]
    if "</tool_response>" in last:
        return {"You live in Oslo." if "Oslo" in last else "I do not know.": 1.0}
    return {"Noted.": 1.0} if "I live in" in last else {wanted("recall", question="Where do I live?"): 1.0}


def test_a_chat_that_remembers(checkpoint: Path, memory: Memory) -> None:
    with running(checkpoint, thinking(recaller)) as runtime:
        first, kept = conversation_of(runtime, memory)
        assert kept is not None
        list(first.say("I live in Oslo"))
        began = time.time()
        asked = now()
        assert kept.keep(first.exchange(), asked) == 2 and kept.keep(first.exchange(), asked) == 0
        user, assistant = (turn for turn, _ in memory.store.scan())
        assert (user.speaker, user.text, user.time, user.conversation) == ("user", "I live in Oslo", asked, "chat")
        assert (assistant.speaker, assistant.text, assistant.session) == ("assistant", "Noted.", kept.session)
        assert assistant.time is not None and abs(assistant.time.timestamp() - began) < 60
        assert assistant.node == first.node.id if first.node else False
        assert runtime.tree.node(user.node or "").message == {"role": "user", "content": "I live in Oslo"}

        later, kept = conversation_of(runtime, memory)
        assert kept is not None
        kept.session += " later"
        events = list(later.say("Where do I live?"))
        (outcome,) = outcomes(iter(events))
        assert user.id in {turn["id"] for turn in outcome.result["turns"]}
        assert "".join(event.text for event in events if isinstance(event, Piece)).endswith("You live in Oslo.")
        assert kept.keep(later.exchange(), now()) == 2  # the question and the answer: no calls, no results
        assert [message["role"] for message in later.messages()] == ["system", "user", "assistant", "tool", "assistant"]


def test_what_the_model_remembers_has_the_time_and_the_node(checkpoint: Path, memory: Memory) -> None:
    def script(prompt: str) -> Mapping[str, float]:
        return {"Yes.": 1.0} if "</tool_response>" in prompt else {wanted("remember", text="Ann has a cat"): 1.0}

    with running(checkpoint, thinking(script)) as runtime:
        conversation, _ = conversation_of(runtime, memory)
        list(conversation.say("Keep that"))
        (turn,) = (turn for turn, _ in memory.store.scan())
        assert (turn.text, turn.conversation) == ("Ann has a cat", "chat")
        assert turn.time is not None and abs(turn.time.timestamp() - time.time()) < 60
        path = [node.id for node in conversation.path()]
        assert turn.node == path[-3]  # the reply that called


def test_an_answer_that_breaks_off_leaves_the_place(checkpoint: Path, memory: Memory) -> None:
    with running(checkpoint, thinking(recaller)) as runtime:
        conversation, _ = conversation_of(runtime, memory)
        list(conversation.say("I live in Oslo"))
        before = conversation.node
        memory.remember("I live in Oslo", conversation="c")
        for kind in (Piece, FinishEvent, Calling, Called):  # the end of the first reply is not that of the answer
            answer = conversation.say("Where do I live?")
            while not isinstance(next(answer), kind):
                pass
            assert (conversation.node == before) is (kind is Piece)
            answer.close()
            assert conversation.node == before
        events = list(conversation.retry())
        assert conversation.node != before and len(outcomes(iter(events))) == 1
        assert sum(message["role"] == "user" for message in conversation.messages()) == 2


def test_tools_of_a_session_that_an_agent_began_stay(checkpoint: Path, memory: Memory) -> None:
    sql = {"type": "function", "function": {"name": "sql", "parameters": {"type": "object", "properties": {}}}}

    def script(prompt: str) -> Mapping[str, float]:
        return {"Yes.": 1.0} if "</tool_response>" in prompt else {wanted("sql"): 1.0}

    with running(checkpoint, thinking(script)) as runtime:
        (*_, finish) = reply(runtime, USER, [sql], sampling=Sampling(temperature=0))
        assert isinstance(finish, FinishEvent) and finish.node is not None
        conversation, _ = conversation_of(runtime, memory)
        conversation.go(finish.node)
        names = [tool["function"]["name"] for tool in conversation.tools() or ()]
        assert names == ["sql", "remember", "recall", "forget"]
        (outcome,) = outcomes(conversation.say("go on"))
        assert outcome.result == {"error": "there is no tool 'sql'"}
        assert [tool["function"]["name"] for tool in conversation.tools() or ()] == names


def test_scripts_are_used(checkpoint: Path) -> None:
    """Without a memory nothing is run, as before."""
    script: Script = lambda _: {wanted("recall", question="x"): 1.0}  # noqa: E731
    with running(checkpoint, script) as runtime:
        conversation, _ = conversation_of(runtime, None)
        events = list(conversation.say("hello"))
        assert not outcomes(iter(events)) and conversation.tools() is None
