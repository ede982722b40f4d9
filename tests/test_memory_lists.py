"""The lists of postings against brute force: what is ranked, how it is kept, and the search of the sign codes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramet.memory import lists, postings
from ramet.memory.base import KINDS, Kind
from ramet.memory.codes import LOOKED, Codes, encode, pack
from ramet.memory.entities import entities
from ramet.memory.postings import BLOCK, Gathered, Postings, Rows
from ramet.memory.sqlite import SqliteStore
from ramet.memory.words import indexed_text, terms
from tests.kernels_support import each_isa, running, some
from tests.memory_support import random_turns

TERMS = "abcdefgh"


class Corpus:
    """Turns in blocks of rows, some far apart, of a few words; their postings cut into pieces at random."""

    def __init__(self, seed: int, size: int, gap: int, pieces: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, len(TERMS) + 1) ** 1.5
        self.rows = np.cumsum(rng.integers(1, gap + 1, size)).tolist()
        self.words = [
            list(rng.choice(list(TERMS), rng.integers(1, 9), p=share / share.sum())) + ["filler"] * rng.integers(0, 5)
            for _ in self.rows
        ]
        self.kinds: list[Kind] = [KINDS[i] for i in rng.integers(0, 3, size)]
        self.conversations = [f"c{i}" for i in rng.integers(0, 3, size)]
        self._parts: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for row, words, kind, conversation in zip(self.rows, self.words, self.kinds, self.conversations, strict=True):
            gathered = Gathered(row)
            gathered.add([postings.kind_list(kind), postings.conversation_list(conversation)], words)
            for name, data in gathered.cut([(row, row + 1)])[0].items():
                own = self._parts[name]
                if own and own[-1][0] // BLOCK == row // BLOCK and rng.random() > pieces / 10:
                    own[-1] = own[-1][0], own[-1][1] + data
                else:
                    own.append((row, data))

    def read(self, names: Sequence[str], blocks: Rows | None = None) -> list[list[Postings]]:
        found = []
        for name in names:
            parts = [p for p in self._parts[name] if blocks is None or p[0] // BLOCK in blocks]
            cut = int(self.rng.integers(0, len(parts) + 1))
            found.append([Postings.of(part) for part in (parts[:cut], parts[cut:]) if part])
        return found

    def totals(self) -> tuple[int, int]:
        return len(self.rows), sum(map(len, self.words))

    def bm25(self, query: str, conversation: str | None, kind: Kind | None) -> dict[int, float]:
        inside = [i for i in range(len(self.rows)) if conversation in (None, self.conversations[i])]
        mean = sum(len(self.words[i]) for i in inside) / max(len(inside), 1)
        frequencies = Counter(term for i in inside for term in set(self.words[i]))
        scores: dict[int, float] = {}
        for i in inside:
            if kind in (None, self.kinds[i]):
                norm = 1.2 * (0.25 + 0.75 * len(self.words[i]) / mean)
                for term, weight in Counter(query).items():
                    if tf := self.words[i].count(term):
                        df = frequencies[term]
                        idf = math.log(1 + (len(inside) - df + 0.5) / (df + 0.5))
                        scores[self.rows[i]] = scores.get(self.rows[i], 0) + weight * idf * 2.2 * tf / (tf + norm)
        return scores


@each_isa
@some
@given(
    seed=st.integers(0, 2**32), size=st.integers(1, 300), gap=st.sampled_from([1, 40, BLOCK // 3, 3 * BLOCK]),
    pieces=st.integers(0, 10), query=st.text(TERMS + "z", min_size=1, max_size=12), k=st.integers(1, 25),
    conversation=st.sampled_from([None, "c1", "none"]), kind=st.sampled_from([None, *KINDS]),
)  # fmt: skip
def test_the_best_are_those_of_all(
    isa: str, seed: int, size: int, gap: int, pieces: int, query: str, k: int, conversation: str | None,
    kind: Kind | None,
) -> None:  # fmt: skip
    corpus = Corpus(seed, size, gap, pieces)
    names = [postings.term_list(term) for term in query]
    with running(isa):
        best = postings.rank(corpus, names, k, conversation, kind)
        every = postings.rank(corpus, names, size, conversation, kind)
    assert best == every[:k]  # nothing that was left out could have been among them, to the last bit
    assert every == sorted(every, key=lambda hit: (-hit[1], hit[0]))
    expected = corpus.bm25(query, conversation, kind)
    assert {row for row, _ in every} == set(expected)
    np.testing.assert_allclose([score for _, score in every], [expected[row] for row, _ in every], rtol=1e-12)


@each_isa
@some
@given(
    seed=st.integers(0, 2**32), size=st.integers(1, 300), gap=st.sampled_from([1, 2, 40, BLOCK // 3, 3 * BLOCK]),
    pieces=st.integers(0, 10), scoped=st.booleans(),
)  # fmt: skip
def test_rows_are_looked_up_where_they_are(isa: str, seed: int, size: int, gap: int, pieces: int, scoped: bool) -> None:
    corpus = Corpus(seed, size, gap, pieces)
    rows = np.unique(corpus.rng.choice([*corpus.rows, *(row + 1 for row in corpus.rows)], size))
    names = [*map(postings.kind_list, KINDS), *map(postings.term_list, "ahz"), postings.term_list("filler")]
    with running(isa):
        found, lengths = postings.look_up(corpus, names, rows, np.unique(rows // BLOCK) if scoped else None)
    at = {row: index for index, row in enumerate(corpus.rows)}
    words = [corpus.words[at[row]] if row in at else [] for row in rows.tolist()]
    assert lengths.tolist() == list(map(len, words))
    for term, frequencies in zip(("a", "h", "z", "filler"), found[len(KINDS) :].tolist(), strict=True):
        assert frequencies == [own.count(term) for own in words]
    kinds = [corpus.kinds[at[row]] if row in at else None for row in rows.tolist()]
    assert found[: len(KINDS)].tolist() == [[kind == one for one in kinds] for kind in KINDS]


@each_isa
def test_a_long_list_is_looked_up_where_its_rows_should_be(isa: str) -> None:
    """Rows that lie evenly, and some that do not."""
    rng = np.random.default_rng(0)
    rows = np.unique(np.concatenate([rng.integers(0, 4 * BLOCK, 30_000), np.arange(BLOCK, BLOCK + 9000)]))
    packed = (rows % BLOCK | (rows % 7) << 14 | (rows % 100) << 19).astype("<u4")
    parts = [(int(block * BLOCK), packed[rows // BLOCK == block].tobytes()) for block in range(4)]
    with running(isa), patch.object(Corpus, "read", lambda self, names, blocks: [[Postings.of(parts)]]):
        (frequencies,), lengths = postings.look_up(Corpus(0, 1, 1, 1), ["t"], np.arange(5 * BLOCK))
    expected = np.zeros((2, 5 * BLOCK), int)
    expected[:, rows] = rows % 7 + 1, rows % 100
    assert (frequencies == expected[0]).all() and (lengths == expected[1]).all()


@each_isa
def test_lists_that_are_left_early_change_nothing(isa: str) -> None:
    """Enough rows that most blocks end after the rare terms, and that rows are looked up one by one."""
    corpus = Corpus(0, 6000, 12, 0)
    for query in ("abcdefgh", "abgh", "aaab", "h", "ah"):
        names = [postings.term_list(term) for term in query]
        with running(isa):
            every = postings.rank(corpus, names, 6000)
            assert [postings.rank(corpus, names, k) for k in (1, 5, 20)] == [every[:k] for k in (1, 5, 20)]


def test_a_part_of_a_list_is_its_blocks() -> None:
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 9 * BLOCK, 5000))
    packed = (rows % BLOCK | rng.integers(0, 1 << 18, len(rows)) << 14).astype("<u4")
    whole = Postings.of([(block * BLOCK, packed[rows // BLOCK == block].tobytes()) for block in range(9)])
    for blocks in ([], [4], [0, 3, 4, 8, 11], range(9)):
        part, chosen = whole.in_blocks(np.array(blocks, np.int64)), np.isin(rows // BLOCK, list(blocks))
        assert part.rows.tolist() == rows[chosen].tolist() and (part.packed == packed[chosen]).all()
        assert (part.starts // BLOCK).tolist() == [block for block in blocks if block < 9]
        assert (part.bounds == whole.bounds[np.isin(np.arange(9), list(blocks))]).all()


def test_frequencies_and_lengths_beyond_their_bits_count_as_the_largest() -> None:
    gathered = Gathered(0)
    gathered.add([], ["a"] * 40 + ["b"] * 9000)
    found = Postings.of([(0, gathered.cut([(0, 1)])[0]["ta"])])
    assert found.lengths.tolist() == [8191] and (int(found.packed[0]) >> 14 & 31) + 1 == 32


@settings(max_examples=40, deadline=None, print_blob=True)
@given(st.integers(0, 5000), st.lists(st.integers(1, 3000), max_size=30))
def test_segments_cover_every_row_once(first: int, sizes: list[int]) -> None:
    levels = (1024, 256, 64, 8)
    starts: dict[int, int] = {}
    with patch.object(lists, "LEVELS", levels):
        at = 0
        for size in [first, *sizes]:
            for begin, end in lists.cut(at, at + size):
                taken = [start for start in starts if begin <= start < end]
                assert all(starts[start] <= end for start in taken)
                for start in taken:
                    del starts[start]
                starts[begin] = end
            at += size
            edges = sorted(starts.items())
            assert [start for start, _ in edges] == [0, *(end for _, end in edges[:-1])][: len(edges)]
            assert not edges or edges[-1][1] == at
            sealed = at // 1024
            assert [start for start, _ in edges[:sealed]] == list(range(0, 1024 * sealed, 1024))
            assert len(edges) - sealed <= 3 + 3 + 7 + 7


@settings(max_examples=20, deadline=None, print_blob=True)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=12), st.integers(0, 99))
def test_lists_are_those_of_the_turns(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]], seed: int
) -> None:
    """After any adding and deleting, also for another process that has read them before."""
    file: Path = tmp_path_factory.mktemp("memory") / "memory.db"
    turns, rng = iter(random_turns(600, seed)), np.random.default_rng(seed)
    with patch.object(lists, "LEVELS", (64, 16, 4)), SqliteStore(file) as one, SqliteStore(file) as two:
        for adds, count in steps:
            if adds:
                one.add([next(turns) for _ in range(count)])
            else:
                ids = [turn.id for turn, _ in one.scan()]
                one.delete(rng.choice(ids, min(count, len(ids)), replace=False).tolist() if ids else [])
            expected: dict[str, list[int]] = defaultdict(list)
            for row, turn in two._stored("row >= 0"):
                mentioned = [postings.entity_list(entity) for entity in entities(turn.text, turn.time)]
                said = set(map(postings.term_list, terms(indexed_text(turn))))
                for name in {*said, *mentioned, "ksaid", postings.conversation_list(turn.conversation)}:
                    expected[name].append(row)
            for store in (one, two):
                found = store._lists.read(list(expected))
                assert [[row for part in parts for row in part.rows.tolist()] for parts in found] == [
                    *expected.values()
                ]
                assert store._rows("SELECT count(DISTINCT name) FROM lists") == [(len(expected),)]


def test_what_is_kept_in_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "LEVELS", (64, 16, 4))
    monkeypatch.setattr(lists, "KEPT", 8_000)
    with SqliteStore(None) as store:
        store.add(random_turns(300))
        question = "the a to of in we they cat dog garden paris oslo violin"
        first = store.lexical(question, 300)
        for _ in range(3):
            assert store.lexical(question, 300) == first
            assert 0 < store._lists._kept_bytes <= 8_000
        assert store._lists._kept_bytes == sum(lists._size(found) for _, found in store._lists._kept.values())
        with pytest.raises(RuntimeError), store.writing():
            raise RuntimeError
        assert store._lists._kept_bytes == 0


@each_isa
@some
@given(
    seed=st.integers(0, 2**32), count=st.integers(1, 400), dimensions=st.sampled_from([8, 64, 100, 384]),
    most=st.integers(1, 20), kind=st.sampled_from([None, *KINDS]), among=st.booleans(),
)  # fmt: skip
def test_the_nearest_codes(
    isa: str, seed: int, count: int, dimensions: int, most: int, kind: Kind | None, among: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dimensions)).astype(np.float32)
    rows = np.sort(rng.choice(3 * count, count, replace=False))
    kinds = [KINDS[i] for i in rng.integers(0, 3, count)]
    codes = Codes(dimensions)
    codes.update([(block, 1, data) for block, data in pack(rows.tolist(), kinds, vectors)])
    question = rng.normal(size=dimensions).astype(np.float32)
    chosen = np.sort(rng.choice(4 * count, 2 * count, replace=False)) if among else None
    with running(isa):
        found = codes.nearest(question, most, kind, chosen)
    there = [i for i in range(count) if kind in (None, kinds[i]) and (chosen is None or rows[i] in chosen)]
    distances = np.bitwise_count(encode(vectors[there]) ^ encode(question[None])).sum(axis=1)
    limit = np.sort(distances)[: LOOKED * most][-1] if there else 0
    near = [i for i, distance in zip(there, distances, strict=True) if distance <= limit]
    promise = {int(rows[i]): float(question @ (vectors[i] > 0)) for i in near}
    assert sorted(found.tolist()) == found.tolist() and set(found.tolist()) <= set(promise)
    assert len(found) == min(most, len(near))
    if len(found) < len(near):
        worst = min(promise[row] for row in found.tolist())
        assert sum(value > worst + 1e-4 for value in promise.values()) <= most
