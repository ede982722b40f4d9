"""Recall: the signals against formulas on a small store, and the gate against the published rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ramet.memory.base import Hit, Question, Turn
from ramet.memory.recall import DEFAULT, LINEAR, SIGNALS, Weights, recall, signals
from ramet.memory.recall.gate import Gate, posterior, unit
from ramet.memory.recall.schedule import breadth, scheduled, threshold
from ramet.memory.sqlite import SqliteStore

SAID = [
    ("1", "Ann", "Which city did you move to?"),
    ("1", "Bob", "Oslo, in the spring."),
    ("1", "Ann", "The weather is grey today."),
    ("2", "Bob", "I bought a bicycle."),
    ("2", "Ann", "A bicycle is a fine thing in the city."),
]


def filled(vectors: bool = False) -> SqliteStore:
    store = SqliteStore(None)
    turns = [Turn(f"t{n}", "c", s, n, who, text) for n, (s, who, text) in enumerate(SAID)]
    store.add(turns, np.eye(5, 8, dtype=np.float32) if vectors else None)
    return store


def test_a_neighbour_brings_the_answer_that_shares_no_word() -> None:
    with filled() as store:
        question = Question("Which city did he move to?", conversation="c")
        assert "t1" not in [hit.id for hit in store.lexical(question.text, 9, "c")]
        assert [hit.id for hit in recall(store, question, 2, LINEAR)] == ["t0", "t1"]


def test_signals_are_what_they_say() -> None:
    with filled(vectors=True) as store:
        vector = np.array([0, 0, 0, 1, 0.5, 0, 0, 0], np.float32)
        ids, values = signals(store, Question("Did Bob buy a bicycle?", vector, "c"))
        column = {name: dict(zip(ids, values[:, at], strict=True)) for at, name in enumerate(SIGNALS)}
        assert {id for id, said in column["speaker"].items() if said} == {"t1", "t3"}
        assert max(column["dense"], key=column["dense"].__getitem__) == "t3"
        base = {id: column["lexical"][id] + column["dense"][id] for id in ids}
        assert column["before"]["t4"] == pytest.approx(base["t3"], abs=1e-5)
        assert column["after"]["t3"] == pytest.approx(base["t4"], abs=1e-5)
        assert column["before"]["t3"] == 0, "the turn before it is of another session"
        assert column["session"]["t3"] == pytest.approx((base["t3"] + base["t4"]) / 2, abs=1e-5)


def test_nothing_is_recalled_from_nothing() -> None:
    with SqliteStore(None) as store:
        assert recall(store, Question("Who?"), 5, DEFAULT) == []
    with filled() as store:
        assert recall(store, Question("zebra", conversation="c"), 5, Weights()) == []


def published(similarities: list[float]) -> list[bool]:
    """The gate as the paper has it: scaled for each page, and the best candidate kept."""
    values = np.array(similarities)
    scaled = unit((values - values.min()) / max(float(np.ptp(values)), 1e-9))
    passes = posterior(scaled, scaled) >= 0.5
    passes[values.argmax()] = True
    return [bool(one) for one in passes]


def mended() -> Callable[[list[float]], list[bool]]:
    return Gate().joins


def episodes(gate: Callable[[list[float]], list[bool]]) -> int:
    """How many episodes 3 topics of 20 pages each become."""
    random = np.random.default_rng(3)
    centres: list[np.ndarray] = []
    for topic in np.linalg.qr(random.normal(size=(64, 3)))[0].T:
        for _ in range(20):
            page = topic + 0.08 * random.normal(size=64)
            page /= np.linalg.norm(page)
            joined = gate([float(page @ c / np.linalg.norm(c)) for c in centres]) if centres else []
            if any(joined):
                best = max(range(len(centres)), key=lambda at: float(page @ centres[at]))
                centres[best] = centres[best] + page
            else:
                centres.append(page)
    return len(centres)


def test_the_gate_opens_episodes_which_the_published_one_never_does() -> None:
    assert episodes(published) == 1
    assert episodes(mended()) == 3


def test_a_higher_similarity_never_has_a_lower_share() -> None:
    random = np.random.default_rng(0)
    history = unit(np.concatenate([random.beta(2, 8, 200), random.beta(9, 3, 100)]))
    shares = posterior(history, np.linspace(0.01, 0.99, 50))
    assert (np.diff(shares) >= 0).all()
    assert shares[0] < 0.05
    assert shares[-1] > 0.95


def test_more_is_read_where_nothing_stands_out() -> None:
    flat, peaked = [Hit(str(n), 1.0) for n in range(8)], [Hit("a", 9.0), *(Hit(str(n), 0.0) for n in range(7))]
    assert breadth(flat) == pytest.approx(8)
    assert breadth(peaked) < 1.1
    assert breadth([]) == 0
    assert threshold([1.0, 2.0, 3.0, 4.0, 5.0], 0.5) == 3.0
    with filled() as store:
        question = Question("bicycle", conversation="c")
        hits = recall(store, question, 4)
        assert scheduled(hits, breadth(hits) - 0.1, light=1) == hits
        assert scheduled(hits, breadth(hits) + 0.1, light=1) == hits[:1]
