"""The signals against their definitions, turn by turn in plain Python, on stores of random conversations."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean, pstdev
from typing import TypeVar

import numpy as np
import pytest

from ramet.memory.base import Index, Question, Turn
from ramet.memory.recall import Weights, pool
from ramet.memory.recall.question import COMMON, Asked, names_told, tells_number, tells_own, tells_time
from ramet.memory.sqlite import SqliteStore
from ramet.memory.words import heading, indexed_text, terms
from tests.memory_support import random_turns, random_vectors

Row = dict[str, float]
K = TypeVar("K")

SPEAKERS = ["Ann", "Bob", "Åsa May", ""]
ENDS = [
    "?",
    "? ",
    ".",
    "!",
    "",
    " yesterday.",
    " in the café?",
    " Is it? It is.",
    " with two of my friends, Mia and Bob.",
]
QUESTIONS = [
    "When did Ann move the cat to Oslo?",
    "What did Bob and Ann see in Paris on 8 May 2023?",
    "violin",
    "What was it?",
    "How many friends did Bob see, and where?",
    "Which teacher bought a garden in June 2023, and when did the dog go to the café?",
]


def conversations(count: int, seed: int) -> list[Turn]:
    """Turns by several speakers, of whom some ask, over months; some without a time."""
    rng = np.random.default_rng(seed)
    turns = []
    for turn in random_turns(count, seed, conversations=2):
        time = datetime(2023, 4, 20) + timedelta(hours=int(rng.integers(0, 2000)))
        speaker, end = SPEAKERS[rng.integers(0, 4)], ENDS[rng.integers(0, len(ENDS))]
        turns.append(replace(turn, speaker=speaker, text=turn.text + end, time=time if rng.random() < 0.9 else None))
    return turns


def filled(seed: int, vectors: bool) -> SqliteStore:
    """500 turns, summaries of some, and a gap where turns were forgotten."""
    store, turns = SqliteStore(None), conversations(500, seed)
    summaries = [
        Turn(f"sum {n}", turn.conversation, turn.session, turn.position, "", "Oslo " + turn.text, turn.time,
             kind="summary", sources=(turn.id,))
        for n, turn in enumerate(turns[::50])
    ]  # fmt: skip
    everything = [*turns, *summaries]
    store.add(everything, random_vectors(len(everything), seed) if vectors else None)
    store.delete([turn.id for turn in turns[30:40]])
    return store


def scaled(values: dict[str, float]) -> dict[str, float]:
    mean, spread = fmean(values.values()), pstdev(values.values())
    return {id: (value - mean) / (spread + 1e-6) for id, value in values.items()}


def bm25(asked: Sequence[str], texts: dict[K, list[str]]) -> dict[K, float]:
    """Of each text, where the collection is these texts."""
    collection = list(texts.values())
    mean = max(fmean(map(len, collection)), 1)
    known = {term: sum(term in words for words in collection) for term in asked}
    scores = dict.fromkeys(texts, 0.0)
    for key, words in texts.items():
        for term in asked:
            rarity, often = math.log(1 + (len(collection) - known[term] + 0.5) / (known[term] + 0.5)), words.count(term)
            scores[key] += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(words) / mean))
    return scores


def reference(index: Index, question: Question) -> dict[str, Row]:
    """Every signal of every candidate, by its definition (see `fusion.Weights`)."""
    searched = " ".join(word for word in question.text.split() if set(terms(word)) - COMMON) or question.text
    by_words = {hit.id: hit.score for hit in index.lexical(searched, 150, question.conversation)}
    near = (
        [hit.id for hit in index.dense(question.vector, 150, question.conversation)]
        if question.vector is not None
        else []
    )
    found = list(dict.fromkeys([*by_words, *near]))
    around = index.around(found, 1)
    turns = {turn.id: turn for turn in index.turns([*found, *(id for ids in around.values() for id in ids)])}
    before = {other: one for ids in around.values() for one, other in pairwise(ids)}
    after = {one: other for other, one in before.items()}
    speakers = {turn.speaker for turn in turns.values()}
    known = {word for speaker in speakers for word in speaker.split()}
    asked = Asked.read(question.text, speakers)
    session = {id: (turn.conversation, turn.session) for id, turn in turns.items()}
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for id in turns:
        members[session[id]].append(id)
    texts = {id: terms(turn.text) for id, turn in turns.items()}
    beside = {id: [other for other in (before.get(id), id, after.get(id)) if other is not None] for id in turns}
    windows = {id: [word for other in beside[id] for word in texts[other]] for id in turns}
    topics = {key: [word for id in ids for word in texts[id]] for key, ids in members.items()}
    vectors = dict(zip(turns, index.vectors(list(turns)).astype(np.float64), strict=True))
    lexical = scaled({id: by_words.get(id, 0.0) for id in turns})
    dense = dict.fromkeys(turns, 0.0)
    if question.vector is not None and index.dimensions:
        unit = question.vector / np.linalg.norm(question.vector)
        dense = scaled({id: float(vector @ unit) for id, vector in vectors.items()})
    base = {id: lexical[id] + dense[id] for id in turns}
    words, window = scaled(bm25(asked.content, texts)), scaled(bm25(asked.content, windows))
    by_session = bm25(asked.content, topics)
    topic = scaled({id: by_session[session[id]] for id in turns})
    mixed = {id: words[id] + dense[id] for id in turns}
    graph = dict.fromkeys(turns, 0.0)
    if index.dimensions:
        seeds = sorted(turns, key=lambda id: -base[id])[:10]
        shares = [math.exp((base[seed] - base[seeds[0]]) / 2) for seed in seeds]
        blend = sum(share * vectors[seed] for share, seed in zip(shares, seeds, strict=True)) / sum(shares)
        graph = scaled({id: float(vector @ blend) for id, vector in vectors.items()})
    rows = {}
    for id, turn in turns.items():
        earlier, later = before.get(id), after.get(id)
        if id not in found and not (earlier and turns[earlier].text.rstrip().endswith("?")):
            continue
        own = members[session[id]]
        two_before, two_after = before.get(earlier or ""), after.get(later or "")
        rows[id] = {
            "lexical": lexical[id], "dense": dense[id], "words": words[id], "window": window[id],
            "before": mixed[earlier] if earlier else 0, "after": mixed[later] if later else 0,
            "farther": (mixed[two_before] if two_before else 0) + (mixed[two_after] if two_after else 0),
            "session": fmean(sorted((base[other] for other in own), reverse=True)[:3]),
            "best": max(mixed[other] for other in own), "topic": topic[id], "graph": graph[id],
            "covered": len(set(windows[id]) & set(asked.content)),
            "speaker": turn.speaker == asked.speaker,
            "replies": bool(earlier) and turns[earlier].speaker == asked.speaker,
            "date": asked.dated(turn.time), "time": asked.when and tells_time(turn.text),
            "asks": turn.text.rstrip().endswith("?"), "answers": bool(earlier) and "?" in turns[earlier].text,
            "length": math.log(1 + len(texts[id])),
            "early": 1 / (1 + turn.position - min(turns[other].position for other in own)),
            "own": turn.speaker == asked.speaker and tells_own(turn.text),
            "names": names_told(turn.text, known), "named": asked.who * names_told(turn.text, known),
            "number": asked.how_many and tells_number(turn.text),
        }  # fmt: skip
    return rows


@pytest.mark.parametrize("with_vectors", [True, False])
@pytest.mark.parametrize("conversation", [None, "conversation 1"])
def test_signals_are_their_definitions(conversation: str | None, with_vectors: bool) -> None:
    seen = Counter[str]()
    for seed in range(2):
        with filled(seed, with_vectors) as store:
            for text, vector in zip(QUESTIONS, random_vectors(len(QUESTIONS), seed + 9), strict=True):
                question = Question(text, vector if with_vectors else None, conversation)
                found, expected = pool(store, question), reference(store, question)
                assert set(found.ids) == set(expected)
                assert list(found.turns) == store.turns(found.ids)
                np.testing.assert_allclose(found.vectors, store.vectors(found.ids), atol=1e-7)
                right = np.array([list(map(float, expected[id].values())) for id in found.ids])
                np.testing.assert_allclose(found.values, right, rtol=1e-5, atol=1e-5)
                seen.update(
                    name for name, there in zip(next(iter(expected.values())), right.any(0), strict=True) if there
                )
    silent = {field.name for field in fields(Weights)} - set(seen)
    assert silent == (set() if with_vectors else {"dense", "graph"})


def test_no_term_reaches_from_the_heading_into_the_text() -> None:
    rng = np.random.default_rng(0)
    alphabet = [*"aZ59.,':?-_ ", "é", "e\u0301", "\u0301", "\u20d0", "\u2019", "東", "京", "ß", "\u05b0", "ﬁ", "½"]
    for turn in conversations(300, 0):
        text, speaker = ("".join(rng.choice(alphabet, rng.integers(0, 8))) for _ in range(2))
        turn = replace(turn, text=text, speaker=speaker)
        assert terms(indexed_text(turn)) == terms(heading(speaker, turn.time)) + terms(text)
