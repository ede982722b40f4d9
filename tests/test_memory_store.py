"""The contract of a store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest

from ramet.memory import Memory, lists, records
from ramet.memory.base import MemoryStoreError, Turn
from ramet.memory.entities import entities
from ramet.memory.sql import SqlStore
from ramet.memory.tools import call
from ramet.memory.words import indexed_text, terms
from tests.memory_support import random_turns, random_vectors, said

pytest_plugins = ["tests.memory_fixtures"]

QUERIES = ["the cat", "who moved to Oslo", "violin violin teacher", "a to of in we they", "8 May 2023", "unheard", ""]


def bm25(turns: list[Turn], query: str) -> list[tuple[str, float]]:
    """The formula, turn by turn: Robertson and Zaragoza 2009, with Lucene's idf."""
    texts = [terms(indexed_text(turn)) for turn in turns]
    frequencies = Counter(term for words in texts for term in set(words))
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for turn, words in zip(turns, texts, strict=True):
        score = 0.0
        for term, weight in Counter(terms(query)).items():
            df, tf = frequencies[term], words.count(term)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            score += weight * idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(words) / mean))
        if score > 0:
            scores.append((turn.id, score))
    return sorted(scores, key=lambda hit: -hit[1])


@pytest.mark.parametrize("conversation", [None, "conversation 1", "unknown"])
def test_lexical_is_bm25(store: SqlStore, conversation: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "LEVELS", (32, 8, 2))
    turns = random_turns(400)
    assert store.add(turns[:150]) + store.add(turns[150:]) == 400
    scope = [turn for turn in turns if conversation in (None, turn.conversation)]
    for query in QUERIES:
        expected = bm25(scope, query) if scope else []
        for k in (1, 10, 1000):
            found = store.lexical(query, k, conversation)
            assert len(found) == min(k, len(expected))
            np.testing.assert_allclose([hit.score for hit in found], [score for _, score in expected[:k]], rtol=1e-9)
            scores = dict(expected)
            assert all(math.isclose(scores[hit.id], hit.score) for hit in found)


def test_equal_scores_are_in_the_order_of_writing(store: SqlStore) -> None:
    store.add([said(index, "The same words") for index in range(30)])
    assert [hit.id for hit in store.lexical("same", 12)] == [f"c:{index}" for index in range(12)]


def test_dense_is_cosine(store: SqlStore) -> None:
    turns, vectors = random_turns(300), random_vectors(300)
    vectors[7] = 0
    assert store.dimensions is None and store.dense(vectors[0], 3) == []
    store.add(turns[:100], vectors[:100])
    store.add(turns[100:], 5 * vectors[100:])
    assert store.dimensions == 24
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(store.vectors([turn.id for turn in turns]), unit, atol=1e-3)
    for query in random_vectors(5, seed=1):
        cosines = unit @ (query / np.linalg.norm(query))
        for name in (None, "conversation 2"):
            chosen = [i for i, turn in enumerate(turns) if name in (None, turn.conversation) and i != 7]
            best = sorted(chosen, key=lambda i: -cosines[i])[:10]
            found = store.dense(query, 10, name)
            assert {hit.id for hit in found} == {turns[i].id for i in best}
            np.testing.assert_allclose([hit.score for hit in found], cosines[best], atol=1e-3)
    with pytest.raises(MemoryStoreError, match="24 dimensions"):
        store.dense(np.ones(3, np.float32), 1)


def test_an_older_format_is_refused(opened: Callable[[], SqlStore]) -> None:
    opened().note("format", "1")
    with pytest.raises(MemoryStoreError, match=r"is of format 1, .* reads format 2: export it"):
        opened()


