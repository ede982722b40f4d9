"""What the tests of the memory share: turns to put into stores."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from ramet.memory.base import Turn, Vector

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
