"""Weights that adapt to a memory: learnt from questions of which it was told which turns answered them.

What is kept of a question is no text, only the ids of its answers and the signals of those and of the candidates that
came nearest to them. It is gone when one of the answers is forgotten, and the weights are then learnt anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from ramet.memory.base import MemoryStoreError, Question, Store
from ramet.memory.recall.fusion import DEFAULT, Example, Weights, adapted, best
from ramet.memory.recall.signals import SIGNALS, Floats, pool

_ANSWERED, _WEIGHTS = "answered questions", "weights"
_KEPT = 200
"""Questions that are kept, the latest."""
_RIVALS = 50
"""Candidates that are kept of each, beside those of its answers that are not among them."""

_NONE = np.zeros(SIGNALS, np.float32)


def learned(store: Store) -> Weights:
    """The weights that the memory has learnt; `DEFAULT` where it was told nothing."""
    note = store.note(_WEIGHTS)
    values = json.loads(note) if note else []
    return Weights(*values) if len(values) == SIGNALS else DEFAULT


def learn(store: Store, question: Question, ids: Collection[str]) -> int:
    """Take it that the turns `ids` answered the question, and adapt the weights; how many questions are known.

    Raises MemoryStoreError if no id is given, one is not stored, or none is among the candidates for the question.
    """
    stored = {turn.id for turn in store.turns(list(ids))}
    missing = [id for id in ids if id not in stored]
    if missing or not ids:
        raise MemoryStoreError(f"the memory has no turn {missing[0]!r}" if missing else "no turn is named as an answer")
    found = pool(store, question)
    share = np.array([id in stored for id in found.ids], np.float32)
    if not share.any():
        raise MemoryStoreError(
            "nothing can be learnt from this question: no search finds the turns that are said to answer it"
        )
    signals, share = contested(found.values, share)
    new = {
        "spread": found.values.std(0).tolist(),
        "ids": sorted(stored),
        "answers": np.flatnonzero(share).tolist(),
        "signals": base64.b64encode(signals.astype("<f2").tobytes()).decode(),
    }
    with store.writing():
        questions = [*_answered(store), new][-_KEPT:]
        _write(store, questions)
    return len(questions)


def contested(values: Floats, share: Floats) -> Example:
    """Of a question's candidates, [candidates, SIGNALS], the answers and those that come nearest to them as shipped.

    As much is learnt from these as from all.
    """
    kept = sorted({at for at, _ in best(values, _RIVALS)} | set(np.flatnonzero(share).tolist()))
    return values[kept], share[kept] / max(float(share.sum()), 1.0)


def unlearn(store: Store, gone: Iterable[str]) -> None:
    """Drop the questions that any of these turns answered; called after they were removed."""
    removed = set(gone)
    if not removed or store.note(_ANSWERED) is None:
        return
    with store.writing():
        questions = _answered(store)
        left = [question for question in questions if removed.isdisjoint(question["ids"])]
        if len(left) < len(questions):
            _write(store, left)


def _answered(store: Store) -> list[dict[str, Any]]:
    return list(json.loads(store.note(_ANSWERED) or "[]"))


def _write(store: Store, questions: Sequence[dict[str, Any]]) -> None:
    store.note(_ANSWERED, json.dumps(questions))
    spread = np.array([question["spread"] for question in questions], np.float32).mean(0) if questions else _NONE
    store.note(_WEIGHTS, json.dumps(astuple(adapted([_example(one) for one in questions], spread))))


def _example(question: dict[str, Any]) -> Example:
    signals = np.frombuffer(base64.b64decode(question["signals"]), "<f2").reshape(-1, SIGNALS).astype(np.float32)
    share = np.zeros(len(signals), np.float32)
    share[question["answers"]] = 1 / len(question["answers"])
    return signals, share
