"""FluxMem and HyMem: levels, structures, features and selector; summaries, paths and the judge."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramet.memory.base import Question, Turn
from ramet.memory.derive import suffices
from ramet.memory.entities import entities
from ramet.memory.recall import episodes, selector
from ramet.memory.recall.episodes import Episode, Levels, Page, pages
from ramet.memory.recall.features import FEATURES, features
from ramet.memory.recall.fluxmem import FluxMem, reciprocal
from ramet.memory.recall.hymem import HyMem, summaries
from ramet.memory.recall.selector import STRUCTURES, Selector, Structure
from ramet.memory.recall.structures import Links, links
from ramet.memory.sqlite import SqliteStore

NOON = datetime(2023, 5, 8, 12)


def turn(at: int, text: str, speaker: str = "Ann", session: str = "1") -> Turn:
    return Turn(f"t{at}", "c", session, at, speaker, text, NOON + timedelta(hours=at))


def axis(at: int, dimensions: int = 16) -> np.ndarray:
    return np.eye(dimensions)[at]


def page(at: int, direction: np.ndarray) -> Page:
    return Page((turn(at, "words"),), direction / np.linalg.norm(direction))


def test_a_page_is_an_exchange_within_a_session() -> None:
    said = [("Ann", "1"), ("Bob", "1"), ("Ann", "1"), ("Bob", "1"), ("Cid", "1"), ("Ann", "2"), ("Bob", "2")]
    turns = [turn(at, "words", who, session) for at, (who, session) in enumerate(said)]
    cut = list(pages(turns, np.eye(7, dtype=np.float32)))
    assert [[t.position for t in page.turns] for page in cut] == [[0, 1], [2, 3, 4], [5, 6]]
    assert all(np.linalg.norm(page.vector) == pytest.approx(1) for page in cut)
    assert cut[0].vector[:3] == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    assert list(pages([], np.zeros((0, 4), np.float32))) == []


def test_what_was_used_longest_ago_leaves_the_hand_first() -> None:
    levels = Levels()
    for at in range(4):
        levels.add(page(at, axis(at)))
    assert len(levels.short) == 4 and not levels.mid
    levels.touch(["t0"])
    levels.add(page(4, axis(4)))
    assert [p.turns[0].id for p in levels.short.values()] == ["t2", "t3", "t0", "t4"]
    assert [p.turns[0].id for e in levels.mid for p in e.pages] == ["t1"]


def test_like_pages_join_and_others_open_an_episode() -> None:
    levels = Levels()
    for at in range(12):
        levels.add(page(at, axis(at % 3) + 0.1 * axis(3 + at)))
    levels.settle()
    assert not levels.short
    assert sorted(sorted(p.turns[0].position % 3 for p in e.pages) for e in levels.mid) == [[0] * 4, [1] * 4, [2] * 4]


def test_the_least_useful_episode_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "_MID", 3)
    levels = Levels()
    for at in range(3):
        levels.add(page(at, axis(at)))
    levels.settle()
    levels.touch(["t0"])
    levels.touch(["t2"])
    levels.add(page(9, axis(9)))
    levels.settle()
    assert [e.pages[0].turns[0].id for e in levels.mid] == ["t0", "t2", "t9"]


def test_what_is_read_often_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "_LONG", 2)
    levels = Levels()
    for at in range(3):
        levels.add(page(at, axis(at)))
    levels.settle()
    for _ in range(8):
        levels.touch(["t1"])
    assert [entry.turns[0].id for entry in levels.long] == ["t1"]
    for id in ("t0", "t2"):
        for _ in range(8):
            levels.touch([id])
    lasting = [entry.turns[0].id for entry in levels.long]
    assert len(lasting) == 2 and lasting[-1] == "t2"


def episode(texts: Sequence[str], vectors: Sequence[np.ndarray]) -> Episode:
    """Each text is a page."""
    made = [
        Page((turn(at, text),), v / np.linalg.norm(v)) for at, (text, v) in enumerate(zip(texts, vectors, strict=True))
    ]
    return Episode(made, np.sum([p.vector for p in made], 0), 0)


def test_features_are_what_they_say() -> None:
    texts = ["Did you see Oslo?", "If Oslo is dull, we choose Rome because of Ann.", "Rome then."]
    found = dict(zip(FEATURES, features(episode(texts, [axis(0), axis(0), axis(1)])), strict=True))
    words = sum(len(text.split()) for text in texts)
    assert found["pages"] == 3 and found["words a page"] == pytest.approx(words / 3)
    assert found["questions answered"] == pytest.approx(1 / 3)
    assert found["decisions"] == pytest.approx(2 / words)
    assert found["relations"] == pytest.approx(1 / words)
    assert found["topic transitions"] == 0.5
    assert found["days"] == pytest.approx(np.log1p(2 / 24)) and found["pages a day"] == pytest.approx(3 / (1 + 2 / 24))
    assert found["dispersion"] == pytest.approx(1 - 5**0.5 / 3)
    assert 0 < found["one entity"] < 1 and found["entities"] > 0
    assert np.isfinite(features(episode([""], [axis(0)]))).all()


def dense(told: Links, turns: int) -> np.ndarray:
    """What each turn is lent by each."""
    return np.stack([told.lent(one) for one in np.eye(turns)], 1)


def test_links_are_those_of_the_structure() -> None:
    vectors = [axis(9) * 0.3 + axis(0 if at < 2 else 5) for at in range(4)]
    told = episode(["we saw Oslo", "we saw Rome", "once more Oslo", "nothing"], vectors)
    units = np.stack([p.vector for p in told.pages])
    found = {structure: dense(links(told, structure, units), 4) for structure in STRUCTURES}
    for lent in found.values():
        assert not lent.diagonal().any() and (lent >= 0).all()
        assert lent.sum(1) == pytest.approx(0.5)
    assert (found["linear"] > 0).tolist() == [[abs(a - b) == 1 for b in range(4)] for a in range(4)]
    assert (found["hierarchical"] > 0).tolist() == [[a != b and a // 2 == b // 2 for b in range(4)] for a in range(4)]
    graph = found["graph"]
    assert not graph[0, 1] and not graph[2, 3], "only turns that share an entity are near, where there are any"
    assert graph[3, 2] > 0, "who shares none is near those that are alike"


def linked_densely(told: Episode, structure: Structure, vectors: np.ndarray) -> np.ndarray:
    """The definition, pair by pair."""
    turns = [turn for page in told.pages for turn in page.turns]
    lent = np.zeros((len(turns), len(turns)))
    if structure == "linear":
        for at in range(len(turns) - 1):
            lent[at, at + 1] = lent[at + 1, at] = 1
    elif structure == "graph":
        named = [set(entities(turn.text, turn.time)) for turn in turns]
        for at in range(len(turns)):
            others = [other for other in range(len(turns)) if other != at]
            near = [other for other in others if named[at] & named[other]] or others
            for other in sorted(near, key=lambda other: -(vectors[at] @ vectors[other]))[:3]:
                lent[at, other] = max(vectors[at] @ vectors[other], 0)
    else:
        topics, total = [-1], np.zeros(vectors.shape[1])
        for page in told.pages:
            new = not total.any() or page.vector @ total / np.linalg.norm(total) < 0.5
            total = page.vector + (0 if new else total)
            topics += [topics[-1] + new] * len(page.turns)
        lent = np.array([[a == b for a in topics[1:]] for b in topics[1:]]) - np.eye(len(turns))
    return 0.5 * lent / np.maximum(lent.sum(1, keepdims=True), 1e-9)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Oslo", "Rome", "Bern", "-"]), st.integers(0, 3)), min_size=1, max_size=40),
    st.integers(0, 9),
)
def test_links_are_what_they_are_defined_as(said: list[tuple[str, int]], seed: int) -> None:
    dice = np.random.default_rng(seed)
    vectors = np.stack([axis(about) + 0.3 * dice.normal(size=axis(0).shape) for _, about in said])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    told = episode([f"we saw {name}" for name, _ in said], list(vectors))
    scores = dice.normal(size=len(said))
    for structure in STRUCTURES:
        expected, found = linked_densely(told, structure, vectors), links(told, structure, vectors)
        np.testing.assert_allclose(dense(found, len(said)), expected, atol=1e-12)
        np.testing.assert_allclose(found.lent(scores), expected @ scores, atol=1e-12)
        assert found.count == np.count_nonzero(expected)


def test_a_long_episode_takes_little_memory() -> None:
    texts = [f"we saw {('Oslo', 'Rome', 'nothing')[at % 3]}" for at in range(3000)]
    dice = np.random.default_rng(0)
    told = episode(texts, list(axis(0) + dice.normal(size=(3000, len(axis(0))))))
    units = np.stack([p.vector for p in told.pages])
    tracemalloc.start()
    for structure in STRUCTURES:
        links(told, structure, units).lent(np.ones(3000))
    assert tracemalloc.get_traced_memory()[1] < 40_000_000, "every pair once would be 72 MB"
    tracemalloc.stop()


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_the_levels_are_what_a_pass_over_all_episodes_gives(data: st.DataObject) -> None:
    """The lookups by turn, and the vectors that are kept, against the episodes themselves."""
    levels, dice = Levels(), np.random.default_rng(data.draw(st.integers(0, 9)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes, "_MID", 4)
        patch.setattr(episodes, "_LONG", 2)
        for at in range(data.draw(st.integers(1, 40))):
            levels.add(page(at, axis(int(dice.integers(0, 7))) + 0.1 * dice.normal(size=axis(0).shape)))
            read = {f"t{number}" for number in data.draw(st.sets(st.integers(0, at), max_size=3))}
            expected = [(e.visits + any(t.id in read for p in e.pages for t in p.turns)) for e in levels.mid]
            levels.touch(read)
            assert [e.visits for e in levels.mid] == expected
            np.testing.assert_array_equal(np.array(levels._vectors), np.array([e.vector for e in levels.mid]))
            inside = {t.id: e for e in levels.mid for p in e.pages for t in p.turns}
            assert {id: e for id, (_, e) in levels._places.items()} == inside


def test_the_selector_learns_what_tells_and_is_the_same_each_time() -> None:
    dice = np.random.default_rng(0)
    seen = dice.normal(size=(240, 12)) * np.arange(1, 13) + 5
    labels: list[Structure] = [STRUCTURES[int(row[2] > 5) + int(row[2] > 8)] for row in seen]
    fitted = selector.fit(seen[:160], labels[:160])
    right = np.mean([a == b for a, b in zip(fitted.choose(seen[160:]), labels[160:], strict=True)])
    assert right > 0.85
    again = selector.fit(seen[:160], labels[:160])
    assert all((a == b).all() for a, b in zip(fitted.weights, again.weights, strict=True))
    assert fitted.shares(seen).sum(1) == pytest.approx(1)
    with pytest.raises(ValueError, match="episodes and their labels"):
        selector.fit(np.zeros((0, 12)), [])


SAID = [
    ("1", "Ann", "Which city did you move to?", 0),
    ("1", "Bob", "It was grey there. Somewhere northern, in the spring, with my old violin.", 1),
    ("1", "Ann", "I bake bread on Sundays.", 2),
    ("1", "Bob", "With rye?", 2),
    ("2", "Bob", "The bicycle was stolen.", 5),
    ("2", "Ann", "How sad.", 5),
]


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with SqliteStore(None) as filled:
        turns = [turn(at, text, who, session) for at, (session, who, text, _) in enumerate(SAID)]
        filled.add(turns, np.stack([axis(near) for *_, near in SAID]).astype(np.float32))
        yield filled


def test_fluxmem_lends_by_the_structure_of_the_episode(store: SqliteStore) -> None:
    question = Question("Which city did he move to?", conversation="c")
    assert set(reciprocal(store, question)) == {"t0"}
    flux = FluxMem.read(store, "c", "linear")
    assert [hit.id for hit in flux.recall(question, 5)] == ["t0", "t1"]
    read = [e for e in flux.levels.mid if any(t.id == "t0" for p in e.pages for t in p.turns)]
    assert [e.visits for e in read] == [1] and all(not e.visits for e in flux.levels.mid if e not in read)
    assert len(flux.levels.mid) == 3, "city and violin, bread, bicycle"


def test_fluxmem_takes_a_selector_or_a_list(store: SqliteStore) -> None:
    levels = FluxMem.read(store, "c").levels
    rows = np.stack([features(one) for one in levels.mid])
    wanted: list[Structure] = ["graph", "linear", "hierarchical"]
    fitted: Selector = selector.fit(rows, wanted, steps=2000)
    chosen = FluxMem.structured(levels, store, "c", fitted).structures
    assert chosen == wanted == FluxMem.structured(levels, store, "c", wanted).structures
    assert FluxMem.structured(Levels(), store, "c", fitted).structures == []


def test_a_summary_is_the_sentence_that_says_most_and_names_its_turn(store: SqliteStore) -> None:
    made = list(summaries(store, "c"))
    assert [one.sources for one in made] == [("t1",), ("t2",), ("t4",)]
    assert made[0].text == "Somewhere northern, in the spring, with my old violin."
    assert {one.kind for one in made} == {"summary"} and store.count(kind="summary") == 0, "nothing is stored"


def test_summaries_that_a_model_wrote_come_first(store: SqliteStore) -> None:
    written = Turn("w", "c", "1", 0, "", "Bob moved north.", kind="summary", sources=("t0", "t1"))
    fact = Turn("f", "c", "1", 0, "", "Bob has a violin.", kind="fact", sources=("t1",))
    store.add([written, fact])
    assert [one.id for one in summaries(store, "c") if one.session == "1"] == ["w", "s_t2"]
    reader = HyMem(store, "c", SqliteStore(None), None)
    light = reader.read(Question("Where did Bob move?", conversation="c"))
    assert not light.deep and light.turns[0].sources == ("t0", "t1")


def test_the_deep_path_reads_whole_sessions_where_the_light_one_does_not_suffice(store: SqliteStore) -> None:
    reader = HyMem(store, "c", SqliteStore(None), None)
    question = Question("What happened to the bicycle?", conversation="c")
    light = reader.read(question)
    assert not light.deep and light.turns[0].sources == ("t4",)
    deep = reader.read(question, limit=-1.0)
    assert deep.deep and [t.id for t in deep.turns if t.session == "2"] == ["t4", "t5"]
    asked = list[tuple[str, list[str]]]()

    def judge(text: str, turns: Sequence[Turn]) -> bool:
        asked.append((text, [t.id for t in turns]))
        return len(asked) > 1

    assert reader.read(question, judge=judge).deep and not reader.read(question, limit=-1.0, judge=judge).deep
    assert asked[0] == (question.text, [t.id for t in light.turns])


def test_a_model_says_whether_the_summaries_suffice(store: SqliteStore) -> None:
    shown = list[str]()

    class Scripted:
        """Replies in turn; its first is no answer."""

        replies: ClassVar = [{"suffices": "maybe"}, {"suffices": False}, {"suffices": True}]

        def ask(self, instructions: str, given: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
            shown.append(given)
            return self.replies[len(shown) - 1]

    reader = HyMem(store, "c", SqliteStore(None), None)
    question = Question("What happened to the bicycle?", conversation="c")

    def judge(text: str, turns: Sequence[Turn]) -> bool:
        return suffices(Scripted(), text, turns)

    assert reader.read(question, judge=judge).deep and len(shown) == 2
    assert not reader.read(question, limit=-1.0, judge=judge).deep
    assert "The bicycle was stolen." in shown[0] and shown[0].endswith(json.dumps({"question": question.text}))