def test_kinds_are_searched_apart(store: SqlStore) -> None:
    vectors = random_vectors(4)
    summary = Turn("sum", "c", "s", 0, "", "A cat in Oslo", kind="summary", sources=("c:0", "c:1"))
    fact = Turn("fact", "c", "s", 0, "", "The cat lives in Oslo", kind="fact", sources=("c:1",))
    store.add([said(0, "A cat"), said(1, "It lives in Oslo"), summary, fact], vectors)
    assert [hit.id for hit in store.lexical("cat", 9, kind="said")] == ["c:0"]
    assert [hit.id for hit in store.lexical("oslo", 9, "c", "summary")] == ["sum"]
    assert [hit.id for hit in store.dense(vectors[0], 9, kind="fact")] == ["fact"]
    assert [hit.id for hit in store.mentioning(["oslo"], 9, kind="fact")] == ["fact"]
    assert (store.count(), store.count("c", "said"), store.count(kind="fact"), store.count("d")) == (4, 2, 1, 0)
    assert store.derived(["c:1", "c:0", "fact"]) == {"c:1": ["sum", "fact"], "c:0": ["sum"]}
    assert store.turns(["fact", "none", "sum"]) == [fact, summary]


def test_mentioning_sums_the_idf_of_entities(store: SqlStore) -> None:
    store.add([said(0, "Off to Oslo with Ben"), said(1, "I like Oslo, Oslo!"), said(2, "we met yesterday")])
    assert store.entities(["c:0", "c:2"]) == {"c:0": ("oslo", "ben"), "c:2": ("2023-05-07",)}
    found = store.mentioning(["oslo", "ben", "nobody"], 5)
    idf = [math.log(1 + (3 - df + 0.5) / (df + 0.5)) for df in (2, 1)]
    assert [hit.id for hit in found] == ["c:0", "c:1"]
    np.testing.assert_allclose([hit.score for hit in found], [sum(idf), idf[0]])
    assert [hit.id for hit in store.mentioning(entities("On 7 May 2023?"), 5)] == ["c:2"]


def test_order_within_conversations(store: SqlStore) -> None:
    order = [5, 3, 8, 1, 2]
    store.add([said(index, "x", session=f"s{index // 4}") for index in order])
    store.add([said(2, "y", "d", "s0"), said(1, "y", "d", "s0")])
    store.add([Turn("f", "c", "s0", 2, "", "x", kind="fact", sources=("c:3",))])
    assert [turn.position for turn in store.session_turns("c", "s0")] == [1, 2, 3]
    assert store.sessions("c") == ["s0", "s1", "s2"] and store.sessions("none") == []
    assert store.conversations() == ["c", "d"]
    assert store.ids("c") == [*(f"c:{index}" for index in order), "f"] and store.ids("e") == []
    assert [turn.id for turn, _ in store.scan("d")] == store.ids("d") == ["d:2", "d:1"]
    around = store.around(["c:3", "f", "d:1", "c:1"], 1)
    assert around == {"c:3": ["c:2", "c:3"], "d:1": ["d:1", "d:2"], "c:1": ["c:1", "c:2"]}
    assert (store.end("c"), store.end("e")) == (9, 0)


def test_sessions_without_a_summary(store: SqlStore) -> None:
    store.add([said(index, "x", session=f"s{index // 2}") for index in (6, 4, 5, 0, 1, 2, 3)])
    store.add([said(0, "x", "b", "t"), said(1, "x", "b", "")])
    assert store.without_summary() == [("b", "t"), ("b", ""), *(("c", f"s{index}") for index in range(4))]
    fact = Turn("f", "c", "s0", 0, "", "x", kind="fact", sources=("c:0", "c:1"))
    of_fact = Turn("of fact", "c", "s0", 0, "", "x", kind="summary", sources=("f",))
    summaries = [
        Turn("s", "c", "s1", 2, "", "x", kind="summary", sources=("c:2", "c:3")),
        Turn("half", "c", "s2", 4, "", "x", kind="summary", sources=("c:4",)),
        Turn("both", "c", "s3", 6, "", "x", kind="summary", sources=("c:6", "b:1")),
    ]
    store.add([fact, of_fact, *summaries])
    assert store.without_summary("c") == [("c", "s0"), ("c", "s2")] and store.without_summary("none") == []
    assert store.without_summary() == [("b", "t"), ("c", "s0"), ("c", "s2")]
    store.delete(["s"])
    assert store.without_summary("c") == [("c", "s0"), ("c", "s1"), ("c", "s2")]


