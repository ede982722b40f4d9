"""A memory that is told which turns answered a question weighs what it finds accordingly, and forgets it, too."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ramet.cli.main import app
from ramet.memory import Memory, MemoryStoreError
from ramet.memory.recall import DEFAULT, SIGNALS, Weights, adapted, learning
from ramet.memory.recall.fusion import Example
from ramet.memory.recall.learning import answered, learned
from ramet.memory.recall.signals import Floats
from tests.test_memory_faces import Letters

_TEXT = "zebra otter lynx ibis ferret gannet marten"
ANIMALS = [*_TEXT.split(), *(colour + animal for colour in ("red", "grey", "sand") for animal in _TEXT.split())]


def told(place: Path | None = None, embedder: Letters | None = None) -> Memory:
    """Of each animal a statement and a question: as shipped, a question counts for less."""
    memory = Memory.open(place, embedder)
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


@pytest.mark.parametrize("embedder", [None, Letters()])
def test_a_question_that_is_told_again_counts_once(embedder: Letters | None) -> None:
    asked = "Did the otter come by, and the zebra, and the lynx?"
    with told(embedder=embedder) as memory:
        memory.learn(asked, ["otter said"], conversation="c")
        once = learned(memory.store)
        assert memory.learn(asked, ["otter said"], conversation="c") == 1
        assert learned(memory.store) == once
        memory.learn("zebra?", ["zebra asked"], conversation="c")
        for text in ("An owl was here.", "Nothing, I said.", "It rains.", "Where?", "There."):
            memory.remember(text, conversation="c", session="later")
        memory.forget(["lynx said", "ibis asked"] if embedder else ["ibis asked"])
        assert memory.learn(asked, ["otter said"], conversation="c") == 2
        assert [one["answers"] for one in answered(memory.store)] == [["zebra asked"], ["otter said"]]
        assert memory.learn(asked, ["otter asked"], conversation="c") == 3, "other answers"
        assert memory.learn("Did the otter, or a marten, or a gannet?", ["otter said"], conversation="c") == 4


def test_what_was_learnt_can_be_dropped(tmp_path: Path) -> None:
    with told(tmp_path / "m.db") as memory:
        assert memory.unlearn() == 0
        memory.learn("otter?", ["otter asked"], conversation="c")
        memory.learn("zebra?", ["zebra asked"], conversation="c")
        assert memory.unlearn() == 2 and learned(memory.store) == DEFAULT
        assert memory.learn("zebra?", ["zebra asked"], conversation="c") == 1
    run = CliRunner().invoke
    store = ["--store", str(tmp_path / "m.db"), "--lexical"]
    for wrong in (["otter?"], ["otter?", "otter asked", "--reset"], []):
        assert run(app, ["memory", "learn", *wrong, *store]).exit_code == 2
    assert "from 2 questions" in run(app, ["memory", "learn", "otter?", "otter said", *store]).stderr
    assert "from 2 questions is dropped" in run(app, ["memory", "learn", "--reset", *store]).stderr


def test_nobody_waits_while_weights_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes while the weights are learnt: a turn, a question, and the end of a candidate."""
    with told(tmp_path / "m.db") as memory, Memory.open(tmp_path / "m.db") as other:
        memory.remember("An otter, once more.", conversation="c", session="otter", id="otter rival")
        todo = [
            lambda: other.remember("Hello", conversation="d"),
            lambda: other.learn("zebra?", ["zebra asked"], conversation="c"),
            lambda: other.forget(["otter rival"]),
        ]

        def slow(examples: list[Example], spread: Floats) -> Weights:
            while todo:
                todo.pop(0)()
            return adapted(examples, spread)

        monkeypatch.setattr(learning, "adapted", slow)
        assert memory.learn("otter?", ["otter asked"], conversation="c") == 2
        assert not todo
        known = answered(memory.store)
        assert [one["answers"] for one in known] == [["zebra asked"], ["otter asked"]]
        assert "otter rival" not in json.dumps(known)
        monkeypatch.setattr(learning, "adapted", lambda examples, spread: (other.forget(["lynx asked"]), DEFAULT)[1])
        with pytest.raises(MemoryStoreError, match="no turn 'lynx asked'"):
            memory.learn("lynx?", ["lynx asked"], conversation="c")
        assert answered(memory.store) == known


