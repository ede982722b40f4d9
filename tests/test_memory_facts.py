"""Which facts hold: what is said again, what takes the place of what, and what is left when turns are forgotten."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ramet.cli.main import app
from ramet.memory import Memory, MemoryStoreError, Turn
from ramet.memory.derive import Derived
from ramet.memory.sql import SqlStore
from ramet.memory.sqlite import SqliteStore
from tests.memory_support import Keeper, check_facts, facts_of, leads_to, said

pytest_plugins = ["tests.memory_fixtures"]


def holding(memory: Memory) -> list[str]:
    return [turn.text for turn in facts_of(memory) if turn.superseded_by is None and turn.repeats is None]


def tell(memory: Memory, *texts: str) -> None:
    """Each in a session of its own."""
    for text in texts:
        at = memory.store.end("c")
        memory.remember_turns([said(at, text, session=f"s{at}")])


def fact(at: int, text: str, **more: Any) -> Turn:
    turn = said(at, text)
    return replace(
        turn, id=f"f{at}", speaker="", kind="fact", sources=(f"c:{at}",), valid_from=turn.time, **more
    )  # fmt: skip


def test_a_fact_lasts_as_long_as_a_turn_that_tells_it(store: SqlStore) -> None:
    memory = Memory(store)
    tell(memory, "Ann lives in Oslo", "Ann lives in Oslo", "Ann lives in Oslo", "Ann lives in Rome")
    assert memory.derive(Keeper()) == Derived(summaries=4, facts=2, superseded=1, repeated=2)
    first, second, third, rome = facts_of(memory)
    assert (second.repeats, third.repeats, first.repeats) == (first.id, first.id, None)
    assert {(turn.superseded_by, turn.valid_to) for turn in (first, second, third)} == {(rome.id, rome.time)}
    memory.forget(["c:0"])
    second, third, _ = facts_of(memory)
    assert (second.repeats, third.repeats) == (None, second.id)
    assert (second.valid_from, second.superseded_by, third.superseded_by) == (second.time, rome.id, rome.id)
    memory.forget(["c:3"])
    assert holding(memory) == ["Ann lives in Oslo."] and {t.valid_to for t in facts_of(memory)} == {None}
    memory.forget(["c:1"])
    assert holding(memory) == ["Ann lives in Oslo."] and len(facts_of(memory)) == 1


def test_news_of_what_was_between(store: SqlStore) -> None:
    """A session is read after later ones in which the same was said: it is put where it was said."""
    memory = Memory(store)
    tell(memory, "Ann lives in Oslo", "Ben", "Ann lives in Oslo", "Ann lives in Oslo")
    store.delete(["c:1"])
    memory.derive(Keeper())
    memory.remember_turns([said(1, "Ann lives in Rome", session="late")])
    memory.derive(Keeper())
    first, third, fourth, rome = facts_of(memory)
    assert (first.superseded_by, rome.superseded_by, third.superseded_by) == (rome.id, third.id, None)
    assert (third.repeats, fourth.repeats, rome.valid_to) == (None, third.id, third.time)
    memory.forget(["c:1"])
    assert [turn.repeats for turn in facts_of(memory)] == [None, first.id, first.id]


def test_the_earlier_stands_for_the_later(store: SqlStore) -> None:
    """Whichever was read first."""
    memory = Memory(store)
    memory.remember_turns([said(5, "Ann lives in Oslo", session="later")])
    memory.derive(Keeper())
    memory.remember_turns([said(2, "Ann lives in Oslo", session="earlier"), said(1, "Ann lives in Rome", session="a")])
    assert memory.derive(Keeper()) == Derived(summaries=2, facts=2, superseded=1)
    later, rome, earlier = facts_of(memory)
    assert (later.repeats, earlier.repeats, rome.superseded_by) == (earlier.id, None, earlier.id)


def test_the_same_from_the_same_turns_is_not_stored_again(store: SqlStore) -> None:
    """A model puts it in other words when it is asked again about what is left of a session."""
    memory, words = Memory(store), count()

    class Loose(Keeper):
        def ask(self, instructions: str, given: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
            reply = super().ask(instructions, given, schema)
            for each in reply.get("facts", ()):
                each["text"] = f"Take {next(words)}: {each['text']}"
            return reply

    memory.remember_turns([said(0, "Ann lives in Oslo"), said(1, "secret")])
    memory.derive(Loose())
    memory.forget(["c:1"])
    assert memory.derive(Loose()) == Derived(summaries=1, repeated=1)
    assert [turn.text for turn in facts_of(memory)] == ["Take 0: Ann lives in Oslo."]


def test_an_answer_has_a_fact_once(store: SqlStore) -> None:
    memory = Memory(store)
    tell(memory, *["Ann lives in Oslo"] * 9, "Ben lives in Oslo")
    memory.derive(Keeper())
    found = [recalled.turn for recalled in memory.recall("Who lives in Oslo?", 40)]
    assert sum(turn.kind == "fact" for turn in found) == 2 and sum(turn.kind == "said" for turn in found) == 10
    assert len(memory.recall("Who lives in Oslo?", 15)) == 15 and memory.recall("Oslo", 0) == []
    every = memory.recall("Who lives in Oslo?", 40)
    assert [r.turn for r in memory.recall("Who lives in Oslo?", 7)] == [r.turn for r in every[:7]]


def test_what_is_said_often_hides_nothing_from_the_next(store: SqlStore) -> None:
    """Repetitions, and what is no longer so, do not use up what is offered to a model."""
    memory = Memory(store)
    memory.remember_turns([said(at, "Ann lives in Oslo", session=f"s{at}") for at in range(30)])
    memory.remember_turns([said(30, "Bob lives in Oslo", session="s30")])
    memory.derive(Keeper())
    near: list[int] = []
    tell(memory, "Ann lives in Oslo, and Bob lives in Rome")
    memory.derive(Keeper(lambda lines: near.extend(len(line["near"]) for line in lines if line.get("near"))))
    assert near == [2] and holding(memory) == ["Ann lives in Oslo.", "Bob lives in Rome."]


def test_facts_repeat(store: SqlStore) -> None:
    turns = [said(at, "x") for at in range(5)]
    store.add([*turns, *(fact(at, "Ann lives in Oslo") for at in range(4)), fact(4, "Rome")])
    store.repeat("f3", "f2")
    store.repeat("f1", "f0")
    store.repeat("f2", "f1")  # with what stands behind it, behind what stands for the other
    assert [turn.repeats for turn in store.turns(["f0", "f1", "f2", "f3"])] == [None, "f0", "f0", "f0"]
    for id, first, message in (("f2", "f0", "repeats 'f0'"), ("f0", "f3", "'f0'"), ("c:0", "f0", "not a fact"),
                               ("f4", "f9", "not a fact")):  # fmt: skip
        with pytest.raises(MemoryStoreError, match=message):
            store.repeat(id, first)
    with pytest.raises(MemoryStoreError, match="itself"):
        store.supersede("f1", "f2", None)
    store.supersede("f2", "f4", None)  # whichever of those that say the same is named
    assert {turn.superseded_by for turn in store.turns(["f0", "f1", "f2", "f3"])} == {"f4"}
    assert store.add([fact(3, "Ann lives in Oslo")]) == 0
    version = store.version
    store.delete(["c:0", "c:4"])
    found = store.turns(["f1", "f2", "f3"])
    assert [(turn.repeats, turn.superseded_by) for turn in found] == [(None, None), ("f1", None), ("f1", None)]
    assert store.version != version


def test_what_repeats_changes_none_of_those_that_do_already() -> None:
    """Else a fact that is told thousands of times takes the square of that."""
    with Memory.open(None) as memory:
        assert isinstance(memory.store, SqliteStore)
        memory.store.add([said(at, "x") for at in range(60)])
        memory.store.add([fact(at, "Oslo") for at in range(59)])
        memory.store.add([fact(59, "Rome")])
        database, took = memory.store._database, list[int]()
        for at in range(1, 59):
            before = database.total_changes
            memory.store.repeat(f"f{at}", "f0")
            took.append(database.total_changes - before)
        assert set(took) == {took[0]} and took[0] <= 3
        memory.store.supersede("f0", "f59", None)
        assert {turn.superseded_by for turn in facts_of(memory)[:-1]} == {"f59"}


def test_what_was_so_again_repeats_nothing(store: SqlStore) -> None:
    store.add([*(said(at, "x") for at in range(3)), fact(0, "Oslo"), fact(1, "Rome"), fact(2, "Oslo")])
    store.supersede("f1", "f2", None)
    store.repeat("f2", "f0")
    found = store.turns(["f0", "f1", "f2"])
    assert [turn.superseded_by for turn in found] == ["f1", "f2", None] and found[0].valid_to == found[1].time
    assert {turn.repeats for turn in found} == {None}


def test_what_is_said_after_the_end_of_what_it_repeats_holds(store: SqlStore) -> None:
    """Whether the end was known of the first, or of another that says the same."""
    store.add([*(said(at, "x") for at in range(4)), fact(0, "Oslo"), fact(1, "Oslo"), fact(2, "Rome"), fact(3, "Oslo")])
    store.repeat("f3", "f0")
    store.supersede("f1", "f2", None)
    store.repeat("f1", "f0")
    found = store.turns(["f0", "f1", "f2", "f3"])
    assert [turn.superseded_by for turn in found] == ["f2", "f2", "f3", None]
    assert [turn.repeats for turn in found] == [None, "f0", None, None]
    store.delete(["c:3"])
    store.add([said(3, "x"), fact(3, "Oslo")])
    store.repeat("f3", "f0")
    assert [turn.superseded_by for turn in store.turns(["f0", "f1", "f2", "f3"])] == ["f2", "f2", "f3", None]


def test_what_is_put_between_parts_all_that_follows(store: SqlStore) -> None:
    store.add([said(at, "x") for at in range(6)])
    store.add([fact(at, town) for at, town in enumerate(["Oslo", "Rome", "Oslo", "Oslo", "Rome", "Oslo"])])
    store.supersede("f1", "f3", None)
    store.repeat("f5", "f3")
    store.repeat("f4", "f1")
    found = store.turns([f"f{at}" for at in range(6)])
    assert [turn.superseded_by for turn in found] == [None, "f3", None, "f4", "f5", None]
    assert {turn.repeats for turn in found} == {None}


@pytest.mark.parametrize("seed", range(60))
def test_however_facts_are_put_to_each_other_they_stay_in_order(seed: int) -> None:
    """A random walk over supersede, repeat and delete: nothing is ended by what was said before, or by nothing."""
    rng = random.Random(seed)
    texts = [rng.choice(["Oslo", "Rome", "Bern"]) for _ in range(7)]
    with SqliteStore(None) as store:
        store.add([said(at, "x") for at in range(len(texts))])
        store.add([fact(at, text) for at, text in enumerate(texts)])
        for _ in range(12):
            stored = {turn.id: turn for turn, _ in store.scan() if turn.kind == "fact"}
            if len(stored) < 2:
                break
            earlier, later = sorted(rng.sample(sorted(stored), 2))
            with suppress(MemoryStoreError):  # what cannot be is refused, and changes nothing
                if rng.random() < 0.2:
                    store.delete([f"c:{earlier[1:]}"])
                elif texts[int(earlier[1:])] == texts[int(later[1:])]:
                    store.repeat(later, earlier)
                else:
                    store.supersede(earlier, later, None)
            stored = {turn.id: turn for turn, _ in store.scan() if turn.kind == "fact"}
            for turn in stored.values():
                leads_to(stored, turn)


def test_what_is_between_parts_what_says_the_same(store: SqlStore) -> None:
    store.add([*(said(at, "x") for at in range(3)), fact(0, "Oslo"), fact(1, "Rome"), fact(2, "Oslo")])
    store.repeat("f2", "f0")
    store.supersede("f1", "f2", None)
    found = store.turns(["f0", "f1", "f2"])
    assert [turn.superseded_by for turn in found] == ["f1", "f2", None] and {turn.repeats for turn in found} == {None}


def test_imported_facts_that_repeat_each_other_in_a_circle(store: SqlStore) -> None:
    """What is left of them repeats nothing, least of all itself."""
    store.add([said(at, "x") for at in range(3)])
    store.add([fact(0, "Oslo", repeats="f1"), fact(1, "Oslo", repeats="f0"), fact(2, "Oslo", repeats="f0")])
    store.delete(["c:0"])
    assert [turn.repeats for turn in store.turns(["f1", "f2"])] == [None, "f1"]


def test_a_file_from_before_repetitions(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db") as memory:
        memory.remember_turns([said(0, "Ann lives in Oslo")])
        lines = list(memory.export())
    database = sqlite3.connect(tmp_path / "m.db")
    database.executescript("DROP INDEX turns_repeating; ALTER TABLE turns DROP COLUMN repeats")
    database.close()
    with Memory.open(tmp_path / "m.db") as memory, Memory.open(tmp_path / "m.db") as other:
        tell(other, "Ann lives in Oslo")
        assert next(memory.export()) == lines[0] and memory.derive(Keeper()).repeated == 1


def test_how_repetitions_are_shown(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db") as memory:
        tell(memory, "Ann lives in Oslo", "Ann lives in Oslo")
        memory.derive(Keeper())
        first, second = facts_of(memory)
    shown = CliRunner().invoke(app, ["memory", "show", second.id, "--store", str(tmp_path / "m.db")]).stdout
    assert f"said before: see {first.id}" in shown and "no longer so" not in shown
    shown = CliRunner().invoke(app, ["memory", "stats", "--store", str(tmp_path / "m.db")]).stdout
    assert "2 turns of 1 conversation, 1 fact, 2 summaries; 1 fact said again" in " ".join(shown.split())


def test_repetitions_are_counted_apart(store: SqlStore) -> None:
    memory = Memory(store)
    tell(memory, "Ann lives in Oslo", "Ann lives in Oslo", "Ann lives in Oslo")
    memory.derive(Keeper())
    assert (memory.stats().facts, memory.stats().repeated, store.count(kind="fact")) == (1, 2, 3)
    memory.forget(["c:0"])
    assert (memory.stats().facts, memory.stats().repeated) == (1, 1)


# Two at once.


@pytest.mark.parametrize("other", ["Ann lives in Rome", "Ann lives in Oslo"])
def test_two_at_once_compare_with_what_the_other_stored(opened: Callable[[], SqlStore], other: str) -> None:
    """Both have asked before either has stored: the second notices, and asks about that alone."""
    memory = Memory(opened())
    tell(memory, "Ann lives in Oslo", other)
    meet = threading.Barrier(2, timeout=60)
    asked: list[str] = []

    def work(session: str) -> None:
        def before(lines: list[dict[str, Any]]) -> None:
            asked.append("notes" if "dates" in lines[-1] else "changes")
            if "dates" in lines[-1]:
                meet.wait()

        store = opened()
        store.without_summary = lambda _: [("c", session)]  # type: ignore[method-assign]
        done.append(Memory(store).derive(Keeper(before)))

    done: list[Derived] = []
    threads = [threading.Thread(target=work, args=(f"s{at}",)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    repeats = other == "Ann lives in Oslo"
    assert len(done) == 2 and sum(each.superseded for each in done) == (not repeats)
    assert holding(memory) == [f"{other}."] and len(facts_of(memory)) == 2
    check_facts(memory, "c")
    assert asked.count("notes") == 2 and asked.count("changes") == (not repeats)  # the same words are not asked about


def test_what_holds_again_meanwhile_is_compared_with(memory: Memory) -> None:
    tell(memory, "Ann lives in Oslo", "Ann lives in Rome")
    memory.derive(Keeper())
    tell(memory, "Ann lives in Bern")

    def forgetful(lines: list[dict[str, Any]]) -> None:
        if "dates" not in lines[-1]:
            memory.forget(["c:1"])

    assert memory.derive(Keeper(forgetful)).superseded == 1
    assert holding(memory) == ["Ann lives in Bern."]


@pytest.mark.timeout(120)
def test_many_at_once_end(opened: Callable[[], SqlStore]) -> None:
    """Each of four is always about to store news of the same thing."""
    memory = Memory(opened())
    rng = random.Random(0)
    tell(memory, *(f"Ann lives in {rng.choice(['Oslo', 'Rome', 'Bern'])}" for _ in range(24)))
    told = [turn.text for turn, _ in memory.store.scan()]
    failed: list[BaseException] = []

    def work() -> None:
        try:
            Memory(opened()).derive(Keeper())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(facts_of(memory)) == 24
    check_facts(memory, "c")
    assert holding(memory) == [f"{told[-1]}."]


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory.open(None) as found:
        yield found
