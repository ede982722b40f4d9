"""Replies that cannot be used, or are too long: what is asked again, what is left out, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ramet.memory import Memory, ModelError
from ramet.memory.validity import end_of
from tests.endpoints import Answer, Raw, completion, given, keeper
from tests.memory_support import model, of_kind, said, talk


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory.open(None) as found:
        yield found


def too_long(limit: int, more: Answer = keeper) -> Answer:
    """A model with a short context."""

    def answer(body: dict[str, Any]) -> Any:
        size = len(body["messages"][1]["content"])
        if size <= limit:
            return more(body)
        return Raw.error(400, f"This model's maximum context length is {limit} tokens, and you asked for {size}")

    return answer


def test_a_short_context_gets_shorter_pieces(memory: Memory) -> None:
    memory.remember_turns(talk(*(f"Turn {index} " + "word " * 40 for index in range(16)), "x" * 3000, "the last"))
    with model(too_long(1500)) as (found, asked):
        done = memory.derive(found)
        refused = sum(len(body["messages"][1]["content"]) > 1500 for body in asked.bodies)
    covered = [id for turn in of_kind(memory, "summary") for id in turn.sources]
    assert covered == [f"c:{index}" for index in range(18) if index != 16]
    assert refused <= 8 and len(done.failed) == 1  # each with a limit of tokens, and without
    assert "c · s, from 'c:16' on" in done.failed[0] and "maximum context length is 1500" in done.failed[0]


def test_a_reply_that_is_cut_off_shortens_its_own_session_only(memory: Memory) -> None:
    for session in range(3):
        texts = [f"Turn {index} of {session} " + "word " * 40 for index in range(4)]
        memory.remember_turns(talk(*texts, session=f"s{session}", start=4 * session))

    def answer(body: dict[str, Any]) -> Any:
        lines = given(body)
        return Raw(200, completion("{", "length")) if "of 0" in lines[0]["text"] and len(lines) > 3 else keeper(body)

    def unlimited(body: dict[str, Any]) -> Any:
        return Raw.error(400, "max_tokens?") if any("max" in name for name in body) else answer(body)

    with model(unlimited) as (found, _):
        memory.derive(found)
    assert [len(turn.sources) for turn in of_kind(memory, "summary")] == [2, 2, 4, 4]


def test_what_was_not_read_is_asked_in_other_words(memory: Memory) -> None:
    """What is likeliest to be said is the same for the same question."""
    memory.remember_turns(talk("Ann lives in Oslo"))
    asked_for = set[str]()

    def answer(body: dict[str, Any]) -> Any:
        asked_for.add(str(body["messages"]))
        return keeper(body) if len(asked_for) == 3 else "No."

    with model(answer) as (found, asked):
        assert memory.derive(found).summaries == 1 and len(asked.bodies) == 3


def test_replies_of_no_use_are_left_out_and_tried_again(memory: Memory) -> None:
    for session in range(4):
        memory.remember_turns(talk(f"Ann lives in Town{session}", session=f"s{session}", start=session))
    bad = {"Town1"}

    def answer(body: dict[str, Any]) -> Any:
        return "I would rather not." if any(name in body["messages"][1]["content"] for name in bad) else keeper(body)

    with model(lambda body: answer(body) if "dates" in given(body)[-1] else keeper(body)) as (found, asked):
        done = memory.derive(found)
        assert (done.summaries, len(done.failed)) == (3, 1)
        assert done.failed[0].startswith("c · s1, from 'c:1' on: the reply is not JSON: 'I would rather not.'")
        assert (
            sum("Town1" in body["messages"][1]["content"] and "dates" in given(body)[-1] for body in asked.bodies) == 3
        )
        bad.clear()
        assert memory.derive(found).summaries == 1


def test_a_model_that_cannot_do_it_is_given_up(memory: Memory) -> None:
    for session in range(12):
        memory.remember_turns(talk("Hello", session=f"s{session}", start=session))
    with model(lambda _: {"summary": "", "facts": []}) as (found, asked):
        with pytest.raises(
            ModelError, match=r"10 sessions in a row could be used.*summary that is empty.*another model"
        ):
            memory.derive(found)
        assert len(asked.bodies) == 30


def test_what_is_done_is_kept_when_the_endpoint_goes(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    for session in range(4):
        memory.remember_turns(talk(f"Ann lives in Town{session}", session=f"s{session}", start=session))
    left = [3]

    def answer(body: dict[str, Any]) -> Any:
        left[0] -= 1
        return keeper(body) if left[0] >= 0 else Raw.error(401, "expired")

    with model(answer) as (found, _):
        with pytest.raises(ModelError, match="expired"):
            memory.derive(found)
        assert len(of_kind(memory, "summary")) == 2
        left[0] = 100
        assert memory.derive(found).summaries == 2
    towns = [turn.text for turn in of_kind(memory, "fact") if turn.superseded_by is None]
    assert towns == ["Ann lives in Town3."]


def test_only_what_was_offered_can_be_replaced(memory: Memory) -> None:
    memory.remember_turns(talk("Ann lives in Oslo", "Ben lives in Rome", "Cid lives in Bern"))
    wild = [{"fact": "n1", "relation": "replaces", "other": other} for other in ("n1", "n2", "s1", 3, None)]
    with model(lambda body: keeper(body) if "dates" in given(body)[-1] else {"changes": wild}) as (found, _):
        done = memory.derive(found)
    assert (done.facts, done.superseded) == (3, 0)
    assert end_of(said(5, "x"), said(1, "x")) == said(1, "x").time  # without a beginning any end will do
