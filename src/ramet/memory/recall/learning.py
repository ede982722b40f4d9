"""Weights that adapt to a memory: learnt from questions of which it was told which turns answered them.

What is kept of a question is no text, only the ids and signals of its answers and of the candidates that came nearest
to them. It goes with any of its answers that is forgotten, and a candidate goes alone; the weights are learnt anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import MemoryStoreError, Question, Store
from ramet.memory.recall.fusion import DEFAULT, Example, Weights, adapted, best, weighted
from ramet.memory.recall.signals import DENSE, SIGNALS, WORDS, Floats, pool

_ANSWERED, _WEIGHTS = "answered questions", "weights"
_KEPT = 200
"""Questions that are kept, the latest."""
_RIVALS = 50
"""Candidates that are kept of each, beside those of its answers that are not among them."""
_SAME_BY_VECTORS, _SAME_BY_WORDS = 0.995, 0.95
"""Correlations from which two questions are one. One of LoCoMo's, asked with a fifth of the other turns missing and
without: at least 1.000 by vectors and 0.995 by words; two that have the same evidence: at most 0.990 by vectors."""


class Answered(TypedDict):
    """A question that is known, as JSON has it."""

    answers: list[str]
    """Ids, sorted."""
    candidates: list[str]
    spread: list[float]
    """The standard deviation of each signal over all candidates, those that are not kept included."""
    signals: str
    """Of the candidates: base64 of little-endian half precision, [candidates, SIGNALS]."""


def learned(store: Store) -> Weights:
    """The weights that the memory has learnt; `DEFAULT` where it was told nothing."""
    note = store.note(_WEIGHTS)
    values = json.loads(note) if note else []
    return Weights(*values) if len(values) == SIGNALS else DEFAULT


def answered(store: Store) -> list[Answered]:
    """The questions that are known, the latest last. Those of a version with other signals are left out."""
    return _read(store.note(_ANSWERED))


def learn(store: Store, question: Question, ids: Collection[str]) -> int:
    """Take it that the turns `ids` answered the question, and adapt the weights; how many questions are known.

    Told again, a question takes its own place. Raises MemoryStoreError if no id is given, one is not stored, or none is
    among the candidates for the question.
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
    new: Answered = {
        "answers": sorted(answers),
        "candidates": [found.ids[at] for at in kept],
        "spread": found.values.std(0).tolist(),
        "signals": base64.b64encode(found.values[kept].astype("<f2").tobytes()).decode(),
    }
    known = _take_in(store, [new])
    _check(store, ids)  # another process may have forgotten one meanwhile
    return known


def take_over(store: Store, questions: Sequence[Answered]) -> None:
    """Learn from what another memory knew, as far as its turns are stored here; what is known here counts as later."""
    known = [one for one in questions if len(one["spread"]) == SIGNALS]
    if known:
        _take_in(store, known, later=False)


def drop(store: Store, gone: Iterable[str]) -> None:
    """Drop what was learnt from turns, in the transaction in which they are removed."""
    removed = set(gone)
    if not removed or store.note(_ANSWERED) is None:
        return
    with store.writing():
        questions = answered(store)
        left = [_without(one, removed) for one in questions if removed.isdisjoint(one["answers"])]
        if left != questions:
            _write(store, left, _weights(left))


def unlearn(store: Store) -> int:
    """Drop all that was learnt; from how many questions."""
    with store.writing():
        known = len(answered(store))
        if known:
            _write(store, [], DEFAULT)
    return known


def as_answered(given: Any, where: str) -> Answered:
    """A question as an export has it. Raises MemoryStoreError, saying `where`, for anything else."""
    try:
        answers, candidates = ([str(id) for id in given[name]] for name in ("answers", "candidates"))
        spread = [float(value) for value in given["spread"]]
        one = Answered(answers=sorted(answers), candidates=candidates, spread=spread, signals=str(given["signals"]))
        values = np.frombuffer(base64.b64decode(one["signals"], validate=True), "<f2")
        good = np.isfinite(values).all() and np.isfinite(spread).all() and len(values) == len(candidates) * len(spread)
    except (TypeError, ValueError, KeyError):
        good = False
    if not good or set(answers).isdisjoint(candidates):
        raise MemoryStoreError(f"{where}: a question that was learnt from is damaged")
    return one


