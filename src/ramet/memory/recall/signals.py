"""What speaks for each candidate: the two searches, the words around it, who said it, when, and whom it answers.

Only a pool of candidates is looked at, never the whole store: the best of each search, and the turns beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ramet.memory.base import Index, Question, Survey, Turn, Turns
from ramet.memory.recall.question import COMMON, Asked, names_told, tells_number, tells_own, tells_time
from ramet.memory.words import terms

Floats = NDArray[np.float32]
Places = NDArray[np.intp]

_EACH = 150
"""Candidates that each search gives."""
SIGNALS = 24
"""How many there are: one for each field of `fusion.Weights`, in that order."""
DENSE, WORDS, _DATE, _TIME, _OWN, _NAMES, _NAMED, _NUMBER = 1, 2, 14, 15, *range(20, 24)
"""Where the signals of these names are among them."""
_ASKED = 4_000
"""Characters of a question that count."""
_SEEDS = 10
"""Best candidates that lend their scores to turns like them."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates for a question and their signals."""

    turns: Sequence[Turn]
    values: Floats
    """[candidates, signals], in the order of `Weights`."""
    vectors: Floats
    """[candidates, dimensions], unit length; [candidates, 0] without any."""
    ids: list[str]
    """Of the candidates; a turn is made when it is asked for."""


def pool(index: Index, question: Question) -> Pool:
    """The candidates for a question: the best of both searches, and what was said just before and after them.

    A turn that neither search found is one only if it follows a question that one of them did find: its answer.
    """
    question = replace(question, text=question.text[:_ASKED])
    counted = tuple(dict.fromkeys(term for term in terms(question.text) if term not in COMMON))
    survey = index.survey(_searched(question.text), question.vector, _EACH, question.conversation, counted)
    if not survey.found:
        return Pool([], np.zeros((0, SIGNALS), np.float32), np.zeros((0, 0), np.float32), [])
    asking = np.array(["?" in text and text.rstrip().endswith("?") for text in survey.texts])
    kept = np.flatnonzero((np.arange(len(asking)) < survey.found) | (survey.before >= 0) & asking[survey.before])
    places = kept.tolist()
    turns, ids = Turns(survey.turns.__getitem__, places), [survey.ids[at] for at in places]
    return Pool(turns, _values(question, counted, survey, asking, kept), survey.vectors[kept], ids)


def _searched(text: str) -> str:
    """A question without its common words, which are slow to look up; whole if it has no other."""
    return " ".join(word for word in text.split() if set(terms(word)) - COMMON) or text


def _values(
    question: Question, counted: Sequence[str], survey: Survey, asking: NDArray[np.bool_], kept: Places
) -> Floats:
    """The signals of the turns `kept`, [kept, signals]; what is scaled is scaled by all that were surveyed.

    `counted`: the terms that the survey counted; `asking`: which of its turns end with a question.
    """
    speakers = set(survey.speakers)
    asked = Asked.read(question.text, speakers, question.time)
    before, session, vectors, lengths = survey.before, survey.sessions, survey.vectors, survey.lengths
    after = np.full(len(before), -1)
    after[before[before >= 0]] = np.flatnonzero(before >= 0)
    columns_of = {term: column for column, term in enumerate(counted)}
    counts = survey.frequencies[:, [columns_of[term] for term in asked.content]]
    lexical = _scaled(survey.lexical)
    if question.vector is not None and vectors.shape[1]:
        dense = _scaled(vectors @ (question.vector / max(float(np.linalg.norm(question.vector)), 1e-9)))
    else:
        dense = np.zeros_like(lexical)
    base = lexical + dense
    in_window = counts + _beside(counts, before) + _beside(counts, after)
    words = _scaled(_bm25(counts, lengths))
    window = _scaled(_bm25(in_window, lengths + _beside(lengths, before) + _beside(lengths, after)))
    topic = _scaled(_bm25(_summed(counts, session), np.bincount(session, lengths).astype(np.float32))[session])
    mixed = words + dense
    spoken = np.array([asked.speaker is not None and speaker == asked.speaker for speaker in survey.speakers])
    spoken = spoken.astype(np.float32)
    open_asks = np.array(["?" in text for text in survey.texts], np.float32)
    earlier, later = _beside(mixed, before), _beside(mixed, after)
    first = np.full(int(session.max()) + 1, survey.positions.max())
    np.minimum.at(first, session, survey.positions)
    columns = [
        lexical, dense, words, window, earlier, later, _beside(earlier, before) + _beside(later, after),
        _best_of(base, session, 3), _best_of(mixed, session, 1), topic, _alike(vectors, base), (in_window > 0).sum(1),
        spoken, _beside(spoken, before), np.zeros_like(base), np.zeros_like(base), asking, _beside(open_asks, before),
        np.log1p(lengths), 1 / (1 + survey.positions - first[session]), *[np.zeros_like(base)] * 4,
    ]  # fmt: skip
    values = np.stack([np.asarray(column, np.float32) for column in columns], 1)[kept]
    if asked.names_a_date:
        values[:, _DATE] = [asked.dated(survey.turns[at].time) for at in kept.tolist()]
    texts = [survey.texts[at] for at in kept.tolist()]
    if asked.when:
        values[:, _TIME] = [tells_time(text) for text in texts]
    if asked.speaker is not None:
        values[:, _OWN] = [said and tells_own(text) for said, text in zip(spoken[kept].tolist(), texts, strict=True)]
    known = {word for speaker in speakers for word in speaker.split()}
    values[:, _NAMES] = [names_told(text, known) for text in texts]
    values[:, _NAMED] = values[:, _NAMES] * asked.who
    if asked.how_many:
        values[:, _NUMBER] = [tells_number(text) for text in texts]
    return values


def _beside(values: Floats, rows: Places) -> Floats:
    """The values of the turns beside, `[candidates, ...]`, 0 where there is none."""
    there = (rows >= 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(there, values[rows], np.float32(0))


def _summed(values: Floats, groups: Places) -> Floats:
    """The sum of each group's rows, `[groups, ...]`."""
    sums = np.zeros((int(groups.max()) + 1, *values.shape[1:]), np.float32)
    np.add.at(sums, groups, values)
    return sums


def _bm25(counts: Floats, lengths: Floats) -> Floats:
    """BM25 (k1 = 1.2, b = 0.75) of each text by its `counts` of the terms asked for; these texts are the collection."""
    known = (counts > 0).sum(0)
    rarity = np.log1p((len(counts) - known + 0.5) / (known + 0.5))
    norm = 1.2 * (0.25 + 0.75 * lengths / max(float(lengths.mean()), 1.0))
    return np.asarray((rarity * counts * 2.2 / (counts + norm[:, None])).sum(1), np.float32)


def _scaled(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / (values.std() + np.float32(1e-6)))


def _best_of(values: Floats, groups: NDArray[np.intp], best: int) -> Floats:
    """For each candidate the mean of the `best` highest values of its group, [candidates]."""
    order = np.lexsort((-values, groups))
    ordered = groups[order]
    kept = order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < best]
    means = np.bincount(groups[kept], values[kept]) / np.bincount(groups[kept])
    return np.asarray(means[groups], np.float32)


def _alike(vectors: Floats, base: Floats) -> Floats:
    """z-scores of the similarity to the best candidates, each counting by its own score, [candidates]."""
    if not vectors.shape[1]:
        return np.zeros_like(base)
    seeds = np.argsort(-base, kind="stable")[:_SEEDS]
    share = np.exp((base[seeds] - base[seeds[0]]) / 2)
    return _scaled(vectors @ (vectors[seeds].T @ (share / share.sum())))