@pytest.mark.parametrize("conversation", [None, "conversation 1"])
def test_a_survey_is_both_searches_and_what_is_beside(
    store: SqlStore, conversation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LEVELS", (64, 16, 4))
    turns, vectors = random_turns(300), random_vectors(300)
    turns[40] = replace(turns[40], speaker="Åsa May", text="May 2023: l'été à Paris, Oslo 2023?")
    turns[41] = replace(turns[41], speaker="", time=None)
    fact = Turn(
        "f", "conversation 1", "session 0", 3, "", "Oslo is not Paris", kind="fact", sources=("sum", turns[3].id)
    )
    summary = Turn("sum", "conversation 1", "session 0", 3, "", "Oslo", kind="summary", sources=(turns[3].id,))
    vectors[7] = 0
    store.add(turns[:200], vectors[:200])
    store.add([*turns[200:], summary, fact], np.concatenate([vectors[200:], random_vectors(2, seed=1)]))
    store.delete([turn.id for turn in turns[60:80]])
    question, counted = random_vectors(1, seed=2)[0], ["oslo", "2023", "may", "unheard", "pari"]
    for vector, k in ((question, 12), (None, 12), (question, 400)):
        survey = store.survey("oslo violin ete", vector, k, conversation, counted)
        by_words = store.lexical("oslo violin ete", k, conversation)
        near = store.dense(question, k, conversation) if vector is not None else []
        found = list(dict.fromkeys(hit.id for hit in [*by_words, *near]))
        around = store.around(found, 1)
        ids = survey.ids
        assert ids[: survey.found] == found and len(set(ids)) == len(ids)
        assert set(ids[survey.found :]) == {id for beside in around.values() for id in beside} - set(found)
        assert list(survey.turns) == survey.turns[:] == store.turns(ids)
        before = {other: one for beside in around.values() for one, other in pairwise(beside)}
        assert [ids[at] if at >= 0 else None for at in survey.before] == [before.get(id) for id in ids]
        scores = {hit.id: hit.score for hit in by_words}
        np.testing.assert_allclose(survey.lexical, [scores.get(id, 0) for id in ids], rtol=1e-6)
        known = store.vectors(ids) if vector is not None else np.zeros((len(ids), 0))
        np.testing.assert_allclose(survey.vectors, known, atol=1e-7)
        own = store.turns(ids)
        assert survey.texts == [turn.text for turn in own] and survey.speakers == [turn.speaker for turn in own]
        assert survey.positions.tolist() == [turn.position for turn in own]
        places = [(turn.conversation, turn.session) for turn in own]
        assert survey.sessions.tolist() == [list(dict.fromkeys(places)).index(place) for place in places]
        words = [terms(turn.text) for turn in own]
        assert survey.lengths.tolist() == list(map(len, words))
        assert survey.frequencies.tolist() == [[text.count(term) for term in counted] for text in words]
    nothing = store.survey("unheard", None, 9, conversation, ["oslo"])
    assert (nothing.found, len(nothing.turns), nothing.frequencies.shape) == (0, 0, (0, 1))


def test_a_survey_counts_beyond_what_lists_keep(store: SqlStore) -> None:
    store.add([said(0, "Oslo " * 40 + "Paris"), said(1, "Oslo " + "word " * 9000), said(2, "Paris")])
    survey = store.survey("oslo", None, 9, None, ["oslo", "pari", "word"])
    counts = dict(zip(survey.ids, survey.frequencies.tolist(), strict=True))
    assert counts == {"c:0": [40, 1, 0], "c:1": [1, 0, 9000], "c:2": [0, 1, 0]}
    assert dict(zip(counts, survey.lengths.tolist(), strict=True)) == {"c:0": 41, "c:1": 9001, "c:2": 1}


def test_what_is_stored_comes_back_as_it_was(opened: Callable[[], SqlStore]) -> None:
    turn = Turn(
        "id ☃", "a conversation", "s", 3, "Åsa", "Line\nbreak 'quotes' % ? {in} 東京 🎉",
        datetime(2023, 5, 8, 1, 2, 3, 4), node="abc",
    )  # fmt: skip
    fact = replace(turn, id="f", kind="fact", sources=(turn.id,), valid_from=datetime.fromisoformat("2023-01-01T00+02"))
    with opened() as first:
        assert first.add([turn, fact, turn]) == 2
        first.note("key", "value")
    with opened() as again:
        assert again.turns(["f", turn.id]) == [fact, turn]
        assert again.add([turn]) == 0 and again.count() == 2
        assert (again.note("key"), again.note("none")) == ("value", None)
        assert [found for found, _ in again.scan()] == [turn, fact]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (said(0, "other"), "taken by another turn"),
        (replace(said(1, "x"), kind="fact"), "needs the ids of its sources"),
        (replace(said(1, "x"), sources=("c:0",)), "was said"),
        (replace(said(1, "x"), kind="fact", sources=("c:9",)), "'c:9', which is not stored"),
        (said(1, "nul \0"), "NUL"),
        (said(1, "half \ud83d"), "half of a pair"),
        (said(1, "x", conversation=""), "needs an id and a conversation"),
        (said(1, "x", conversation="x" * 600), "at most 500"),
    ],
)
def test_what_cannot_be_stored(store: SqlStore, turn: Turn, message: str) -> None:
    store.add([said(0, "first")])
    with pytest.raises(MemoryStoreError, match=message):
        store.add([said(5, "kept only with the other"), turn])
    assert store.count() == 1 and store.lexical("kept", 1) == []


