"""Whatever is said, read and forgotten, in whatever order: which facts hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ramet.memory import Memory
from ramet.memory.sql import SqlStore
from tests.endpoints import given as lines_of
from tests.memory_support import Keeper, check_facts, leads_to, said

pytest_plugins = ["tests.memory_fixtures"]

HOMES = st.tuples(st.sampled_from(["Ann", "Ben"]), st.sampled_from(["Oslo", "Rome", "Bern"]))
TALKS = st.lists(st.lists(HOMES, min_size=1, max_size=3), min_size=1, max_size=4)
names = count()
PHASES = [Phase.explicit, Phase.generate]
"""Not made smaller: a failure would take minutes to be told."""


def play(memory: Memory, talks: list[list[tuple[str, str]]], draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Sessions are read in any order, and turns forgotten between; then all is exported and read again elsewhere."""
    name = f"c{next(names)}"
    homes = [(session, home) for session, talk in enumerate(talks) for home in talk]
    turns = [
        said(60 * at, f"{person} lives in {town}", name, f"s{session}")
        for at, (session, (person, town)) in enumerate(homes)
    ]
    for session in draw(st.permutations(range(len(talks)))):
        memory.remember_turns(turn for turn in turns if turn.session == f"s{session}")
        memory.derive(Keeper(), name)
        check_facts(memory, name)
        memory.forget(draw(st.lists(st.sampled_from([turn.id for turn in turns]), max_size=3)))
        check_facts(memory, name)
    with Memory.open(None) as other:
        other.import_(memory.export(name))
        assert list(other.export()) == list(memory.export(name))
        for id in draw(st.permutations([turn.id for turn in turns])):
            other.forget([id])
            check_facts(other, name)
        assert other.store.count() == 0


@settings(max_examples=40, deadline=None, derandomize=True, phases=PHASES)
@given(talks=TALKS, data=st.data())
def test_whatever_is_forgotten_what_is_still_told_holds_once(
    talks: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    with Memory.open(None) as memory:
        play(memory, talks, data.draw)


@settings(
    max_examples=8, deadline=None, derandomize=True, phases=PHASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(talks=TALKS, data=st.data())
def test_the_same_in_both_stores(store: SqlStore, talks: list[list[tuple[str, str]]], data: st.DataObject) -> None:
    play(Memory(store), talks, data.draw)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(talks=TALKS, data=st.data())
def test_much_is_forgotten(talks: list[list[tuple[str, str]]], data: st.DataObject) -> None:
    with Memory.open(None) as memory:
        play(memory, talks, data.draw)


@settings(max_examples=40, deadline=None, derandomize=True, phases=PHASES)
@given(talks=TALKS, seed=st.integers(0, 1000), data=st.data())
def test_whatever_a_model_says_of_facts_they_stay_in_order(
    talks: list[list[tuple[str, str]]], seed: int, data: st.DataObject
) -> None:
    """A model that says anything of any two facts: none is lost, none leads in a circle."""
    rng = random.Random(seed)

    class Wild(Keeper):
        def ask(self, instructions: str, given: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
            reply = dict(super().ask(instructions, given, schema))
            if "changes" in reply:
                lines = lines_of({"messages": [{"content": given}]})
                pairs = [(line["id"], other) for line in lines for other in line.get("near", ())]
                relations = [(*pair, rng.choice(["repeats", "replaces", ""])) for pair in pairs]
                reply["changes"] = [{"fact": fact, "other": other, "relation": how} for fact, other, how in relations]
            return reply

    with Memory.open(None) as memory:
        sessions = [[said(10 * at + i, "{} lives in {}".format(*home), session=f"s{at}", time=None) for i, home in
                     enumerate(talk)] for at, talk in enumerate(talks)]  # fmt: skip
        for session in data.draw(st.permutations(sessions)):
            memory.remember_turns(session)
            memory.derive(Wild())
            stored = {turn.id: turn for turn, _ in memory.store.scan()}
            told = [turn for turn in stored.values() if turn.kind == "said"]
            found = [turn for turn in stored.values() if turn.kind == "fact"]
            assert len(found) == len(told)
            for turn in found:
                leads_to(stored, turn)
            memory.forget([rng.choice(told).id])
            stored = {turn.id: turn for turn, _ in memory.store.scan()}
            for turn in stored.values():
                leads_to(stored, turn)