def test_two_processes_learn_at_once(tmp_path: Path) -> None:
    told(tmp_path / "m.db").close()
    script = (
        "import sys; from ramet.memory import Memory\n"
        "with Memory.open(sys.argv[1]) as memory:\n"
        "    for animal in sys.argv[2:]: memory.learn(animal + '?', [animal + ' asked'], conversation='c')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m.db")]
    both = [subprocess.Popen([*command, *ANIMALS[at::2]]) for at in (0, 1)]
    assert [process.wait(120) for process in both] == [0, 0]
    with Memory.open(tmp_path / "m.db") as memory:
        known = answered(memory.store)
        assert {one["answers"][0] for one in known} == {f"{animal} asked" for animal in ANIMALS}
        once = learned(memory.store)
        memory.remember("Another", conversation="d", id="x")
        memory.store.note("weights", "[]")
        learning.take_over(memory.store, known[:1])
        assert learned(memory.store) == once, "the weights are those of all that is known"


def test_an_export_has_what_was_learnt() -> None:
    with told() as memory:
        plain = list(memory.export())
        for animal in ANIMALS[:3]:
            memory.learn(f"{animal}?", [f"{animal} asked"], conversation="c")
        lines, known, weights = list(memory.export()), answered(memory.store), learned(memory.store)
        assert lines[1:] == plain and list(memory.export("c")) == plain
        memory.forget(["zebra asked"])
        assert memory.import_(lines) == 1 and answered(memory.store) == known, "it is told as if before"
        with Memory.open(None) as other:
            other.import_(plain)
            assert learned(other.store) == DEFAULT
            other.learn("lynx?", ["lynx said"], conversation="c")
            assert other.import_(lines) == 0
            assert [one["answers"][0] for one in answered(other.store)] == [
                *(o["answers"][0] for o in known),
                "lynx said",
            ]
        with Memory.open(None) as other:
            other.import_(lines)
            assert learned(other.store) == weights and list(other.export()) == lines
        with Memory.open(None) as other:
            other.import_([lines[0], *(line for line in lines[1:] if '"otter asked"' not in line)])
            assert [one["answers"] for one in answered(other.store)] == [["zebra asked"], ["lynx asked"]]
        with Memory.open(None) as other:
            short = {"spread": [1.0], "signals": base64.b64encode(bytes(2 * len(known[0]["candidates"]))).decode()}
            other.import_([json.dumps({"memory_embedder": None, "answered": [known[0] | short, known[1]]}), *plain])
            assert answered(other.store) == [known[1]], "signals of another version are left out"
        with Memory.open(None, Letters()) as other:
            other.import_(lines)
            assert answered(other.store) == [], "what was learnt without an embedder is of no use with one"


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("signals", "AAA="),
        ("signals", 3),
        ("candidates", []),
        ("answers", None),
        ("spread", ["x"]),
        ("spread", [math.nan] * SIGNALS),
    ],
)
def test_damaged_lessons_are_refused(change: str, value: object) -> None:
    with told() as memory:
        memory.learn("otter?", ["otter asked"], conversation="c")
        head, *rest = memory.export()
        given = json.loads(head)
        given["answered"][0][change] = value
        with Memory.open(None) as other, pytest.raises(MemoryStoreError, match=r"line 1: .* damaged"):
            other.import_([json.dumps(given), *rest])
        with Memory.open(None) as other, pytest.raises(MemoryStoreError, match=r"line 1: .* a list"):
            other.import_([json.dumps(given | {"answered": {}}), *rest])


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