def test_vectors_that_cannot_be_stored(store: SqlStore) -> None:
    store.add([said(0, "first")], random_vectors(1))
    for wrong, message in (
        (random_vectors(1, dimensions=25), "one memory has one"),
        (random_vectors(2), "shape"),
        (np.full((1, 24), np.nan, np.float32), "finite"),
    ):
        with pytest.raises(MemoryStoreError, match=message):
            store.add([said(1, "second")], wrong)
    assert store.count() == 1


def test_a_turn_gets_its_vector_later(store: SqlStore) -> None:
    turns, vectors = random_turns(5), random_vectors(5)
    store.add(turns)
    assert store.add(turns, vectors) == 0 and store.add(turns, -vectors) == 0
    assert store.dense(vectors[3], 1)[0].id == turns[3].id


def test_delete_takes_what_was_derived(store: SqlStore) -> None:
    turns = [said(index, f"word{index} in Oslo with Ben") for index in range(6)]
    summary = Turn("sum", "c", "s", 0, "", "summed word1 word2", kind="summary", sources=("c:1", "c:2"))
    fact = Turn("fact", "c", "s", 0, "", "facted", kind="fact", sources=("sum",))
    kept = Turn("kept", "c", "s", 0, "", "other", kind="fact", sources=("c:3",))
    everything = [*turns, summary, fact, kept]
    store.add(everything, random_vectors(9))
    assert store.delete(["c:2", "nowhere"]) == ["c:2", "sum", "fact"]
    assert store.delete(["c:2"]) == []
    assert [turn.id for turn, _ in store.scan()] == ["c:0", "c:1", "c:3", "c:4", "c:5", "kept"]
    assert store.lexical("summed facted word2", 9) == []
    assert "c:2" not in {hit.id for hit in store.dense(random_vectors(9)[2], 9)}
    assert len(store.mentioning(["ben"], 9)) == 5 and store.derived(["c:1", "c:3"]) == {"c:3": ["kept"]}
    # What is left is as if the others had never been: the statistics of BM25 included.
    left = [turn for turn, _ in store.scan()]
    np.testing.assert_allclose(
        [hit.score for hit in store.lexical("word1 oslo other", 9)], [s for _, s in bm25(left, "word1 oslo other")]
    )
    store.delete([turn.id for turn in left])
    assert store.count() == 0 and store._lists.totals() == (0, 0)
    assert store._rows("SELECT count(*) FROM lists")[0][0] == 0


