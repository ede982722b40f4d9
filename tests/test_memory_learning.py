"""A memory that is told which turns answered a question weighs what it finds accordingly, and forgets it, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ramet.memory import Memory, MemoryStoreError
from ramet.memory.recall import DEFAULT, SIGNALS, adapted
from ramet.memory.recall.learning import learned

_TEXT = "zebra otter lynx ibis ferret gannet marten"
ANIMALS = [*_TEXT.split(), *(colour + animal for colour in ("red", "grey", "sand") for animal in _TEXT.split())]


def told(place: Path | None = None) -> Memory:
    """Of each animal a statement and a question: as shipped, a question counts for less."""
    memory = Memory.open(place)
    for animal in ANIMALS:
        memory.remember(f"The {animal} came by.", conversation="c", speaker="Ann", session=animal, id=f"{animal} said")
        memory.remember(f"A {animal}, was it?", conversation="c", speaker="Ann", session=animal, id=f"{animal} asked")
    return memory


def first(memory: Memory, animal: str) -> str:
    return memory.recall(f"{animal}?", 1, conversation="c")[0].turn.id


def test_what_answered_is_learnt_from() -> None:
    with told() as memory:
        assert [first(memory, animal) for animal in ANIMALS[24:]] == [f"{animal} said" for animal in ANIMALS[24:]]
        for number, animal in enumerate(ANIMALS[:24], 1):
            assert memory.learn(f"{animal}?", [f"{animal} asked"], conversation="c") == number
        assert [first(memory, animal) for animal in ANIMALS[24:]] == [f"{animal} asked" for animal in ANIMALS[24:]]
        weights = learned(memory.store)
        assert weights.asks > DEFAULT.asks and weights.date == DEFAULT.date, "nothing was told about dates"


def test_it_lasts_and_keeps_no_text(tmp_path: Path) -> None:
    with told(tmp_path / "memory.db") as memory:
        memory.learn("Which unmistakable otter?", ["otter asked"])
        weights = learned(memory.store)
    assert weights != DEFAULT
    with Memory.open(tmp_path / "memory.db") as memory:
        assert learned(memory.store) == weights
    assert b"unmistakable" not in (tmp_path / "memory.db").read_bytes()


def test_what_is_forgotten_is_unlearnt() -> None:
    with told() as memory:
        memory.learn("otter?", ["otter asked"])
        once = learned(memory.store)
        memory.learn("zebra?", ["zebra asked", "zebra said"])
        assert learned(memory.store) != once
        memory.forget(["zebra said"])
        assert learned(memory.store) == once
        memory.forget_conversation("c")
        assert learned(memory.store) == DEFAULT


def test_a_forgotten_rival_is_unlearnt_and_nothing_of_it_stays_in_the_file(tmp_path: Path) -> None:
    place = tmp_path / "memory.db"
    with told(place) as memory:
        memory.remember("An otter, once more.", conversation="c", speaker="Ann", session="otter", id="otter rival")
        memory.learn("otter?", ["otter asked"], conversation="c")
        before = learned(memory.store)
        memory.forget(["otter rival"])
        assert learned(memory.store) not in (before, DEFAULT)
        for file in tmp_path.iterdir():
            assert b"otter rival" not in file.read_bytes(), file.name


def test_one_answer_cannot_make_a_rare_signal_decide() -> None:
    dice = np.random.default_rng(1)
    examples = []
    for number in range(50):
        values = dice.normal(size=(40, SIGNALS)).astype(np.float32)
        values[:, 14] = 0
        if number == 0:
            values[7, 14] = 1
        examples.append((values, np.eye(40, dtype=np.float32)[7 if number == 0 else number % 40]))
    spread = np.concatenate([values for values, _ in examples]).std(0)
    assert spread[14] < 0.05
    assert abs(adapted(examples, spread).date - DEFAULT.date) < 1.5


def test_a_note_of_other_signals_is_left_out() -> None:
    with told() as memory:
        memory.learn("otter?", ["otter asked"], conversation="c")
        memory.store.note("answered questions", '[{"answers": ["zebra said"], "candidates": [], "spread": [1.0]}]')
        assert memory.learn("zebra?", ["zebra asked"], conversation="c") == 1
        memory.forget(["zebra said"])


def test_what_cannot_be_learnt_from_says_why() -> None:
    with told() as memory:
        for ids, message in (
            ([], "no turn is named"),
            (["nothing"], "no turn 'nothing'"),
            (["lynx said"], "no search"),
        ):
            with pytest.raises(MemoryStoreError, match=message):
                memory.learn("otter?", ids)
        assert learned(memory.store) == DEFAULT


def test_a_signal_that_is_always_the_same_is_left_alone() -> None:
    dice = np.random.default_rng(0)
    values = dice.normal(size=(30, SIGNALS)).astype(np.float32)
    values[:, 3], values[:, 5] = 0, 7.3
    share = np.eye(30, dtype=np.float32)[4]
    weights = adapted([(values, share)], values.std(0))
    assert (weights.window, weights.after) == (DEFAULT.window, DEFAULT.after)
    assert weights != DEFAULT and max(map(abs, (weights.lexical, weights.dense, weights.words))) < 5
    assert adapted([], values.std(0)) == DEFAULT
