"""What the table model is taught: tables, questions and conversations, and what is kept apart for the test."""

from __future__ import annotations

import random
import re

import pytest

from ramet.agent.linking import Linker
from ramet.agent.table_prompt import expand
from ramet.train.conversations import make_conversations
from ramet.train.domains import TEST, TRAIN
from ramet.train.phrases import FILTERS, QUESTIONS, fill, fill_further, says_held_out, ways
from ramet.train.questions import make_question
from ramet.train.tables import make_table, of_split


def test_schemas_of_train_and_test_share_no_column() -> None:
    train = {column.title for domain in TRAIN for column in domain.columns}
    test = {column.title for domain in TEST for column in domain.columns}
    assert train and test and not train & test


def test_training_says_no_held_out_phrasing() -> None:
    """Not only the templates differ: nothing that training says contains one of the test's phrasings."""
    rng = random.Random(0)
    for name, phrasings in [*QUESTIONS.items(), *FILTERS.items()]:
        assert phrasings.plain and phrasings.held_out and phrasings.avoided, name
        taught = [fill(rng, template) for template in phrasings.plain for _ in range(50)]
        taught += [fill_further(rng, phrasings) for _ in range(200)]
        assert not [way for way in taught if says_held_out(way, phrasings)], name


def test_saying_a_held_out_phrasing_is_noticed() -> None:
    phrasings = QUESTIONS["argmax"]
    held_out = phrasings.held_out[0]
    assert says_held_out(next(iter(ways(held_out))), phrasings)
    assert says_held_out(f"please {held_out.replace(' {f}', '')}", phrasings)
    assert says_held_out(f"surely {FILTERS['equal'].held_out[0]} or so", FILTERS["not"])


def test_every_template_fills_its_slots() -> None:
    """A template's slots are among those that the plain ones of its block use, so that every question can be said."""
    for name, phrasings in [*QUESTIONS.items(), *FILTERS.items()]:
        slots = {*re.findall(r"\{(\w)", " ".join(phrasings.plain)), *("e" if name in QUESTIONS else "")}
        for template in [*phrasings.further, *phrasings.held_out]:
            assert set(re.findall(r"\{(\w)", template)) <= slots, f"{name}: {template}"
            assert template.count("(") == template.count(")") and template.count("{f}") <= 1, f"{name}: {template}"


def test_held_out_phrasings_use_words_that_training_uses() -> None:
    """The test measures new ways to say things, not new words."""
    groups = [*FILTERS.values(), *QUESTIONS.values()]
    taught = " ".join(template for phrasings in groups for template in [*phrasings.plain, *phrasings.further])
    known = set(re.findall(r"[a-z]+", taught))
    held_out = " ".join(re.sub(r"\{\w+\}", "", template) for phrasings in groups for template in phrasings.held_out)
    unseen = set(re.findall(r"[a-z]+", held_out)) - known
    assert len(unseen) <= 40, sorted(unseen)


def test_invented_and_listed_values_are_split_by_word() -> None:
    rng = random.Random(1)
    generated = [make_table(rng, split) for split in ("train", "test") for _ in range(40)]
    for data in generated:
        for field in data.fields:
            if field.spec.kind in ("who", "what") and not field.spec.pool:
                for cell in data.cells(field):
                    last = str(cell).lower().split()[-1]
                    assert of_split(last, data.split), (data.split, cell)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_question_runs_over_its_handles(split: str) -> None:
    rng = random.Random(2)
    for _ in range(60):
        data = make_table(rng, split)  # type: ignore[arg-type]
        linker = Linker(data.table)
        for _ in range(3):
            question = make_question(rng, data, linker)
            assert expand(question.query, data.table, question.linked.values) == question.sql
            data.table.query(question.sql)
            assert linker.link(question.text.rstrip("?")) == question.linked, "linking depends on the question alone"


def test_generation_depends_on_the_seed_alone() -> None:
    first, again, other = (make_conversations(random.Random(seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_failed_calls_are_shown_with_the_tools_own_words_and_not_learnt() -> None:
    rng = random.Random(5)
    corrected = []
    for _ in range(60):
        for messages in make_conversations(rng):
            calls = [m for m in messages if m.get("tool_calls")]
            wrong = [m for m in calls if m.get("loss") is False]
            if wrong:
                corrected.append(messages)
                assert calls[0] is wrong[0] and calls[-1].get("loss", True)
                said = next(m["content"] for m in messages if m["role"] == "tool")
                assert said == "no rows" or said.startswith("error: ")
                query = [c["tool_calls"][0]["function"]["arguments"]["query"] for c in calls]
                assert query[0] != query[1]
    assert len(corrected) >= 5