def test_facts_supersede(store: SqlStore) -> None:
    store.add([said(index, "x") for index in range(4)])
    facts = [
        Turn(f"f{i}", "c", "s", i, "", f"lives in {place}", kind="fact", sources=(f"c:{i}",), valid_from=day(i))
        for i, place in enumerate(["Oslo", "Rome", "Bern"])
    ]
    store.add(facts)
    store.supersede("f0", "f1", day(1))
    store.supersede("f1", "f2", day(2))
    first, second, third = store.turns(["f0", "f1", "f2"])
    assert (first.valid_to, first.superseded_by) == (day(1), "f1") and third.superseded_by is None
    for old, new, message in (("f0", "f2", "already"), ("f2", "f2", "itself"), ("c:1", "f2", "not a fact")):
        with pytest.raises(MemoryStoreError, match=message):
            store.supersede(old, new, None)
    assert store.add(facts) == 0  # read again as they were first written: nothing changes
    assert store.turns(["f1"]) == [second]
    store.delete(["c:1"])  # Rome was never said: Oslo held until Bern
    assert store.turns(["f0"]) == [replace(facts[0], valid_to=day(2), superseded_by="f2")]
    store.delete(["c:2"])
    assert store.turns(["f0"]) == [facts[0]]


def test_writing_is_all_or_nothing(store: SqlStore) -> None:
    vectors = random_vectors(3)
    with pytest.raises(RuntimeError), store.writing():
        store.add([said(0, "gone")], vectors[:1])
        assert store.count() == 1 and store.dense(vectors[0], 1)[0].id == "c:0"
        raise RuntimeError
    assert store.count() == 0 and store.dense(vectors[0], 1) == [] and store.dimensions is None
    store.add([said(1, "kept")], vectors[1:2])
    assert [hit.id for hit in store.dense(vectors[0], 3)] == ["c:1"]
    with pytest.raises(MemoryStoreError, match="nothing of it was kept"), store.writing():
        store.add([said(2, "gone too")])
        with pytest.raises(MemoryStoreError, match="taken"):
            store.add([said(1, "another")])
    assert store.count() == 1


def test_two_see_each_other(opened: Callable[[], SqlStore]) -> None:
    first, second = opened(), opened()
    vectors = random_vectors(300)
    for index in range(3):
        first.add([said(2 * index, "from first")], vectors[2 * index : 2 * index + 1])
        second.add([said(2 * index + 1, "from second")], vectors[2 * index + 1 : 2 * index + 2])
        for one in (first, second):
            assert len(one.lexical("first second", 99)) == len(one.dense(vectors[0], 99)) == 2 * index + 2
    second.delete(["c:0"])
    assert "c:0" not in {hit.id for hit in first.dense(vectors[0], 99)}
    assert first.delete(["c:0"]) == []


def day(number: int) -> datetime:
    return datetime(2023, 1, 1 + number)


def test_a_conversation_is_read_in_pages(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is removed while it is read, no more is given; what is added is of the next time."""
    monkeypatch.setattr(records, "PART", 8)
    turns, vectors = random_turns(90), random_vectors(90)
    store.add(turns, vectors)
    own = [turn for turn in turns if turn.conversation == "conversation 1"]
    for name, expected in ((None, turns), ("conversation 1", own), ("none", [])):
        found = list(store.scan(name))
        assert [turn for turn, _ in found] == expected
        for turn, vector in found:
            unit = vectors[turns.index(turn)] / np.linalg.norm(vectors[turns.index(turn)])
            np.testing.assert_allclose(vector, unit, atol=1e-3)
    reading = store.scan("conversation 1")
    first = [next(reading)[0] for _ in range(3)]
    store.delete([own[-1].id])
    store.add([said(1000, "new", "conversation 1")])
    assert [*first, *(turn for turn, _ in reading)] == own[:-1]


def test_what_cannot_be_encoded_is_an_error_of_the_memory(store: SqlStore) -> None:
    """As a model may write it in a call of a tool."""
    memory = Memory(store)
    kept = memory.remember("hello", conversation="c")
    half = "\ud800"
    assert "error" in call(memory, "remember", {"text": "x", "conversation": half})
    for ask in (memory.get, memory.forget_conversation):
        with suppress(MemoryStoreError):
            assert not ask(half)
    for ask_all in (memory.forget, memory.with_derived):
        with suppress(MemoryStoreError):
            assert not ask_all([half])
    assert [found.turn for found in memory.recall(f"hello {half}")] == [kept]