def contested(values: Floats, share: Floats) -> list[int]:
    """Of a question's candidates, [candidates, SIGNALS], the answers and those that come nearest to them as shipped.

    As much is learnt from these as from all.
    """
    return sorted({at for at, _ in best(weighted(values, DEFAULT), _RIVALS)} | set(np.flatnonzero(share).tolist()))


def _check(store: Store, ids: Collection[str]) -> None:
    """Raises MemoryStoreError if no id is given, or one is not stored."""
    stored = _stored(store, ids)
    missing = [id for id in ids if id not in stored]
    if missing or not ids:
        raise MemoryStoreError(f"the memory has no turn {missing[0]!r}" if missing else "no turn is named as an answer")


def _stored(store: Store, ids: Iterable[str]) -> set[str]:
    return {turn.id for turn in store.turns(list(ids))}


def _take_in(store: Store, new: Sequence[Answered], later: bool = True) -> int:
    """Add questions and adapt the weights; how many are known.

    The weights are learnt while nobody waits for it, and again if what they are learnt from changed meanwhile.
    """
    mentioned = sorted({id for one in new for id in (*one["answers"], *one["candidates"])})
    while True:
        before, there = store.note(_ANSWERED), _stored(store, mentioned)
        added = [_without(one, set(mentioned) - there) for one in new if there.issuperset(one["answers"])]
        first, last = (_read(before), added) if later else (added, _read(before))
        questions = [*(one for one in first if not any(_same(one, other) for other in last)), *last][-_KEPT:]
        weights = _weights(questions)
        with store.writing():
            if store.note(_ANSWERED) == before and _stored(store, mentioned) == there:
                _write(store, questions, weights)
                return len(questions)


def _same(one: Answered, other: Answered) -> bool:
    """Whether it is one question: the same answers, and the same order of what both found, by vectors if there are any.

    The memory may have grown between the two: that leaves cosines as they are, and what words weigh nearly so.
    """
    if one["answers"] != other["answers"]:
        return False
    if one["signals"] == other["signals"] and one["candidates"] == other["candidates"]:
        return True
    places = {id: at for at, id in enumerate(other["candidates"])}
    both = [(at, places[id]) for at, id in enumerate(one["candidates"]) if id in places]
    if 2 * len(both) < min(len(one["candidates"]), len(other["candidates"])):
        return False
    first, second = np.array(both).T
    mine, theirs = _signals(one)[first].astype(np.float64), _signals(other)[second].astype(np.float64)
    column, least = (DENSE, _SAME_BY_VECTORS) if np.ptp(mine[:, DENSE]) else (WORDS, _SAME_BY_WORDS)
    return _correlation(mine[:, column], theirs[:, column]) > least


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """1 where nothing varies in either, 0 where it does in one."""
    one, other = one - one.mean(), other - other.mean()
    spans = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    return float(one @ other) / (spans[0] * spans[1]) if all(spans) else float(not any(spans))


def _without(question: Answered, removed: Collection[str]) -> Answered:
    """A question without these candidates."""
    kept = [at for at, id in enumerate(question["candidates"]) if id not in removed]
    if len(kept) == len(question["candidates"]):
        return question
    signals = base64.b64encode(_signals(question)[kept].tobytes()).decode()
    return {**question, "candidates": [question["candidates"][at] for at in kept], "signals": signals}


def _read(note: str | None) -> list[Answered]:
    questions: list[Answered] = json.loads(note or "[]")
    return [question for question in questions if len(question["spread"]) == SIGNALS]


def _write(store: Store, questions: Sequence[Answered], weights: Weights) -> None:
    store.note(_ANSWERED, json.dumps(questions))
    store.note(_WEIGHTS, json.dumps(astuple(weights)))


def _weights(questions: Sequence[Answered]) -> Weights:
    """What is learnt from these."""
    if not questions:
        return DEFAULT
    spread = np.array([question["spread"] for question in questions], np.float32).mean(0)
    return adapted([_example(one) for one in questions], spread)


def _signals(question: Answered) -> NDArray[np.float16]:
    return np.frombuffer(base64.b64decode(question["signals"]), "<f2").reshape(-1, len(question["spread"]))


def _example(question: Answered) -> Example:
    answers = set(question["answers"])
    share = np.array([id in answers for id in question["candidates"]], np.float32)
    return _signals(question).astype(np.float32), share / share.sum()
