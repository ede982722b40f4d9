"""Recall: the signals against formulas on a small store, and the gate against the published rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, fields
from datetime import datetime, timedelta

import numpy as np
import pytest

from ramet.memory.base import Hit, Question, Turn
from ramet.memory.recall import DEFAULT, LEXICAL_AND_DENSE, LINEAR, SIGNALS, Weights, best, fit, pool, ranked, weighted
from ramet.memory.recall.chain import chained
from ramet.memory.recall.gate import Gate, posterior, unit
from ramet.memory.recall.question import Asked, names_told
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
        assert [hit.id for hit in recalled(store, question, 2, LINEAR)] == ["t0", "t1"]


def recalled(store: SqliteStore, question: Question, k: int, weights: Weights = DEFAULT) -> list[Hit]:
    return ranked(pool(store, question), k, weights)


def columns(store: SqliteStore, question: Question) -> dict[str, dict[str, float]]:
    """For each signal its value for each candidate."""
    found = pool(store, question)
    names = [field.name for field in fields(Weights)]
    assert found.values.shape == (len(found.turns), SIGNALS) and len(names) == SIGNALS
    return {name: dict(zip(found.ids, found.values[:, at], strict=True)) for at, name in enumerate(names)}


def test_signals_are_what_they_say() -> None:
    with filled(vectors=True) as store:
        vector = np.array([0, 0, 0, 1, 0.5, 0, 0, 0], np.float32)
        column = columns(store, Question("When did Bob buy a bicycle in the city?", vector, "c"))
        assert {id for id, said in column["speaker"].items() if said} == {"t1", "t3"}
        assert {id for id, said in column["replies"].items() if said} == {"t2", "t4"}
        assert {id for id, said in column["asks"].items() if said} == {"t0"}
        assert {id for id, said in column["answers"].items() if said} == {"t1"}
        assert {id for id, said in column["time"].items() if said} == {"t2"}, "'today'"
        assert max(column["dense"], key=column["dense"].__getitem__) == "t3"
        mixed = {id: column["words"][id] + column["dense"][id] for id in column["words"]}
        base = {id: column["lexical"][id] + column["dense"][id] for id in column["words"]}
        assert column["before"]["t4"] == pytest.approx(mixed["t3"], abs=1e-5)
        assert column["after"]["t3"] == pytest.approx(mixed["t4"], abs=1e-5)
        assert column["before"]["t3"] == 0, "the turn before it is of another session"
        assert column["farther"]["t2"] == pytest.approx(mixed["t0"], abs=1e-5)
        assert column["session"]["t3"] == pytest.approx((base["t3"] + base["t4"]) / 2, abs=1e-5)
        assert column["best"]["t3"] == pytest.approx(max(mixed["t3"], mixed["t4"]), abs=1e-5)
        assert column["covered"]["t3"] == 2, "bicycle, and city in the next turn; buy is not bought"
        assert column["early"]["t1"] == pytest.approx(0.5)


def test_what_a_text_tells_of_itself() -> None:
    said = [("1", "Ann", "I saw two herons near Lake Inari with Bob."), ("1", "Bob", "My sister saw herons, too.")]
    with SqliteStore(None) as store:
        store.add([Turn(f"t{n}", "c", s, n, who, text) for n, (s, who, text) in enumerate(said)])
        plain = columns(store, Question("Did Ann see herons?", conversation="c"))
        assert plain["own"] == {"t0": 1, "t1": 0}, "Bob speaks of himself, but is not asked about"
        assert plain["names"] == {"t0": 2, "t1": 0}, "Lake and Inari; Bob is a speaker"
        assert set(plain["named"].values()) == set(plain["number"].values()) == {0}
        assert columns(store, Question("Where did Ann see herons?", conversation="c"))["named"]["t0"] == 2
        counted = columns(store, Question("How many herons did somebody see?", conversation="c"))
        assert counted["number"] == {"t0": 1, "t1": 0} and set(counted["own"].values()) == {0}


def test_a_question_is_read() -> None:
    asked = Asked.read("When did Ann paint the lake on 5 May 2023, and what may Bob do?", ["Ann", "Bob", "Cy"])
    assert (asked.speaker, asked.when, asked.content) == (None, True, ("paint", "lake", "5", "2023"))
    assert (asked.years, asked.months, asked.days) == ({2023}, {5}, ((5, 5),))
    assert [asked.dated(datetime(2023, 5, day)) for day in (5, 8, 9)] == [3, 3, 2]
    assert asked.dated(datetime(2022, 6, 5)) == 0 == asked.dated(None)
    assert Asked.read("What may Ann do?", ["Ann"]).months == frozenset()
    assert Asked.read("What may Ann do?", ["Ann"]).speaker == "Ann"


@pytest.mark.parametrize(
    ("question", "speakers", "speaker"),
    [
        ("What is the plan?", ["The Doctor", "Ann"], None),
        ("What is the doctor's plan?", ["The Doctor", "Ann"], "The Doctor"),
        ("What did you recommend?", ["You", "ChatGPT"], None),
        ("When will Ann move?", ["Will", "Ann"], "Ann"),
        ("What does Will like?", ["Will", "Ann"], "Will"),
        ("What did Ann Lee paint?", ["Ann Lee", "Bob Lee"], "Ann Lee"),
        ("What did Lee paint?", ["Ann Lee", "Bob Lee"], None),
        ("What did they say?", ["...", "they"], None),
    ],
)
def test_common_words_and_shared_names_call_nobody(question: str, speakers: list[str], speaker: str | None) -> None:
    assert Asked.read(question, speakers).speaker == speaker


def test_names_are_told_in_other_letters_too() -> None:
    assert names_told("We saw María, Émile and Zoë in Łódź.", ()) == 3  # which stands for more
    assert names_told("We saw María there.", ()) == 1
    assert names_told("We saw María there, and Ann Lee.", {"María", "Ann", "Lee"}) == 0
    assert names_told("on a vu l'été à Nice", ()) == 1


def test_when_it_is_asked_says_which_day_yesterday_was() -> None:
    asked = Asked.read("What did Ann paint yesterday, and what last year?", ["Ann"], datetime(2023, 5, 1, 9))
    assert (asked.years, asked.months, asked.days) == ({2022, 2023}, {4}, ((4, 30),))
    with SqliteStore(None) as store:
        days = [datetime(2023, month, 7) for month in (1, 3, 5, 8, 11)]
        store.add([Turn(f"t{day.month}", "c", "s", day.month, "Ann", "The same words.", day) for day in days])
        for day in days:
            question = Question("Which words did Ann say yesterday?", time=day + timedelta(days=1))
            assert recalled(store, question, 1)[0].id == f"t{day.month}"


def test_a_turn_beside_is_recalled_only_as_an_answer() -> None:
    with filled() as store:
        assert [hit.id for hit in recalled(store, Question("weather", conversation="c"), 9)] == ["t2"]
        found = recalled(store, Question("Which city did he move to?", conversation="c"), 9)
        assert {hit.id for hit in found} == {"t0", "t1", "t4"}
        assert all(0 < hit.score < 1 for hit in found) and sum(hit.score for hit in found) == pytest.approx(1)


def test_evidence_speaks_for_what_goes_with_it() -> None:
    own = np.array([60, 10, 12, 0.0])
    vectors = np.array([[1, 0, 0], [0.9, 0.436, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    near = vectors[:, 0]  # the best of them is all that speaks
    expected = own + 0.1 * own.std() * (near - near.mean()) / near.std()
    assert chained(own, vectors) == pytest.approx(expected, abs=1e-5)
    assert np.argsort(-chained(own, vectors)).tolist() == [0, 1, 2, 3], "the third was ahead of the second"
    assert chained(own, vectors[:, :0]).tolist() == own.tolist()
    assert chained(own[:0], vectors[:0]).tolist() == []
    alike = np.tile(np.random.default_rng(0).standard_normal(384).astype(np.float32) / 20, (50, 1))
    ranks = np.arange(50.0)
    assert chained(ranks, alike) == pytest.approx(ranks, abs=0.01 * ranks.std()), "rounding is not likeness"


def test_fit_finds_the_signal_that_tells() -> None:
    random = np.random.default_rng(0)
    examples = []
    for _ in range(60):
        values = random.normal(size=(20, SIGNALS)).astype(np.float32)
        share = np.zeros(20, np.float32)
        share[values[:, 1].argmax()] = 1
        examples.append((values, share))
    weights = astuple(fit(examples))
    assert np.argmax(np.abs(weights)) == 1 and weights[1] > 1
    right = [best(weighted(v, Weights(*weights)), 1)[0][0] == s.argmax() for v, s in examples]
    assert np.mean(right) > 0.9
    with pytest.raises(ValueError, match="no examples"):
        fit([])


def test_of_a_question_its_beginning_counts() -> None:
    head = "Which city did he move to? ".ljust(4_000)
    with filled() as store:
        whole, cut = (pool(store, Question(text, conversation="c")) for text in (head + "bicycle " * 50_000, head))
        assert whole.ids == cut.ids and np.array_equal(whole.values, cut.values)


def test_nothing_is_recalled_from_nothing() -> None:
    with SqliteStore(None) as store:
        assert recalled(store, Question("Who?"), 5, DEFAULT) == []
    with filled() as store:
        assert recalled(store, Question("zebra", conversation="c"), 5, LEXICAL_AND_DENSE) == []


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
        hits = recalled(store, question, 4)
        assert scheduled(hits, breadth(hits) - 0.1, light=1) == hits
        assert scheduled(hits, breadth(hits) + 0.1, light=1) == hits[:1]
