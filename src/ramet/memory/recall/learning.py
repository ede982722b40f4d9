"""Weights that adapt to a memory: learnt from questions of which it was told which turns answered them.

What is kept of a question is no text, only the ids and signals of its answers and of the candidates that came nearest
to them. It goes with any of its answers that is forgotten, and a candidate goes alone; the weights are learnt anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import MemoryStoreError, Question, Store
from ramet.memory.recall.fusion import DEFAULT, Example, Weights, adapted, best, weighted
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
    _check(store, ids)
    answers = set(ids)
    found = pool(store, question)
    share = np.array([id in answers for id in found.ids], np.float32)
    if not share.any():
        raise MemoryStoreError(
            "nothing can be learnt from this question: no search finds the turns that are said to answer it"
        )
    kept = contested(found.values, share)
    new = {
        "answers": sorted(answers),
        "candidates": [found.ids[at] for at in kept],
        "spread": found.values.std(0).tolist(),
        "signals": base64.b64encode(found.values[kept].astype("<f2").tobytes()).decode(),
    }
    with store.writing():
        _check(store, ids)  # another process may have forgotten one meanwhile
        stored = {turn.id for turn in store.turns(new["candidates"])}
        questions = [*_answered(store), _without(new, set(new["candidates"]) - stored)][-_KEPT:]
        _write(store, questions)
    return len(questions)


def _check(store: Store, ids: Collection[str]) -> None:
    """Raises MemoryStoreError if no id is given, or one is not stored."""
    stored = {turn.id for turn in store.turns(list(ids))}
    missing = [id for id in ids if id not in stored]
    if missing or not ids:
        raise MemoryStoreError(f"the memory has no turn {missing[0]!r}" if missing else "no turn is named as an answer")


def contested(values: Floats, share: Floats) -> list[int]:
    """Of a question's candidates, [candidates, SIGNALS], the answers and those that come nearest to them as shipped.

    As much is learnt from these as from all.
    """
    return sorted({at for at, _ in best(weighted(values, DEFAULT), _RIVALS)} | set(np.flatnonzero(share).tolist()))


def unlearn(store: Store, gone: Iterable[str]) -> None:
    """Drop what was learnt from turns, in the transaction in which they are removed."""
    removed = set(gone)
    if not removed or store.note(_ANSWERED) is None:
        return
    with store.writing():
        questions = _answered(store)
        left = [_without(one, removed) for one in questions if removed.isdisjoint(one["answers"])]
        if left != questions:
            _write(store, left)


def _without(question: dict[str, Any], removed: Collection[str]) -> dict[str, Any]:
    """A question without these candidates."""
    kept = [at for at, id in enumerate(question["candidates"]) if id not in removed]
    if len(kept) == len(question["candidates"]):
        return question
    signals = base64.b64encode(_signals(question)[kept].tobytes()).decode()
    return {**question, "candidates": [question["candidates"][at] for at in kept], "signals": signals}


def _answered(store: Store) -> list[dict[str, Any]]:
    """The questions that are known. Those of a version with other signals are left out."""
    questions: list[dict[str, Any]] = json.loads(store.note(_ANSWERED) or "[]")
    return [question for question in questions if len(question["spread"]) == SIGNALS]


def _write(store: Store, questions: Sequence[dict[str, Any]]) -> None:
    store.note(_ANSWERED, json.dumps(questions))
    spread = np.array([question["spread"] for question in questions], np.float32).mean(0) if questions else _NONE
    store.note(_WEIGHTS, json.dumps(astuple(adapted([_example(one) for one in questions], spread))))


def _signals(question: dict[str, Any]) -> NDArray[np.float16]:
    return np.frombuffer(base64.b64decode(question["signals"]), "<f2").reshape(-1, SIGNALS)


def _example(question: dict[str, Any]) -> Example:
    answers = set(question["answers"])
    share = np.array([id in answers for id in question["candidates"]], np.float32)
    return _signals(question).astype(np.float32), share / share.sum()
