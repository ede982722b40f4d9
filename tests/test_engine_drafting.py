"""Guessing ahead changes the steps and nothing else: tokens, nodes and saved states are those of plain decoding."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ramet import models
from ramet.engine import Completion, Engine, Grammar
from ramet.models.base import Model
from ramet.models.random import write_random_checkpoint
from ramet.models.states import Span
from ramet.tree import Tree
from tests.engine_support import Bench, Recorder, request, text_tokens, tokenizer
from tests.tree_support import check_books

SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "seed": 11}
_FOLDER = tempfile.TemporaryDirectory(prefix="ramet-drafting-tests-")


@cache
def ahead_model(preset: str) -> Model:
    folder = Path(_FOLDER.name) / preset
    write_random_checkpoint(folder, seed=5, preset=preset, ahead=True, max_position_embeddings=1024)
    return models.load(folder, ahead=True)


class Oracle(Recorder):
    """The model, whose guesses at the tokens of `truth` are right so often."""

    truth: Sequence[int] = ()
    right = 0.0
    dice = random.Random(0)

    def draft(self, spans: Sequence[Span], guesses: int, before: Sequence[Tensor | None]) -> None:
        super().draft(spans, guesses, before)
        for span in spans:
            known = len(span.tokens) - guesses
            for i in range(known, len(span.tokens)):
                at = span.position + i
                if at < len(self.truth) and self.dice.random() < self.right:
                    span.tokens[i] = self.truth[at]


@contextmanager
def running(
    drafts: int, truth: Sequence[int] = (), right: float = 0.0, preset: str = "tiny", **options: Any
) -> Iterator[Bench]:
    model = ahead_model(preset)
    tree = Tree(model.layout, model.fingerprint, ram_bytes=1 << 28)
    bench = Bench(tree)
    oracle = Oracle(model)
    oracle.truth, oracle.right, oracle.dice = truth, right, random.Random(3)
    bench.model = oracle
    bench.engine = Engine(oracle, tree, tokenizer(), drafts=drafts, **options)
    bench.engine.start()
    try:
        yield bench
    finally:
        bench.engine.stop()
        tree.close()


def told(reply: Completion) -> list[Any]:
    """All that a caller is told, but times."""
    last = reply.finish
    return [reply.tokens, reply.text, last.reason, last.stop, last.node, last.usage.completion_tokens, reply.logprobs]


def kept(bench: Bench) -> list[Any]:
    """The nodes, and the positions of the saved states on each path."""
    tree = bench.tree
    check_books(tree)
    segments = list(tree._trunk.down())
    return [
        sorted(node.id for node in tree.nodes()),
        sorted(position for segment in segments for position in segment.states),
        tree.stats().ram_bytes,
    ]


WAYS: list[dict[str, Any]] = [
    {"max_tokens": 40},
    {"max_tokens": 40, **SAMPLED},
    {"max_tokens": 40, **SAMPLED, "logprobs": 2, "repetition_penalty": 1.3, "ignore_eos": False},
    {"max_tokens": 1},
    {"max_tokens": 60, **SAMPLED, "grammar": Grammar.regex("[a-f]{3,20}(-[0-9]{2}){1,9}!")},
    {"max_tokens": 200, **SAMPLED, "stop": ["e", "t"]},
]


@pytest.mark.parametrize("drafts", [1, 3])
@pytest.mark.parametrize("right", [0.0, 0.6, 1.0])
def test_replies_and_what_is_kept_of_them_are_the_same(drafts: int, right: float) -> None:
    prompt = text_tokens(1, 70)
    for way in WAYS:
        with running(0) as bench:
            plain = bench.ask(prompt, **way)
            expected = [told(plain), kept(bench)]
        with running(drafts, [*prompt, *plain.tokens], right) as bench:
            assert [told(bench.ask(prompt, **way)), kept(bench)] == expected
            stats = bench.engine.stats()
            if right and len(plain.tokens) > 20:
                assert 0 < stats.accepted_tokens <= stats.drafted_tokens
            if right == 1.0 and way["max_tokens"] >= 40:
                assert len(bench.model.steps) <= 3 + len(plain.tokens) / (drafts + 1) + 1


@pytest.mark.parametrize("right", [0.0, 0.6, 1.0])
def test_a_part_with_a_window_of_its_own_changes_nothing_either(right: float) -> None:
    """DeepSeek V4's guesses overwrite the keys that its window still needs: they are put back."""
    prompt = text_tokens(5, 70)
    for way in WAYS[:3]:
        with running(0, preset="tiny-deepseek-v4") as bench:
            plain = bench.ask(prompt, **way)
            expected = [told(plain), kept(bench)]
        with running(3, [*prompt, *plain.tokens], right, preset="tiny-deepseek-v4") as bench:
            assert [told(bench.ask(prompt, **way)), kept(bench)] == expected
            stats = bench.engine.stats()
            assert stats.drafted_tokens > 0 and (stats.accepted_tokens > 0 or not right)


def test_states_inside_a_long_reply_are_saved_where_they_would_have_been() -> None:
    prompt = text_tokens(2, 30)
    with running(0) as bench:
        plain = bench.ask(prompt, max_tokens=700, **SAMPLED)
        expected = [told(plain), kept(bench)]
    assert 30 + 512 in expected[1][1]
    with running(2, [*prompt, *plain.tokens], 0.7) as bench:
        assert [told(bench.ask(prompt, max_tokens=700, **SAMPLED)), kept(bench)] == expected


def test_up_to_the_end_of_the_context() -> None:
    prompt = text_tokens(3, 1000)
    with running(0) as bench:
        plain = bench.ask(prompt, max_tokens=100)
    assert len(plain.tokens) == 24
    with running(3, [*prompt, *plain.tokens], 1.0) as bench:
        assert told(bench.ask(prompt, max_tokens=100)) == told(plain)


def test_in_company_with_forks_and_when_a_step_fails() -> None:
    prompts = [text_tokens(10 + i, 40 + 17 * i) for i in range(4)]
    fields = [{"n": 2, "max_tokens": 30}, {"max_tokens": 50}, {"max_tokens": 20}, {"n": 3, "max_tokens": 25}]
    with running(0) as bench:
        plain = [bench.engine.submit(request(p, **f, **SAMPLED)).result() for p, f in zip(prompts, fields, strict=True)]
    with running(2, [*prompts[1], *plain[1][0].tokens], 0.7) as bench:
        failures = iter([9, 10, 17])
        fail_at = [next(failures)]

        def fail(spans: Sequence[Span]) -> None:
            if len(bench.model.steps) == fail_at[0] and len(spans) > 1:
                fail_at[0] = next(failures, 0)
                raise RuntimeError("made to fail")

        bench.model.before = fail
        with bench.paused():
            handles = [bench.engine.submit(request(p, **f, **SAMPLED)) for p, f in zip(prompts, fields, strict=True)]
        for handle, replies in zip(handles, plain, strict=True):
            assert [reply.tokens for reply in handle.result()] == [reply.tokens for reply in replies]
        assert bench.tree.stats().sessions == 0
        check_books(bench.tree)


def test_guesses_that_never_come_true_are_given_up() -> None:
    with running(1, [256] * 2000, 1.0) as bench:  # a control token, which this reply never says
        bench.ask(text_tokens(4, 20), max_tokens=300, logit_bias={256: -100.0})
        stats = bench.engine.stats()
    assert stats.accepted_tokens == 0
    assert stats.drafted_tokens < 40
