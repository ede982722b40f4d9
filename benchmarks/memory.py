"""Evidence recall on LoCoMo (share of evidence turns retrieved, categories 1 to 4), without a language model.

    python benchmarks/memory.py [--data ../shared/data/locomo/locomo6.json] [--no-captions] [--json FILE]

Every turn is indexed as `[date] speaker: text [photo: caption]` and asked for inside its conversation. Rows marked
"left out" were fitted on the other conversations. The others are not fitted. Which signals there are, and the weights
that are set by hand, was chosen while looking at this data. The oracle takes
the best structure for each question and depth. Intervals are 95 %, by bootstrap over questions.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory_systems import Read, fluxmem, hymem, published_episodes
from ramet.memory.base import Hit, Index, Question, Turn
from ramet.memory.embed import MiniLM
from ramet.memory.recall import (
    DEFAULT,
    GRAPH,
    HIERARCHICAL,
    LEXICAL_AND_DENSE,
    LINEAR,
    SIGNALS,
    Pool,
    Weights,
    adapted,
    best,
    fit,
    pool,
    ranked,
    weighted,
)
from ramet.memory.recall.fluxmem import reciprocal as fluxmem_base
from ramet.memory.recall.learning import contested
from ramet.memory.recall.schedule import breadth, scheduled, threshold
from ramet.memory.recall.selector import STRUCTURES
from ramet.memory.sqlite import SqliteStore
from ramet.memory.words import indexed_text
from report import Figure, report

DEPTHS = (5, 10, 20)
TOLD = (0, 10, 30, 60)
OURS = ("soft fusion", "soft fusion, left out")
"""As `Memory.recall` has it: as shipped, and with weights that were fitted on the other conversations."""
Method = Callable[[Index, Question], list[Hit]]


@dataclass(frozen=True)
class Asked:
    """A question, its category and the ids of the turns that hold the answer."""

    question: Question
    category: int
    evidence: list[str]


def load(file: Path, captions: bool = True) -> tuple[list[Turn], list[Asked]]:
    """Turns and questions; a question without evidence is left out, evidence that is no turn counts as missed.

    `captions`: a turn that shows a photo has the data's caption of it. Evidence like "D8:6; D9:17" is two turns.
    """
    turns, asked = list[Turn](), list[Asked]()
    for entry in json.loads(file.read_text()):
        name, talk, position = entry["sample_id"], entry["conversation"], 0
        for number in sorted(int(key.split("_")[1]) for key in talk if re.fullmatch(r"session_\d+", key)):
            time = datetime.strptime(talk[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y")
            for said in talk[f"session_{number}"]:
                id = f"{name}/{said['dia_id']}"
                photo = f" [photo: {said['blip_caption']}]" if captions and "blip_caption" in said else ""
                turns.append(Turn(id, name, str(number), position, said["speaker"], said["text"] + photo, time))
                position += 1
        for qa in entry["qa"]:
            if qa["category"] in (1, 2, 3, 4) and qa.get("evidence"):
                question = Question(qa["question"], conversation=name)
                named = [id for text in qa["evidence"] for id in re.findall(r"D\d+:\d+", text) or [text]]
                asked.append(Asked(question, qa["category"], [f"{name}/{id}" for id in named]))
    return turns, asked


def reciprocal(index: Index, question: Question) -> list[Hit]:
    """Both searches by reciprocal rank."""
    scores = fluxmem_base(index, question)
    return [Hit(id, score) for id, score in sorted(scores.items(), key=lambda item: -item[1])]


def lexical(index: Index, question: Question, k: int = DEPTHS[-1]) -> list[Hit]:
    return index.lexical(question.text, k, question.conversation)


def dense(index: Index, question: Question, k: int = DEPTHS[-1]) -> list[Hit]:
    assert question.vector is not None
    return index.dense(question.vector, k, question.conversation)


def surveyed(index: Index, question: Question) -> Pool:
    """The candidates, asked for once for a question."""
    key = (str(question.conversation), question.text)
    if key not in _known:
        _known[key] = pool(index, question)
    return _known[key]


_known: dict[tuple[str, str], Pool] = {}


def fused(weights: Weights) -> Method:
    """The weighted sums alone."""

    def answer(index: Index, question: Question) -> list[Hit]:
        found = surveyed(index, question)
        return [Hit(found.ids[at], share) for at, share in best(weighted(found.values, weights), DEPTHS[-1])]

    return answer


def left_out(index: Index, asked: list[Asked]) -> dict[str, Weights]:
    """For each conversation the weights that were fitted on the others."""
    examples: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
    for one in asked:
        found = surveyed(index, one.question)
        share = np.array([id in one.evidence for id in found.ids], np.float32)
        if share.any():
            examples.setdefault(str(one.question.conversation), []).append((found.values, share / share.sum()))
    return {name: fit([e for other, es in examples.items() if other != name for e in es]) for name in examples}


def taught(index: Index, asked: list[Asked]) -> list[Figure]:
    """What a memory learns of its own conversation: told the answers of so many questions, asked the others.

    Which questions are told is drawn four times; the figures are over all draws.
    """
    found: dict[int, list[NDArray[np.float64]]] = {told: [] for told in TOLD}
    for seed in range(4):
        by_name: dict[str, list[Asked]] = {}
        for at in np.random.default_rng(seed).permutation(len(asked)):
            by_name.setdefault(str(asked[at].question.conversation), []).append(asked[at])
        rest = [one for some in by_name.values() for one in some[max(TOLD) :]]
        for told in TOLD:
            weights = {name: learnt(index, some[:told]) for name, some in by_name.items()}
            answers = [
                ranked(surveyed(index, one.question), DEPTHS[-1], weights[str(one.question.conversation)])
                for one in rest
            ]
            found[told].append(recalled(rest, answers))
    figures = list[Figure]()
    for told, draws in found.items():
        for column, k in enumerate(DEPTHS):
            means = [100 * float(draw[:, column].mean()) for draw in draws]
            note = f"draws: {min(means):.1f} to {max(means):.1f}"
            figures.append(Figure(f"told {told} answers: R@{k}", float(np.mean(means)), "%", note=note))
    return figures


def learnt(index: Index, told: list[Asked]) -> Weights:
    """As `Memory.learn` adapts the weights to questions whose answers it is told."""
    known, spreads = list[tuple[NDArray[np.float32], NDArray[np.float32]]](), [np.zeros(SIGNALS, np.float32)]
    for one in told:
        found = surveyed(index, one.question)
        share = np.array([id in one.evidence for id in found.ids], np.float32)
        if share.any():
            kept = contested(found.values, share)
            known.append((found.values[kept], share[kept] / share.sum()))
            spreads.append(found.values.std(0))
    return adapted(known, np.mean(spreads[1:] or spreads, 0))


def recalled(asked: list[Asked], answers: list[list[Hit]]) -> NDArray[np.float64]:
    """Share of the evidence that is found, [questions, depths]."""
    rows = []
    for one, hits in zip(asked, answers, strict=True):
        ids = [hit.id for hit in hits]
        rows.append([np.mean([id in ids[:k] for id in one.evidence]) for k in DEPTHS])
    return np.array(rows)


def reading(index: Index, turns: list[Turn], asked: list[Asked], others: dict[str, Read]) -> list[Figure]:
    """Recall against words read: `others`, and soft fusion at fixed depths and scheduled (limits left out)."""
    words = {turn.id: len(turn.text.split()) for turn in turns}
    whole: dict[str, int] = {}
    for turn in turns:
        whole[turn.conversation] = whole.get(turn.conversation, 0) + words[turn.id]
    answers = [ranked(surveyed(index, one.question), 50) for one in asked]
    names = [str(one.question.conversation) for one in asked]
    readings = {f"soft fusion, {k} turns": [hits[:k] for hits in answers] for k in (5, 10, 20, 30, 40)}
    for light, deep in ((10, 30), (15, 50)):
        spreads = [breadth(hits[:deep]) for hits in answers]
        limits = {
            name: threshold([b for b, other in zip(spreads, names, strict=True) if other != name]) for name in names
        }
        readings[f"scheduled, {light} or {deep} turns"] = [
            scheduled(hits[:deep], limits[name], light) for hits, name in zip(answers, names, strict=True)
        ]
    curve = {label: [{hit.id: 1.0 for hit in hits} for hits in read] for label, read in readings.items()}
    reads = {label: Read(ids, [sum(words[id] for id in some) for some in ids]) for label, ids in curve.items()} | others
    figures = list[Figure]()
    for label, read in reads.items():
        found = [np.mean([id in some for id in one.evidence]) for one, some in zip(asked, read.found, strict=True)]
        fewer = [1 - count / whole[name] for count, name in zip(read.words, names, strict=True)]
        target = ">= 92.6" if "scheduled" in label else ""
        by_words = [
            np.mean([some.get(id, 0) for id in one.evidence]) for one, some in zip(asked, read.found, strict=True)
        ]
        note = (
            f"each turn by the share of its words that was read: {100 * np.mean(by_words):.1f}; "
            if label in others
            else ""
        )
        note += interval(np.array(found))
        figures.append(Figure(f"{label}: recall", float(100 * np.mean(found)), "%", note=note))
        figures.append(Figure(f"{label}: fewer words", float(100 * np.mean(fewer)), "%", target))
    return figures


def interval(values: NDArray[np.float64]) -> str:
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(100 * values[draws].mean(1), [2.5, 97.5])
    return f"95 %: {low:.1f} to {high:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/locomo/locomo6.json"))
    parser.add_argument("--no-captions", action="store_true", help="leave out what the data says the photos show")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.data.exists():
        parser.error(f"{arguments.data} is not there: name LoCoMo's conversations with --data")
    turns, asked = load(arguments.data, not arguments.no_captions)
    embedder, store = MiniLM(), SqliteStore(None)
    store.add(turns, embedder.embed([indexed_text(turn) for turn in turns]))
    bare = SqliteStore(None)
    bare.add(turns)
    vectors = embedder.embed([one.question.text for one in asked])
    asked = [replace(a, question=replace(a.question, vector=v)) for a, v in zip(asked, vectors, strict=True)]
    fitted = left_out(store, asked)
    methods: dict[str, Method] = {
        "BM25": lexical,
        "MiniLM": dense,
        "reciprocal rank": reciprocal,
        "sum of z-scores": fused(LEXICAL_AND_DENSE),
        "linear": fused(LINEAR),
        "hierarchical": fused(HIERARCHICAL),
        "graph": fused(GRAPH),
        "soft fusion, not chained": fused(DEFAULT),
        "soft fusion, not chained, left out": lambda i, q: fused(fitted[str(q.conversation)])(i, q),
        "soft fusion, words alone": lambda i, q: ranked(pool(bare, replace(q, vector=None)), DEPTHS[-1]),
        "soft fusion": lambda i, q: ranked(surveyed(i, q), DEPTHS[-1]),
        "soft fusion, left out": lambda i, q: ranked(surveyed(i, q), DEPTHS[-1], fitted[str(q.conversation)]),
    }
    questions = [one.question for one in asked]
    flux = fluxmem(store, questions, [one.evidence for one in asked])
    summaries, reads = hymem(store, questions, embedder, [fitted[str(q.conversation)] for q in questions])
    answers = {f"FluxMem, {name}": hits for name, hits in flux.answers.items()} | {"HyMem, summaries": summaries}
    shares = {name: recalled(asked, [method(store, q) for q in questions]) for name, method in methods.items()}
    shares |= {name: recalled(asked, hits) for name, hits in answers.items()}
    shares["FluxMem, best structure for each question"] = np.max(
        [shares[f"FluxMem, always {structure}"] for structure in STRUCTURES], axis=0
    )
    shares["oracle structure"] = np.max([shares[name] for name in ("linear", "hierarchical", "graph")], axis=0)
    hops = np.array([one.category == 1 for one in asked])
    figures = list[Figure]()
    for name, share in shares.items():
        for column, (k, target) in enumerate(zip(DEPTHS, ("", ">= 78", ">= 85"), strict=True)):
            wanted = target if name in OURS else ""
            values = share[:, column]
            figures.append(Figure(f"{name}: R@{k}", 100 * values.mean(), "%", wanted, note=interval(values)))
        values = share[hops, 1]
        wanted = ">= 48" if name in OURS else ""
        figures.append(Figure(f"{name}: multi-hop R@10", 100 * values.mean(), "%", wanted, note=interval(values)))
    figures += reading(store, turns, asked, {f"HyMem, {name}": read for name, read in reads.items()})
    figures += taught(store, asked)
    published = [published_episodes(store, name) for name in flux.episodes]
    episodes = {"mended": list(flux.episodes.values()), "as published": published}
    figures += [Figure(f"FluxMem's gate, {how}", float(np.mean(n)), "episodes each") for how, n in episodes.items()]
    figures += [Figure(f"best as {name}", count, "episodes") for name, count in flux.labels.items()]
    report(f"LoCoMo evidence recall, {len(asked)} questions, {len(turns)} turns", figures, arguments.json)


if __name__ == "__main__":
    main()
