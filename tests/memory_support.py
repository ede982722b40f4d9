"""What the tests of the memory share: turns to put into stores, a model to derive with, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np

from ramet.memory import Memory
from ramet.memory.base import Turn, Vector
from ramet.memory.derive.endpoint import Endpoint
from tests.endpoints import Answer, Asked, endpoint, keeper
from tests.endpoints import given as lines_of

_TEXT = "the a to of in we they cat dog garden paris oslo violin teacher moved bought painted visited 42 tomorrow"
WORDS = _TEXT.split()


def said(index: int, text: str, conversation: str = "c", session: str = "s", **more: object) -> Turn:
    """A turn with the id `conversation:index`."""
    time = datetime(2023, 5, 8, 13, 56) + timedelta(minutes=index)
    return Turn(f"{conversation}:{index}", conversation, session, index, "Ann", text, **{"time": time, **more})  # type: ignore[arg-type]


def random_turns(count: int, seed: int = 0, conversations: int = 3) -> list[Turn]:
    """Turns of several conversations, interleaved, in words that repeat."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(WORDS) + 1)
    turns = []
    for index in range(count):
        words = rng.choice(WORDS, rng.integers(1, 30), p=share / share.sum())
        name = f"conversation {rng.integers(0, conversations)}"
        turns.append(said(index, " ".join(words).capitalize(), name, f"session {index // 50}"))
    return turns


def random_vectors(count: int, seed: int = 0, dimensions: int = 24) -> Vector:
    return np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)


class Keeper:
    """The model that knows who lives where, without the way over HTTP. `before` is called with what it is given."""

    def __init__(self, before: Callable[[list[dict[str, Any]]], None] = lambda _: None) -> None:
        self._before = before

    def ask(self, instructions: str, given: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"messages": [{"content": given}]}
        self._before(lines_of(body))
        return keeper(body)


def facts_of(memory: Memory) -> list[Turn]:
    return [turn for turn, _ in memory.store.scan() if turn.kind == "fact"]


def check_facts(memory: Memory, conversation: str) -> None:
    """Every fact leads to one that holds; of who lives where the last that a turn tells holds, and nothing else."""
    stored = {turn.id: turn for turn, _ in memory.store.scan(conversation)}
    told = sorted((turn for turn in stored.values() if turn.kind == "said"), key=lambda turn: turn.position)
    found = {turn.sources[0]: turn for turn in stored.values() if turn.kind == "fact"}
    for turn in found.values():
        leads_to(stored, turn)
    for person in ("Ann", "Ben"):
        runs = [list(run) for _, run in groupby((t for t in told if person in t.text), lambda t: t.text.split()[-1])]
        for at, run in enumerate(runs):
            first, *others = [found[turn.id] for turn in run]
            following = found[runs[at + 1][0].id] if at + 1 < len(runs) else None
            assert (first.repeats, first.valid_from) == (None, first.time)
            assert {turn.repeats for turn in others} <= {first.id}
            for turn in (first, *others):
                assert turn.superseded_by == (following.id if following else None)
                assert turn.valid_to == (following.time if following else None)


def leads_to(stored: Mapping[str, Turn], turn: Turn) -> Turn:
    """The fact that holds, or took its place in the end."""
    seen = set[str]()
    while turn.repeats is not None or turn.superseded_by is not None:
        assert turn.id not in seen, "in a circle"
        seen.add(turn.id)
        if turn.repeats is not None:
            first = stored[turn.repeats]
            assert first.repeats is None and first.position <= turn.position
            assert (first.superseded_by, first.valid_to) == (turn.superseded_by, turn.valid_to)
            turn = first
        else:
            assert stored[turn.superseded_by or ""].position >= turn.position
            turn = stored[turn.superseded_by or ""]
    return turn


@contextmanager
def model(answer: Answer = keeper) -> Iterator[tuple[Endpoint, Asked]]:
    with endpoint(answer) as asked, Endpoint(asked.url, "m") as found:
        yield found, asked


def of_kind(memory: Memory, kind: str) -> list[Turn]:
    return [turn for turn, _ in memory.store.scan() if turn.kind == kind]


def talk(*texts: str, session: str = "s", start: int = 0, days: int = 0) -> list[Turn]:
    turns = [said(start + index, text, session=session) for index, text in enumerate(texts)]
    return [replace(turn, time=turn.time + timedelta(days=days) if turn.time else None) for turn in turns]
