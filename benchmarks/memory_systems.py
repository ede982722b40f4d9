"""FluxMem and HyMem on LoCoMo's questions, for the table of `memory.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Hit, Index, Question, Turn
from ramet.memory.embed import Embedder
from ramet.memory.recall import Weights, selector
from ramet.memory.recall.features import features
from ramet.memory.recall.fluxmem import Base, FluxMem, reciprocal
from ramet.memory.recall.gate import Gate, posterior, unit
from ramet.memory.recall.hymem import HyMem, Reading
from ramet.memory.recall.schedule import threshold
from ramet.memory.recall.selector import STRUCTURES, Structure
from ramet.memory.sqlite import SqliteStore

Floats = NDArray[np.float64]
DEPTH = 20


@dataclass(frozen=True)
class Fluxes:
    """The answers of FluxMem, `[questions]` each, by how structures are chosen, and what the levels held."""

    answers: dict[str, list[list[Hit]]]
    episodes: dict[str, int]
    labels: dict[str, int]
    """Episodes for which each structure was the best."""


def fluxmem(
    index: Index, questions: Sequence[Question], evidence: Sequence[Sequence[str]], base: Base = reciprocal
) -> Fluxes:
    """Every conversation in each structure, and with the selector that was fitted on the other conversations."""
    names = sorted({str(question.conversation) for question in questions})
    scores = {(q.conversation, q.text): base(index, q) for q in questions}

    def known(_: Index, question: Question) -> dict[str, float]:
        return scores[question.conversation, question.text]

    levels = {name: FluxMem.read(index, name).levels for name in names}
    answers: dict[str, list[list[Hit]]] = {}
    systems = {
        structure: {name: FluxMem.structured(levels[name], index, name, structure) for name in names}
        for structure in STRUCTURES
    }
    for structure, system in systems.items():
        answers[f"always {structure}"] = [system[str(q.conversation)].recall(q, DEPTH, known) for q in questions]
    labelled: dict[str, tuple[Floats, list[Structure]]] = {}
    for name in names:
        rows, labels = list[Floats](), list[Structure]()
        for at, episode in enumerate(levels[name].mid):
            ids = {turn.id for page in episode.pages for turn in page.turns}
            asked = [number for number, gold in enumerate(evidence) if ids & set(gold)]
            if not asked:
                continue
            worth = dict[Structure, float]()
            for structure in STRUCTURES:
                found = [{hit.id for hit in answers[f"always {structure}"][number]} for number in asked]
                shares = [
                    len(ids & set(evidence[number]) & some) / len(ids & set(evidence[number]))
                    for number, some in zip(asked, found, strict=True)
                ]
                sizes = {s: systems[s][name].links_kept(at) for s in STRUCTURES}
                worth[structure] = 0.7 * float(np.mean(shares)) - 0.3 * sizes[structure] / max(1, *sizes.values())
            rows.append(features(episode))
            labels.append(max(STRUCTURES, key=worth.__getitem__))
        labelled[name] = np.array(rows), labels
    chosen = dict[str, FluxMem]()
    for name in names:
        others = [other for other in names if other != name]
        fitted = selector.fit(
            np.concatenate([labelled[other][0] for other in others]),
            [label for other in others for label in labelled[other][1]],
        )
        chosen[name] = FluxMem.structured(levels[name], index, name, fitted)
    answers["selector"] = [chosen[str(q.conversation)].recall(q, DEPTH, known) for q in questions]
    every = [label for _, labels in labelled.values() for label in labels]
    return Fluxes(answers, {name: len(levels[name].mid) for name in names}, {s: every.count(s) for s in STRUCTURES})


@dataclass(frozen=True)
class Read:
    """What a way of reading gives for each question."""

    found: list[dict[str, float]]
    """Ids of the turns that were read, with the share of its words that was: a summary is a sentence of one."""
    words: list[int]


def hymem(
    index: Index, questions: Sequence[Question], embedder: Embedder | None, weights: Sequence[Weights]
) -> tuple[list[list[Hit]], dict[str, Read]]:
    """The turns of the best summaries, and what is read: on the light path, on the deep one, as scheduled.

    The scheduler's limit comes from the questions of the other conversations.
    `weights`: of the fusion over summaries, for each question.
    """
    names = sorted({str(question.conversation) for question in questions})
    readers = {name: HyMem(index, name, SqliteStore(None), embedder) for name in names}
    ask = list(zip(questions, weights, strict=True))
    light = [readers[str(q.conversation)].read(q, weights=w) for q, w in ask]
    deep = [readers[str(q.conversation)].read(q, -1.0, weights=w) for q, w in ask]
    limits = {
        name: threshold([r.breadth for r, q in zip(light, questions, strict=True) if q.conversation != name])
        for name in names
    }
    scheduled = [
        d if one.breadth > limits[str(q.conversation)] else one
        for one, d, q in zip(light, deep, questions, strict=True)
    ]
    best = [
        [
            Hit(id, score)
            for summary, score in readers[str(q.conversation)].ranked(q, DEPTH, w)
            for id in summary.sources
        ]
        for q, w in ask
    ]
    paths = {"light path": light, "deep path": deep, "scheduled": scheduled}
    return best, {name: Read([_shares(index, one) for one in read], [_words(one.turns) for one in read])
                  for name, read in paths.items()}  # fmt: skip


def _shares(index: Index, reading: Reading) -> dict[str, float]:
    """The turns that were read, with the share of its words."""
    whole = {turn.id: _words([turn]) for turn in index.turns([id for turn in reading.turns for id in turn.sources])}
    return {
        id: _words([turn]) / max(whole.get(id, 0), _words([turn]), 1)
        for turn in reading.turns
        for id in turn.sources or (turn.id,)
    }


def _words(turns: Sequence[Turn]) -> int:
    return sum(len(turn.text.split()) for turn in turns)


class _PublishedGate(Gate):
    """The gate as published: a page's likenesses are scaled by its own least and greatest, and its best is kept."""

    def joins(self, similarities: Sequence[float]) -> list[bool]:
        new = np.asarray(similarities, np.float64)
        if not len(new):
            return []
        span = float(np.ptp(new))
        scaled = (new - new.min()) / span if span else np.ones_like(new)
        shares = posterior(unit(scaled), unit(scaled)) if len(new) > 1 else np.ones(1)
        return [bool(share >= 0.5 or value == scaled.max()) for share, value in zip(shares, scaled, strict=True)]


def published_episodes(index: Index, conversation: str) -> int:
    """How many episodes a conversation becomes by the published gate."""
    return len(FluxMem.read(index, conversation, gate=_PublishedGate()).levels.mid)
